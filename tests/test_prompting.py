"""Prompts grow only at their end, share their beginning, and every byte has a part that pays."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcomm.executors.plain import PlainExecutor
from agentcomm.graph import Agent, AgentGraph
from agentcomm.loading import load_graph, shipped
from agentcomm.message import Delivery, EdgeKey, Failure, Message
from agentcomm.prompting import NOTHING_NEW, Prompt, Turn, build
from agentcomm.schedule import Inbox, Schedule, TurnRecord
from agentcomm.task import Item
from tests.executors.graphs import Fates, fates, teams, topologies

ITEM = Item("1", "Who?", context="Facts.", views={"left": "Left facts.", "right": "Right facts."})


def prompts(
    graph: AgentGraph, failing: Fates, topology: Any = None, item: Item = ITEM
) -> dict[tuple[int, str], Prompt]:
    """The prompt of every turn of an episode."""
    made: dict[tuple[int, str], Prompt] = {}

    async def act(inbox: Inbox) -> TurnRecord:
        read = tuple(Delivery(EdgeKey(*e.key), m, m.text) for e, m in inbox.letters)
        turn = Turn(item, graph.by_name[inbox.agent], inbox.round, read, inbox.past)
        made[(inbox.round, inbox.agent)] = build(graph, turn)
        if (inbox.agent, inbox.round) in failing:
            return TurnRecord(inbox.agent, inbox.round, read, Failure(inbox.agent, inbox.round, "x", "x"))
        text = "" if inbox.round == 2 and inbox.agent == "a1" else f"{inbox.agent} in {inbox.round}"
        return TurnRecord(inbox.agent, inbox.round, read, Message(inbox.agent, inbox.round, text))

    anyio.run(PlainExecutor().execute, Schedule.of(graph, topology), act)
    return made


def flat(prompt: Prompt) -> str:
    """What a chat template makes of it, less the end of the last message."""
    return "".join(f"<{m.role}>{m.content}" for m in prompt.chat())


@settings(deadline=None)
@given(st.data())
def test_an_agent_with_a_memory_finds_its_earlier_prompts_byte_for_byte(data: st.DataObject) -> None:
    graph = data.draw(teams())
    made = prompts(graph, data.draw(fates(graph)), data.draw(topologies(graph)))
    for (r, name), prompt in made.items():
        earlier = [made[(s, name)] for s in range(1, r) if (s, name) in made]
        if graph.by_name[name].memory and earlier:
            assert flat(prompt).startswith(flat(earlier[-1]))


@pytest.mark.parametrize("name", sorted(shipped("graphs")))
@pytest.mark.parametrize("rounds", [None, 4])
def test_every_shipped_graph_keeps_its_bytes_from_round_to_round(name: str, rounds: int | None) -> None:
    graph = load_graph(name)
    if rounds is not None:
        graph = AgentGraph(graph.agents, graph.edges, graph.decision, rounds, graph.system)
    views = {a.view: "Facts of its own." for a in graph.agents if a.view not in (None, "*")}
    made = prompts(graph, {}, item=Item("1", "Who?", context="Facts.", views=views))
    assert len(made) >= len(graph.agents)
    for (r, agent), prompt in made.items():
        shared = "Facts.\n\nWho?" if graph.by_name[agent].context else "Who?"
        assert flat(prompt).startswith(f"<system>{graph.system}<user>{shared}")
        if (r - 1, agent) in made and graph.by_name[agent].memory:
            assert flat(prompt).startswith(flat(made[(r - 1, agent)]))


@settings(deadline=None)
@given(st.data())
def test_all_agents_share_everything_before_their_roles(data: st.DataObject) -> None:
    graph = data.draw(teams())
    made = prompts(graph, {}, item=ITEM)
    shared = f"<system>{graph.system}<user>{ITEM.context}\n\n{ITEM.question}"
    assert all(flat(p).startswith(shared) for p in made.values())


@settings(deadline=None)
@given(st.data())
def test_messages_take_turns_and_segments_add_up_to_them(data: st.DataObject) -> None:
    graph = data.draw(teams())
    for prompt in prompts(graph, data.draw(fates(graph)), data.draw(topologies(graph))).values():
        assert prompt.messages[0].role == "system"
        roles = [m.role for m in prompt.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        for message, chat in zip(prompt.messages, prompt.chat(), strict=True):
            assert "".join(s.text for s in message.segments) == chat.content
            assert chat.content or message.role == "assistant"  # only an agent may have said nothing
        for segment in prompt.segments:
            assert (segment.delivery is not None) == isinstance(segment.part, EdgeKey)
            if segment.delivery is not None:
                assert segment.text.endswith(segment.delivery.text)
                assert segment.part == segment.delivery.edge


def test_an_agent_without_memory_keeps_its_opening_and_reads_only_this_round() -> None:
    graph = AgentGraph(
        [Agent("a"), Agent("b", "Check.", memory=False), Agent("judge")],
        [("a", "b"), ("b", "judge")],
        "judge",
        rounds=2,
    )
    made = prompts(graph, {})
    opening = f"<system>{graph.system}<user>Facts.\n\nWho?\n\nCheck.\n\nFrom a:\n"
    assert flat(made[(1, "b")]) == opening + "a in 1"
    assert flat(made[(2, "b")]) == opening + "a in 2"


def test_after_a_failure_the_messages_it_was_shown_are_still_there() -> None:
    graph = AgentGraph(
        [Agent("a"), Agent("b"), Agent("judge")], [("a", "b"), ("b", "judge")], "judge", rounds=3
    )
    made = prompts(graph, {("b", 2): "fails"})
    assert [m.role for m in made[(3, "b")].messages] == ["system", "user", "assistant", "user"]
    assert made[(3, "b")].messages[-1].content == "From a:\na in 2\n\nFrom a:\na in 3"
    assert [s.again for s in made[(3, "b")].messages[-1].segments] == [True, False]


def test_after_a_failure_with_nothing_to_read_the_prompt_still_only_grows() -> None:
    graph = AgentGraph(
        [Agent("a"), Agent("judge")], [("a", "judge"), ("judge", "a", "temporal")], "judge", rounds=4
    )
    made = prompts(graph, {("judge", 1): "fails", ("a", 2): "fails"})
    assert made[(2, "a")].messages[-1].content == NOTHING_NEW
    assert made[(3, "a")].messages[-1].content == f"{NOTHING_NEW}\n\nFrom judge:\njudge in 2"


def test_an_agent_sees_its_view_after_its_role_and_what_pays_for_what() -> None:
    graph = AgentGraph([Agent("a", "Role.", view="left"), Agent("judge")], [("a", "judge")], "judge")
    made = prompts(graph, {})
    assert [(s.part, s.text) for s in made[(1, "a")].segments] == [
        ("system", graph.system),
        ("task", "Facts."),
        ("task", "\n\nWho?"),
        ("system", "\n\nRole."),
        ("task", "\n\nLeft facts."),
    ]
    assert "Right" not in flat(made[(1, "a")])
    assert made[(1, "judge")].segments[-1].part == EdgeKey("a", "judge", "spatial")


def test_an_empty_message_is_not_read_and_not_paid_for() -> None:
    graph = AgentGraph([Agent("a"), Agent("b")], [("a", "b")], "b")
    said = Message("a", 1, " \n")
    turn = Turn(ITEM, graph.by_name["b"], 1, (Delivery(EdgeKey("a", "b"), said, said.text),))
    assert [s.part for s in build(graph, turn).segments] == ["system", "task", "task"]


def test_without_a_system_text_there_is_no_system_message() -> None:
    graph = AgentGraph([Agent("a")], decision="a", system="")
    assert [m.role for m in build(graph, Turn(ITEM, graph.agents[0], 1)).messages] == ["user"]
