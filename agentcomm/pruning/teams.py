"""Teams: many topologies at once, as arrays, and the steps from one to the next.

What a search over topologies needs: random ones, the neighbours of some, those with one part less,
and the features that a value model sees.

Features say who is kept, who reads whom, and who *reaches* whom: a message is carried on by those
who read it, so what an agent knows depends on all before it, not only on its direct senders.

Deliberately absent: what a team is worth (:mod:`agentcomm.pruning.team_value`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from agentcomm.errors import GraphError
from agentcomm.graph import Topology
from agentcomm.pruning.pool import BoolArray, FloatArray, IntArray, Pool, levels
from agentcomm.pruning.realise import EdgeProbabilities, realise


class Team(NamedTuple):
    """One topology for all rounds: ``keep`` [N], ``spatial`` and ``temporal`` [N, N]."""

    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray


class Teams(NamedTuple):
    """Several: ``keep`` [B, N], ``spatial`` and ``temporal`` [B, N, N]."""

    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray

    @classmethod
    def of(cls, teams: Sequence[Team]) -> Teams:
        """Stacked."""
        return cls(*(np.stack(arrays) for arrays in zip(*teams, strict=True)))

    @property
    def size(self) -> int:
        """How many."""
        return len(self.keep)

    @property
    def keys(self) -> list[bytes]:
        """Equal for equal teams."""
        flat = np.concatenate([a.reshape(self.size, -1) for a in self], axis=1)
        return [row.tobytes() for row in np.packbits(flat, axis=1)]

    def one(self, at: int) -> Team:
        """One of them."""
        return Team(*(a[at] for a in (self.keep, self.spatial, self.temporal)))

    def take(self, places: IntArray | Sequence[int]) -> Teams:
        """Some of them."""
        return Teams(
            *(a[np.asarray(places, dtype=np.int64)] for a in (self.keep, self.spatial, self.temporal))
        )

    def and_(self, others: Teams) -> Teams:
        """These and others."""
        return Teams(
            np.concatenate([self.keep, others.keep]),
            np.concatenate([self.spatial, others.spatial]),
            np.concatenate([self.temporal, others.temporal]),
        )

    @property
    def distinct(self) -> Teams:
        """The first of each."""
        seen: dict[bytes, int] = {}
        for i, key in enumerate(self.keys):
            seen.setdefault(key, i)
        return self.take(list(seen.values()))


def smaller(team: Team) -> Teams | None:
    """All teams with one agent or one edge less: agents first, then spatial, then temporal edges.

    Never an empty one; ``None`` where there is none.
    """
    kept = np.flatnonzero(team.keep)
    agents = kept if len(kept) > 1 else kept[:0]
    edges = np.argwhere(np.stack([team.spatial, team.temporal]))
    count = len(agents) + len(edges)
    if not count:
        return None
    keep, spatial, temporal = (np.repeat(a[None], count, axis=0) for a in team)
    rows = np.arange(len(agents))
    keep[rows, agents] = False
    for array in (spatial, temporal):
        array[rows, agents] = False
        array[rows, :, agents] = False
    for row, (kind, i, j) in enumerate(edges.tolist(), start=len(agents)):
        (temporal if kind else spatial)[row, i, j] = False
    return Teams(keep, spatial, temporal)


class Space:
    """The teams that a pool allows."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.n = len(pool)
        self.spatial, self.temporal = pool.spatial_allowed, pool.temporal_allowed
        try:
            levels(self.spatial)
        except GraphError:
            self.ordered = False
        else:
            self.ordered = True  # any subset of the possible edges is a DAG: there is no order to choose
        self._executed: dict[bytes, Team] = {}

    @cached_property
    def complete(self) -> Team:
        """All agents and all edges; where edges may go either way, from low to high."""
        spatial = self.spatial if self.ordered else np.triu(self.spatial, 1)
        whole = Team(np.ones(self.n, np.bool_), spatial.copy(), self.temporal.copy())
        return self.executed(Teams.of([whole])).one(0)

    def executed(self, teams: Teams) -> Teams:
        """What would run: agents whose words reach nobody are left out, and somebody is kept."""
        if self.pool.always_connected and teams.keep.any(axis=1).all():
            return teams
        found = []
        for i, key in enumerate(teams.keys):
            if key not in self._executed:
                real = realise(EdgeProbabilities.of(*teams.one(i)), self.pool)
                self._executed[key] = Team(real.keep, real.spatial, real.temporal)
            found.append(self._executed[key])
        return Teams.of(found)

    def topology(self, team: Team) -> Topology:
        """As the pool's."""
        return self.pool.topology(*team)

    # -- random teams and steps --------------------------------------------------------------

    def random(self, count: int, rng: np.random.Generator) -> Teams:
        """Teams of any size from 2 in random order, with all or with half of the edges."""
        n = self.n
        sizes = rng.integers(min(2, n), n + 1, size=count)
        place = np.argsort(rng.random((count, n)), axis=1)
        keep = place < sizes[:, None]
        order = rng.random((count, n))
        density = np.where(rng.random((count, 1, 1)) < 0.5, 1.0, 0.5)
        both = keep[:, :, None] & keep[:, None, :]
        spatial = both & self._forward(order) & (rng.random(both.shape) < density)
        temporal = both & self.temporal & (rng.random(both.shape) < density)
        return self.executed(Teams(keep, spatial, temporal))

    def _forward(self, order: FloatArray) -> BoolArray:
        """[B, N, N]: the pairs that an order [B, N] allows to be edges."""
        if self.ordered:
            every: BoolArray = np.broadcast_to(self.spatial, (len(order), self.n, self.n))
            return every
        found: BoolArray = (order[:, :, None] < order[:, None, :]) & self.spatial
        return found

    def neighbours(self, teams: Teams, steps: IntArray, rng: np.random.Generator) -> Teams:
        """Each of ``teams`` after so many random steps [B]: an agent or an edge more, less or elsewhere."""
        keep, spatial, temporal = (a.copy() for a in teams)
        order = _orders(spatial, rng)
        for step in range(int(steps.max(initial=0))):
            kind = np.where(steps > step, rng.integers(6, size=len(steps)), -1)
            picks = rng.random(keep.shape)
            first_kept = np.where(keep, picks, -1.0).argmax(axis=1)
            first_absent = np.where(keep, -1.0, picks).argmax(axis=1)
            several, room = keep.sum(axis=1) > 1, ~keep.all(axis=1)

            rows = np.flatnonzero(((kind == 0) & room) | ((kind == 1) & several))
            if len(rows):  # a new agent, or one of the team elsewhere, with all or half of the edges there
                who = np.where(kind == 0, first_absent, first_kept)[rows]
                self._place(rows, who, keep, spatial, temporal, order, rng)
            rows = np.flatnonzero((kind == 2) & several)
            if len(rows):
                _clear(rows, first_kept[rows], keep, spatial, temporal)
            rows = np.flatnonzero((kind == 3) & room)
            if len(rows):  # another agent in the place of one
                seats = np.tile(np.arange(self.n), (len(rows), 1))
                here, old, new = np.arange(len(rows)), first_kept[rows], first_absent[rows]
                seats[here, old], seats[here, new] = new, old
                keep[rows] = np.take_along_axis(keep[rows], seats, axis=1)
                order[rows] = np.take_along_axis(order[rows], seats, axis=1)
                for array, may in ((spatial, self.spatial), (temporal, self.temporal)):
                    moved = np.take_along_axis(array[rows], seats[:, :, None], axis=1)
                    array[rows] = np.take_along_axis(moved, seats[:, None, :], axis=2) & may
            rows = np.flatnonzero(kind == 4)
            self._one_edge(
                rows, np.stack([spatial[rows], temporal[rows]], axis=1), spatial, temporal, False, rng
            )
            rows = np.flatnonzero(kind == 5)
            both = keep[rows, :, None] & keep[rows, None, :]
            free = np.stack(
                [
                    both & self._forward(order[rows]) & ~spatial[rows],
                    both & self.temporal & ~temporal[rows],
                ],
                axis=1,
            )
            self._one_edge(rows, free, spatial, temporal, True, rng)
        return self.executed(Teams(keep, spatial, temporal))

    def _place(
        self,
        rows: IntArray,
        who: IntArray,
        keep: BoolArray,
        spatial: BoolArray,
        temporal: BoolArray,
        order: FloatArray,
        rng: np.random.Generator,
    ) -> None:
        _clear(rows, who, keep, spatial, temporal)
        keep[rows, who] = True
        order[rows, who] = rng.random(len(rows)) * (order[rows].max(axis=1) + 0.5)
        density = np.where(rng.random((len(rows), 1)) < 0.5, 1.0, 0.5)
        forward = self._forward(order[rows])
        here = np.arange(len(rows))
        shape = (len(rows), self.n)
        spatial[rows, who] = forward[here, who] & keep[rows] & (rng.random(shape) < density)
        spatial[rows, :, who] = forward[here, :, who] & keep[rows] & (rng.random(shape) < density)
        if self.temporal.any():
            temporal[rows, who] = self.temporal[who] & keep[rows] & (rng.random(shape) < density)
            temporal[rows, :, who] = self.temporal[:, who].T & keep[rows] & (rng.random(shape) < density)

    def _one_edge(
        self,
        rows: IntArray,
        choices: BoolArray,
        spatial: BoolArray,
        temporal: BoolArray,
        value: bool,
        rng: np.random.Generator,
    ) -> None:
        """Set one of the ``choices`` [rows, 2, N, N] in each row that has any."""
        if not len(rows):
            return
        flat = choices.reshape(len(rows), -1)
        if not self.temporal.any():
            flat = flat[:, : self.n * self.n]
        chosen = np.where(flat, rng.random(flat.shape), -1.0).argmax(axis=1)
        some = flat.any(axis=1)
        kind, i, j = np.unravel_index(chosen, (2, self.n, self.n))
        for number, array in enumerate((spatial, temporal)):
            these = some & (kind == number)
            array[rows[these], i[these], j[these]] = value

    # -- what a model sees -------------------------------------------------------------------

    @cached_property
    def _reachable(self) -> BoolArray:
        """[N, N]: pairs of which one can ever reach the other."""
        if not self.ordered:
            either: BoolArray = np.logical_or(self.spatial, self.temporal)
            return either
        found: BoolArray = reach(self.spatial[None], self.temporal[None], self.pool.rounds)[0]
        return found

    def features(self, teams: Teams, edge_weight: float) -> FloatArray:
        """[teams, F]: agents kept, pairs reached, and edges times ``edge_weight``."""
        far = reach(teams.spatial, teams.temporal, self.pool.rounds)
        parts = [
            teams.keep,
            far[:, self._reachable],
            edge_weight * teams.spatial[:, self.spatial],
            edge_weight * teams.temporal[:, self.temporal],
        ]
        return np.concatenate([np.asarray(p, dtype=np.float64) for p in parts], axis=1)

    def cost_features(self, teams: Teams) -> FloatArray:
        """[teams, 1 + 2N or 3N]: what tokens are (nearly) linear in: each reader pays for a message."""
        parts = [np.ones((teams.size, 1)), teams.keep, teams.spatial.sum(axis=2)]
        if self.temporal.any():
            parts.append(teams.temporal.sum(axis=2))
        return np.concatenate([np.asarray(p, dtype=np.float64) for p in parts], axis=1)


def reach(spatial: BoolArray, temporal: BoolArray | None = None, rounds: int = 1) -> BoolArray:
    """[B, N, N]: whether something i said can have reached j's last message, through whomever.

    With ``temporal`` and more than one round, what i said in any round counts, and the diagonal says
    whether i hears of itself again.

    >>> chain = np.array([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]], dtype=bool)
    >>> reach(chain)[0].astype(int).tolist()
    [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    """
    n = spatial.shape[-1]
    within = spatial.astype(np.float32)
    steps = 1
    while steps < n:
        wider = ((within + within @ within) > 0).astype(np.float32)
        if (wider == within).all():
            break
        within = wider
        steps *= 2
    if temporal is None or rounds == 1 or not temporal.any():
        return within > 0
    flow = within + np.eye(n, dtype=np.float32)
    across = temporal.astype(np.float32) @ flow
    heard = within
    for _ in range(rounds - 1):  # what came in the round before, and what was said in it
        heard = ((within + (heard + np.eye(n, dtype=np.float32)) @ across) > 0).astype(np.float32)
    return heard > 0


def _clear(rows: IntArray, who: IntArray, keep: BoolArray, spatial: BoolArray, temporal: BoolArray) -> None:
    keep[rows, who] = False
    for array in (spatial, temporal):
        array[rows, who] = False
        array[rows, :, who] = False


def _orders(spatial: BoolArray, rng: np.random.Generator) -> FloatArray:
    """[B, N]: numbers that grow along every edge, drawn at random within what the edges leave open."""
    depth = np.zeros(spatial.shape[:2])
    for _ in range(spatial.shape[1]):
        deeper = np.where(spatial, depth[:, :, None] + 1.0, 0.0).max(axis=1)
        if (deeper == depth).all():
            break
        depth = deeper
    free = ~(spatial.any(axis=1) | spatial.any(axis=2))
    jitter = rng.random(depth.shape)
    found: FloatArray = np.where(free, jitter * (depth.max(axis=1, keepdims=True) + 1.0), depth + jitter)
    return found
