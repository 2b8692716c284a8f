"""Schedule: rounds to waves, and who reads whom. Pure functions over a graph and a topology.

A *wave* is a set of agents that may speak at the same time. The waves of a round are the
topological generations of the alive spatial edges; the decision agent has a wave of its own at
the end. :func:`inbox` is the only place that decides what an agent reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import networkx as nx

from agentcomm.graph import AgentGraph, Edge, Topology
from agentcomm.message import Delivery, Message, Outcome


class Wave(NamedTuple):
    """Agents that speak side by side in a round, in the graph's order."""

    round: int
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn that was taken: what the agent read (after the channels) and what came of it."""

    agent: str
    round: int
    inbox: tuple[Delivery, ...]
    outcome: Outcome


Mailbox = Mapping[tuple[int, str], TurnRecord]
"""What was said so far, by (round, agent)."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """What lies before an agent in a round, ahead of any channel.

    ``letters`` are (edge, message) pairs, temporal edges first, then in the order of the senders
    in the graph; a sender that failed or is dead has none. ``past`` are the agent's own earlier
    turns, oldest first, if it has a memory.
    """

    agent: str
    round: int
    letters: tuple[tuple[Edge, Message], ...]
    past: tuple[TurnRecord, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """When each agent of a graph speaks under a topology; reusable for any number of items."""

    graph: AgentGraph
    topology: Topology

    @classmethod
    def of(cls, graph: AgentGraph, topology: Topology | None = None) -> Schedule:
        """The schedule of ``graph`` under ``topology`` (everything alive by default).

        Raises
        ------
        GraphError
            If the topology doesn't fit the graph.
        """
        return cls(graph, graph.topology() if topology is None else graph.check_topology(topology))

    @cached_property
    def waves(self) -> tuple[Wave, ...]:
        """All waves, first to last; the last one is the decision agent alone, in the last round."""
        rounds = range(1, self.graph.rounds + 1)
        shared = len(self.topology.masks) == 1
        first = self._generations(1)
        waves: list[Wave] = []
        for r in rounds:
            generations = first if shared or r == 1 else self._generations(r)
            waves += [Wave(r, agents) for agents in generations]
            if r == self.graph.rounds or self.graph.decision_is_read_after(r, self.topology):
                waves.append(Wave(r, (self.graph.decision,)))
        return tuple(waves)

    @cached_property
    def turns(self) -> frozenset[tuple[str, int]]:
        """Every (agent, round) that speaks."""
        return frozenset((a, wave.round) for wave in self.waves for a in wave.agents)

    @cached_property
    def order(self) -> Mapping[tuple[int, str], int]:
        """Position of every turn (round, agent) when the waves are walked one agent at a time."""
        places = [(wave.round, agent) for wave in self.waves for agent in wave.agents]
        return {place: i for i, place in enumerate(places)}

    def following(self, wave: int, mailbox: Mailbox) -> int:
        """The index of the wave after ``wave``; the decision's, the last one, where the team is done.

        ``len(self.waves)`` after the last one.
        """
        last = len(self.waves) - 1
        stop = self.graph.stop
        if stop is not None and wave < last and stop.over(said(self, mailbox)):
            return last
        return wave + 1

    def _generations(self, round: int) -> list[tuple[str, ...]]:
        mask = self.topology.mask(round)
        decision = self.graph.decision
        dag: nx.DiGraph[str] = nx.DiGraph()
        dag.add_nodes_from(n for n in self.graph.names if n in mask.agents and n != decision)
        dag.add_edges_from(
            (e.sender, e.reader)
            for e in mask.edges
            if e.kind == "spatial" and e.sender in dag and e.reader in dag
        )
        position = self.graph.index
        return [tuple(sorted(g, key=position.__getitem__)) for g in nx.topological_generations(dag)]

    @cached_property
    def _reading(self) -> dict[tuple[str, int], tuple[Edge, ...]]:
        return {}

    def sources(self, agent: str, round: int) -> tuple[Edge, ...]:
        """The edges over which ``agent`` reads in ``round``, in reading order."""
        # Under one mask for all rounds only the first differs: nothing was said before it.
        place = (agent, min(round, 2) if len(self.topology.masks) == 1 else round)
        known = self._reading.get(place)
        if known is None:
            delivers = self.topology.delivers
            known = tuple(e for e in self.graph.incoming[agent] if delivers(e.key, round))
            self._reading[place] = known
        return known


def inbox(schedule: Schedule, agent: str, round: int, mailbox: Mailbox) -> Inbox:
    """What ``agent`` finds in ``round``: the only place where it is decided who is read."""
    if schedule.graph.stop is not None and agent == schedule.graph.decision:
        heard = {edge.sender: edge for edge in schedule.graph.incoming[agent]}
        return Inbox(
            agent, round, tuple((heard[m.sender], m) for m in said(schedule, mailbox) if m.sender in heard)
        )
    letters: list[tuple[Edge, Message]] = []
    for edge in schedule.sources(agent, round):
        record = mailbox.get((round if edge.kind == "spatial" else round - 1, edge.sender))
        if record is not None and isinstance(record.outcome, Message):
            letters.append((edge, record.outcome))
    past: tuple[TurnRecord, ...] = ()
    if round > 1 and schedule.graph.by_name[agent].memory:
        past = tuple(mailbox[(r, agent)] for r in range(1, round) if (r, agent) in mailbox)
    return Inbox(agent, round, tuple(letters), past)


def said(schedule: Schedule, mailbox: Mailbox) -> tuple[Message, ...]:
    """Every message of a mailbox in the order of speaking."""
    places = sorted(mailbox, key=schedule.order.__getitem__)
    outcomes = (mailbox[place].outcome for place in places)
    return tuple(m for m in outcomes if isinstance(m, Message))


def in_order(graph: AgentGraph, records: Iterable[TurnRecord]) -> tuple[TurnRecord, ...]:
    """Records by round and by the agent's place in the graph, with the decision last in its round."""

    def key(record: TurnRecord) -> tuple[int, bool, int]:
        return record.round, record.agent == graph.decision, graph.index[record.agent]

    return tuple(sorted(records, key=key))
