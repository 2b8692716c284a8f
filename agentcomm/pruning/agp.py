"""AGP, Adaptive Graph Pruning: which agents and which edges, for each item.

After arXiv 2506.02951 (``pruning.md`` section 3). A network reads the roles' texts and the item's
question and says how likely each agent is kept (*hard pruning*) and each edge is alive (*soft
pruning*). It learns in one of two ways:

* ``mode="paper"``: stage I mines good graphs by trying many (:mod:`agentcomm.pruning.mining`),
  stage II fits the network to them (:mod:`agentcomm.pruning.imitation`), and the network proposes
  what the next round of mining tries.
* ``mode="reinforce"``: the network is trained on rollouts directly
  (:mod:`agentcomm.pruning.reinforce`); it needs fewer of them.

What differs from the paper and its code: labels are verified across near items, directions of edges
are learned, every parameter is trained, weights stop at the best held-out loss, thresholds are
calibrated, graphs at inference are deterministic, and learning sees ``learn`` items only.
``profile="as_released"`` has the published network and losses, for comparison.

:func:`fit_records` is stage II alone, from records of any method. Deliberately absent: the command
line, and what a policy is compared with.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.evaluation.splits import SplitGuard, hash_of
from agentcomm.graph import Topology
from agentcomm.pruning import imitation, mining
from agentcomm.pruning.batches import Spending, check_items, metered, rollout_seed, stream, trace
from agentcomm.pruning.embeddings import Embedder, cached, embedder, notes_of
from agentcomm.pruning.environment import Budget, Environment, Metered, Outcome, Trial, run_trials
from agentcomm.pruning.imitation import Targets, Thresholds, Training
from agentcomm.pruning.inference import Architecture, Head, Layers, NetworkPolicy, Profile
from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.policy import Card, Policy
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import realise
from agentcomm.pruning.records import Record, labels
from agentcomm.pruning.reinforce import train_network
from agentcomm.task import Item

Mode = Literal["paper", "reinforce"]
Calibration = Literal["labels", "rollout", "none"]

WEIGHTS, BATCHES, CHOICE = 21, 22, 23
"""Numbers of this module's generators among those of a seed."""
CURVE = 1_000_000
"""Iteration that seeds the rollouts of the accuracy-token curve."""
RELEASED = Thresholds(0.55, 0.5)
DIAGONAL = (0.1, 0.3, 0.5, 0.7, 0.9)
PAIRS = tuple(Thresholds(n, e) for n in (0.2, 0.4, 0.6, 0.8) for e in (0.25, 0.5, 0.75))
"""The 12 pairs of thresholds that ``calibration="rollout"`` runs."""
ENOUGH = 0.6
"""Below this share of the default plan's rollouts, paper mode is not expected to work."""
FEW = 9_600
"""With fewer rollouts a method for few of them does better (eval/results/learners.json)."""


@dataclass(frozen=True)
class AGP:
    """Adaptive Graph Pruning; see the module for the paper and what differs.

    Parameters
    ----------
    seed:
        Of mining, initial weights, batches and draws, each with a generator of its own.
    embedder:
        Of roles and questions; ``None`` is MiniLM where a package carries it, else hashed words, and
        the card says so (:func:`~agentcomm.pruning.embeddings.embedder`).
    mode, profile:
        ``"paper"`` or ``"reinforce"``; ``"corrected"`` or ``"as_released"``.
    rounds, candidates, first, second, best:
        R, M, v1, v2 and k of mining: n R (M + 4k v1 + 2k v2) rollouts for n items, 576 an item. The
        plan is cut to the budget before it starts; far below it finds nothing (the card says so).
    rule:
        ``"verified"``, or ``"cheapest"``: the negative control "correct, then fewest tokens".
    iterations, queries, group, lr, entropy:
        Of ``mode="reinforce"`` (:func:`~agentcomm.pruning.reinforce.train_network`).
    training:
        Of stage II; ``None`` is that of the profile.
    calibration:
        Where thresholds come from. ``"labels"``: most like the held-out labels, without a rollout
        (``mode="reinforce"`` has none and stays at 0.5). ``"rollout"``: at most 12 pairs of
        thresholds are run on held-out items, and of those near the best utility the one with the
        fewest tokens is taken. ``"none"``: 0.5. As released they are 0.55 and 0.5, always.
    frugality:
        The trade of accuracy for tokens. ``"labels"``: thresholds maximise F_beta, beta = 1 /
        frugality, so above 1 a superfluous agent or edge weighs more than a missing one.
        ``"rollout"``: "near the best" means within so many of its standard errors. What a token is
        worth while learning is the environment's ``price``.
    curve:
        Whether to run held-out items at several thresholds after learning, for the card's
        accuracy-token curve: at most a tenth of the budget.
    head, layers:
        ``"symmetric"`` and ``"gcn"`` are negative controls.
    temperature:
        tau of edge probabilities.
    learn_nodes:
        ``False`` keeps every agent: soft pruning alone.
    message_graph:
        [N, N], whom each agent hears inside the network; everyone by default.
    """

    name: ClassVar[str] = "agp"
    paper: ClassVar[str] = "Adaptive Graph Pruning, arXiv 2506.02951"

    seed: int = 0
    embedder: Embedder | None = None
    mode: Mode = "paper"
    profile: Profile = "corrected"
    rounds: int = 6
    candidates: int = 16
    first: int = 4
    second: int = 12
    best: int = 2
    rule: mining.Rule = "verified"
    iterations: int = 600
    queries: int = 8
    group: int = 8
    lr: float = 0.003
    entropy: float | None = None
    training: Training | None = None
    calibration: Calibration = "labels"
    frugality: float = 1.0
    curve: bool = True
    head: Head = "directed"
    layers: Layers = "separate"
    temperature: float = 1.0
    learn_nodes: bool = True
    message_graph: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        for name, words in (("mode", Mode), ("calibration", Calibration), ("rule", mining.Rule)):
            if getattr(self, name) not in get_args(words):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}; use one of {', '.join(map(repr, get_args(words)))}"
                )
        if not self.frugality > 0:
            raise ConfigError(f"frugality={self.frugality}; it must be above 0")

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> NetworkPolicy:
        """Learn from rollouts on ``items``.

        Raises
        ------
        LimitExceeded
            If the budget doesn't allow a single graph; in the middle, for a limit on tokens or money.
            With recorded rollouts the same call goes on from there.
        TaskError
            For items that aren't of the ``learn`` split, or if nothing can be learned: all rollouts
            failed, or all labels are alike.
        ConfigError
            For settings that make no sense, or if a loss is no longer a number.
        """
        items = check_items(items)
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        look = cached(self.embedder if self.embedder is not None else embedder())
        notes = [*notes_of(look)]
        held = [item for item, out in zip(items, imitation.hold_out(items), strict=True) if out] or [*items]
        reserve = self._reserve(meter, len(held))
        if self.mode == "paper":
            learned = await self._paper(items, meter, look, reserve)
        else:
            learned = await self._reinforce(items, meter, look, reserve)
        policy = NetworkPolicy(
            meter.pool,
            Card(self.name),
            learned.network.architecture,
            learned.network.arrays(),
            look,
            learn_nodes=self.learn_nodes,
        )
        policy.node_threshold, policy.edge_threshold = learned.thresholds
        told = dict(learned.trace)
        left = meter.rollouts_left  # a short plan may have used what was meant to stay
        reserve = reserve if left is None else min(reserve, left)
        if self.calibration == "rollout" and self.profile != "as_released":
            points = await accuracy_tokens(policy, held, meter, PAIRS, seed=self.seed, most=reserve)
            if best := choose(points, self.frugality):
                policy.node_threshold, policy.edge_threshold = best
            else:
                notes.append("no rollouts were left to calibrate thresholds with; they are 0.5")
            told["curve"] = points
        elif self.curve:
            pairs = dict.fromkeys([*(Thresholds(t, t) for t in DIAGONAL), learned.thresholds])
            told["curve"] = await accuracy_tokens(
                policy, held, meter, tuple(pairs), seed=self.seed, most=reserve
            )
        policy.card = Card(
            method=self.name,
            profile=self.profile,
            seed=self.seed,
            settings=self.settings(look),
            learned_from=frozenset(map(hash_of, items)),
            spent=spending.since(),
            paper=AGP.paper,
            notes=(*notes, *learned.notes),
            trace=told,
        )
        return policy

    def settings(self, embedding: Embedder) -> dict[str, Any]:
        """All hyperparameters, as JSON."""
        found = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("seed", "embedder")
        }
        graph = self.message_graph
        return {
            **found,
            "embedding": embedding.id,
            "training": self._training.to_dict(),
            "message_graph": None if graph is None else np.asarray(graph, dtype=int).tolist(),
        }

    @property
    def _training(self) -> Training:
        if self.training is not None:
            return self.training
        return Training.released() if self.profile == "as_released" else Training()

    def _reserve(self, meter: Metered, held: int) -> int:
        """Rollouts kept for the time after learning."""
        if self.calibration == "rollout" and self.profile != "as_released":
            wanted = len(PAIRS) * held
        else:
            wanted = (len(DIAGONAL) + 1) * held if self.curve else 0
        left = meter.rollouts_left
        return wanted if left is None else min(wanted, left // 10)

    def _network(self, pool: Pool, dimensions: int, k: int) -> TopologyNetwork:
        architecture = Architecture(
            len(pool), dimensions, self.profile, self.head, self.layers, self.temperature
        )
        seed = int(np.random.default_rng([self.seed, WEIGHTS, k]).integers(2**31))
        return TopologyNetwork(architecture, seed, self.message_graph)

    # -- stage I and II ----------------------------------------------------------------------

    async def _paper(self, items: tuple[Item, ...], meter: Metered, look: Embedder, reserve: int) -> _Learned:
        left = meter.rollouts_left
        wanted = mining.Plan(len(items), self.rounds, self.candidates, self.first, self.second, self.best)
        plan = wanted.within(None if left is None else left - reserve)
        notes = [f"mined with {plan}"]
        if plan.items < len(items):
            chosen = stream(self.seed, CHOICE).permutation(len(items))[: plan.items]
            items = tuple(items[k] for k in sorted(chosen.tolist()))
        default = mining.Plan(wanted.items)
        if plan.rollouts < ENOUGH * default.rollouts:
            notes.append(
                f"{plan.rollouts} rollouts are too few for mode 'paper' to be expected to work (about "
                f"{default.rollouts} for {wanted.items} items); use mode 'reinforce', or more rollouts"
            )
        notes += _few(plan.rollouts)
        vectors = look.embed([item.question for item in items])
        proposer: NetworkPolicy | None = None
        told: list[dict[str, Any]] = []
        for r in range(1, plan.rounds + 1):
            found = await mining.mine(
                meter,
                items,
                vectors,
                plan,
                seed=self.seed,
                stage_round=r,
                proposer=proposer.propose if proposer is not None else None,
                rule=self.rule,
                learn_nodes=self.learn_nodes,
            )
            fitted = self._fit(meter.pool, look, _targets(meter.pool, found, look), _held(found), r)
            network = fitted.network
            proposer = NetworkPolicy(
                meter.pool,
                Card(self.name),
                network.architecture,
                network.arrays(),
                look,
                learn_nodes=self.learn_nodes,
            )
            told.append(
                {
                    "round": r,
                    "labels": len(found),
                    "label_utility": float(np.mean([label.utility for label in found])),
                    "label_agents": float(np.mean([label.realisation.keep.sum() for label in found])),
                    "label_edges": float(np.mean([label.realisation.spatial.sum() for label in found])),
                    "losses": fitted.losses,
                }
            )
        return _Learned(fitted.network, fitted.thresholds, {"rounds": told}, (*notes, *fitted.notes))

    def _fit(self, pool: Pool, look: Embedder, targets: Targets, held: Sequence[bool], k: int) -> _Fitted:
        """A fresh network fitted to labels; ``held`` says which of them early stopping is left with."""
        notes = targets.check(learn_nodes=self.learn_nodes)
        out = np.array(held, dtype=np.bool_)
        inside, outside = targets.part(~out), targets.part(out)
        if not len(inside):
            inside = targets
        if not len(outside):
            notes += ("no second item to stop early by: the last weights stay, thresholds fit the labels",)
        network = self._network(pool, look.dimensions, k)
        roles = look.embed([agent.role for agent in pool.agents])
        rng = np.random.default_rng([self.seed, BATCHES, k])
        losses = imitation.train(
            network, roles, inside, outside, self._training, rng, learn_nodes=self.learn_nodes
        )
        thresholds = RELEASED if self.profile == "as_released" else Thresholds()
        if self.calibration == "labels" and self.profile != "as_released":
            probe = NetworkPolicy(pool, Card(self.name), network.architecture, network.arrays(), look)
            judged = outside if len(outside) else targets
            said = [probe.probabilities(query) for query in judged.queries]
            thresholds = imitation.calibrate(
                np.array([p.keep for p in said]),
                np.array([p.edge for p in said]),
                judged,
                frugality=self.frugality,
            )
        return _Fitted(network, thresholds, losses, notes)

    # -- rollouts directly -------------------------------------------------------------------

    async def _reinforce(
        self, items: tuple[Item, ...], meter: Metered, look: Embedder, reserve: int
    ) -> _Learned:
        network = self._network(meter.pool, look.dimensions, 0)
        iterations, batch = self.iterations, self.queries * self.group
        if (left := meter.rollouts_left) is not None:
            iterations = min(iterations, max(1, (left - reserve) // batch))
        batches = await train_network(
            network,
            items,
            meter,
            look,
            iterations=iterations,
            queries=self.queries,
            group=self.group,
            lr=self.lr,
            entropy=self.entropy,
            learn_nodes=self.learn_nodes,
            seed=self.seed,
        )
        thresholds = RELEASED if self.profile == "as_released" else Thresholds()
        notes = (f"trained directly for {len(batches)} iterations", *_few(sum(b.rollouts for b in batches)))
        return _Learned(network, thresholds, {"batches": trace(batches)}, notes)


def _few(rollouts: int) -> tuple[str, ...]:
    """What to do instead with so few rollouts."""
    if rollouts >= FEW:
        return ()
    return (
        f"{rollouts:,} rollouts are few for agp in either mode (with 3,000 it was hardly better than a random team "
        f"of its size on the standard planted world); method 'frugal' is made for a few hundred to a few thousand",
    )


class _Fitted(NamedTuple):
    network: TopologyNetwork
    thresholds: Thresholds
    losses: list[dict[str, float]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Learned:
    network: TopologyNetwork
    thresholds: Thresholds
    trace: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _targets(pool: Pool, found: Sequence[mining.Label], look: Embedder) -> Targets:
    return Targets(
        look.embed([label.item.question for label in found]),
        np.array([label.realisation.keep for label in found]),
        np.array([label.realisation.spatial for label in found]),
        np.array([label.realisation.temporal for label in found]),
        np.array([label.weight for label in found]),
        pool.spatial_allowed,
        pool.temporal_allowed,
    )


def _held(found: Sequence[mining.Label]) -> list[bool]:
    return imitation.hold_out([label.item for label in found])


# ------------------------------------------------------------------------- stage II alone


def fit_records(
    records: Iterable[Record],
    pool: Pool,
    embedding: Embedder,
    guard: SplitGuard,
    learner: AGP | None = None,
) -> NetworkPolicy:
    """A policy fitted to stored records, without a rollout: stage II of AGP alone.

    Parameters
    ----------
    records:
        Of any method; those with a weight are imitated. Of labels that AGP mined in several rounds
        an item's latest count.
    guard:
        The experiment's splits: records of ``validate`` or ``score`` items are refused.
    learner:
        Its seed, profile, training, calibration, frugality and network count.

    Raises
    ------
    TaskError
        For records of another split, or if there is no label or a single class of them.
    ConfigError
        For records of another team, or of graphs that differ from round to round, which the network
        can't express; if a loss is no longer a number.
    """
    learner = learner or AGP()
    usable = _latest(labels(records, guard))
    for record in usable:
        record.topology(pool)  # refuses another team's
        if np.ndim(record.keep) != 1:
            raise ConfigError(
                f"the record of item {record.item!r} has other agents or edges in each round, which a network "
                f"can't imitate; leave those records out"
            )
    look = cached(embedding)
    arrays = [record.arrays for record in usable]
    targets = Targets(
        look.embed([record.query for record in usable]),
        np.array([a.keep for a in arrays]),
        np.array([a.spatial for a in arrays]),
        np.array([a.temporal for a in arrays]),
        np.array([record.weight for record in usable]),
        pool.spatial_allowed,
        pool.temporal_allowed,
    )
    held = imitation.hold_out_hashes([record.item_hash for record in usable])
    fitted = learner._fit(pool, look, targets, held, 0)
    card = Card(
        method=learner.name,
        profile=learner.profile,
        seed=learner.seed,
        settings=learner.settings(look),
        learned_from=frozenset(record.item_hash for record in usable),
        spent={"rollouts": 0},
        model=usable[0].model,
        paper=AGP.paper,
        notes=(*notes_of(look), f"fitted to {len(usable)} stored labels, without a rollout", *fitted.notes),
        trace={"losses": fitted.losses},
    )
    return NetworkPolicy(
        pool,
        card,
        fitted.network.architecture,
        fitted.network.arrays(),
        look,
        learn_nodes=learner.learn_nodes,
        node_threshold=fitted.thresholds.node,
        edge_threshold=fitted.thresholds.edge,
    )


def _latest(records: Sequence[Record]) -> list[Record]:
    last: dict[str, int] = {}
    for record in records:
        last[record.item_hash] = max(record.stage_round, last.get(record.item_hash, 0))
    return [r for r in records if r.stage_round == last[r.item_hash]]


# ----------------------------------------------------------------- accuracy against tokens


async def accuracy_tokens(
    policy: Policy,
    items: Sequence[Item],
    environment: Environment,
    pairs: Sequence[Thresholds],
    *,
    seed: int = 0,
    most: int | None = None,
) -> list[dict[str, float | None]]:
    """What a policy is worth on ``items`` at several thresholds: the accuracy-token curve.

    Parameters
    ----------
    pairs:
        Thresholds to try. Where two give an item the same graph it is run once.
    most:
        How many rollouts may be used at most; items are left out from the end.

    Returns
    -------
    list[dict]
        For each pair ``node_threshold``, ``edge_threshold``, means of ``correct``, ``utility`` and
        ``tokens`` over ``n`` items (failed ones left out), the ``error`` (standard error) of the
        utility, and means of ``agents`` and ``edges``. By tokens, fewest first.
    """
    if most is not None:
        items = items[: most // len(pairs)]
    if not items:
        return []
    trials: list[Trial] = []
    place: dict[tuple[int, Topology], int] = {}
    used: list[list[int]] = [[] for _ in pairs]
    sizes: list[list[tuple[int, int]]] = [[] for _ in pairs]
    for at, item in enumerate(items):
        proposal = policy.propose(item)
        for k, pair in enumerate(pairs):
            drawn = realise(proposal, policy.pool, node_threshold=pair.node, edge_threshold=pair.edge)
            key = at, drawn.topology
            if key not in place:
                place[key] = len(trials)
                trials.append(Trial(item, drawn.topology, rollout_seed(seed, CURVE, at), drawn, proposal))
            used[k].append(place[key])
            sizes[k].append((int(drawn.keep.sum()), int(drawn.spatial.sum())))
    outcomes = await run_trials(environment, trials)
    rows = [_point(pair, [outcomes[j] for j in used[k]], sizes[k]) for k, pair in enumerate(pairs)]
    return sorted(rows, key=lambda row: math.inf if row["tokens"] is None else row["tokens"])


def _point(
    pair: Thresholds, outcomes: Sequence[Outcome], sizes: Sequence[tuple[int, int]]
) -> dict[str, float | None]:
    known = [o for o in outcomes if o.utility is not None]
    utilities = [o.utility for o in known if o.utility is not None]
    tokens = [o.total_tokens for o in known]
    agents, edges = np.mean(sizes, axis=0).tolist()
    return {
        "node_threshold": pair.node,
        "edge_threshold": pair.edge,
        "n": len(known),
        "correct": float(np.mean([o.correct for o in known if o.correct is not None])) if known else None,
        "utility": float(np.mean(utilities)) if known else None,
        "error": float(np.std(utilities, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None,
        "tokens": float(np.mean([t for t in tokens if t is not None]))
        if known and None not in tokens
        else None,
        "agents": agents,
        "edges": edges,
    }


def choose(points: Sequence[dict[str, float | None]], frugality: float = 1.0) -> Thresholds | None:
    """Of the points within ``frugality`` standard errors of the best mean utility, the one with the
    fewest tokens (unknown ones last); ``None`` where no utility is known.

    >>> best = {"node_threshold": 0.5, "edge_threshold": 0.5, "utility": 0.8, "error": 0.1, "tokens": 900.0}
    >>> less = {**best, "node_threshold": 0.7, "utility": 0.75, "tokens": 500.0}
    >>> choose([best, less]), choose([best, less], frugality=0.1)
    (Thresholds(node=0.7, edge=0.5), Thresholds(node=0.5, edge=0.5))
    """
    known = [p for p in points if p["utility"] is not None]
    if not known:
        return None

    def cheap(point: dict[str, float | None]) -> tuple[float, float]:
        tokens = point["tokens"]
        return (math.inf if tokens is None else tokens, -(point["utility"] or 0.0))

    best = max(known, key=lambda p: (p["utility"] or 0.0, -cheap(p)[0]))
    floor = (best["utility"] or 0.0) - frugality * (best["error"] or 0.0)
    point = min((p for p in known if (p["utility"] or 0.0) >= floor), key=cheap)
    return Thresholds(float(point["node_threshold"] or 0.0), float(point["edge_threshold"] or 0.0))
