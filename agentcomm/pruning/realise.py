"""Realise: edge probabilities become one concrete topology, always acyclic, always heard.

Two modes (``pruning.md`` section 2.2):

* ``"threshold"``, the default and deterministic: agents with q above ``node_threshold``; pairs with
  p above ``edge_threshold`` are visited by (-p, i, j), and accepted unless they close a cycle.
* ``"bernoulli"``: agents are drawn with q; all kept pairs are visited in a recorded order, a random
  permutation by default. A pair that would close a cycle is not considered; every other one is
  drawn with p. The log-probability is that of these draws.

A probability of exactly 0 or 1 is certain: it is obeyed, isn't counted as considered or sampled,
and contributes no log-probability (fixed edges and fixed topologies are such).

*Cycles* are told by one bitset of reachable vertices for each vertex: a test is one bit, an
accepted edge costs O(N) word operations.

*Connectivity.* After realisation every kept agent's words can reach the decision agent, and at
least one agent is kept:

1. If no agent is drawn, the one with the largest q is kept (the lowest index on ties).
2. In a complete pool the decision agent reads every kept agent (or every sink), so nobody is cut
   off: isolation is not removal, an agent without edges still runs and is read.
3. Where the user's graph says whom the decision agent reads (or ``decision_scope="last"``), a kept
   agent none of whose turns can reach the answer is removed: it would be paid for and can't change
   the answer. If that leaves nobody, the agent with the largest q among those that the decision
   agent reads directly is kept. (With a round axis, too, agents are removed that no round makes
   heard; an early round may so become empty.)

``raw_keep``, ``raw_spatial`` and ``raw_temporal`` are the draws before these rules, to which the
log-probability belongs; ``keep``, ``spatial`` and ``temporal`` are what is executed.

With a leading round axis each round has draws of its own, and without one a draw serves all
rounds. The spatial edges of all rounds together form one DAG, as an :class:`AgentGraph` needs.

Deliberately absent: gradients of anything but the log-probability, and torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentcomm.errors import GraphError
from agentcomm.graph import Topology
from agentcomm.pruning.pool import BoolArray, FloatArray, IntArray, Pool

Mode = Literal["threshold", "bernoulli"]
Order = Literal["random", "row_major"]

CLAMP = 1e-6
"""Probabilities are clamped to [CLAMP, 1 - CLAMP] in log-probabilities, never in draws."""


@dataclass(frozen=True, eq=False)
class EdgeProbabilities:
    """How likely each agent is kept and each edge is alive, given that both its ends are.

    Parameters
    ----------
    keep:
        q, [N] or [K, N].
    spatial, temporal:
        p, [N, N] or [K, N, N]; row sends, column receives. The spatial diagonal is ignored.
    spatial_mask, temporal_mask:
        Which pairs may be edges at all; same shapes as the probabilities.

    Arrays are copied and read-only. :meth:`of` has defaults for all but ``keep`` and ``spatial``.

    Raises
    ------
    GraphError
        For shapes that don't fit together, or values that are no probabilities (NaN included).
    """

    keep: FloatArray
    spatial: FloatArray
    temporal: FloatArray
    spatial_mask: BoolArray
    temporal_mask: BoolArray

    def __post_init__(self) -> None:
        shape = np.shape(self.keep)
        if len(shape) not in (1, 2) or 0 in shape:
            raise GraphError(f"keep probabilities of shape {shape}; expected [N], or [rounds, N]")
        square = (*shape, shape[-1])
        for name in ("keep", "spatial", "temporal"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (shape if name == "keep" else square):
                raise GraphError(
                    f"{name} probabilities of shape {array.shape} beside keep of {shape}; expected {square}"
                )
            if not (array.min() >= 0.0 and array.max() <= 1.0):  # NaN compares false
                bad = array[~((array >= 0.0) & (array <= 1.0))].flat[0]
                raise GraphError(f"{name} probabilities contain {bad}; each must lie between 0 and 1")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for name in ("spatial_mask", "temporal_mask"):
            mask = np.array(getattr(self, name), dtype=np.bool_)
            if mask.shape != square:
                raise GraphError(f"{name} of shape {mask.shape} beside keep of {shape}; expected {square}")
            if name == "spatial_mask":
                mask[..., range(shape[-1]), range(shape[-1])] = False
            mask.flags.writeable = False
            object.__setattr__(self, name, mask)

    @classmethod
    def of(
        cls,
        keep: ArrayLike,
        spatial: ArrayLike,
        temporal: ArrayLike | None = None,
        spatial_mask: ArrayLike | None = None,
        temporal_mask: ArrayLike | None = None,
    ) -> EdgeProbabilities:
        """Probabilities from anything array-like; no temporal edges and full masks by default.

        >>> EdgeProbabilities.of([1, 0.5], [[0, 0.3], [0.7, 0]]).n
        2
        """
        p = np.asarray(spatial, dtype=np.float64)
        return cls(
            np.asarray(keep, dtype=np.float64),
            p,
            np.zeros_like(p) if temporal is None else np.asarray(temporal, dtype=np.float64),
            np.ones(p.shape, np.bool_) if spatial_mask is None else np.asarray(spatial_mask, np.bool_),
            np.ones(p.shape, np.bool_) if temporal_mask is None else np.asarray(temporal_mask, np.bool_),
        )

    @classmethod
    def constant(
        cls, n: int, keep: float = 1.0, edge: float = 0.5, *, rounds: int | None = None
    ) -> EdgeProbabilities:
        """The same q for ``n`` agents and the same p for all pairs, spatial and temporal."""
        lead = () if rounds is None else (rounds,)
        p = np.full((*lead, n, n), edge)
        return cls.of(np.full((*lead, n), keep), p, p)

    @classmethod
    def of_topology(cls, pool: Pool, topology: Topology) -> EdgeProbabilities:
        """Probabilities 0 and 1: what fixed topologies and controls propose."""
        return cls.of(*pool.arrays(topology))

    @property
    def n(self) -> int:
        """How many agents."""
        return int(self.keep.shape[-1])

    @property
    def rounds(self) -> int | None:
        """Length of the round axis, ``None`` without one."""
        return int(self.keep.shape[0]) if self.keep.ndim == 2 else None


@dataclass(frozen=True, eq=False)
class Realisation:
    """A topology and how it came about; arrays as in :class:`EdgeProbabilities`, booleans.

    Parameters
    ----------
    topology:
        What runs.
    keep, spatial, temporal:
        The same as arrays: what is executed. These are labels.
    raw_keep, raw_spatial, raw_temporal:
        What was drawn, or passed the threshold, before connectivity was seen to.
    order:
        [M, 2] pairs (i, j) in the order in which they were visited; [M, 3] (round counted from 0,
        i, j) with a round axis. In threshold mode these are the candidates.
    considered, temporal_considered:
        Pairs that were drawn (threshold mode: accepted). Never labels.
    sampled:
        Agents that were drawn.
    log_prob:
        Natural logarithm of the probability of the draws, given ``order``; ``None`` in threshold mode.
    seed:
        ``realise(..., rng=seed)`` makes this realisation again; ``None`` in threshold mode.
    mode:
        ``"threshold"`` or ``"bernoulli"``.
    """

    topology: Topology
    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray
    raw_keep: BoolArray
    raw_spatial: BoolArray
    raw_temporal: BoolArray
    order: IntArray
    considered: BoolArray
    temporal_considered: BoolArray
    sampled: BoolArray
    log_prob: float | None
    seed: int | None
    mode: Mode


class Closure:
    """Which vertices of a growing DAG are reachable from which: one bitset a vertex, itself included."""

    __slots__ = ("reach",)

    def __init__(self, n: int) -> None:
        self.reach = [1 << i for i in range(n)]

    def closes_cycle(self, i: int, j: int) -> bool:
        """Whether i->j would close a cycle: one bit of one word."""
        return bool(self.reach[j] >> i & 1)

    def add(self, i: int, j: int) -> None:
        """Accept i->j, which must not close a cycle: at most one operation for each vertex."""
        reach, gained = self.reach, self.reach[j]
        if reach[i] | gained == reach[i]:
            return  # j was reachable already, and so is everything beyond it, from everything before i
        for a, known in enumerate(reach):
            if known >> i & 1:
                reach[a] = known | gained


def realise(
    probabilities: EdgeProbabilities,
    pool: Pool,
    *,
    mode: Mode = "threshold",
    node_threshold: float = 0.5,
    edge_threshold: float = 0.5,
    rng: np.random.Generator | int | None = None,
    order: Order | ArrayLike = "random",
) -> Realisation:
    """One topology of ``pool`` from ``probabilities``.

    Parameters
    ----------
    mode, node_threshold, edge_threshold:
        See the module; what lies exactly on a threshold is out.
    rng:
        For ``"bernoulli"``: a generator, from which one number is drawn, or that number, a seed.
    order:
        In which kept pairs are visited by ``"bernoulli"``: ``"random"``, ``"row_major"`` (as some
        released code does; it favours edges from low to high), or pairs [M, 2], of which those
        with both ends kept are visited and which must hold all of these.

    Raises
    ------
    GraphError
        If the probabilities don't fit the pool, or an argument is none of the above.
    """
    n, rounds = len(pool), probabilities.rounds
    if probabilities.n != n:
        raise GraphError(f"probabilities for {probabilities.n} agents; the pool has {n}")
    if rounds not in (None, pool.rounds):
        raise GraphError(f"probabilities for {rounds} rounds; the graph has {pool.rounds}")
    if mode not in ("threshold", "bernoulli"):
        raise GraphError(f"unknown mode {mode!r}; use 'threshold' or 'bernoulli'")
    chance: np.random.Generator | None = None
    seed: int | None = None
    if mode == "bernoulli":
        if rng is None:
            raise GraphError("mode 'bernoulli' needs rng=, a numpy generator or a seed")
        seed = int(rng.integers(2**63)) if isinstance(rng, np.random.Generator) else int(rng)
        chance = np.random.default_rng(seed)

    q = probabilities.keep.reshape(-1, n)
    p = probabilities.spatial.reshape(-1, n, n)
    pt = probabilities.temporal.reshape(-1, n, n)
    may = probabilities.spatial_mask.reshape(-1, n, n) & pool.spatial_allowed
    may_t = probabilities.temporal_mask.reshape(-1, n, n) & pool.temporal_allowed
    passed = q > node_threshold if chance is None else chance.random(q.shape) < q
    keep = passed.copy()
    for r in range(len(q)):
        if not keep[r].any():
            keep[r, int(q[r].argmax())] = True
    draw = _Draw(np.zeros_like(may), np.zeros_like(may), [])
    closure = Closure(n)  # one for all rounds: together they are one DAG
    for r in range(len(q)):
        pairs = may[r] & keep[r] & keep[r][:, None]
        if chance is None:
            _threshold(draw, r, p[r], pairs & (p[r] > edge_threshold), closure)
        else:
            _bernoulli(draw, r, p[r], _visit(order, pairs, chance), closure, chance)
    # A temporal edge of round r carries what was said in r - 1; without a round axis both are one.
    before = keep if rounds is None else np.vstack([np.zeros((1, n), np.bool_), keep[:-1]])
    pairs_t = may_t & keep[:, None, :] & before[:, :, None]
    temporal = pairs_t.copy()
    if pairs_t.any():
        temporal &= pt > edge_threshold if chance is None else chance.random(pt.shape) < pt

    shape = probabilities.keep.shape
    raw = _Raw(
        passed.reshape(shape),
        draw.spatial.reshape(*shape, n),
        temporal.reshape(*shape, n),
    )
    executed = _connect(pool, probabilities.keep, _Raw(keep.reshape(shape), raw.spatial, raw.temporal))
    uncertain_t = pairs_t & (pt > 0.0) & (pt < 1.0) if chance is not None else temporal
    visited = np.array(draw.order, dtype=np.int64).reshape(-1, 3)
    realisation = Realisation(
        topology=pool.topology(*executed),
        keep=executed.keep,
        spatial=executed.spatial,
        temporal=executed.temporal,
        raw_keep=raw.keep,
        raw_spatial=raw.spatial,
        raw_temporal=raw.temporal,
        order=visited if rounds is not None else visited[:, 1:],
        considered=draw.considered.reshape(*shape, n),
        temporal_considered=uncertain_t.reshape(*shape, n),
        sampled=((q > 0.0) & (q < 1.0) if chance is not None else np.zeros_like(keep)).reshape(shape),
        log_prob=None,
        seed=seed,
        mode=mode,
    )
    if chance is not None:
        object.__setattr__(realisation, "log_prob", log_probability(realisation, probabilities))
    return realisation


class _Raw(NamedTuple):
    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray


class _Draw(NamedTuple):
    """Spatial edges as they come about: [R, N, N] each, and the visits (round, i, j)."""

    spatial: BoolArray
    considered: BoolArray
    order: list[tuple[int, int, int]]


def _threshold(draw: _Draw, r: int, p: FloatArray, candidates: BoolArray, closure: Closure) -> None:
    senders, readers = candidates.nonzero()
    # nonzero is row-major and the sort is stable: ties stay ordered by (i, j).
    for at in np.argsort(-p[senders, readers], kind="stable").tolist():
        i, j = int(senders[at]), int(readers[at])
        draw.order.append((r, i, j))
        if not closure.closes_cycle(i, j):
            closure.add(i, j)
            draw.spatial[r, i, j] = draw.considered[r, i, j] = True


def _bernoulli(
    draw: _Draw, r: int, p: FloatArray, visits: IntArray, closure: Closure, chance: np.random.Generator
) -> None:
    likely = p[visits[:, 0], visits[:, 1]]
    drawn = (chance.random(len(visits)) < likely).tolist()
    for (i, j), yes, p_ij in zip(visits.tolist(), drawn, likely.tolist(), strict=True):
        draw.order.append((r, i, j))
        if closure.closes_cycle(i, j):
            continue
        if 0.0 < p_ij < 1.0:
            draw.considered[r, i, j] = True
        if yes:
            closure.add(i, j)
            draw.spatial[r, i, j] = True


def _visit(order: Order | ArrayLike, pairs: BoolArray, chance: np.random.Generator) -> IntArray:
    """The kept pairs in the order in which they are visited, [M, 2]."""
    found: IntArray = np.argwhere(pairs).astype(np.int64)
    if isinstance(order, str):
        if order == "random":
            return chance.permutation(found)
        if order == "row_major":
            return found
        raise GraphError(f"unknown order {order!r}; use 'random', 'row_major' or the pairs themselves")
    given: NDArray[np.int64] = np.array(order, dtype=np.int64)
    n = len(pairs)
    if given.ndim != 2 or given.shape[1] != 2 or ((given < 0) | (given >= n)).any():
        raise GraphError(f"an order of shape {given.shape}; expected pairs [M, 2] of indices below {n}")
    visits = given[pairs[given[:, 0], given[:, 1]]]
    if len({(i, j) for i, j in visits.tolist()}) != len(visits) or len(visits) != len(found):
        raise GraphError(
            f"the order visits {len(visits)} of {len(found)} pairs; it must hold each possible pair once"
        )
    return visits


def _connect(pool: Pool, q: FloatArray, raw: _Raw) -> _Raw:
    """What is executed: without agents that reach nobody, and never without any (module, rule 3)."""
    if pool.always_connected and raw.keep.ndim == 1:
        return raw
    topology = pool.topology(*raw)
    useful = pool.team(topology).useful_agents(topology)
    reaches = np.array([name in useful for name in pool.names], dtype=np.bool_)
    keep: BoolArray = np.logical_and(raw.keep, reaches)
    last = q[-1] if q.ndim == 2 else q
    if not reaches.any():
        direct: BoolArray = pool.read_by_decision if pool.read_by_decision.any() else _read_later(pool)
        chosen = int(np.argmax(np.where(direct, last, -math.inf)))
        keep[..., chosen] = True
    ends = keep[..., None, :] & keep[..., :, None]
    # Temporal ends were kept in different rounds; pool.topology drops those of dead agents.
    alive: BoolArray = np.logical_or.reduce(keep.reshape(-1, len(pool)), axis=0)
    return _Raw(keep, raw.spatial & ends, raw.temporal & alive & alive[:, None])


def _read_later(pool: Pool) -> BoolArray:
    """[N]: the agents whom the decision agent reads a round later."""
    senders = {k.sender for k in pool.graph.by_key if k.reader == pool.decision}
    return np.array([name in senders for name in pool.names], dtype=np.bool_)


# ------------------------------------------------------------------------- log-probabilities


def log_probability(realisation: Realisation, probabilities: EdgeProbabilities) -> float:
    """log of the probability of the draws of ``realisation`` under ``probabilities``, given its order.

    Sum over the agents sampled of m log q + (1 - m) log(1 - q), and over the pairs considered,
    spatial and temporal, of A log p + (1 - A) log(1 - p); clamped. ``probabilities`` may be others
    than it was drawn from, for reweighting what was tried before: which pairs are considered
    follows from the order and the edges alone.
    """
    total = 0.0
    for happened, likely, counts in _terms(realisation, probabilities):
        if not counts.any():
            continue
        clamped = np.clip(likely[counts], CLAMP, 1.0 - CLAMP)
        total += float(np.log(np.where(happened[counts], clamped, 1.0 - clamped)).sum())
    return total


class LogitGradient(NamedTuple):
    """Of a log-probability with respect to logits; shapes as the probabilities'."""

    keep: FloatArray
    spatial: FloatArray
    temporal: FloatArray


def logit_gradient(realisation: Realisation, probabilities: EdgeProbabilities) -> LogitGradient:
    """The gradient of :func:`log_probability` where q and p are logistic functions of logits.

    m - q for agents sampled, A - p for pairs considered, 0 elsewhere (Williams 1992).
    """
    return LogitGradient(
        *(
            np.where(counts, happened - likely, 0.0)
            for happened, likely, counts in _terms(realisation, probabilities)
        )
    )


def _terms(
    realisation: Realisation, probabilities: EdgeProbabilities
) -> tuple[tuple[BoolArray, FloatArray, BoolArray], ...]:
    r = realisation
    if r.keep.shape != probabilities.keep.shape:
        raise GraphError(
            f"probabilities of shape {probabilities.keep.shape} for a realisation of {r.keep.shape}"
        )
    return (
        (r.raw_keep, probabilities.keep, r.sampled),
        (r.raw_spatial, probabilities.spatial, r.considered),
        (r.raw_temporal, probabilities.temporal, r.temporal_considered),
    )


# ----------------------------------------------------------------------------------- pruning


def prune_lowest(scores: ArrayLike, active: ArrayLike, share: float) -> BoolArray:
    """``active`` without its lowest-scored share: max(1, share times how many, rounded) are removed.

    Halves are rounded up; ties go by position; where nothing is active nothing is removed.

    >>> int(prune_lowest(np.arange(8), np.ones(8), 0.25).sum())
    6
    """
    values = np.asarray(scores, dtype=np.float64)
    left = np.array(active, dtype=np.bool_)
    if values.shape != left.shape or not 0.0 <= share <= 1.0:
        raise GraphError(
            f"scores of shape {values.shape} for {left.shape} edges, share {share}; "
            f"the shapes must agree and the share lie between 0 and 1"
        )
    if np.isnan(values[left]).any():
        raise GraphError("a score is NaN; what should be pruned can't be told")
    places = np.flatnonzero(left)
    removed = min(len(places), max(1, math.floor(share * len(places) + 0.5)))
    lowest = np.argsort(values.ravel()[places], kind="stable")[:removed]
    left.flat[places[lowest]] = False
    return left
