"""Pool: the agents that may be pruned, in fixed order, and the pairs of them that may be edges.

The pool are all agents of a graph but the decision agent. Learners speak of it in arrays: agent
``i`` is ``pool.names[i]``; ``A[i, j]`` means that ``j`` reads ``i``. Edges that touch the decision
agent aren't learned: a kept agent has the ones that its graph gives it.

What may be an edge:

* ``edges="graph"``: what the user's graph has. A realised topology is a subset of that graph.
* ``edges="complete"``: every ordered pair, either way round, as the published methods have it, and
  the decision agent reads every kept agent. Temporal edges only where there is more than one
  round, and to itself only for an agent without a memory. Since one graph's spatial edges can't
  hold both directions, :meth:`Pool.team` makes the graph that a realised topology runs on.

Deliberately absent: probabilities and chance (:mod:`agentcomm.pruning.realise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentcomm.errors import GraphError
from agentcomm.graph import Agent, AgentGraph, Edge, Mask, Topology
from agentcomm.message import EdgeKey, content_id
from agentcomm.schedule import Schedule

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EdgeChoice = Literal["graph", "complete"]
DecisionScope = Literal["all", "sinks", "last"]


class Arrays(NamedTuple):
    """A topology in the pool's order; with a leading round axis where it has a mask per round.

    ``keep`` is [N]; ``spatial`` and ``temporal`` are [N, N], row sends, column receives.
    """

    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray


@dataclass(frozen=True)
class Pool:
    """The agents of ``graph`` that may be pruned, and which pairs of them may be edges.

    Parameters
    ----------
    graph:
        The user's team.
    edges:
        ``"graph"`` or ``"complete"`` (see the module).
    decision_scope:
        Whom the decision agent reads in a complete pool: ``"all"`` kept agents, the ``"sinks"``
        (kept agents that no pool agent reads in the same round), or the ``"last"`` one (of the
        last wave the last in order). The others' words reach it only through these.

    Raises
    ------
    GraphError
        If there is no agent beside the decision agent, or for an unknown word.
    """

    graph: AgentGraph
    edges: EdgeChoice = "graph"
    decision_scope: DecisionScope = "all"

    def __post_init__(self) -> None:
        if self.edges not in ("graph", "complete"):
            raise GraphError(f"a pool with edges={self.edges!r}; use 'graph' or 'complete'")
        if self.decision_scope not in ("all", "sinks", "last"):
            raise GraphError(f"decision_scope={self.decision_scope!r}; use 'all', 'sinks' or 'last'")
        if self.edges == "graph" and self.decision_scope != "all":
            raise GraphError(
                f"decision_scope={self.decision_scope!r} with the graph's own edges, which already say whom "
                f"the decision agent reads; use edges='complete'"
            )
        if not self.names:
            raise GraphError(f"nothing to prune: {self.decision!r} decides, and there is nobody beside it")

    @property
    def decision(self) -> str:
        return self.graph.decision

    @property
    def rounds(self) -> int:
        return self.graph.rounds

    @cached_property
    def agents(self) -> tuple[Agent, ...]:
        """The agents that may be pruned, in the graph's order."""
        return tuple(a for a in self.graph.agents if a.name != self.graph.decision)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.agents)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each pool agent."""
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def id(self) -> str:
        """SHA-256 over agents, decision, rounds and possible edges: what a policy was fitted for."""
        spatial, temporal = self.spatial_allowed.tolist(), self.temporal_allowed.tolist()
        agents = [a.to_dict() for a in self.agents]
        decider = self.graph.by_name[self.decision].to_dict()
        return content_id(
            agents, decider, self.rounds, self.decision_scope, spatial, temporal, *self._particular()
        )

    def _particular(self) -> list[object]:
        """Whom the decision agent reads where that is not everybody; else the id is what it was before."""
        beside = sorted(str(k) for k in {k for keys in self._beside for k in keys} | {*self._decision_itself})
        if self.edges == "graph" and (beside or not self.read_by_decision.all()):
            return [{"read by decision": self.read_by_decision.tolist(), "beside": beside}]
        return []

    # -- what may be an edge -----------------------------------------------------------------

    @cached_property
    def spatial_allowed(self) -> BoolArray:
        """[N, N]: the pairs that may be spatial edges; read-only."""
        if self.edges == "complete":
            return _frozen(~np.eye(len(self), dtype=np.bool_))
        return self._of_graph("spatial")

    @cached_property
    def temporal_allowed(self) -> BoolArray:
        """[N, N]: the pairs that may be temporal edges; read-only, all false where there is one round."""
        if self.rounds == 1:
            return _frozen(np.zeros((len(self), len(self)), dtype=np.bool_))
        if self.edges == "complete":
            allowed = np.ones((len(self), len(self)), dtype=np.bool_)
            np.fill_diagonal(allowed, [not a.memory for a in self.agents])
            return _frozen(allowed)
        return self._of_graph("temporal")

    def _of_graph(self, kind: str) -> BoolArray:
        allowed = np.zeros((len(self), len(self)), dtype=np.bool_)
        for edge in self.graph.edges:
            if edge.kind == kind and edge.sender in self.index and edge.reader in self.index:
                allowed[self.index[edge.sender], self.index[edge.reader]] = True
        return _frozen(allowed)

    @cached_property
    def read_by_decision(self) -> BoolArray:
        """[N]: the agents that the decision agent may read in the round in which they speak."""
        if self.edges == "complete":
            return _frozen(np.ones(len(self), dtype=np.bool_))
        senders = {k.sender for k in self.graph.by_key if k.reader == self.decision and k.kind == "spatial"}
        return _frozen(np.array([name in senders for name in self.names], dtype=np.bool_))

    @property
    def always_connected(self) -> bool:
        """Whether every kept agent reaches the decision agent whatever edges are realised."""
        return self.decision_scope != "last" and bool(self.read_by_decision.all())

    @cached_property
    def _spatial_keys(self) -> list[list[EdgeKey]]:
        return [[EdgeKey(a, b, "spatial") for b in self.names] for a in self.names]

    @cached_property
    def _temporal_keys(self) -> list[list[EdgeKey]]:
        return [[EdgeKey(a, b, "temporal") for b in self.names] for a in self.names]

    @cached_property
    def _to_decision(self) -> list[EdgeKey]:
        return [EdgeKey(name, self.decision, "spatial") for name in self.names]

    @cached_property
    def _beside(self) -> list[list[EdgeKey]]:
        """For each agent its temporal edges with the decision agent, which live while it does."""
        return [
            [
                k
                for k in self.graph.by_key
                if k.kind == "temporal" and {k.sender, k.reader} == {name, self.decision}
            ]
            for name in self.names
        ]

    @cached_property
    def _decision_itself(self) -> list[EdgeKey]:
        return [k for k in self.graph.by_key if k.sender == k.reader == self.decision]

    # -- arrays and topologies ---------------------------------------------------------------

    def topology(self, keep: BoolArray, spatial: BoolArray, temporal: BoolArray | None = None) -> Topology:
        """The topology of arrays [N], [N, N], [N, N], or of one for each round (leading axis).

        Edges of agents that aren't kept are left out.

        Raises
        ------
        GraphError
            For a wrong shape, or an edge that the pool doesn't have.
        """
        temporal = np.zeros_like(spatial) if temporal is None else temporal
        n = len(self)
        lead = keep.shape[:-1]
        if keep.shape != (*lead, n) or {spatial.shape, temporal.shape} != {(*lead, n, n)} or len(lead) > 1:
            raise GraphError(
                f"arrays of shapes {keep.shape}, {spatial.shape}, {temporal.shape} for a pool of {n} agents"
            )
        for array, allowed in ((spatial, self.spatial_allowed), (temporal, self.temporal_allowed)):
            if (array & ~allowed).any():
                *_, i, j = np.argwhere(array & ~allowed)[0]
                raise GraphError(f"{self.names[i]}->{self.names[j]} is no edge that this pool may have")
        if not lead:
            return Topology((self._mask(keep, keep, spatial, temporal),))
        if lead[0] != self.rounds:
            raise GraphError(f"arrays for {lead[0]} rounds; the graph has {self.rounds}")
        before = [keep[0], *keep[:-1]]
        return Topology(tuple(map(self._mask, before, keep, spatial, temporal)))

    def _mask(self, before: BoolArray, keep: BoolArray, spatial: BoolArray, temporal: BoolArray) -> Mask:
        """One round's mask; ``before`` says who was kept when the temporal senders spoke."""
        kept = keep.nonzero()[0].tolist()
        spatial = spatial & keep & keep[:, None]
        senders, readers = (a.tolist() for a in spatial.nonzero())
        edges = [self._spatial_keys[i][j] for i, j in zip(senders, readers, strict=True)]
        if temporal.any():
            senders, readers = (a.tolist() for a in (temporal & keep & before[:, None]).nonzero())
            edges += [self._temporal_keys[i][j] for i, j in zip(senders, readers, strict=True)]
        edges += [self._to_decision[i] for i in self._heard(kept, spatial)]
        for i in kept:
            edges += self._beside[i]
        edges += self._decision_itself
        return Mask(frozenset([*(self.names[i] for i in kept), self.decision]), frozenset(edges))

    def _heard(self, kept: list[int], spatial: BoolArray) -> list[int]:
        """The kept agents that the decision agent reads."""
        if self.decision_scope == "sinks":
            return [i for i in kept if not spatial[i].any()]
        if self.decision_scope == "last":
            depth = levels(spatial)
            return [max(kept, key=lambda i: (depth[i], i))] if kept else []
        return [i for i in kept if self.read_by_decision[i]]

    def arrays(self, topology: Topology) -> Arrays:
        """The arrays of a topology; the reverse of :meth:`topology`.

        Raises
        ------
        GraphError
            If it names an agent or an edge that the pool doesn't have.
        """
        n, r = len(self), len(topology.masks)
        keep = np.zeros((r, n), dtype=np.bool_)
        spatial = np.zeros((r, n, n), dtype=np.bool_)
        temporal = np.zeros((r, n, n), dtype=np.bool_)
        for k, mask in enumerate(topology.masks):
            for name in mask.agents - {self.decision}:
                if name not in self.index:
                    raise GraphError(f"the topology names the agent {name!r}, not in the pool")
                keep[k, self.index[name]] = True
            for edge in mask.edges:
                if self.decision in (edge.sender, edge.reader):
                    continue
                try:
                    place = (k, self.index[edge.sender], self.index[edge.reader])
                except KeyError:
                    raise GraphError(f"the topology names the edge {edge}, not in the pool") from None
                (spatial if edge.kind == "spatial" else temporal)[place] = True
        for array, allowed in ((spatial, self.spatial_allowed), (temporal, self.temporal_allowed)):
            if (array & ~allowed).any():
                _, i, j = np.argwhere(array & ~allowed)[0]
                raise GraphError(f"{self.names[i]}->{self.names[j]} is no edge that this pool may have")
        return Arrays(keep, spatial, temporal) if r > 1 else Arrays(keep[0], spatial[0], temporal[0])

    # -- running -----------------------------------------------------------------------------

    def team(self, topology: Topology) -> AgentGraph:
        """The graph that ``topology`` runs on: the user's own, or for a complete pool one made for it.

        The made one has the user's agents, decision, rounds and system text, every edge that is
        alive in some round (with the user's channel, where the user's graph has that edge), and
        an edge from every agent to the decision agent, so that dead agents stay part of it.

        Raises
        ------
        GraphError
            If the topology doesn't fit, or if its rounds' spatial edges form a cycle together.
        """
        if self.edges == "graph":
            self.graph.check_topology(topology)
            return self.graph
        alive = frozenset().union(*(m.edges for m in topology.masks))
        known = self.graph.by_key
        keys = sorted(alive | set(self._to_decision), key=self._place)
        keys += [k for k in known if k not in alive and self.decision in (k.sender, k.reader)]
        edges = [known.get(k) or Edge(*k) for k in dict.fromkeys(keys)]
        team = AgentGraph(
            self.graph.agents, edges, self.decision, self.rounds, self.graph.system, self.graph.stop
        )
        team.check_topology(topology)
        return team

    def _place(self, key: EdgeKey) -> tuple[Any, ...]:
        place = self.graph.index
        # A stranger's edge sorts anywhere: the graph refuses it by name.
        return key.kind, place.get(key.sender, -1), place.get(key.reader, -1)

    def schedule(self, topology: Topology) -> Schedule:
        """When each kept agent speaks under ``topology``."""
        return Schedule.of(self.team(topology), topology)


def levels(spatial: BoolArray) -> list[int]:
    """The wave of each vertex of a DAG [N, N]: the length of the longest path that ends in it.

    >>> levels(np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool))
    [0, 1, 2]
    """
    n = len(spatial)
    readers: Sequence[Sequence[int]] = [row.nonzero()[0].tolist() for row in spatial]
    waiting: list[int] = spatial.sum(axis=0).tolist()
    depth = [0] * n
    ready = [i for i in range(n) if not waiting[i]]
    done = 0
    while ready:
        i = ready.pop()
        done += 1
        for j in readers[i]:
            depth[j] = max(depth[j], depth[i] + 1)
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    if done < n:
        raise GraphError("spatial edges form a cycle")
    return depth


def _frozen(array: BoolArray) -> BoolArray:
    array.flags.writeable = False
    return array
