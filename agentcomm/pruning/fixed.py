"""Fixed: topologies that nobody learned, behind the same interface.

What learning has to beat: the whole team (:class:`NoPruning`), a topology by a rule
(:class:`Fixed`), the best of several of these on held-out items (:class:`BestFixed`), and random
graphs of the same size (:class:`MatchedRandom`), which published pruning methods have been found
not to beat.

Deliberately absent: the rules (:mod:`agentcomm.topologies`), and controls of a finished run
(:mod:`agentcomm.evaluation.controls`), which draw their random graphs themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from agentcomm import topologies
from agentcomm.errors import ConfigError, GraphError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.graph import AgentGraph, Topology
from agentcomm.message import content_id
from agentcomm.pruning.batches import Spending, check_items, metered, rollout_seed
from agentcomm.pruning.embeddings import Embedder
from agentcomm.pruning.environment import Budget, Environment, Trial, run_trials
from agentcomm.pruning.policy import Arrays, Card, Policy, StaticPolicy, kind_of
from agentcomm.pruning.pool import Arrays as Masks
from agentcomm.pruning.pool import BoolArray, Pool
from agentcomm.pruning.realise import EdgeProbabilities, realise
from agentcomm.task import Item

# ----------------------------------------------------------------------------------- by a rule


@dataclass(frozen=True)
class Fixed:
    """A topology of :mod:`agentcomm.topologies` over the pool, all agents kept; nothing is learned.

    Parameters
    ----------
    topology:
        A name in :data:`agentcomm.topologies.BUILDERS` but ``"random_dag"``
        (:class:`MatchedRandom`), ``"single"`` (one agent and the decision agent), or ``"custom"``.
    options:
        The builder's own, such as ``{"direction": "in"}``; for ``"single"`` ``{"agent": name}``
        (the pool's first by default); for ``"custom"`` ``{"spatial": pairs, "temporal": pairs}`` of
        names.
    """

    name: ClassVar[str] = "fixed"
    paper: ClassVar[str] = ""

    topology: str = "chain"
    options: Mapping[str, Any] = field(default_factory=dict)

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A static policy, without a rollout.

        Raises
        ------
        GraphError
            For an unknown topology or option, or edges that the pool may not have.
        """
        return self.policy(environment.pool)

    def policy(self, pool: Pool) -> StaticPolicy:
        """As :meth:`fit`, for a pool."""
        settings = {"topology": self.topology, "options": dict(self.options)}
        card = Card(self.name, settings=settings, spent={"rollouts": 0}, paper=self.paper)
        return StaticPolicy(pool, card, EdgeProbabilities.of_topology(pool, self.of(pool)))

    def of(self, pool: Pool) -> Topology:
        """The topology.

        Raises
        ------
        GraphError
            As :meth:`fit`.
        """
        keep = np.ones(len(pool), np.bool_)
        options = dict(self.options)
        if self.topology == "single":
            agent = options.pop("agent", pool.names[0])
            self._all_used(options)
            if agent not in pool.index:
                raise GraphError(f"no agent {agent!r} in the pool; it has {', '.join(pool.names)}")
            keep = np.array([name == agent for name in pool.names], np.bool_)
            return pool.topology(keep, np.zeros((len(pool),) * 2, np.bool_))
        if self.topology == "custom":
            pairs = {kind: options.pop(kind, ()) for kind in ("spatial", "temporal")}
            self._all_used(options)
        else:
            graph = self._build(pool, options)
            pairs = {
                kind: [
                    (e.sender, e.reader)
                    for e in graph.edges
                    if e.kind == kind and pool.decision not in (e.sender, e.reader)
                ]
                for kind in ("spatial", "temporal")
            }
        return pool.topology(keep, *(_pairs(pool, pairs[kind]) for kind in ("spatial", "temporal")))

    def _build(self, pool: Pool, options: dict[str, Any]) -> AgentGraph:
        builder = topologies.BUILDERS.get(self.topology)
        if builder is None or self.topology == "random_dag":
            known = sorted({*topologies.BUILDERS, "single", "custom"} - {"random_dag"})
            raise GraphError(f"no fixed topology {self.topology!r}; there are: {', '.join(known)}")
        if self.topology in ("mesh", "debate") or pool.rounds > 1:
            options.setdefault("rounds", pool.rounds)
        try:
            return builder(pool.agents, pool.graph.by_name[pool.decision], **options)
        except TypeError as error:
            raise GraphError(
                f"the topology {self.topology!r} can't be made with {options}: {error}"
            ) from error

    def _all_used(self, left: Mapping[str, Any]) -> None:
        if left:
            raise GraphError(f"the topology {self.topology!r} has no option {', '.join(map(repr, left))}")


def _pairs(pool: Pool, pairs: Sequence[tuple[str, str]]) -> BoolArray:
    found = np.zeros((len(pool),) * 2, np.bool_)
    for sender, reader in pairs:
        for name in (sender, reader):
            if name not in pool.index:
                raise GraphError(f"no agent {name!r} in the pool; it has {', '.join(pool.names)}")
        found[pool.index[sender], pool.index[reader]] = True
    return found


@dataclass(frozen=True)
class NoPruning:
    """Nobody and nothing is pruned: the graph as it is. No paper; it is what all are compared with.

    In a complete pool, which has no graph of its own, every agent reads all before it, and with
    more than one round all others a round later (the complete DAG, the mesh).
    """

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = ""

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A static policy, without a rollout."""
        pool = environment.pool
        if pool.edges == "complete":
            topology = Fixed("mesh").of(pool)
        else:
            keep = np.ones(len(pool), np.bool_)
            topology = pool.topology(keep, pool.spatial_allowed, pool.temporal_allowed)
        card = Card(self.name, spent={"rollouts": 0})
        return StaticPolicy(pool, card, EdgeProbabilities.of_topology(pool, topology))


FIXED: tuple[Fixed, ...] = (
    Fixed("independent"),
    Fixed("chain"),
    Fixed("star"),
    Fixed("star", {"direction": "in"}),
    Fixed("tree"),
    Fixed("tree", {"direction": "in"}),
    Fixed("layered"),
    Fixed("complete"),
)
"""What :class:`BestFixed` tries unless told otherwise; those that the pool can't have are left out."""


@dataclass(frozen=True)
class BestFixed:
    """The fixed topology with the largest mean utility on the items; ties go to fewer tokens.

    The items may be ``validate`` items. All candidates are tried on the same ones, ``repeats``
    times each; a budget takes items away from all alike.
    """

    name: ClassVar[str] = "best_fixed"
    paper: ClassVar[str] = ""

    candidates: Sequence[Fixed] = FIXED
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.candidates:
            raise ConfigError(
                f"best_fixed with repeats={self.repeats} and {len(self.candidates)} candidates; both must be "
                f"at least 1"
            )

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """The best candidate's policy; the others' figures are in its card's trace.

        Raises
        ------
        GraphError
            If the pool can have none of the candidates.
        TaskError
            For ``score`` items, or if every rollout failed.
        LimitExceeded
            If the budget doesn't allow one item.
        """
        items = check_items(items, validate=True)
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        pool = meter.pool
        found: list[tuple[Fixed, Topology]] = []
        refused: list[GraphError] = []
        for candidate in self.candidates:
            try:
                found.append((candidate, candidate.of(pool)))
            except GraphError as error:
                refused.append(error)
        if not found:
            raise GraphError(f"the pool can have none of the candidates: {refused[0]}") from refused[0]
        each = len(found) * self.repeats
        if (left := meter.rollouts_left) is not None and left < each * len(items):
            items = items[: left // each]
            if not items:
                raise LimitExceeded(
                    f"{left} rollouts are left in the budget and one item on {len(found)} topologies takes "
                    f"{each}; raise it",
                    scope="learn",
                    limit="rollouts",
                )
        tried: list[dict[str, Any]] = []
        for candidate, topology in found:
            # Equal seeds for all candidates: they differ in their topology alone.
            outcomes = await run_trials(
                meter,
                [
                    Trial(item, topology, rollout_seed(self.seed, r, k))
                    for r in range(self.repeats)
                    for k, item in enumerate(items)
                ],
            )
            utilities = [o.utility for o in outcomes if o.utility is not None]
            tokens = [
                o.total_tokens for o in outcomes if o.utility is not None and o.total_tokens is not None
            ]
            tried.append(
                {
                    "topology": candidate.topology,
                    "options": dict(candidate.options),
                    "utility": float(np.mean(utilities)) if utilities else None,
                    "tokens": float(np.mean(tokens)) if tokens else None,
                    "failed": len(outcomes) - len(utilities),
                }
            )
        worth = [
            (-row["utility"], row["tokens"] if row["tokens"] is not None else math.inf, at)
            for at, row in enumerate(tried)
            if row["utility"] is not None
        ]
        if not worth:
            raise TaskError("every rollout failed, so no topology can be called the best; see to that first")
        best = found[min(worth)[2]][1]
        card = Card(
            self.name,
            seed=self.seed,
            settings={
                "repeats": self.repeats,
                "items": len(items),
                "chosen": tried[min(worth)[2]]["topology"],
            },
            learned_from=frozenset(map(hash_of, items)),
            spent=spending.since(),
            trace={"candidates": tried},
        )
        return StaticPolicy(pool, card, EdgeProbabilities.of_topology(pool, best))


# -------------------------------------------------------------------------------------- random


class Counts(NamedTuple):
    """How much of a team is alive in one round: agents, and edges within and across rounds."""

    agents: int
    spatial: int
    temporal: int


@dataclass(frozen=True)
class MatchedRandom:
    """Random agents and edges: for each item a random subset and a random DAG on it. No paper.

    With ``match`` each item gets as many agents and edges as that policy gives it, which is the
    control without which a pruning method's gain means nothing. With counts each item gets those;
    with neither, every agent and every pair is a coin flip (q = p = 0.5).

    The same seed and item give the same topology, whatever came before.

    Parameters
    ----------
    agents:
        How many are kept (all, if only ``edges`` is given).
    edges:
        How many spatial edges (half of what so many agents can have, if only ``agents`` is given).
    match:
        A policy for the same pool.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = ""

    agents: int | None = None
    edges: int | None = None
    match: Policy | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.match is not None and (self.agents, self.edges) != (None, None):
            raise ConfigError("random with match and counts; give one of them")

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A policy that draws, without a rollout.

        Raises
        ------
        ConfigError
            If the pool doesn't have so many agents or edges, or ``match`` is for another pool.
        """
        pool = environment.pool
        learned_from = frozenset[str]()
        if self.match is not None:
            settings: dict[str, Any] = {"match": self.match.spec()}
            learned_from = self.match.card.learned_from  # its counts were learned there
        else:
            settings = {"agents": self.agents, "edges": self.edges}
        card = Card(
            self.name, seed=self.seed, settings=settings, learned_from=learned_from, spent={"rollouts": 0}
        )
        return RandomPolicy(pool, card, self._counts(pool), self.match, seed=self.seed)

    def _counts(self, pool: Pool) -> Counts | None:
        if self.agents is None and self.edges is None:
            return None
        agents = len(pool) if self.agents is None else self.agents
        most = agents * (agents - 1) // 2
        if pool.edges == "graph":
            most = min(most, int(pool.spatial_allowed.sum()))
        edges = round(most / 2) if self.edges is None else self.edges
        if not (1 <= agents <= len(pool) and 0 <= edges <= most):
            raise ConfigError(
                f"random with {agents} agents and {edges} edges; the pool has {len(pool)} agents, and so many "
                f"can have {most} edges at most"
            )
        return Counts(agents, edges, 0)


class RandomPolicy(Policy):
    """Draws a topology for each item; see :class:`MatchedRandom`.

    Where the user's graph says whom the decision agent reads, a draw may hold agents that nobody
    hears; up to ``TRIES`` draws are made, and the first that keeps its counts, or else the
    closest one, is taken.
    """

    kind = "random"
    TRIES: ClassVar[int] = 64

    def __init__(
        self, pool: Pool, card: Card, counts: Counts | None, match: Policy | None = None, *, seed: int = 0
    ) -> None:
        super().__init__(pool, card)
        if match is not None and match.pool.id != pool.id:
            raise ConfigError("random is to match a policy that was made for another pool; use the same one")
        self.counts = counts
        self.match = match
        self.seed = seed

    def propose(self, item: Item) -> EdgeProbabilities:
        rng = np.random.default_rng(int(content_id("random", self.seed, hash_of(item))[:16], 16))
        if self.match is None and self.counts is None:
            even = EdgeProbabilities.constant(len(self.pool), 0.5, 0.5)
            topology = realise(even, self.pool, mode="bernoulli", rng=rng).topology
            return EdgeProbabilities.of_topology(self.pool, topology)
        if self.match is not None:
            wanted = _counts_of(self.pool.arrays(self.match(item)))
        else:
            assert self.counts is not None
            wanted = [self.counts]
        best, least = None, math.inf
        for _ in range(self.TRIES):
            drawn = _draw(self.pool, wanted, rng)
            got = _counts_of(self._executed(drawn))
            off = sum(abs(a - b) for w, g in zip(wanted, got, strict=True) for a, b in zip(w, g, strict=True))
            if off < least:
                best, least = drawn, off
            if not off:
                break
        assert best is not None
        return EdgeProbabilities.of(*best)

    def _executed(self, drawn: Masks) -> Masks:
        done = realise(EdgeProbabilities.of(*drawn), self.pool)
        return Masks(done.keep, done.spatial, done.temporal)

    def state(self) -> tuple[dict[str, Any], Arrays]:
        data: dict[str, Any] = {"seed": self.seed, "counts": self.counts, "match": None}
        if self.match is None:
            return data, {}
        inner, arrays = self.match.state()
        data["match"] = {
            "kind": self.match.kind,
            "thresholds": [self.match.node_threshold, self.match.edge_threshold],
            "card": self.match.card.to_dict(),
            "state": inner,
        }
        return data, {f"match.{name}": array for name, array in arrays.items()}

    @classmethod
    def restore(
        cls,
        pool: Pool,
        card: Card,
        thresholds: tuple[float, float],
        data: Mapping[str, Any],
        arrays: Arrays,
        embedder: Embedder | None,
    ) -> Self:
        counts = None if data["counts"] is None else Counts(*data["counts"])
        match = None
        if (stored := data["match"]) is not None:
            match = kind_of(stored["kind"], "random matches").restore(
                pool,
                Card.from_dict(stored["card"]),
                tuple(stored["thresholds"]),
                stored["state"],
                {name.removeprefix("match."): array for name, array in arrays.items()},
                embedder,
            )
        return cls(pool, card, counts, match, seed=data["seed"])


def _counts_of(arrays: Masks) -> list[Counts]:
    """One for each round of arrays with a round axis, else one."""
    n = arrays.keep.shape[-1]
    keep = arrays.keep.reshape(-1, n)
    spatial, temporal = arrays.spatial.reshape(-1, n, n), arrays.temporal.reshape(-1, n, n)
    return [
        Counts(int(k.sum()), int(s.sum()), int(t.sum()))
        for k, s, t in zip(keep, spatial, temporal, strict=True)
    ]


def _draw(pool: Pool, wanted: Sequence[Counts], rng: np.random.Generator) -> Masks:
    """Arrays with (as far as the pool has them) the counts wanted; a round axis for several."""
    n, k = len(pool), len(wanted)
    keep = np.zeros((k, n), np.bool_)
    spatial, temporal = np.zeros((k, n, n), np.bool_), np.zeros((k, n, n), np.bool_)
    place = np.empty(n, np.int64)
    place[rng.permutation(n)] = np.arange(n)
    # In one order for all rounds edges point forward: together they are one DAG.
    forward = place[:, None] < place[None, :] if pool.edges == "complete" else np.ones((n, n), np.bool_)
    for r, counts in enumerate(wanted):
        keep[r, rng.choice(n, counts.agents, replace=False)] = True
        before = keep[r] if k == 1 else keep[r - 1] if r else np.zeros(n, np.bool_)
        ends = keep[r] & keep[r][:, None]
        spatial[r] = _some(pool.spatial_allowed & forward & ends, counts.spatial, rng)
        temporal[r] = _some(pool.temporal_allowed & keep[r] & before[:, None], counts.temporal, rng)
    return Masks(keep, spatial, temporal) if k > 1 else Masks(keep[0], spatial[0], temporal[0])


def _some(possible: BoolArray, count: int, rng: np.random.Generator) -> BoolArray:
    """``count`` of the possible pairs, or all of them where there are fewer; all choices alike."""
    places = np.flatnonzero(possible)
    chosen = np.zeros_like(possible)
    chosen.flat[rng.choice(places, min(count, len(places)), replace=False)] = True
    return chosen
