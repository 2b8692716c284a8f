"""Static: learners of one graph for all items, by policy gradient on plain logits.

:class:`GPTSwarm` and :class:`AgentPrune` keep one logit for each possible edge. Graphs are drawn
with p = sigmoid(logit / tau), run on items, and the logits climb

    mean((u - b) log pi(G)) + eta_t sum of Bernoulli entropies - regulariser

whose gradient is known in closed form (:func:`agentcomm.pruning.realise.logit_gradient`); the
regularisers' are here, with numpy alone. :func:`climb` is the loop, for
:mod:`agentcomm.pruning.dropout` too.

Since the graph is the same for every item, these learners can't reach the best one where items
need different teams.

Deliberately absent: networks (:mod:`agentcomm.pruning.reinforce`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from agentcomm.errors import ConfigError
from agentcomm.evaluation.splits import hash_of
from agentcomm.pruning.batches import (
    Baseline,
    Comparison,
    Log,
    Passes,
    Spending,
    check_items,
    metered,
    plan,
    rollout_seed,
    stream,
    trace,
)
from agentcomm.pruning.environment import Budget, Environment, Metered, Trial, run_trials
from agentcomm.pruning.policy import Card, Policy, StaticPolicy, finite
from agentcomm.pruning.pool import BoolArray, FloatArray, Pool
from agentcomm.pruning.realise import (
    EdgeProbabilities,
    LogitGradient,
    Order,
    Realisation,
    logit_gradient,
    prune_lowest,
    realise,
)
from agentcomm.task import Item

ITEMS, DRAWS = 1, 2
"""Numbers of the generators among those of a seed."""

# ---------------------------------------------------------------------------------- logits


@dataclass
class Logits:
    """One logit for each agent and each possible edge; with a leading round axis where there is one.

    ``keep`` is ``None`` where agents aren't learned. Masked pairs keep their logit and are never
    drawn; ``present`` says which agents there are at all.
    """

    spatial: FloatArray
    temporal: FloatArray
    spatial_mask: BoolArray
    temporal_mask: BoolArray
    present: BoolArray
    keep: FloatArray | None = None
    temperature: float = 1.0

    @classmethod
    def even(
        cls,
        spatial_mask: BoolArray,
        temporal_mask: BoolArray,
        *,
        initial: float = 0.5,
        learn_nodes: bool = False,
        present: BoolArray | None = None,
        temperature: float = 1.0,
    ) -> Logits:
        """All logits log(p0 / (1 - p0)) times tau, so that every probability is ``initial``."""
        start = temperature * float(np.log(initial / (1.0 - initial)))
        shape = spatial_mask.shape
        return cls(
            np.full(shape, start),
            np.full(shape, start),
            spatial_mask.copy(),
            temporal_mask.copy(),
            np.ones(shape[:-1], np.bool_) if present is None else present,
            np.full(shape[:-1], start) if learn_nodes else None,
            temperature,
        )

    def probabilities(self, present: BoolArray | None = None) -> EdgeProbabilities:
        """sigmoid(logit / tau); without learned agents those ``present`` are certain."""
        there = self.present if present is None else present
        tau = self.temperature
        keep = (
            there.astype(np.float64) if self.keep is None else np.where(there, _sigmoid(self.keep / tau), 0)
        )
        return EdgeProbabilities.of(
            keep,
            _sigmoid(self.spatial / tau),
            _sigmoid(self.temporal / tau),
            self.spatial_mask,
            self.temporal_mask,
        )


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


class Adam:
    """Adam (Kingma and Ba 2015) on arrays changed in place, betas 0.9 and 0.999."""

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self._steps = 0
        self._moments: dict[str, tuple[FloatArray, FloatArray]] = {}

    def ascend(self, values: Mapping[str, FloatArray], gradients: Mapping[str, FloatArray]) -> None:
        """One step uphill."""
        self._steps += 1
        for name, gradient in gradients.items():
            first, second = self._moments.get(name, (np.zeros_like(gradient),) * 2)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            self._moments[name] = first, second
            hat = first / (1 - 0.9**self._steps)
            values[name][...] += self.lr * hat / (np.sqrt(second / (1 - 0.999**self._steps)) + 1e-8)


# ------------------------------------------------------------------------------ regularisers


def nuclear_norm(matrix: ArrayLike) -> float:
    """The sum of singular values; of a stack [K, N, N] that of all matrices.

    >>> nuclear_norm([[3, 0], [0, 4]])
    7.0
    """
    return float(np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False).sum())


def nuclear_gradient(matrix: ArrayLike) -> FloatArray:
    """A subgradient of :func:`nuclear_norm`: U V^T over the singular values above 0."""
    u, s, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)
    above = s > 1e-12 * np.maximum(s.max(axis=-1, keepdims=True), 1e-300)
    return np.asarray((u * above[..., None, :]) @ vt, dtype=np.float64)


def hinge(candidates: ArrayLike, matrix: ArrayLike, delta: float = 0.1) -> float:
    """max(0, ||A - P||_F - delta): how far ``matrix`` has left what was there; summed over a stack."""
    distance = np.linalg.norm(
        np.asarray(candidates, np.float64) - np.asarray(matrix, np.float64), axis=(-2, -1)
    )
    return float(np.maximum(0.0, distance - delta).sum())


def hinge_gradient(candidates: ArrayLike, matrix: ArrayLike, delta: float = 0.1) -> FloatArray:
    """Of :func:`hinge` with respect to ``matrix``; 0 inside ``delta``."""
    difference = np.asarray(matrix, np.float64) - np.asarray(candidates, np.float64)
    distance = np.linalg.norm(difference, axis=(-2, -1), keepdims=True)
    outside = distance > delta
    return np.asarray(np.where(outside, difference / np.where(outside, distance, 1.0), 0.0))


@dataclass(frozen=True)
class Sparse:
    """AgentPrune's regulariser zeta sum over spatial and temporal [||P||_* + max(0, ||A - P||_F - delta)].

    P are the probabilities of the candidate edges (``on="logits"``: their logits), A marks the
    candidates, and norms are taken for each round.
    """

    zeta: float = 0.1
    delta: float = 0.1
    on: Literal["probabilities", "logits"] = "probabilities"

    def __call__(self, logits: Logits) -> tuple[float, dict[str, FloatArray]]:
        """Its value and its gradient with respect to the logits."""
        value, gradients = 0.0, {}
        for name in ("spatial", "temporal"):
            theta, mask = getattr(logits, name), getattr(logits, f"{name}_mask")
            p = _sigmoid(theta / logits.temperature)
            inner = np.ones_like(p) if self.on == "logits" else p * (1.0 - p) / logits.temperature
            matrix = np.where(mask, theta if self.on == "logits" else p, 0.0)
            value += self.zeta * (nuclear_norm(matrix) + hinge(mask, matrix, self.delta))
            slope = nuclear_gradient(matrix) + hinge_gradient(mask, matrix, self.delta)
            gradients[name] = np.where(mask, self.zeta * slope * inner, 0.0)
        return value, gradients


# ---------------------------------------------------------------------------------- climbing


class Drawn(NamedTuple):
    """A graph that is to be tried, and the gradient and value of the log-probability of drawing it."""

    realisation: Realisation
    probabilities: EdgeProbabilities
    gradient: LogitGradient
    log_prob: float


Draw = Callable[[Logits, np.random.Generator], Drawn]


@dataclass
class Climb:
    """Logits on their way up; :meth:`step` makes one batch of rollouts.

    Parameters
    ----------
    seed, first:
        Rollout seeds follow from the seed and the iteration, which is counted from ``first``.
    regulariser:
        Gives what is subtracted from the objective, and its gradient.
    log, seen:
        Batches and hashes of items so far, those of an earlier climb included.
    """

    logits: Logits
    environment: Metered
    passes: Passes
    rng: np.random.Generator
    lr: float
    compare: Comparison
    draw: Draw
    seed: int = 0
    group: int = 1
    regulariser: Callable[[Logits], tuple[float, dict[str, FloatArray]]] | None = None
    log: Log = field(default_factory=Log)
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._adam = Adam(self.lr)

    async def step(self, iteration: int, size: int, entropy: float = 0.0) -> None:
        """Try ``size`` graphs and move the logits once.

        Raises
        ------
        ConfigError
            If learning diverges: it names the iteration.
        """
        logits = self.logits
        items = self.passes.take(size // self.group)
        trials, draws = list[Trial](), list[Drawn]()
        for item in (item for item in items for _ in range(self.group)):
            drawn = self.draw(logits, self.rng)
            at = rollout_seed(self.seed, iteration, len(trials))
            trials.append(Trial(item, drawn.realisation.topology, at, drawn.realisation, drawn.probabilities))
            draws.append(drawn)
        outcomes = await run_trials(self.environment, trials)
        self.seen |= {hash_of(item) for item in items}
        advantages = self.compare.advantages(outcomes, self.group)
        counted = sum(o.utility is not None for o in outcomes)
        if not counted:  # failures say nothing, not even that logits should shrink
            self.log.add(iteration, outcomes, 0.0, 0.0)
            return
        gradients = {name: np.zeros_like(value) for name, value in self._values.items()}
        loss = 0.0
        for drawn, advantage in zip(draws, (advantages / counted).tolist(), strict=True):
            if advantage != 0.0:
                for name, gradient in gradients.items():
                    gradient += advantage / logits.temperature * getattr(drawn.gradient, name)
                loss -= advantage * drawn.log_prob
        if entropy:
            value, slopes = _entropy(logits)
            loss -= entropy * value
            for name, slope in slopes.items():
                gradients[name] += entropy * slope
        if self.regulariser is not None:
            value, slopes = self.regulariser(logits)
            loss += value
            for name, slope in slopes.items():
                gradients[name] -= slope
        finite(loss, f"the loss of iteration {iteration}")
        length = finite(
            float(np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))),
            f"the gradient of iteration {iteration}",
        )
        self._adam.ascend(self._values, gradients)
        self.log.add(iteration, outcomes, loss, length)

    @property
    def _values(self) -> dict[str, FloatArray]:
        """What is learned, by name."""
        logits = self.logits
        found = {"spatial": logits.spatial, "temporal": logits.temporal}
        return found if logits.keep is None else {"keep": logits.keep, **found}


def draw_edges(pool: Pool, order: Order = "random") -> Draw:
    """Draws graphs as :func:`~agentcomm.pruning.realise.realise` does."""

    def draw(logits: Logits, rng: np.random.Generator) -> Drawn:
        probabilities = logits.probabilities()
        realisation = realise(probabilities, pool, mode="bernoulli", rng=rng, order=order)
        gradient = logit_gradient(realisation, probabilities)
        return Drawn(realisation, probabilities, gradient, realisation.log_prob or 0.0)

    return draw


def _entropy(logits: Logits) -> tuple[float, dict[str, FloatArray]]:
    """The sum of the entropies of all decisions and its gradient, -x p (1 - p) for x = logit / tau."""
    deciding = {"spatial": logits.spatial_mask, "temporal": logits.temporal_mask}
    if logits.keep is not None:
        deciding["keep"] = logits.present
    total, slopes = 0.0, {}
    for name, counts in deciding.items():
        x = getattr(logits, name) / logits.temperature
        p = _sigmoid(x)
        total += float(np.where(counts, np.logaddexp(0.0, x) - x * p, 0.0).sum())
        slopes[name] = np.where(counts, -x * p * (1.0 - p) / logits.temperature, 0.0)
    return total, slopes


# ---------------------------------------------------------------------------------- learners


def settings_of(learner: Any) -> dict[str, Any]:
    """A learner's hyperparameters, for its card."""
    fields = {f.name: getattr(learner, f.name) for f in dataclasses.fields(learner)}
    return {k: v for k, v in fields.items() if k not in ("seed", "profile", "embedder")}


def check_settings(learner: Any, *, above: Sequence[str] = (), shares: Sequence[str] = ()) -> None:
    """Refuse fields that aren't above 0, and shares outside [0, 1].

    Raises
    ------
    ConfigError
        Naming the method and the field.
    """
    for name in above:
        if not (value := getattr(learner, name)) > 0:
            raise ConfigError(f"{learner.name} with {name}={value}; it must be above 0")
    for name in shares:
        if not 0 <= (value := getattr(learner, name)) <= 1:
            raise ConfigError(f"{learner.name} with {name}={value}; it must lie between 0 and 1")


@dataclass(frozen=True)
class GPTSwarm:
    """One edge probability for each pair of agents, by REINFORCE (Zhuge et al. 2024, arXiv 2402.16823).

    What differs: pairs are visited in a random order instead of row by row, which favours edges
    from low to high numbers; the cycle test is linear; failed runs are left out instead of counted
    as wrong; agents can be learned too (``learn_nodes``); prompts are not optimised; the result is
    the deterministic graph at threshold 0.5 instead of a fresh sample for each item.
    :meth:`as_released` has the released settings.

    Parameters
    ----------
    iterations, batch, lr:
        Of Adam on the logits; ``batch`` graphs for each step.
    baseline:
        ``"none"``, ``"moving_average"``, or ``"group"``: ``group`` graphs on the same item are compared.
    entropy:
        eta of the bonus, annealed linearly to 0.
    learn_nodes:
        Whether agents are pruned as well as edges.
    initial:
        The probability that all begin with.
    order:
        ``"random"`` or ``"row_major"``.
    """

    name: ClassVar[str] = "gptswarm"
    paper: ClassVar[str] = "Zhuge et al. 2024, Language Agents as Optimizable Graphs, arXiv 2402.16823"

    iterations: int = 300
    batch: int = 16
    lr: float = 0.1
    baseline: Baseline = "moving_average"
    group: int = 4
    entropy: float = 0.0
    learn_nodes: bool = False
    initial: float = 0.5
    temperature: float = 1.0
    order: Order = "random"
    profile: str = "corrected"
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, above=("iterations", "batch", "lr", "temperature", "group"))
        check_initial(self)
        check_groups(self)

    @classmethod
    def as_released(cls, seed: int = 0) -> GPTSwarm:
        """200 batches of 4, pairs row by row."""
        return cls(200, 4, order="row_major", profile="as_released", seed=seed)

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A static policy for the environment's pool.

        Raises
        ------
        TaskError, ConfigError, LimitExceeded
            As :func:`agentcomm.pruning.reinforce.train_network`.
        """
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        pool = meter.pool
        logits = Logits.even(
            pool.spatial_allowed,
            pool.temporal_allowed,
            initial=self.initial,
            learn_nodes=self.learn_nodes,
            temperature=self.temperature,
        )
        group = self.group if self.baseline in ("group", "normalised") else 1
        climb = Climb(
            logits,
            meter,
            Passes(check_items(items), stream(self.seed, ITEMS)),
            stream(self.seed, DRAWS),
            self.lr,
            Comparison(self.baseline),
            draw_edges(pool, self.order),
            self.seed,
            group,
        )
        sizes = plan(self.iterations, self.batch, meter, unit=group)
        for t, size in enumerate(sizes):
            await climb.step(t, size, self.entropy * (1 - t / len(sizes)))
        return StaticPolicy(pool, card_of(self, climb, spending), logits.probabilities())


@dataclass(frozen=True)
class AgentPrune:
    """Sparse spatial and temporal edges, the weakest cut at the end (Zhang et al. 2024, arXiv 2410.02506).

    What differs: regularisers act on probabilities, which are on the candidates' own scale, at zeta
    0.1 instead of 1 (at 1 the graph empties); a moving-average baseline instead of none; edges are
    cut once, after training, as the paper says and its code doesn't; random order and linear cycle
    test as in :class:`GPTSwarm`. Agents are never removed. :meth:`as_released` has the released
    settings.

    Parameters
    ----------
    iterations, batch, lr, baseline, group, initial, temperature, order:
        As :class:`GPTSwarm`.
    zeta, delta, reg_on:
        Of :class:`Sparse`.
    prune:
        The share of edges that is cut, spatial and temporal separately; at least one.
    prune_every:
        Cut after so many iterations, again and again; ``None``: once, after training.
    """

    name: ClassVar[str] = "agentprune"
    paper: ClassVar[str] = "Zhang et al. 2024, Cut the Crap, arXiv 2410.02506"

    iterations: int = 200
    batch: int = 16
    lr: float = 0.1
    baseline: Baseline = "moving_average"
    group: int = 4
    zeta: float = 0.1
    delta: float = 0.1
    reg_on: Literal["probabilities", "logits"] = "probabilities"
    prune: float = 0.25
    prune_every: int | None = None
    initial: float = 0.5
    temperature: float = 1.0
    order: Order = "random"
    profile: str = "corrected"
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, above=("iterations", "batch", "lr", "temperature", "group"), shares=("prune",))
        check_initial(self)
        check_groups(self)
        check_sparse(self)
        if self.prune_every is not None:
            check_settings(self, above=("prune_every",))

    @classmethod
    def as_released(cls, seed: int = 0) -> AgentPrune:
        """10 batches of 4, no baseline, zeta 1 on logits, a quarter cut after every fifth batch."""
        return cls(
            10,
            4,
            baseline="none",
            zeta=1.0,
            reg_on="logits",
            prune_every=5,
            order="row_major",
            profile="as_released",
            seed=seed,
        )

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A static policy for the environment's pool, all agents kept.

        Raises
        ------
        TaskError, ConfigError, LimitExceeded
            As :func:`agentcomm.pruning.reinforce.train_network`.
        """
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        pool = meter.pool
        logits = Logits.even(
            pool.spatial_allowed, pool.temporal_allowed, initial=self.initial, temperature=self.temperature
        )
        group = self.group if self.baseline in ("group", "normalised") else 1
        climb = Climb(
            logits,
            meter,
            Passes(check_items(items), stream(self.seed, ITEMS)),
            stream(self.seed, DRAWS),
            self.lr,
            Comparison(self.baseline),
            draw_edges(pool, self.order),
            self.seed,
            group,
            Sparse(self.zeta, self.delta, self.reg_on),
        )
        sizes = plan(self.iterations, self.batch, meter, unit=group)
        for t, size in enumerate(sizes):
            await climb.step(t, size)
            if self.prune_every is not None and (t + 1) % self.prune_every == 0:
                prune_edges(logits, self.prune)
        if self.prune_every is None:
            prune_edges(logits, self.prune)
        return StaticPolicy(pool, card_of(self, climb, spending), logits.probabilities())


def prune_edges(logits: Logits, share: float) -> None:
    """Mask the lowest-logit share of the candidate edges: spatial and temporal, and rounds, separately."""
    for theta, mask in ((logits.spatial, logits.spatial_mask), (logits.temporal, logits.temporal_mask)):
        n = mask.shape[-1]
        for scores, active in zip(theta.reshape(-1, n, n), mask.reshape(-1, n, n), strict=True):
            active[...] = prune_lowest(scores, active, share)


def card_of(learner: Any, climb: Climb, spending: Spending) -> Card:
    """The card of what ``learner`` has learned.

    Raises
    ------
    TaskError
        If there was nothing to learn from.
    """
    return Card(
        learner.name,
        learner.profile,
        learner.seed,
        settings_of(learner),
        frozenset(climb.seen),
        spending.since(),
        paper=learner.paper,
        trace=trace(climb.log.finish()),
    )


def check_initial(learner: Any) -> None:
    """Refuse an initial probability that no logit has."""
    if not 0.0 < learner.initial < 1.0:
        raise ConfigError(
            f"{learner.name} with initial={learner.initial}; a certain edge can't be learned, so it must "
            f"lie between 0 and 1"
        )


def check_groups(learner: Any) -> None:
    """Refuse batches that groups don't fill."""
    if Comparison(learner.baseline).grouped and (learner.group < 2 or learner.batch % learner.group):
        raise ConfigError(
            f"{learner.name} with baseline={learner.baseline!r}, batch={learner.batch}, group={learner.group}; "
            f"a batch must consist of whole groups of two graphs or more"
        )


def check_sparse(learner: Any) -> None:
    """Refuse settings of :class:`Sparse` that make no sense."""
    if learner.zeta < 0 or learner.delta < 0 or learner.reg_on not in ("probabilities", "logits"):
        raise ConfigError(
            f"{learner.name} with zeta={learner.zeta}, delta={learner.delta}, reg_on={learner.reg_on!r}; both "
            f"must be at least 0, and reg_on 'probabilities' or 'logits'"
        )
