"""The settings of talking agents: turns in order, answers, both stop rules, limits, any executor and number of agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.dialogue.play import dialogue
from agentcomm.dialogue.reward import RewardConfig, reward
from agentcomm.dialogue.stopping import NO_ANSWER
from agentcomm.errors import BackendError
from agentcomm.ledger.limits import Limits
from agentcomm.loading import load_graph
from agentcomm.task import Item

pytestmark = pytest.mark.anyio

NAMES = ["alice", "bob", "carol", "dave", "erin", "frank"]
ITEM = Item("i", "Where?", "x", views={f"s{n}": f"share {n}" for n in range(1, 7)})


def speaker(request: ChatRequest) -> str:
    text = "\n".join(m.content for m in request.messages)
    return next(n for n in NAMES if f"You are {n.title()}." in text)


class Talk:
    """Says what ``line`` gives for (speaker, own turn from 1); keeps the order of speaking."""

    def __init__(self, line: Callable[[str, int], str]) -> None:
        self.line, self.order = line, list[str]()

    def __call__(self, request: ChatRequest) -> str | BackendError:
        self.order.append(speaker(request))
        return self.line(self.order[-1], self.order.count(self.order[-1]))


async def play(talk: Talk, executor: Any = "plain", limits: Limits = Limits(), **options: Any) -> ac.Episode:
    graph = load_graph("information_exchange", options)
    return await ac.run(graph, ITEM, Scripted(talk), executor=executor, item_limits=limits)


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
@pytest.mark.parametrize("agents", [2, 3, 6])
async def test_n_agents_speak_in_order_for_all_rounds_each_with_its_own_share(
    agents: int, executor: str
) -> None:
    talk = Talk(lambda name, turn: f"{name} {turn}")
    episode = await play(talk, executor, agents=agents, rounds=2)
    assert talk.order == NAMES[:agents] * 2 and episode.answer == NO_ANSWER
    graph = load_graph("information_exchange", {"agents": agents})
    assert [a.view for a in graph.agents if a.act is None] == [f"s{n + 1}" for n in range(agents)]


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_alice_who_repeats_herself_stops_the_released_rule_and_not_the_papers(executor: str) -> None:
    def line(name: str, turn: int) -> str:
        return "<A>x</A>" if name == "alice" else "hm"

    paper, released = Talk(line), Talk(line)
    assert (await play(paper, executor)).answer == "Answer: x"
    assert (await play(released, executor, stop="any_two")).answer == "Answer: x"
    assert paper.order == ["alice", "bob"] * 3 and released.order == ["alice", "bob", "alice"]


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_any_two_of_three_agree_and_the_third_is_not_waited_for(executor: str) -> None:
    talk = Talk(
        lambda name, turn: (
            {"alice": "hm", "bob": "<A>x</A>", "carol": "<A>y</A>"}[name] if turn == 1 else "<A>X.</A>"
        )
    )
    episode = await play(talk, executor, agents=3)
    assert talk.order == ["alice", "bob", "carol", "alice"] and episode.answer == "Answer: X."


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
@pytest.mark.parametrize(("stop", "turns"), [("repeat", 3), ("any_two", 2)])
async def test_a_pair_stops_by_either_rule(executor: str, stop: str, turns: int) -> None:
    asked = []

    def say(request: ChatRequest) -> str:
        asked.append(request)
        return "It is <A>12</A>"

    graph = load_graph("debate_pair", {"stop": stop})
    episode = await ac.run(graph, Item("s", "5+7?"), Scripted(say), executor=executor)  # type: ignore[arg-type]
    assert len(asked) == turns and episode.answer == "Answer: 12"


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_a_limit_of_calls_ends_a_dialogue_as_a_failure_and_not_as_a_wrong_answer(executor: str) -> None:
    episode = await play(Talk(lambda name, turn: "hm"), executor, Limits(calls=3))
    assert not episode.ok and episode.failure is not None and episode.failure.kind == "limit"


async def test_a_message_that_reaches_its_cap_is_marked_as_such_and_punished() -> None:
    episode = await play(Talk(lambda name, turn: "word " * 20), max_tokens=10, rounds=1)
    said = dialogue(0.0, episode.usage.rows)
    assert [m.capped for m in said.messages] == [True, True] and said.tokens["message"] == 20
    terms = reward(said, 100.0, RewardConfig(loss_weight=0.0, min_tokens=1))
    assert "too_long" in terms.guards and terms.token_term == -1.0


@pytest.mark.parametrize(
    ("graph", "stop"),
    [("information_exchange", "repeat"), ("debate_pair", "agreement"), ("debate_pair", "never")],
)
def test_a_rule_that_the_setting_does_not_have_is_refused(graph: str, stop: str) -> None:
    with pytest.raises(ac.UserError, match="any_two"):
        load_graph(graph, {"stop": stop})


async def test_who_is_asked_at_the_end_reads_the_last_words_and_its_own_share() -> None:
    asked: list[str] = []

    def reply(request: ChatRequest) -> str:
        text = "\n".join(m.content for m in request.messages)
        if "Reply with the answer alone" in text:
            asked.append(text)
            return "x"
        assert "<A>" not in text and "Answer:" not in text
        return f"{speaker(request)} talks"

    graph = load_graph("information_exchange", {"answer": "asked", "rounds": 2})
    episode = await ac.run(graph, ITEM, Scripted(reply), executor="plain")
    assert episode.answer == "x" and len(asked) == 1
    assert (
        all(word in asked[0] for word in ("alice talks", "bob talks", "share 2"))
        and "share 1" not in asked[0]
    )


async def test_a_last_line_marks_an_answer_where_the_team_is_told_so() -> None:
    talk = Talk(lambda name, turn: f"{name} knows.\nAnswer: x")
    episode = await play(talk, mark="line")
    assert talk.order == ["alice", "bob"] and episode.answer == "Answer: x"


@pytest.mark.parametrize("options", [{"mark": "star"}, {"answer": "guessed"}])
def test_an_unknown_way_to_answer_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ac.UserError, match="information_exchange: .*; use "):
        load_graph("information_exchange", options)
