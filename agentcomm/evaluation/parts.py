"""Parts: what can be left out of a team, and what is left without it.

A *part* is an agent, or an edge from one agent to another over all rounds and of both kinds: what
``--cut`` can name. Leaving a part out also takes away the agents whose words then reach nobody: they
would be paid for and read by nobody. What can't be left out: the decision agent, and an agent without
whom nobody reaches it. The last *edge* into a decision agent with a model can be: it then answers
alone, which is worth knowing.

Deliberately absent: running anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentcomm.graph import AgentGraph, Mask, Topology
from agentcomm.ledger.usage import ARROW

Kind = Literal["agent", "edge"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """Something that can be left out of a team.

    ``name`` is what ``--cut`` calls it. ``left`` is what remains without it, ``None`` where it can't
    be left out; ``note`` then says why. ``gone`` are other agents who go with it.
    """

    kind: Kind
    name: str
    left: Topology | None
    gone: tuple[str, ...] = ()
    note: str = ""

    @property
    def ends(self) -> tuple[str, str]:
        """Sender and reader of an edge."""
        sender, _, reader = self.name.partition(ARROW)
        return sender, reader

    @property
    def cut(self) -> tuple[str, ...]:
        """The words of ``--cut`` that leave it out."""
        own = () if self.kind == "edge" and self.ends[0] in self.gone else (self.name,)
        return (*own, *self.gone)


def parts(graph: AgentGraph, topology: Topology | None = None) -> tuple[Part, ...]:
    """The parts of a team (of what ``topology`` leaves of it): agents, then edges, as the graph lists them."""
    whole = useful(graph, topology)
    agents = frozenset().union(*(m.agents for m in whole.masks))
    edges = frozenset().union(*(m.edges for m in whole.masks))
    pairs = dict.fromkeys((e.sender, e.reader) for e in graph.edges if e.key in edges)
    made = [_agent(graph, whole, name) for name in graph.names if name in agents]
    return (*made, *(_edge(graph, whole, *pair) for pair in pairs))


def _agent(graph: AgentGraph, whole: Topology, name: str) -> Part:
    if name == graph.decision:
        return Part("agent", name, None, note="it gives the answer")
    left = without(graph, whole, agents=[name])
    if is_alone(graph, left):
        return Part("agent", name, None, note=f"nobody else reaches {graph.decision}")
    return Part("agent", name, left, _gone(graph, whole, left, name))


def _edge(graph: AgentGraph, whole: Topology, sender: str, reader: str) -> Part:
    name = f"{sender}{ARROW}{reader}"
    left = without(graph, whole, pairs=((sender, reader),))
    if not is_alone(graph, left):
        return Part("edge", name, left, _gone(graph, whole, left))
    if graph.by_name[graph.decision].act is not None:
        return Part("edge", name, None, note=f"{graph.decision} would have nothing to read")
    return Part("edge", name, left, _gone(graph, whole, left), f"{graph.decision} then answers alone")


def useful(graph: AgentGraph, topology: Topology | None = None) -> Topology:
    """``topology`` without agents who reach nobody that matters, and without edges of theirs."""
    whole = graph.topology() if topology is None else graph.check_topology(topology)
    heard = graph.useful_agents(whole)
    return Topology(
        tuple(
            Mask(m.agents & heard, frozenset(e for e in m.edges if {e.sender, e.reader} <= heard))
            for m in whole.masks
        )
    )


def without(graph: AgentGraph, whole: Topology, *, agents: Sequence[str] = (), pairs: Pairs = ()) -> Topology:
    """What is left of ``whole`` without these agents and edges, and without whoever then reaches nobody."""
    gone, cut = set(agents), set(pairs)
    left = Topology(
        tuple(
            Mask(
                m.agents - gone,
                frozenset(
                    e for e in m.edges if (e.sender, e.reader) not in cut and not {e.sender, e.reader} & gone
                ),
            )
            for m in whole.masks
        )
    )
    return useful(graph, left)


def is_alone(graph: AgentGraph, left: Topology) -> bool:
    return all(m.agents <= {graph.decision} for m in left.masks)


def _gone(graph: AgentGraph, whole: Topology, left: Topology, but: str = "") -> tuple[str, ...]:
    before, after = (frozenset().union(*(m.agents for m in t.masks)) for t in (whole, left))
    return tuple(n for n in graph.names if n in before - after and n != but)
