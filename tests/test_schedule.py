"""Waves are a topological order, and a turn is there only if its agent is alive and somebody hears it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcomm import topologies
from agentcomm.errors import GraphError
from agentcomm.graph import Agent, AgentGraph, Edge, Mask, Topology
from agentcomm.message import EdgeKey, Failure, Message
from agentcomm.schedule import Schedule, TurnRecord, Wave, in_order, inbox
from tests.executors.graphs import teams
from tests.executors.graphs import topologies as masks


@settings(deadline=None)
@given(st.data())
def test_the_waves_are_a_topological_order_of_the_alive_agents(data: st.DataObject) -> None:
    graph = data.draw(teams())
    schedule = Schedule.of(graph, data.draw(masks(graph)))
    place = {turn: i for i, turn in enumerate(schedule.order)}
    assert len(place) == sum(len(w.agents) for w in schedule.waves)  # nobody speaks twice in a round
    assert [w.round for w in schedule.waves] == sorted(w.round for w in schedule.waves)
    assert schedule.waves[-1] == Wave(graph.rounds, (graph.decision,))
    waves = {(w.round, a): i for i, w in enumerate(schedule.waves) for a in w.agents}
    for r in range(1, graph.rounds + 1):
        mask = schedule.topology.mask(r)
        spoke = {a for round, a in place if round == r}
        assert spoke - {graph.decision} == mask.agents - {graph.decision}
        for key in mask.edges:
            if key.kind == "spatial" and {(r, key.sender), (r, key.reader)} <= set(waves):
                assert waves[(r, key.sender)] < waves[(r, key.reader)]
    for wave in schedule.waves:
        assert list(wave.agents) == sorted(wave.agents, key=graph.names.index)


def test_waves_are_as_few_as_the_longest_path() -> None:
    graph = topologies.layered([f"a{i}" for i in range(6)], "judge", layers=3)
    assert [w.agents for w in Schedule.of(graph).waves] == [
        ("a0", "a1"),
        ("a2", "a3"),
        ("a4", "a5"),
        ("judge",),
    ]


def test_the_decision_agent_speaks_once_unless_somebody_reads_it_a_round_later() -> None:
    quiet = topologies.chain(["a", "b"], "judge", rounds=3)
    assert [w for w in Schedule.of(quiet).waves if "judge" in w.agents] == [Wave(3, ("judge",))]
    heard = AgentGraph(quiet.agents, [*quiet.edges, Edge("judge", "a", "temporal")], "judge", 3)
    assert [w.round for w in Schedule.of(heard).waves if "judge" in w.agents] == [1, 2, 3]
    # ... and not in a round after which nobody does
    full = heard.topology().masks[0]
    deaf = Mask(full.agents - {"a"}, full.edges)
    some = Schedule.of(heard, Topology((full, full, deaf)))
    assert [w.round for w in some.waves if "judge" in w.agents] == [1, 3]


def test_a_dead_agent_has_no_turn_and_an_isolated_one_has() -> None:
    graph = topologies.chain(["a", "b", "c"], "judge")
    dead = Schedule.of(graph, graph.topology(without_agents=["b"]))
    assert ("b", 1) not in dead.turns
    isolated = Schedule.of(graph, graph.topology(edges=[("a", "judge")]))
    assert ("b", 1) in isolated.turns
    assert isolated.waves[0].agents == ("a", "b", "c")


def record(agent: str, round: int) -> TurnRecord:
    return TurnRecord(agent, round, (), Message(agent, round, f"{agent}{round}"))


def test_the_inbox_has_temporal_letters_first_then_the_order_of_the_graph() -> None:
    agents = [Agent(n) for n in ("z", "y", "x", "judge")]
    edges = [
        Edge("x", "y"),
        Edge("z", "y"),
        Edge("x", "y", "temporal"),
        Edge("y", "y", "temporal"),
        Edge("y", "judge"),
    ]
    schedule = Schedule.of(AgentGraph(agents, edges, "judge", 2))
    mailbox = {(r, a): record(a, r) for r in (1, 2) for a in "xyz"}
    assert [m.text for _, m in inbox(schedule, "y", 2, mailbox).letters] == ["y1", "x1", "z2", "x2"]
    assert [m.text for _, m in inbox(schedule, "y", 1, mailbox).letters] == ["z1", "x1"]


def test_failed_senders_write_no_letter_but_the_own_failure_stays_in_the_past() -> None:
    schedule = Schedule.of(topologies.chain(["a", "b"], "judge", rounds=2))
    failed = TurnRecord("a", 1, (), Failure("a", 1, "timeout", "too slow"))
    mailbox = {(1, "a"): failed, (1, "b"): record("b", 1)}
    assert inbox(schedule, "b", 1, mailbox).letters == ()
    assert inbox(schedule, "a", 2, mailbox).past == (failed,)


def test_an_agent_without_memory_has_no_past() -> None:
    schedule = Schedule.of(topologies.chain([Agent("a", memory=False), "b"], "judge", rounds=2))
    mailbox = {(1, "a"): record("a", 1), (1, "b"): record("b", 1)}
    assert inbox(schedule, "a", 2, mailbox).past == ()
    assert [r.round for r in inbox(schedule, "b", 2, mailbox).past] == [1]


def test_a_topology_that_does_not_fit_is_refused() -> None:
    graph = topologies.chain(["a", "b"], "judge", rounds=2)
    full = graph.topology().masks[0]
    for layers, words in [
        ((full,) * 3, "masks for 3 rounds, the graph has 2"),
        ((Mask(full.agents | {"ghost"}, full.edges),), "'ghost', not in the graph"),
        ((Mask(full.agents, full.edges | {EdgeKey("b", "a")}),), "b->a, not in the graph"),
        ((full, Mask(full.agents - {"judge"}, full.edges)), "prunes the decision agent 'judge'"),
    ]:
        with pytest.raises(GraphError, match=words):
            Schedule.of(graph, Topology(layers))


def test_records_are_put_in_order_by_round_and_agent_with_the_decision_last() -> None:
    graph = AgentGraph(
        [Agent("judge"), Agent("a")], [Edge("a", "judge"), Edge("judge", "a", "temporal")], "judge", 2
    )
    shuffled = [record("judge", 2), record("a", 2), record("judge", 1), record("a", 1)]
    assert [(r.round, r.agent) for r in in_order(graph, shuffled)] == [
        (1, "a"),
        (1, "judge"),
        (2, "a"),
        (2, "judge"),
    ]
