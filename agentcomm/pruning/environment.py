"""Environment: what a learner sees of the world, and what it may spend there.

A learner proposes a topology for an item and hears what came of it. Whether that was a planted
world or a team of real models it cannot tell: both are an :class:`Environment`. What it makes is
a :class:`TopologyPolicy`, which decides a topology for an item it has never seen.

Deliberately absent: any learner, any world, and embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import anyio

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.graph import Topology
from agentcomm.ledger.usage import UsageReport
from agentcomm.message import Usage
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities, Realisation
from agentcomm.task import Item

Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one topology on one item. Unknown is ``None``, never 0.

    Parameters
    ----------
    correct:
        The score in [0, 1]; ``None`` when the rollout failed.
    utility:
        :func:`utility_of` the score and the tokens; ``None`` when either is unknown. A failed
        rollout has none and is never a label.
    tokens:
        Prompt and completion tokens of all agents, the decision agent included.
    ledger:
        The calls behind the tokens, where there were any.
    status, failure:
        ``"failed"`` and why, when no answer came.
    cost:
        US dollars.
    """

    correct: float | None
    utility: float | None
    tokens: Usage
    ledger: UsageReport | None = None
    status: Status = "ok"
    failure: str = ""
    cost: float | None = None

    @property
    def total_tokens(self) -> int | None:
        """Prompt and completion tokens together, ``None`` when either is unknown."""
        return total_tokens(self.tokens)


def total_tokens(tokens: Usage) -> int | None:
    """Prompt and completion tokens together, ``None`` when either is unknown."""
    if tokens.input_tokens is None or tokens.output_tokens is None:
        return None
    return tokens.input_tokens + tokens.output_tokens


def utility_of(correct: float | None, tokens: int | None, *, price: float, reference: float) -> float | None:
    """correct - price * tokens / reference (``pruning.md`` section 1); ``None`` when either is unknown.

    Parameters
    ----------
    price:
        lambda: what the tokens of one complete team are worth in points of score, 0 to ignore them.
    reference:
        T_ref, constant for a benchmark: mean tokens of the complete team.

    >>> round(utility_of(1.0, 2220, price=0.2, reference=4440), 3)
    0.9
    """
    if reference <= 0:
        raise ConfigError(f"reference tokens of {reference}; it must be above 0")
    if correct is None or (tokens is None and price != 0):
        return None
    return correct - price * (tokens or 0) / reference


class Environment(Protocol):
    """Where topologies are tried."""

    @property
    def pool(self) -> Pool:
        """The agents and pairs that topologies are made of."""
        ...

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        """Run ``topology`` on ``item`` once. Equal arguments may be answered from a cache."""
        ...


class Trial(NamedTuple):
    """A rollout to be made; ``realisation`` and ``probabilities`` say how its topology was drawn."""

    item: Item
    topology: Topology
    seed: int
    realisation: Realisation | None = None
    probabilities: EdgeProbabilities | None = None


async def run_trials(environment: Environment, trials: Sequence[Trial]) -> list[Outcome]:
    """The outcomes of ``trials``, in their order.

    They run side by side, as many as the environment's attribute ``concurrency`` says; one by one
    where it has none. How topologies were drawn is handed on where the environment's attribute
    ``records`` says that it wants to know.

    Raises
    ------
    LimitExceeded
        As the environment; rollouts in flight are finished first, so what was paid for is recorded.
    """
    tells = _tells(environment)
    most = max(1, int(getattr(environment, "concurrency", 1)))

    async def one(trial: Trial) -> Outcome:
        more: dict[str, Any] = (
            {"realisation": trial.realisation, "probabilities": trial.probabilities} if tells else {}
        )
        return await environment.rollout(trial.item, trial.topology, trial.seed, **more)

    if most == 1:
        return [await one(trial) for trial in trials]
    outcomes: list[Outcome | None] = [None] * len(trials)
    errors: list[Exception] = []
    queue = iter(enumerate(trials))

    async def work() -> None:
        for at, trial in queue:
            if errors:
                return
            try:
                outcomes[at] = await one(trial)
            except Exception as error:
                errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(min(most, len(trials))):
            group.start_soon(work)
    if errors:
        raise errors[0]
    return [outcome for outcome in outcomes if outcome is not None]


def _tells(environment: Environment) -> bool:
    """Whether ``rollout`` also takes how a topology was drawn."""
    return bool(getattr(environment, "records", None) is not None)


class TopologyPolicy(Protocol):
    """Decides a topology for an item: :meth:`propose`, then realise."""

    def propose(self, item: Item) -> EdgeProbabilities: ...

    def __call__(self, item: Item) -> Topology: ...

    def save(self, folder: Path) -> None: ...


class TopologyLearner(Protocol):
    """Learns a policy from rollouts on ``learn`` items."""

    async def fit(
        self, items: Sequence[Item], environment: Environment, budget: Budget
    ) -> TopologyPolicy: ...


@dataclass(frozen=True)
class Budget:
    """What learning may spend; ``None`` is no limit.

    Parameters
    ----------
    rollouts:
        How many, failed ones included. Exact.
    tokens, cost:
        Prompt and completion tokens, US dollars. Known only when a rollout has ended: those in
        flight can overshoot.
    """

    rollouts: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("rollouts", "tokens", "cost"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"a budget of {name}={value}; it must be at least 0")


@dataclass
class Metered:
    """An environment that refuses the next rollout once the budget is spent.

    It stays usable: what was spent is in ``rollouts``, ``tokens`` and ``cost`` (of what is known;
    ``unknown_tokens`` and ``unknown_cost`` count the rollouts that told none), which a learner
    stores to go on later under a larger budget.
    """

    environment: Environment
    budget: Budget = field(default_factory=Budget)
    rollouts: int = 0
    tokens: int = 0
    cost: float = 0.0
    unknown_tokens: int = 0
    unknown_cost: int = 0

    @property
    def pool(self) -> Pool:
        return self.environment.pool

    @property
    def concurrency(self) -> int:
        """As the environment's own."""
        return max(1, int(getattr(self.environment, "concurrency", 1)))

    @property
    def records(self) -> Any:
        """The environment's own records, ``None`` where it keeps none."""
        return getattr(self.environment, "records", None)

    @property
    def rollouts_left(self) -> int | None:
        """How many more the budget allows; ``None`` is no limit."""
        return None if self.budget.rollouts is None else max(0, self.budget.rollouts - self.rollouts)

    async def rollout(self, item: Item, topology: Topology, seed: int, **drawn: Any) -> Outcome:
        """As the environment's own; ``drawn`` says how the topology was drawn, where that is recorded.

        Raises
        ------
        LimitExceeded
            Before a rollout that the budget forbids, or whose predecessors' cost is limited and
            unknown.
        """
        self._admit()
        self.rollouts += 1  # before waiting: rollouts in flight are counted
        outcome = await self.environment.rollout(item, topology, seed, **drawn)
        spent = outcome.total_tokens
        if spent is None:
            self.unknown_tokens += 1
        else:
            self.tokens += spent
        if outcome.cost is None:
            self.unknown_cost += 1
        else:
            self.cost += outcome.cost
        return outcome

    def _admit(self) -> None:
        for name in ("rollouts", "tokens", "cost"):
            most, spent = getattr(self.budget, name), getattr(self, name)
            if most is None:
                continue
            if unknown := getattr(self, f"unknown_{name}", 0):
                raise LimitExceeded(
                    f"{unknown} rollouts did not tell their {name}, so a budget of {name}={most} can't be "
                    f"kept; limit rollouts instead",
                    scope="learn",
                    limit=name,
                )
            if spent >= most:
                raise LimitExceeded(
                    f"the budget of {name}={most} is spent ({spent} used); raise it to go on from here",
                    scope="learn",
                    limit=name,
                )
