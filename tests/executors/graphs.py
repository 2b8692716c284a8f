"""Random teams, masks and fates, a function of texts for agents, and a record of what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

from agentcomm.graph import Agent, AgentGraph, Edge, Mask, Topology
from agentcomm.message import Delivery, EdgeKey, Failure, Message, Outcome, content_id
from agentcomm.schedule import Inbox, TurnRecord

Fate = Literal["fails", "fatal", "raises"]
Fates = Mapping[tuple[str, int], Fate]


@st.composite
def teams(draw: st.DrawFn, most: int = 6, most_rounds: int = 3) -> AgentGraph:
    """Spatial DAGs with any temporal edges, self loops and edges out of the decision included."""
    n = draw(st.integers(1, most))
    names = [f"a{i}" for i in range(n)]
    order = draw(st.permutations(names))
    listed = draw(st.permutations(names))
    decision = order[-1]
    forward = [(order[i], order[j]) for i in range(n) for j in range(i + 1, n)]
    spatial = set(draw(st.lists(st.sampled_from(forward), unique=True))) if forward else set()
    temporal = draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), unique=True))
    for name in order[:-1]:  # everybody reaches the decision
        if not any(sender == name for sender, _ in spatial):
            spatial.add((name, decision))
    agents = [Agent(name, memory=draw(st.booleans())) for name in listed]
    edges = [Edge(*pair) for pair in spatial] + [Edge(*pair, "temporal") for pair in temporal]
    return AgentGraph(agents, draw(st.permutations(edges)), decision, draw(st.integers(1, most_rounds)))


@st.composite
def topologies(draw: st.DrawFn, graph: AgentGraph) -> Topology:
    """Everything, one mask for all rounds, or one per round; the decision lives in the last."""

    def mask(last: bool) -> Mask:
        agents = {name for name in graph.names if draw(st.integers(0, 3))}
        edges = {edge.key for edge in graph.edges if draw(st.integers(0, 3))}
        return Mask(frozenset(agents | ({graph.decision} if last else set())), frozenset(edges))

    kind = draw(st.sampled_from(["all", "one", "per round"]))
    if kind == "all":
        return graph.topology()
    rounds = 1 if kind == "one" else graph.rounds
    return Topology(tuple(mask(r == rounds) for r in range(1, rounds + 1)))


@st.composite
def fates(draw: st.DrawFn, graph: AgentGraph) -> Fates:
    """A few turns that fail, fatally or not."""
    turns = st.tuples(st.sampled_from(graph.names), st.integers(1, graph.rounds))
    kinds: st.SearchStrategy[Fate] = st.sampled_from(["fails", "fails", "fails", "fatal"])
    return draw(st.dictionaries(turns, kinds, max_size=3))


def says(agent: str, round: int, read: object, fate: Fate | None) -> Outcome:
    """What an agent that read this says: a function of texts."""
    if fate in ("fails", "fatal"):
        return Failure(agent, round, "server", f"{agent} failed in {round}", fatal=fate == "fatal")
    return Message(agent, round, f"{agent}@{round}:{content_id(read)[:8]}")


def shown(outcome: Outcome) -> str:
    return outcome.text if isinstance(outcome, Message) else f"FAILED {outcome.reason}"


@dataclass
class Recorder:
    """An ``act`` that writes down what every turn had before it."""

    fates: Fates = field(default_factory=dict)
    read: dict[tuple[int, str], object] = field(default_factory=dict)
    order: list[tuple[int, str]] = field(default_factory=list)

    async def act(self, inbox: Inbox) -> TurnRecord:
        letters = [(e.sender, e.kind, m.round, m.text) for e, m in inbox.letters]
        past = [(r.round, shown(r.outcome), [d.text for d in r.inbox]) for r in inbox.past]
        place = (inbox.round, inbox.agent)
        self.order.append(place)
        self.read[place] = (letters, past)
        fate = self.fates.get((inbox.agent, inbox.round))
        if fate == "raises":
            raise RuntimeError(f"{inbox.agent} crashed in {inbox.round}")
        outcome = says(inbox.agent, inbox.round, letters, fate)
        return TurnRecord(
            inbox.agent,
            inbox.round,
            tuple(Delivery(EdgeKey(*e.key), m, m.text) for e, m in inbox.letters),
            outcome,
        )
