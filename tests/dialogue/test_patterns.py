"""Monologue, dialogue and analogue: from the command to the lists that are learned from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted, count_words
from agentcomm.dialogue.buffer import DROPPED, OTHER, OWN, Buffer
from agentcomm.dialogue.patterns import act, answers, find
from agentcomm.dialogue.stopping import NO_ANSWER, Marked, Turns, from_spec
from agentcomm.errors import ConfigError
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph, load_task
from agentcomm.message import Reply, Usage
from agentcomm.task import Item
from tests.command import agentcomm

pytestmark = pytest.mark.anyio

ITEM = Item(
    "i", "Where does Ada live?", "Oslo", views={"s1": "Ben lives in Rome.", "s2": "Ada lives in Oslo."}
)


def encode(text: str) -> list[int]:
    """A token a word, told apart by its length."""
    return [len(word) for word in text.split()]


def script(*lines: str, cut: int | None = None) -> Scripted:
    """Says its lines in order; the line number ``cut`` ended at its token limit."""
    left = list(enumerate(lines))

    def say(request: ChatRequest) -> Reply:
        n, text = left.pop(0)
        read = sum(count_words(m.content) for m in request.messages)
        reason = "length" if n == cut else "stop"
        return Reply(text, Usage(read, count_words(text), 0), finish_reason=reason)

    return Scripted(say)


async def played(
    graph: AgentGraph, model: Scripted, item: Item = ITEM, executor: Any = "plain"
) -> ac.Episode:
    return await ac.run(graph, item, model, executor=executor)


# ------------------------------------------------------------------------------ monologue


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_a_monologue_looks_opens_and_answers_and_the_environment_ends_it(executor: str) -> None:
    model = script("Let me see.\ndo: look", "do: open s2", "Ada is there.\ndo: answer Oslo", "never said")
    episode = await played(load_graph("monologue"), model, executor=executor)
    said = [m.text for m in episode.messages if m.sender == "environment"]
    assert said == ["Drawers: s1, s2.", "In drawer s2: Ada lives in Oslo.", "Done. <A>Oslo</A>"]
    assert episode.answer == "Answer: Oslo" and len(model.requests) == 3
    assert "Ben lives" not in "".join(
        m.content for r in model.requests for m in r.messages
    )  # it never opened s1


async def test_a_monologue_without_an_answer_ends_at_its_limit() -> None:
    episode = await played(load_graph("monologue", {"rounds": 3}), script(*["I wonder."] * 3))
    assert episode.answer == NO_ANSWER
    said = [m.text for m in episode.messages if m.sender == "environment"]
    assert len(said) == 3 and all("do: open NAME" in text for text in said)


@pytest.mark.parametrize(
    ("verb", "what", "says"),
    [
        ("open", "s9", "There is no drawer s9. Drawers: s1, s2."),
        ("open", "", "no drawer without a name"),
        ("open", "drawer s1.", "In drawer s1: Ben lives in Rome."),
        ("answer", "", "can't be done"),
        ("answer", "<A>Oslo</A>", "Done. <A>Oslo</A>"),
        ("jump", "", "can't be done"),
    ],
)
def test_the_cabinet_answers_everything_it_is_told(verb: str, what: str, says: str) -> None:
    assert says in act(ITEM, verb, what)


# ------------------------------------------------------------------------------- dialogue


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_two_models_and_a_library_talk_until_both_mark_the_same(executor: str) -> None:
    model = script("find: Ada lives", "Ada is in Oslo.", "<A>Oslo</A>", "Yes, <A>oslo</A>", "never said")
    episode = await played(load_graph("dialogue", {"passages": 1}), model, executor=executor)
    order = [m.sender for m in episode.messages if m.sender != "agreement"]
    assert order == ["asker", "library", "helper"] * 2
    assert "Found: Ada lives in Oslo." in model.requests[1].messages[-1].content
    assert episode.answer == "Answer: oslo"


def test_the_library_finds_what_shares_most_words_and_says_when_nothing_does() -> None:
    assert find(ITEM, "Where is ADA?", 1) == ["Ada lives in Oslo."]
    assert find(ITEM, "lives", 5) == ["Ben lives in Rome.", "Ada lives in Oslo."]
    assert find(ITEM, "zebra") == []


# ------------------------------------------------------------------------------- analogue

SUM = Item("s", "What is 2 plus 3?", "5")


@pytest.mark.parametrize("executor", ["plain", "langgraph"])
async def test_in_an_analogue_the_first_answer_counts_and_the_new_problem_is_answered_too(
    executor: str,
) -> None:
    model = script(
        "2+3 is <A>5</A>",
        "Right, <A>5</A>. <P>What is 4 plus 4?</P>",
        "That is <A>9</A>",
        "It is <A>8</A>. <P>What is 1 plus 1?</P>",
    )
    episode = await played(load_graph("analogue"), model, SUM, executor)
    assert episode.answer == "Answer: 5" and len(model.requests) == 4
    assert "What is 4 plus 4?" in model.requests[2].messages[-1].content
    assert answers(episode.records, 1.0) == {1: 1.0, 2: -1.0}
    assert answers(episode.records, 0.0) == {1: -1.0, 2: -1.0}


@pytest.mark.parametrize(
    ("teacher", "known"),
    [
        (["<A>5</A>", "<A>8</A>"], {1: 1.0}),  # it posed no problem
        (["<P>4+4?</P>", "well done"], {1: 1.0}),  # it solved none
        (["<P>4+4?</P>", "<A>8</A>"], {1: 1.0, 2: 1.0}),
    ],
)
async def test_an_answer_that_nobody_can_judge_has_no_reward(
    teacher: list[str], known: dict[int, float]
) -> None:
    model = script("<A>5</A>", teacher[0], "<A>8.0</A>", teacher[1])
    episode = await played(load_graph("analogue"), model, SUM)
    assert answers(episode.records, 1.0) == known


# --------------------------------------------------------------------------------- buffer


async def monologue(cut: int | None = None) -> tuple[AgentGraph, ac.Episode]:
    graph = load_graph("monologue")
    return graph, await played(graph, script("do: look", "do: open s2", "do: answer Oslo", cut=cut))


async def test_a_buffer_knows_own_words_others_words_and_the_reward_at_the_end() -> None:
    graph, episode = await monologue()
    buffer = Buffer()
    buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=1.0, iteration=3)
    own = [t for t, m in zip(buffer.token_ids, buffer.mask, strict=True) if m == OWN]
    assert own == encode("do: look do: open s2 do: answer Oslo")
    assert set(buffer.mask) == {OWN, OTHER} and buffer.mask[0] == OTHER  # the team's text comes first
    assert [r for r in buffer.rewards if r] == [1.0] and buffer.rewards[-1] == 1.0
    lists = buffer.to_dict()
    lengths = {len(lists[k]) for k in ("token_ids", "mask", "rewards", "item", "agent", "iteration")}
    assert (
        lengths == {sum(buffer.lengths)} and set(buffer.agent) == {"actor"} and set(buffer.iteration) == {3}
    )
    assert buffer.returns() == pytest.approx([math.tanh(1)] * len(buffer.token_ids))


async def test_words_that_a_limit_cut_off_are_dropped() -> None:
    graph, episode = await monologue(cut=1)
    buffer = Buffer()
    buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=1.0)
    dropped = [t for t, m in zip(buffer.token_ids, buffer.mask, strict=True) if m == DROPPED]
    assert dropped == encode("do: open s2")
    assert [r.completion for r in buffer.imitation] == ["do: look", "do: answer Oslo"]


async def test_without_log_probabilities_only_what_succeeded_is_imitated() -> None:
    graph, episode = await monologue()
    buffer = Buffer()
    buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=1.0)
    buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=-1.0)
    assert buffer.log_probs is None and buffer.values is None
    assert [r.completion for r in buffer.imitation] == ["do: look", "do: open s2", "do: answer Oslo"]
    assert all(r.meta.reward == 1.0 for r in buffer.imitation)
    with pytest.raises(ConfigError, match="no log-probabilities"):
        buffer.advantages()
    first = buffer.lengths[0]
    assert buffer.returns()[first - 1] == pytest.approx(math.tanh(1))
    assert buffer.returns()[first] == pytest.approx(-math.tanh(1))  # trajectories don't run into each other


async def test_with_log_probabilities_and_values_there_are_advantages_and_one_gap_forbids_them() -> None:
    graph, episode = await monologue()
    own = [encode(t) for t in ("do: look", "do: open s2", "do: answer Oslo")]
    numbers = [[0.25] * len(t) for t in own]
    buffer = Buffer()
    buffer.add(
        graph, ITEM, episode.records, "actor", encode=encode, reward=-1.0, log_probs=numbers, values=numbers
    )
    assert buffer.advantages()[-1] == pytest.approx(math.tanh(-1) - 0.25)
    assert buffer.log_probs is not None and len(buffer.log_probs) == len(buffer.token_ids)
    with pytest.raises(ConfigError, match="one number for every token"):
        buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=1.0, log_probs=numbers[:2])
    assert buffer.lengths == [len(buffer.token_ids)]  # what was refused left nothing behind
    buffer.add(graph, ITEM, episode.records, "actor", encode=encode, reward=1.0)
    assert buffer.log_probs is None


async def test_each_answer_of_an_analogue_has_its_reward_and_one_that_nobody_judged_is_dropped() -> None:
    graph = load_graph("analogue", {"problems": 3})
    model = script(
        "<A>5</A>", "ok <P>4+4?</P>", "is <A>9</A>", "<A>8</A> <P>1+1?</P>", "so <A>2</A>", "no mark here"
    )
    episode = await played(graph, model, SUM)
    buffer = Buffer()
    rewards = answers(episode.records, 1.0)
    buffer.add(graph, SUM, episode.records, "student", encode=encode, reward=rewards)
    assert [r for r in buffer.rewards if r] == [1.0, -1.0]
    assert buffer.mask[-2:] == [DROPPED] * 2
    assert [r.completion for r in buffer.imitation] == ["<A>5</A>"]


async def test_what_is_no_trajectory_is_refused() -> None:
    graph, episode = await monologue()
    for agent, reward, says in (
        ("environment", 1.0, "no model with a memory"),
        ("nobody", 1.0, "no model with a memory"),
        ("actor", math.nan, "a reward of nan"),
    ):
        with pytest.raises(ConfigError, match=says):
            Buffer().add(graph, ITEM, episode.records, agent, encode=encode, reward=reward)
    with pytest.raises(ConfigError, match="said nothing"):
        Buffer().add(graph, ITEM, (), "actor", encode=encode, reward=1.0)


# ---------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("graph", "by_role", "answer"),
    [
        ("monologue", ["do: look", "do: open s1", "do: answer {}"], 3),
        ("dialogue", ["find: it", "<A>{}</A>", "<A>{}</A>"], 3),
        ("analogue", ["<A>{}</A>", "<P>new?</P>", "<A>1</A>", "<A>2</A>"], 4),
    ],
)
def test_each_pattern_runs_through_the_command(
    tmp_path: Path, graph: str, by_role: list[str], answer: int
) -> None:
    gold = load_task("records", {"limit": 1}).items[0].answer
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"replies": [line.format(gold) for line in by_role]}))
    made = agentcomm(
        "eval",
        graph,
        "records",
        "-m",
        f"scripted/{path}",
        "--limit",
        "1",
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert made.code == 0, made.err
    assert made.json["score"]["mean"] == 1.0 and made.json["calls"] == answer


@pytest.mark.parametrize("rule", [Marked("environment"), Turns("teacher", 2)])
def test_their_stop_rules_survive_their_description(rule: ac.graph.StopRule) -> None:
    assert from_spec(rule.spec()) == rule
