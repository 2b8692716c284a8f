"""What can be left out of a team, who goes with it, and what stays."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agentcomm.evaluation.parts import Part, is_alone, parts, useful, without
from agentcomm.graph import Agent, AgentGraph, Edge, Mask, Topology
from agentcomm.loading import cut_topology


async def vote(turn: object) -> str:
    return ""


def by_name(graph: AgentGraph, topology: Topology | None = None) -> dict[str, Part]:
    return {p.name: p for p in parts(graph, topology)}


def alive(part: Part) -> frozenset[str]:
    assert part.left is not None
    return part.left.masks[0].agents


def agents(*names: str) -> list[Agent]:
    return [Agent(n) for n in names]


def test_agents_and_edges_are_listed_in_the_graphs_order_pairs_of_both_kinds_once() -> None:
    graph = AgentGraph(
        agents("solver", "critic", "judge"),
        [
            ("solver", "critic"),
            ("solver", "judge"),
            ("critic", "judge"),
            ("critic", "solver", "temporal"),
            ("solver", "judge", "temporal"),
        ],
        "judge",
        rounds=2,
    )
    assert list(by_name(graph)) == [
        "solver", "critic", "judge", "solver->critic", "solver->judge", "critic->judge", "critic->solver",
    ]  # fmt: skip
    gone = by_name(graph)["solver->judge"].left
    assert gone is not None
    assert {(e.sender, e.reader) for e in gone.masks[0].edges} == {
        ("solver", "critic"),
        ("critic", "judge"),
        ("critic", "solver"),
    }


def test_who_is_no_longer_heard_goes_too_and_is_named() -> None:
    # a and b reach the judge through c alone.
    graph = AgentGraph(
        agents("a", "b", "c", "d", "judge"),
        [("a", "c"), ("b", "c"), ("a", "b"), ("c", "judge"), ("d", "judge")],
        "judge",
    )
    found = by_name(graph)
    assert found["c"].gone == ("a", "b") and alive(found["c"]) == {"d", "judge"}
    assert found["c->judge"].gone == ("a", "b", "c")
    assert found["c->judge"].cut == ("a", "b", "c") and found["c"].cut == ("c", "a", "b")
    assert found["b->c"].gone == ("b",) and found["b->c"].cut == ("b",)
    assert found["a->c"].gone == () and found["a->c"].cut == ("a->c",)


def test_the_decision_agent_and_whoever_alone_reaches_it_cannot_be_left_out() -> None:
    graph = AgentGraph(agents("a", "b", "judge"), [("a", "b"), ("b", "judge")], "judge")
    found = by_name(graph)
    assert found["judge"].left is None and found["judge"].note == "it gives the answer"
    assert found["b"].left is None and found["b"].note == "nobody else reaches judge"
    assert alive(found["a"]) == {"b", "judge"}


def test_a_graph_of_one_edge_shows_the_decision_agent_alone() -> None:
    found = by_name(AgentGraph(agents("a", "judge"), [("a", "judge")], "judge"))
    assert found["a"].left is None
    edge = found["a->judge"]
    assert alive(edge) == {"judge"} and edge.gone == ("a",) and edge.note == "judge then answers alone"


def test_a_function_that_decides_needs_something_to_read() -> None:
    graph = AgentGraph([*agents("a", "b"), Agent("vote", act=vote)], [("a", "b"), ("b", "vote")], "vote")
    found = by_name(graph)
    assert found["b->vote"].left is None and found["b->vote"].note == "vote would have nothing to read"
    assert found["a->b"].left is not None


def test_what_is_cut_already_is_no_part_and_cuts_add_up() -> None:
    graph = AgentGraph(
        agents("a", "b", "c", "judge"),
        [("a", "c"), ("b", "c"), ("c", "judge"), ("b", "judge")],
        "judge",
    )
    found = by_name(graph, cut_topology(graph, ["a->c"]))
    # a is heard by nobody any more, so it isn't part of the team either.
    assert list(found) == ["b", "c", "judge", "b->c", "c->judge", "b->judge"]
    assert alive(found["c"]) == {"b", "judge"}


def test_an_agent_may_matter_through_a_later_round_alone() -> None:
    graph = AgentGraph(
        agents("critic", "solver", "judge"),
        [("critic", "solver", "temporal"), ("solver", "judge")],
        "judge",
        2,
    )
    found = by_name(graph)
    assert alive(found["critic"]) == {"solver", "judge"} and found["critic->solver"].gone == ("critic",)


def test_masks_for_each_round_stay_masks_for_each_round() -> None:
    graph = AgentGraph(
        agents("a", "b", "judge"), [("a", "b", "temporal"), ("a", "judge"), ("b", "judge")], "judge", 2
    )
    (whole,) = graph.topology().masks
    second = Mask(
        whole.agents - {"a"}, frozenset(e for e in whole.edges if e.sender != "a" or e.kind == "temporal")
    )
    found = by_name(graph, Topology((whole, second)))
    left = found["b->judge"].left
    assert left is None or len(left.masks) == 2
    gone = found["a"].left
    assert gone is not None and [m.agents for m in gone.masks] == [{"b", "judge"}, {"b", "judge"}]


@st.composite
def graphs(draw: st.DrawFn) -> AgentGraph:
    n = draw(st.integers(1, 5))
    rng = random.Random(draw(st.integers(0, 10_000)))
    rounds = rng.choice([1, 2])
    members = agents(*(f"a{i}" for i in range(n)), "judge")
    edges = [Edge(f"a{i}", f"a{j}") for i in range(n) for j in range(i + 1, n) if rng.random() < 0.5]
    edges += [Edge(f"a{i}", "judge") for i in range(n) if rng.random() < 0.5 or i == n - 1]
    if rounds == 2:
        edges += [
            Edge(f"a{i}", f"a{j}", "temporal") for i in range(n) for j in range(n) if rng.random() < 0.2
        ]
    # Everybody must reach the judge for the graph to be one.
    heard = {"judge"}
    for i in reversed(range(n)):
        if not any(e.sender == f"a{i}" and e.reader in heard and e.kind == "spatial" for e in edges):
            edges.append(Edge(f"a{i}", "judge"))
        heard.add(f"a{i}")
    return AgentGraph(members, edges, "judge", rounds)


@given(graphs())
def test_the_words_of_cut_leave_exactly_what_was_measured_and_everybody_left_is_heard(
    graph: AgentGraph,
) -> None:
    for part in parts(graph):
        if part.left is None:
            continue
        assert cut_topology(graph, part.cut) == part.left
        assert part.left <= graph.topology() and part.left != graph.topology()
        assert useful(graph, part.left) == part.left
        assert graph.useful_agents(part.left) == part.left.masks[0].agents
        if is_alone(graph, part.left):
            assert part.kind == "edge"


def test_leaving_out_nothing_leaves_everything() -> None:
    graph = AgentGraph(agents("a", "judge"), [("a", "judge")], "judge")
    assert without(graph, graph.topology()) == graph.topology()
