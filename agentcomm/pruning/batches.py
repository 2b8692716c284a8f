"""Batches: which items are tried next, what they are measured against, and what is told about it.

Shared by every learner that climbs by REINFORCE, with or without a network:

* the *plan*: how many rollouts of which iteration, cut to the budget before the first one;
* *items* in shuffled passes, so that a batch may begin one pass and end in the next and no item is
  left out of a pass;
* the *baseline* that utilities are compared with; failed rollouts have no utility and no say;
* one :class:`Batch` for every batch, whether something was learned from it or not.

Deliberately absent: logits, gradients, and torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from agentcomm.errors import ConfigError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import require_learn
from agentcomm.pruning.environment import Budget, Environment, Metered, Outcome
from agentcomm.pruning.pool import FloatArray
from agentcomm.task import Item

Baseline = Literal["none", "moving_average", "group", "normalised"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

PATIENCE = 3
"""So many batches without a single rollout that succeeded end learning: the fault isn't chance."""


# ------------------------------------------------------------------------------------- plan


def metered(environment: Environment, budget: Budget) -> Metered:
    """``environment`` under ``budget``; one that is metered already keeps its own."""
    return environment if isinstance(environment, Metered) else Metered(environment, budget)


def check_items(items: Sequence[Item], *, validate: bool = False) -> tuple[Item, ...]:
    """The items, if something may be learned from them.

    Raises
    ------
    TaskError
        If there are none, or one is not a ``learn`` item (``validate``: nor a ``validate`` item).
    """
    items = tuple(items)
    if not items:
        raise TaskError("no items to learn from; load the task with split='learn'")
    require_learn(items, validate=validate)
    return items


def plan(iterations: int, batch: int, environment: Metered, *, unit: int = 1) -> list[int]:
    """How many rollouts each iteration makes: ``batch`` of them, until the budget's end.

    The last iteration makes what is left, in whole ``unit`` s (a group that is compared within
    itself says nothing when it is cut).

    Raises
    ------
    LimitExceeded
        If the budget doesn't allow one unit.
    """
    total = iterations * batch
    if (left := environment.rollouts_left) is not None:
        total = min(total, left)
    total -= total % unit
    if total < 1:
        raise LimitExceeded(
            f"{left} rollouts are left in the budget and learning needs {unit} at least; raise it",
            scope="learn",
            limit="rollouts",
        )
    full, rest = divmod(total, batch)
    return [batch] * full + ([rest] if rest else [])


def stream(seed: int, k: int) -> np.random.Generator:
    """The ``k``-th generator of a seed: what one part draws doesn't depend on how much others did."""
    return np.random.default_rng([seed, k])


def rollout_seed(seed: int, iteration: int, position: int) -> int:
    """The seed of one rollout, in [0, 2^31), so that it can be made again."""
    return int(np.random.SeedSequence([seed, iteration, position]).generate_state(1)[0]) >> 1


class Passes:
    """Items in shuffled passes, without an end."""

    def __init__(self, items: Sequence[Item], rng: np.random.Generator) -> None:
        self._items = tuple(items)
        self._rng = rng
        self._waiting: list[int] = []

    def take(self, count: int) -> list[Item]:
        """The next ``count`` items: every one once before any comes again."""
        taken: list[Item] = []
        while len(taken) < count:
            if not self._waiting:
                self._waiting = self._rng.permutation(len(self._items)).tolist()
            taken.append(self._items[self._waiting.pop()])
        return taken


# --------------------------------------------------------------------------------- baseline


@dataclass
class Comparison:
    """Turns the utilities of a batch into advantages.

    Parameters
    ----------
    baseline:
        ``"none"``: the utility itself. ``"moving_average"``: minus b, which starts at the first
        batch's mean, is used, and then becomes 0.9 b + 0.1 times the batch's mean. ``"group"``:
        minus the mean of its group. ``"normalised"``: that, divided by the group's standard
        deviation.
    value:
        b.
    """

    baseline: Baseline
    value: float | None = None

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise ConfigError(f"baseline {self.baseline!r}; use one of {', '.join(map(repr, BASELINES))}")

    @property
    def grouped(self) -> bool:
        """Whether a batch consists of groups of rollouts on one item."""
        return self.baseline in ("group", "normalised")

    def advantages(self, outcomes: Sequence[Outcome], group: int = 1) -> FloatArray:
        """[outcomes]; exactly 0 for failed ones, and throughout a group that is worth the same.

        Parameters
        ----------
        group:
            So many outcomes in a row are compared with each other.
        """
        found = np.zeros(len(outcomes))
        known = np.array([o.utility is not None for o in outcomes], dtype=np.bool_)
        utilities = np.array([o.utility if o.utility is not None else 0.0 for o in outcomes])
        if not known.any():
            return found
        if not np.isfinite(utilities).all():  # the loss is NaN then, and whoever computes it says when
            return np.full(len(outcomes), np.nan)
        if self.baseline == "none":
            found[known] = utilities[known]
        elif self.baseline == "moving_average":
            mean = float(utilities[known].mean())
            before = mean if self.value is None else self.value
            found[known] = utilities[known] - before
            self.value = 0.9 * before + 0.1 * mean
        else:
            for start in range(0, len(outcomes), group):
                places = start + np.flatnonzero(known[start : start + group])
                worth = utilities[places]
                # Rounding must not look like a difference: Adam would blow it up.
                if len(places) > 1 and worth.max() > worth.min():
                    spread = worth.std() if self.baseline == "normalised" else 1.0
                    found[places] = (worth - worth.mean()) / spread
        return found


# -------------------------------------------------------------------------------- what it told


class Batch(NamedTuple):
    """One batch. Means are over the rollouts that did not fail; ``None`` where there is none.

    ``gradient`` is the length of the step's gradient, 0 where nothing was learned; ``loss`` what
    was minimised, -mean(advantage log pi) and the terms added to it.
    """

    iteration: int
    rollouts: int
    failed: int
    utility: float | None
    correct: float | None
    tokens: float | None
    loss: float
    gradient: float


@dataclass
class Log:
    """All batches of a learner, and what it has found out about its environment."""

    batches: list[Batch] = field(default_factory=list)
    lowest: float | None = None
    highest: float | None = None

    def add(self, iteration: int, outcomes: Sequence[Outcome], loss: float, gradient: float) -> None:
        """Note a batch.

        Raises
        ------
        TaskError
            If nothing but failures came of the first batches.
        """
        utilities = [o.utility for o in outcomes if o.utility is not None]
        self.batches.append(
            Batch(
                iteration,
                len(outcomes),
                sum(o.utility is None for o in outcomes),
                _mean(utilities),
                _mean(o.correct for o in outcomes if o.utility is not None and o.correct is not None),
                _mean(o.total_tokens for o in outcomes if o.utility is not None and o.total_tokens),
                loss,
                gradient,
            )
        )
        for u in utilities:
            self.lowest = u if self.lowest is None else min(u, self.lowest)
            self.highest = u if self.highest is None else max(u, self.highest)
        if self.lowest is None and len(self.batches) >= PATIENCE:
            self._nothing(next((o.failure for o in outcomes if o.failure), ""))

    def finish(self) -> tuple[Batch, ...]:
        """All batches.

        Raises
        ------
        TaskError
            If every rollout failed, or all were worth the same: there was nothing to learn from.
        """
        if self.lowest is None:
            self._nothing("")
        if self.lowest == self.highest and sum(b.rollouts - b.failed for b in self.batches) > 1:
            raise TaskError(
                f"nothing to learn from: every rollout was worth {self.lowest:.4g}; use other items, or a price "
                f"on tokens"
            )
        return tuple(self.batches)

    def _nothing(self, why: str) -> None:
        count = sum(b.rollouts for b in self.batches)
        raise TaskError(
            f"nothing to learn from: all {count} rollouts failed{f' ({why})' if why else ''}; see to that first"
        )


def trace(batches: Iterable[Batch]) -> dict[str, list[Any]]:
    """Batches as columns, for a policy's card."""
    rows = list(batches)
    return {name: [_short(getattr(row, name)) for row in rows] for name in Batch._fields}


def _short(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean; ``None`` where one is unknown, or there is none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Spending:
    """What a meter showed when learning began; :meth:`since` says what was spent from then on."""

    meter: Metered
    rollouts: int
    tokens: int
    cost: float
    unknown_tokens: int
    unknown_cost: int

    @classmethod
    def start(cls, meter: Metered) -> Spending:
        return cls(meter, meter.rollouts, meter.tokens, meter.cost, meter.unknown_tokens, meter.unknown_cost)

    def since(self) -> dict[str, float | None]:
        """For :attr:`Card.spent`: a total of which a part is unknown is unknown."""
        meter = self.meter
        unknown = meter.unknown_tokens - self.unknown_tokens
        return {
            "rollouts": meter.rollouts - self.rollouts,
            "tokens": None if unknown else meter.tokens - self.tokens,
            "unknown_tokens": unknown,
            "cost": None if meter.unknown_cost > self.unknown_cost else meter.cost - self.cost,
        }
