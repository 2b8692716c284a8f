"""Reward: what a dialogue was worth, from its task score, its tokens and how readable it is.

::

    R = R_task - token_weight * tokens / normaliser + loss_weight / max over messages of NLL

(Optima, arXiv 2410.08115, Eq. 1; ``dialogue.md`` section 2 for guards, floors and normalisers).
NLL is the mean negative log-likelihood of a message in nats per token under the *frozen* base
model. Every component is kept: a sum hides which one moved.

Deliberately absent: how scores, tokens and likelihoods come about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from agentcomm.dialogue.marks import without_marks
from agentcomm.errors import ConfigError

Count = Literal["message", "completion", "total"]
Guard = Literal["too_short", "too_long", "overlong", "parrot", "ventriloquist"]
GUARDS: tuple[Guard, ...] = ("too_short", "too_long", "overlong", "parrot", "ventriloquist")


@dataclass(frozen=True)
class Utterance:
    """One message of a dialogue.

    Parameters
    ----------
    agent, text:
        Who said what.
    nll:
        Mean nats per token of the message without its marks; NaN where scoring failed, ``None``
        where nothing was left to score or nothing scores.
    capped:
        Whether it ended because its token limit was reached.
    """

    agent: str
    text: str
    nll: float | None = None
    capped: bool = False


@dataclass(frozen=True)
class Dialogue:
    """A dialogue that came to its end; one whose call failed is a failure and has no reward.

    Parameters
    ----------
    task:
        R_task in [0, 1]; 0 where no answer was marked.
    tokens:
        Counts by what is counted: ``message`` (of every text, under one tokeniser),
        ``completion`` (the server's), ``total`` (prompts too). Missing is unknown.
    """

    task: float
    messages: tuple[Utterance, ...]
    tokens: Mapping[str, int]

    @property
    def capped(self) -> bool:
        return any(m.capped for m in self.messages)


@dataclass(frozen=True)
class RewardConfig:
    """Weights, floors and guards.

    Parameters
    ----------
    token_weight, loss_weight:
        lambda of the token term and of 1/NLL.
    count:
        Which tokens.
    loss_floor:
        NLL is taken as at least this: 1/NLL has no upper bound. 0 switches it off.
    task_floor:
        Dialogues below it are rewarded but never selected: short and fluent is not right.
    min_tokens, most_tokens:
        Where ``too_short`` and ``overlong`` fire; set the first for the task: 40 suits questions on
        paragraphs, about 8 terse synthetic ones.
    guards:
        Which are on.
    exempt_marks:
        Messages that are only a mark are no parroting.
    """

    token_weight: float = 0.6
    loss_weight: float = 1.0
    count: Count = "message"
    loss_floor: float = 0.5
    task_floor: float = 0.5
    min_tokens: int = 40
    most_tokens: int = 2000
    guards: frozenset[str] = frozenset(GUARDS)
    exempt_marks: bool = True

    def __post_init__(self) -> None:
        for name in ("token_weight", "loss_weight", "loss_floor", "task_floor", "min_tokens", "most_tokens"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"reward: {name}={value}; it must be a number from 0")
        if self.count not in ("message", "completion", "total"):
            raise ConfigError(f"reward: count={self.count!r}; use message, completion or total")
        if strange := sorted(set(self.guards) - set(GUARDS)):
            raise ConfigError(f"reward: unknown guards {strange}; there are {', '.join(GUARDS)}")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Without what we added: no floors, and marks alone count as parroting."""
        return cls(**{"loss_floor": 0.0, "task_floor": 0.0, "exempt_marks": False, **changes})

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "guards": sorted(self.guards)}


@dataclass(frozen=True)
class RewardTerms:
    """The components of a reward, as they are stored for every dialogue.

    ``task``, ``tokens``, ``ratio`` (tokens over the normaliser) and ``nll`` (the worst message's) are
    raw; ``task_term``, ``token_term`` and ``loss_term`` are weighted, after guards. ``total`` is their
    sum; NaN where likelihoods failed, and such a dialogue is never selected. ``selectable`` says
    whether it may be learned from.
    """

    task: float
    tokens: int
    normaliser: float
    ratio: float
    nll: float | None
    task_term: float
    token_term: float
    loss_term: float
    guards: tuple[str, ...]
    selectable: bool
    config: RewardConfig = field(repr=False, default_factory=RewardConfig)

    @property
    def total(self) -> float:
        return self.task_term + self.token_term + self.loss_term

    def to_dict(self) -> dict[str, Any]:
        """As JSON; NaN is ``None``."""
        values = {k: v for k, v in asdict(self).items() if k != "config"} | {"total": self.total}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def reward(dialogue: Dialogue, normaliser: float, config: RewardConfig | None = None) -> RewardTerms:
    """What a dialogue was worth.

    Parameters
    ----------
    normaliser:
        Tokens that cost ``token_weight``: :func:`group_max`, :func:`quantile` or a budget.

    Raises
    ------
    ConfigError
        For a score outside [0, 1], a normaliser that is not above 0, or an unknown count.
    """
    config = config or RewardConfig()
    if not 0.0 <= dialogue.task <= 1.0:
        raise ConfigError(f"a task score of {dialogue.task}; it must be in 0..1")
    if not (normaliser > 0 and math.isfinite(normaliser)):
        raise ConfigError(f"a normaliser of {normaliser} tokens; it must be above 0")
    tokens = count(dialogue, config.count)
    fired = tuple(g for g in GUARDS if g in config.guards and _FIRES[g](dialogue, tokens, config))
    ratio = tokens / normaliser
    scored = [m.nll for m in dialogue.messages if m.nll is not None]
    worst = math.nan if any(math.isnan(x) for x in scored) else max(scored, default=None)
    if worst is None or config.loss_weight == 0:
        loss_term = 0.0
    else:
        floored = max(worst, config.loss_floor) if not math.isnan(worst) else worst
        loss_term = config.loss_weight / floored if floored != 0 else math.inf
    task_term, token_term = dialogue.task, -config.token_weight * ratio
    if "too_short" in fired or "too_long" in fired:
        token_term = -1.0
    if "overlong" in fired:
        loss_term = -1.0
    elif "parrot" in fired:
        loss_term = 0.0
    if "ventriloquist" in fired:
        task_term = 0.0
    unread = worst is not None and math.isnan(worst) and config.loss_weight != 0
    selectable = dialogue.task >= config.task_floor and "ventriloquist" not in fired and not unread
    selectable = selectable and math.isfinite(loss_term)
    return RewardTerms(
        task=dialogue.task,
        tokens=tokens,
        normaliser=normaliser,
        ratio=ratio,
        nll=worst,
        task_term=task_term,
        token_term=token_term,
        loss_term=loss_term,
        guards=fired,
        selectable=selectable,
        config=config,
    )


def rewards(dialogues: Sequence[Dialogue], config: RewardConfig | None = None) -> list[RewardTerms]:
    """Rewards of the dialogues of one item, normalised by the longest of them (:func:`group_max`)."""
    config = config or RewardConfig()
    most = group_max(dialogues, config.count)
    return [reward(d, most, config) for d in dialogues]


def count(dialogue: Dialogue, what: Count) -> int:
    """A dialogue's tokens of one kind.

    Raises
    ------
    ConfigError
        If they are not known.
    """
    known = dialogue.tokens.get(what)
    if known is None:
        has = ", ".join(sorted(dialogue.tokens)) or "nothing"
        raise ConfigError(f"{what} tokens of this dialogue are not known (it has {has}); count others")
    return known


# ------------------------------------------------------------------------- normalisers


def group_max(dialogues: Sequence[Dialogue], what: Count = "message") -> float:
    """The largest count among the dialogues of one item that no limit cut off, at least 1.

    For choosing among them; it moves when one is added, so never for comparing formats.

    Raises
    ------
    ConfigError
        For fewer than two dialogues.
    """
    if len(dialogues) < 2:
        raise ConfigError(
            f"{len(dialogues)} dialogues can't be normalised by their longest; sample at least 2 of an item"
        )
    whole = [count(d, what) for d in dialogues if not d.capped]
    return float(max([*whole, 1]))


def quantile(counts: Sequence[int], share: float = 0.85) -> float:
    """The quantile of a model's counts by linear interpolation, plus 1; fixed for an iteration.

    0.85 for preference pairs, 0.80 for the hybrid.

    >>> round(quantile(range(1, 101), 0.85), 2), round(quantile(range(1, 101), 0.80), 2)
    (86.15, 81.2)
    """
    if not counts:
        raise ConfigError("no dialogues to calibrate the token normaliser on; run some first")
    return float(np.quantile(np.asarray(counts, dtype=np.float64), share)) + 1.0


# ------------------------------------------------------------------------------ guards


def _plain(message: Utterance) -> str:
    """A message without its speaker's name tag, case and outer space."""
    return (
        re.sub(rf"^\s*{re.escape(message.agent)}\s*:", "", message.text, flags=re.IGNORECASE)
        .strip()
        .casefold()
    )


def _too_short(dialogue: Dialogue, tokens: int, config: RewardConfig) -> bool:
    return tokens <= config.min_tokens


def _too_long(dialogue: Dialogue, tokens: int, config: RewardConfig) -> bool:
    return dialogue.capped


def _overlong(dialogue: Dialogue, tokens: int, config: RewardConfig) -> bool:
    return tokens > config.most_tokens or not dialogue.messages


def _parrot(dialogue: Dialogue, tokens: int, config: RewardConfig) -> bool:
    said = [_plain(m) for m in dialogue.messages if not config.exempt_marks or without_marks(_plain(m))]
    return len(set(said)) < len(said)


def _ventriloquist(dialogue: Dialogue, tokens: int, config: RewardConfig) -> bool:
    names = {m.agent for m in dialogue.messages}
    for message in dialogue.messages:
        text = without_marks(message.text)  # "Answer: ..." marks an answer, though an agent may be called so
        for name in names:
            tags = re.findall(rf"^\s*{re.escape(name)}\s*:", text, re.IGNORECASE | re.MULTILINE)
            if len(tags) > (name == message.agent):
                return True
    return False


_FIRES = {
    "too_short": _too_short,
    "too_long": _too_long,
    "overlong": _overlong,
    "parrot": _parrot,
    "ventriloquist": _ventriloquist,
}
