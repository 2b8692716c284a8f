"""A dialogue ends by its rule, and its last mark is the answer."""

from collections.abc import Sequence

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.dialogue.stopping import NO_ANSWER, Agreement, AnyTwo, Repeat, from_spec
from agentcomm.errors import ConfigError, GraphError
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph
from agentcomm.message import Message, Reply, Usage
from agentcomm.task import Item


def said(*turns: tuple[str, str]) -> list[Message]:
    return [Message(sender=who, round=1, text=text, item="i") for who, text in turns]


A12, A13, B12 = ("a", "<A>12</A>"), ("a", "<A>13</A>"), ("b", "so <A> 12 </A>.")


@pytest.mark.parametrize(
    ("turns", "agreement", "any_two", "repeat"),
    [
        ([A12], False, False, False),
        ([A12, A12], False, True, False),  # one agent that repeats itself
        ([A12, B12], True, True, False),
        ([A13, B12], False, False, False),
        ([A12, ("b", "no"), A12], False, True, True),
        ([A12, ("b", "no"), A13], False, False, False),
        ([A12, ("b", "no"), ("a", "hm")], False, False, False),
        ([A13, B12, A12], True, True, False),
        ([A12, ("b", "<A>13</A>"), A13], True, True, False),
        ([A12, ("b", "<A>12</A> no, <A>14</A>")], False, False, False),
        ([], False, False, False),
    ],
)
def test_each_rule_sees_the_end_where_it_should(
    turns: list[tuple[str, str]], agreement: bool, any_two: bool, repeat: bool
) -> None:
    messages = said(*turns)
    assert Agreement().over(messages) == agreement
    assert AnyTwo().over(messages) == any_two
    assert Repeat("a").over(messages) == repeat


def test_numbers_agree_as_numbers() -> None:
    assert Agreement("number").over(said(("a", "<A>1,200</A>"), ("b", "<A>1200.0</A>")))
    assert not Agreement("text").over(said(("a", "<A>0.5</A>"), ("b", "<A>1/2</A>")))


@pytest.mark.parametrize("rule", [Agreement("number"), Repeat("solver"), AnyTwo()])
def test_a_rule_survives_its_description(rule: ac.graph.StopRule) -> None:
    assert from_spec(rule.spec()) == rule


def test_unknown_rules_and_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown stop rule"):
        from_spec({"rule": "never"})
    with pytest.raises(ConfigError, match="stop rule agreement"):
        from_spec({"rule": "agreement", "votes": 3})
    with pytest.raises(ConfigError, match="use text or number"):
        Agreement("formula")  # type: ignore[arg-type]


def test_a_graph_with_a_stop_rule_survives_json_only_with_a_maker_of_rules() -> None:
    graph = load_graph("information_exchange")
    data = graph.to_dict()
    functions = {"agreement": graph.by_name["agreement"].act}
    again = AgentGraph.from_dict(data, functions=functions, stops=from_spec)  # type: ignore[arg-type]
    assert again == graph and again.prune(edges=[]) == graph
    with pytest.raises(GraphError, match="pass stops="):
        AgentGraph.from_dict(data, functions=functions)  # type: ignore[arg-type]


# ------------------------------------------------------------------------ whole dialogues

ITEM = Item("i", "Where?", views={"s1": "left half", "s2": "right half"}, context="both halves")


class Script:
    """Each agent says its lines in turn; what it was asked is kept."""

    def __init__(self, **lines: Sequence[str]) -> None:
        self.left = {name: list(texts) for name, texts in lines.items()}
        self.order: list[str] = []
        self.prompts: list[str] = []

    def __call__(self, request: ChatRequest) -> Reply:
        text = "\n".join(m.content for m in request.messages)
        name = next(n for n in self.left if f"You are {n.title()}." in text or n in ("solver", "critic"))
        if "critic" in self.left:
            name = "critic" if "Point at the first error" in text else "solver"
        self.order.append(name)
        self.prompts.append(text)
        said = self.left[name].pop(0)
        return Reply(said, Usage(len(text.split()), len(said.split()), 0))


async def play(graph: AgentGraph, script: Script) -> ac.Episode:
    return await ac.run(graph, ITEM, model=Scripted(script), executor="plain")


@pytest.mark.anyio
async def test_a_round_may_end_before_the_second_agent_speaks() -> None:
    script = Script(alice=["I see left.", "<A>left</A>"], bob=["<A>left</A>", "never said"])
    episode = await play(load_graph("information_exchange"), script)
    assert script.order == ["alice", "bob", "alice"]
    assert episode.answer == "Answer: left"


@pytest.mark.anyio
async def test_each_peer_reads_what_was_said_since_its_own_last_turn_and_only_its_own_half() -> None:
    script = Script(alice=["one", "three", "five"], bob=["two", "four", "six"])
    episode = await play(load_graph("information_exchange"), script)
    assert script.order == ["alice", "bob"] * 3 and episode.answer == NO_ANSWER
    assert "left half" in script.prompts[4] and "right half" not in script.prompts[4]
    for earlier, later in ((0, 2), (2, 4), (1, 3), (3, 5)):
        assert script.prompts[later].startswith(script.prompts[earlier])  # only ever appended
    assert "four" in script.prompts[4] and script.prompts[4].count("two") == 1


@pytest.mark.anyio
async def test_three_peers_speak_in_order_and_two_that_agree_end_it() -> None:
    graph = load_graph("information_exchange", {"agents": 3, "views": "s1,s2,s1"})
    script = Script(alice=["hm"], bob=["<A>x</A>"], carol=["<A>X.</A>"])
    assert (await play(graph, script)).answer == "Answer: X."
    assert script.order == ["alice", "bob", "carol"]


@pytest.mark.anyio
async def test_a_pair_ends_when_the_solver_repeats_itself_and_the_critics_marks_never_count() -> None:
    script = Script(solver=["<A>12</A>", "<A>12</A>"], critic=["No: <A>13</A>", "unheard"])
    assert (await play(load_graph("debate_pair"), script)).answer == "Answer: 12"
    assert script.order == ["solver", "critic", "solver"]


@pytest.mark.anyio
async def test_at_the_limit_the_last_mark_counts_even_if_later_words_have_none() -> None:
    script = Script(alice=["<A>left</A>", "hm", "hm"], bob=["<A>right</A>", "well", "well"])
    assert (await play(load_graph("information_exchange"), script)).answer == "Answer: right"


def test_a_view_for_each_peer_is_asked_for() -> None:
    with pytest.raises(ac.UserError, match="a view for each"):
        load_graph("information_exchange", {"agents": 3, "views": "s1,s2"})
