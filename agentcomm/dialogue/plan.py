"""Plan: what learning does, step by step, and every number that it goes by.

Deliberately absent: doing it (:mod:`agentcomm.dialogue.learning`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from agentcomm.dialogue.export import Method as Training
from agentcomm.dialogue.export import TrainConfig
from agentcomm.dialogue.formats import POOL, pool
from agentcomm.dialogue.reward import RewardConfig
from agentcomm.dialogue.select import Order, PairSelector
from agentcomm.errors import ConfigError

Method = Literal["isft", "idpo", "isft-dpo"]
METHODS: tuple[Method, ...] = ("isft", "idpo", "isft-dpo")
Selector = Literal["reward", "random", "unfiltered"]
PAIR_SELECTORS: tuple[PairSelector, ...] = ("q", "gap", "random")
SELECTORS: tuple[Selector, ...] = ("reward", "random", "unfiltered")


@dataclass(frozen=True)
class LearnConfig:
    """What learning does; the defaults are for small models (``dialogue.md`` section 4).

    Parameters
    ----------
    method:
        See the module.
    samples:
        Dialogues an item.
    temperature, pool_temperature:
        Of dialogues, and of those that are told a format.
    formats:
        The pool of the first iteration, natural language among them; none: it is an iteration as the
        others.
    threshold, share, order, drop_best, selector:
        Which dialogues are imitated (:func:`agentcomm.dialogue.select.select`). As controls,
        ``"random"`` draws as many from what passed, ``"unfiltered"`` as many from all dialogues.
    least, gap, pair_share, pair_selector:
        Which messages are preferred (:func:`agentcomm.dialogue.select.select_pairs`).
    expansions, rollouts:
        Of a tree; their product are its dialogues.
    calibrate, quantile:
        Dialogues on distinct items, and the quantile of their tokens, that normalise an iteration's
        (by default 0.85, the hybrid's 0.80). Imitation normalises by the longest of an item's.
    keep_cut:
        Whether messages that a limit on tokens cut off are learned from too: whoever imitates one learns
        to stop in the middle of a sentence. For models that never end by themselves.
    accept, tolerance:
        ``"better"`` or ``"always"``; the loss of score that the first iteration may bring.
    restart:
        Whether imitation starts from the base model each time, as for debates.
    reward, sft, dpo:
        What is rewarded; how each kind of training is done (its ``method`` follows from the step).
    seed:
        Of everything that is drawn.
    """

    method: Method = "isft"
    samples: int = 4
    temperature: float = 0.7
    pool_temperature: float = 0.3
    formats: tuple[str, ...] = tuple(POOL)
    threshold: float = 0.5
    share: int = 70
    order: Order = "paper"
    drop_best: int = 0
    selector: Selector = "reward"
    least: float = 0.4
    gap: float = 0.2
    pair_share: int = 50
    pair_selector: PairSelector = "q"
    expansions: int = 8
    rollouts: int = 3
    calibrate: int = 100
    quantile: float | None = None
    accept: Literal["better", "always"] = "better"
    tolerance: float = 0.02
    restart: bool = False
    keep_cut: bool = False
    reward: RewardConfig = field(default_factory=RewardConfig)
    sft: TrainConfig = field(default_factory=TrainConfig)
    dpo: TrainConfig = field(default_factory=lambda: TrainConfig("rpo"))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.selector not in SELECTORS:
            raise ConfigError(
                f"method={self.method!r}, selector={self.selector!r}; methods: {', '.join(METHODS)}; "
                f"selectors: {', '.join(SELECTORS)}"
            )
        if self.accept not in ("better", "always"):
            raise ConfigError(f"accept={self.accept!r}; use better or always")
        if self.samples < 2:
            raise ConfigError(
                f"{self.samples} dialogues an item leave nothing to choose from; take at least 2"
            )
        if self.order not in ("paper", "code") or self.pair_selector not in PAIR_SELECTORS:
            raise ConfigError(
                f"order={self.order!r}, pair_selector={self.pair_selector!r}; orders: paper, code; "
                f"pair selectors: {', '.join(PAIR_SELECTORS)}"
            )
        for name, low, high in (("share", 1, 100), ("pair_share", 1, 100), ("drop_best", 0, 99)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"learning: {name}={getattr(self, name)} percent; it lies in {low}..{high}")
        for name in ("threshold", "least", "gap", "tolerance"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"learning: {name}={getattr(self, name)}; it must be a number")
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise ConfigError(f"learning: quantile={self.quantile}; it lies above 0, up to 1")
        for name in ("expansions", "rollouts", "calibrate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"learning: {name}={getattr(self, name)}; it must be at least 1")
        for name in ("temperature", "pool_temperature"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(
                    f"learning: {name}={getattr(self, name)}; above 0, or an item's dialogues are all the same"
                )
        if self.formats:
            pool(self.formats)

    @property
    def token_quantile(self) -> float:
        return self.quantile or (0.80 if self.method == "isft-dpo" else 0.85)

    def step(self, iteration: int) -> Step:
        """What iteration ``iteration`` (from 0) does.

        >>> [LearnConfig("isft-dpo").step(t).training for t in range(4)]
        ['sft', 'dpo', 'sft', 'dpo']
        """
        first = bool(self.formats) and iteration == 0
        if self.method == "isft" or first:
            return Step("sft", first)
        if self.method == "idpo":
            return Step("rpo", False)
        return Step("dpo" if iteration % 2 else "sft", False)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reward": self.reward.to_dict(), "formats": list(self.formats)}


class Step(NamedTuple):
    """An iteration's training, and whether its dialogues are told formats of the pool."""

    training: Training
    from_pool: bool
