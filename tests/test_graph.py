"""Graphs refuse what can't run, in a sentence; cutting only takes away; every shape comes back."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm import topologies
from agentcomm.errors import GraphError
from agentcomm.graph import Agent, AgentGraph, Edge, Mask, Topology
from agentcomm.message import Delivery, EdgeKey, Message
from tests.executors.graphs import teams
from tests.executors.graphs import topologies as masks

A, B, C, J = (Agent(n) for n in ("a", "b", "c", "judge"))


class Shout:
    """A channel for tests."""

    name = "shout"

    def spec(self) -> dict[str, Any]:
        return {"channel": "shout"}

    async def deliver(self, message: Message, edge: Edge, turn: Any) -> Delivery:
        return Delivery(edge.key, message, message.text.upper(), self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shout)

    __hash__ = None  # type: ignore[assignment]


async def dice(turn: Any) -> str:
    return "4"


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AgentGraph([], decision="a"), "no agents"),
        (lambda: AgentGraph([A, B, A], decision="a"), "2 agents are named 'a'; names must be unique"),
        (lambda: AgentGraph(["a"], decision="a"), r"'a' is not an agent; write Agent\('a'\)"),  # type: ignore[list-item]
        (lambda: AgentGraph([A, B], [("a", "b")]), "no decision agent; set decision= to one of: a, b"),
        (lambda: AgentGraph([A], decision="x"), "decision agent 'x' is not in the graph; its agents are: a"),
        (lambda: AgentGraph([A], [("a", "x")], "a"), "edge a->x names 'x', which is not an agent"),
        (lambda: AgentGraph([A, J], [("x", "judge")], "judge"), "edge x->judge names 'x'"),
        (lambda: AgentGraph([A, J], [("a", "judge")] * 2, "judge"), "2 spatial edges a->judge; keep one"),
        (lambda: AgentGraph([A, J], [("a", "judge")], "judge", 0), "rounds=0; it must be a whole number"),
        (lambda: AgentGraph([A, J], [("a", "judge")], "judge", -1), "rounds=-1"),
        (lambda: AgentGraph([A, J], [("a", "judge")], "judge", 1.5), "rounds=1.5"),  # type: ignore[arg-type]
        (lambda: AgentGraph([A, J], [("a", "judge")], "judge", True), "rounds=True"),
        (lambda: AgentGraph([A, J], [("judge", "a")], "judge"), "judge->a: the decision agent speaks last"),
        (
            lambda: AgentGraph([A, J], [], "judge"),
            "agent 'a' can't reach the decision agent 'judge'; add an edge",
        ),
        (
            lambda: AgentGraph([A, B, J], [("a", "judge", "temporal"), ("b", "a")], "judge"),
            "agents 'a', 'b' can't reach .*temporal edges are read in the next round, and there is only one",
        ),
        (lambda: AgentGraph([A, J], ["aj"], "judge"), "'aj' is not an edge"),  # type: ignore[list-item]
        (lambda: AgentGraph([A, J], [("a",)], "judge"), "is not an edge"),  # type: ignore[list-item]
        (lambda: AgentGraph([A, J], [("a", "judge", "weekly")], "judge"), "kind 'weekly'; use 'spatial' or"),
        (lambda: Agent(""), "no name"),
        (lambda: Agent("  "), "no name"),
        (lambda: Agent(3), "no name"),  # type: ignore[arg-type]
        (lambda: Agent("a->b"), "contains '->'"),
        (lambda: Agent("a\nb"), "control character"),
        (lambda: Agent("a", max_tokens=0), "max_tokens=0"),
        (lambda: Agent("a", act="no"), "act must be an async callable"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(make: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@given(st.integers(1, 6), st.integers(0, 5))
def test_a_cycle_of_spatial_edges_is_named(length: int, before: int) -> None:
    ring = [f"r{i}" for i in range(length)]
    tail = [f"t{i}" for i in range(before)]
    edges = [*zip(tail, tail[1:] + ring[:1], strict=False)]
    edges += [(ring[i], ring[(i + 1) % length]) for i in range(length)]
    agents = [Agent(n) for n in [*tail, *ring, "judge"]]
    with pytest.raises(GraphError, match="spatial edges form a cycle") as caught:
        AgentGraph(agents, [*edges, ("r0", "judge")], "judge")
    named = re.search(r"cycle: (.*);", str(caught.value))
    assert named is not None
    path = named[1].split(" -> ")
    assert set(path) == set(ring)
    assert path[0] == path[-1]
    assert set(pairwise(path)) <= set(edges)


def test_a_cycle_with_a_temporal_edge_is_a_conversation() -> None:
    graph = AgentGraph([A, B, J], [("a", "b"), ("b", "a", "temporal"), ("b", "judge")], "judge", 2)
    assert graph.by_key.keys() >= {EdgeKey("b", "a", "temporal")}


# -- values ------------------------------------------------------------------------------------


def test_a_graph_cannot_be_changed_and_equal_graphs_are_equal() -> None:
    graph = AgentGraph([A, J], [("a", "judge")], "judge")
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.rounds = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.agents[0].role = "x"  # type: ignore[misc]
    assert isinstance(graph.edges, tuple)
    assert graph == AgentGraph(iter([A, J]), iter([Edge("a", "judge")]), "judge")
    assert hash(graph) == hash(AgentGraph([A, J], [("a", "judge")], "judge"))
    assert dataclasses.replace(graph, rounds=2).rounds == 2


@given(teams())
def test_a_graph_comes_back_from_json_and_networkx(graph: AgentGraph) -> None:
    assert AgentGraph.from_json(graph.to_json()) == graph
    assert AgentGraph.from_networkx(graph.to_networkx()) == graph


def test_every_field_of_an_agent_and_every_channel_comes_back_from_json() -> None:
    agent = Agent("ü", "röle", "m/x", "v", False, 0.0, 0.5, 7, ("\n",), {"type": "object"}, dice, True, False)
    graph = AgentGraph([agent, J], [Edge("ü", "judge", channel=Shout())], "judge", 2, "sys")
    text = graph.to_json()
    assert set(json.loads(text)["agents"][0]) == {f.name for f in dataclasses.fields(Agent)}
    assert json.loads(text)["agents"][1] == {"name": "judge"}
    assert AgentGraph.from_json(text, functions={"ü": dice}, channels=lambda spec: Shout()) == graph
    with pytest.raises(GraphError, match=r"'ü' is a function agent .*dice.*functions="):
        AgentGraph.from_json(text, channels=lambda spec: Shout())
    with pytest.raises(GraphError, match="edge ü->judge has a channel; pass channels="):
        AgentGraph.from_json(text, functions={"ü": dice})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"agents": []}',
        '{"agents": [{"role": "x"}], "decision": "a"}',
        '{"agents": [{"name": "a", "colour": "red"}], "decision": "a"}',
        '{"agents": ["a"], "decision": "a"}',
        '{"agents": 3, "decision": "a"}',
        '{"agents": [{"name": "a"}], "edges": [{"sender": "a"}], "decision": "a"}',
        '{"agents": [{"name": "a"}], "edges": ["a"], "decision": "a"}',
        '{"agents": [{"name": "a"}], "decision": "a", "format": 99}',
        '{"agents": [{"name": "a"}], "decision": "a", "format": "x"}',
        '{"agents": [{"name": "a"}], "decision": "a", "rounds": "2"}',
        '{"agents": [{"name": "a", "max_tokens": "many"}], "decision": "a"}',
    ],
)
def test_json_that_is_no_graph_is_a_user_error(text: str) -> None:
    with pytest.raises(GraphError):
        AgentGraph.from_json(text)


def test_a_plain_networkx_graph_becomes_a_team() -> None:
    g = nx.DiGraph([("a", "judge")])
    g.nodes["a"]["role"] = "Solve."
    g.add_edge("judge", "a", kind="temporal")
    graph = AgentGraph.from_networkx(g, decision="judge", rounds=2)
    assert graph.agents[0] == Agent("a", "Solve.")
    assert {str(e.key): e.kind for e in graph.edges} == {"a->judge": "spatial", "judge->a": "temporal"}
    with pytest.raises(GraphError, match="undirected"):
        AgentGraph.from_networkx(nx.Graph([("a", "judge")]), decision="judge")


# -- cutting -----------------------------------------------------------------------------------


def trio() -> AgentGraph:
    return AgentGraph(
        [Agent("solver"), Agent("critic"), Agent("judge")],
        [("solver", "critic"), ("critic", "solver", "temporal"), ("solver", "judge"), ("critic", "judge")],
        "judge",
        2,
    )


def test_prune_takes_away_edges_and_agents() -> None:
    pruned = trio().prune(edges=[("solver", "judge")])
    assert [str(e.key) for e in pruned.edges] == ["solver->critic", "critic->solver", "critic->judge"]
    assert trio().prune(agents=["critic"]).names == ("solver", "judge")
    assert trio().prune(edges=[EdgeKey("critic", "solver", "temporal")]).rounds == 2
    assert trio().prune() == trio()


def test_an_agent_whose_last_way_to_the_answer_is_cut_goes_too() -> None:
    chain = topologies.chain(["a", "b", "c"])
    assert chain.prune(edges=[("b", "c")]).names == ("c",)
    # critic still reaches the judge by way of the solver's next round
    assert trio().prune(edges=[("critic", "judge")]).names == ("solver", "critic", "judge")
    one_round = dataclasses.replace(trio(), rounds=1)
    assert one_round.prune(edges=[("critic", "judge")]).names == ("solver", "judge")


def test_a_pair_names_both_kinds_of_edge_and_a_kind_only_one() -> None:
    graph = AgentGraph(
        [A, B, J], [("a", "b"), ("a", "b", "temporal"), ("a", "judge"), ("b", "judge")], "judge", 2
    )
    assert len(graph.topology(without_edges=[("a", "b")]).masks[0].edges) == 2
    assert len(graph.topology(without_edges=[("a", "b", "temporal")]).masks[0].edges) == 3
    assert len(graph.topology(without_edges=[Edge("a", "b")]).masks[0].edges) == 3
    assert len(graph.topology(without_edges=[EdgeKey("a", "b")]).masks[0].edges) == 3


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ({"agents": ["ghost"]}, "no agent 'ghost' in the graph; its agents are: solver, critic, judge"),
        ({"agents": ["judge"]}, "decision agent 'judge' can't be pruned"),
        ({"edges": [("judge", "solver")]}, "no edge judge->solver in the graph"),
        ({"edges": [("solver", "critic", "temporal")]}, "no temporal edge solver->critic"),
        ({"edges": ["solver"]}, "'solver' is not an edge"),
        ({"edges": [("a",)]}, "is not an edge"),
    ],
)
def test_cutting_what_is_not_there_is_refused(cut: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        trio().prune(**cut)


@given(st.data())
def test_intersecting_topologies_only_takes_away(data: st.DataObject) -> None:
    graph = data.draw(teams())
    a, b = data.draw(masks(graph)), data.draw(masks(graph))
    both = a & b
    assert both <= a
    assert both <= b
    assert both <= graph.topology()
    assert a & a == a
    for r in range(1, graph.rounds + 1):
        assert both.mask(r).agents == a.mask(r).agents & b.mask(r).agents
        for edge in graph.edges:
            alive = both.delivers(edge.key, r)
            assert alive <= (a.delivers(edge.key, r) and b.delivers(edge.key, r))
    assert Topology.from_dict(json.loads(json.dumps(a.to_dict()))) == a


def test_a_temporal_edge_needs_its_sender_alive_the_round_before() -> None:
    full = trio().topology().masks[0]
    absent = Mask(full.agents - {"critic"}, full.edges)
    key = EdgeKey("critic", "solver", "temporal")
    assert Topology((full,)).delivers(key, 2)
    assert not Topology((full,)).delivers(key, 1)
    assert not Topology((absent, full)).delivers(key, 2)
    assert Topology((full, absent)).delivers(key, 2)
    assert not Topology((absent, full)).delivers(EdgeKey("critic", "judge"), 1)


def test_topologies_of_other_lengths_do_not_fit_together() -> None:
    mask = trio().topology().masks[0]
    for operation in (lambda a, b: a & b, lambda a, b: a <= b):
        with pytest.raises(GraphError, match="2 and 3 rounds"):
            operation(Topology((mask,) * 2), Topology((mask,) * 3))
    with pytest.raises(GraphError, match="at least one mask"):
        Topology(())
    with pytest.raises(GraphError, match="not a topology"):
        Topology.from_dict({"masks": [{"agents": []}]})


def test_useful_turns_reach_the_answer_also_through_memories() -> None:
    graph = AgentGraph([A, B, J], [("a", "b"), ("b", "judge")], "judge", 2)
    only_first = graph.topology().masks[0]
    then = Mask(only_first.agents, only_first.edges - {EdgeKey("a", "b")})
    topology = Topology((only_first, then))
    assert graph.useful_turns(topology) == {("judge", 2), ("b", 2), ("b", 1), ("a", 1)}
    forgetful = AgentGraph([A, Agent("b", memory=False), J], [("a", "b"), ("b", "judge")], "judge", 2)
    assert forgetful.useful_turns(topology) == {("judge", 2), ("b", 2)}
    # the decision agent remembers the rounds in which it spoke, and it speaks where it is read
    heard = AgentGraph([A, J], [("a", "judge"), ("judge", "a", "temporal")], "judge", 2)
    cut = Topology(
        (
            heard.topology().masks[0],
            Mask(frozenset({"a", "judge"}), frozenset({EdgeKey("judge", "a", "temporal")})),
        )
    )
    assert heard.useful_turns(cut) == {("judge", 2), ("judge", 1), ("a", 1)}


# -- pictures and size -------------------------------------------------------------------------


def test_mermaid_draws_kinds_decision_tokens_channels_and_what_is_cut() -> None:
    graph = AgentGraph(
        [A, B, J],
        [Edge("a", "b", channel=Shout()), ("b", "a", "temporal"), ("a", "judge"), ("b", "judge")],
        "judge",
        2,
    )
    cut = graph.topology(without_agents=["b"])
    assert graph.mermaid(cut, {"a->judge": 1234}).splitlines() == [
        "flowchart LR",
        '  n0["a"]',
        '  n1["b"]',
        '  n2((("judge")))',
        '  n0 -->|"shout"| n1',
        "  n1 -.-> n0",
        '  n0 -->|"1,234"| n2',
        "  n1 --> n2",
        "  classDef pruned fill:#eee,stroke:#bbb,color:#999,stroke-dasharray:4",
        "  class n1 pruned",
        "  linkStyle 0,1,3 stroke:#ccc,stroke-dasharray:4",
    ]


def test_mermaid_escapes_what_would_end_a_label() -> None:
    names = ['say "hi"', "a[b](c){d}", "x|y;z%%", "<b>&#35;", "`code`", "名前 🤖", "end"]
    graph = AgentGraph([Agent(n) for n in names], [(n, "end") for n in names[:-1]], "end")
    labels = [re.fullmatch(r'  n\d+\W+"(.*?)"\W+', line) for line in graph.mermaid().splitlines()[1:8]]
    texts = [m[1] for m in labels if m]
    assert len(texts) == 7
    assert not any(re.search(r'["<>`]|#(?!\w+;)|&', text) for text in texts)
    codes = {"quot": '"', "lt": "<", "gt": ">", "amp": "&", "35": "#", "96": "`"}
    assert [re.sub(r"#(\w+);", lambda m: codes[m[1]], text) for text in texts] == names


def test_mermaid_draws_fifty_agents() -> None:
    graph = topologies.complete([f"a{i}" for i in range(50)], "judge")
    lines = graph.mermaid().splitlines()
    assert len(lines) == 1 + 51 + 50 * 49 // 2 + 50


def test_a_thousand_agents_build_and_prune_in_reasonable_time() -> None:
    began = time.perf_counter()
    graph = topologies.layered([f"a{i}" for i in range(1000)], "judge", layers=50, rounds=3)
    graph.prune(edges=graph.edges[:1000])
    assert time.perf_counter() - began < 20  # a second or two; minutes if a scan is nested in a scan


def test_one_agent_may_be_named_without_a_list() -> None:
    graph = AgentGraph([Agent("ab"), Agent("b")], [("ab", "b")], decision="b")
    assert graph.prune(agents="ab").names == ("b",)
    assert graph.topology(agents="ab") == graph.topology()
