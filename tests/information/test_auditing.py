"""Auditing a graph: arms as runs, what they pay for, what is said about readers of every kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentcomm import channels
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError, GraphError, UserError
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.information.auditing import GraphAudit, audit_graph
from agentcomm.information.scorers import open_scorer
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger
from agentcomm.prompting import Turn
from agentcomm.task import Item, Score, Task

pytestmark = pytest.mark.anyio

PAIR = AgentGraph(
    [Agent("finder", "Find.", view="facts"), Agent("judge", "Judge.", context=False)],
    [("finder", "judge")],
    "judge",
)
CHAIN = AgentGraph(
    [Agent("a", "First.", view="facts"), Agent("b", "Second."), Agent("judge", "Judge.")],
    [("a", "b"), ("b", "judge")],
    "judge",
)


def task(count: int = 20, **more: Any) -> Task:
    items = [
        Item(
            f"q{i:03d}",
            f"What is the code of box {i}?",
            f"code{i:03d}",
            views={"facts": f"The code is code{i:03d}."},
        )
        for i in range(count)
    ]
    return Task("boxes", items, lambda item, text: Score(float(str(item.answer) in text)), **more)


def code(prompt: str) -> str:
    found = re.search(r"code\d{3}", prompt)
    return found[0] if found else "unknown"


def speaking(judge: Callable[[str], str]) -> Scripted:
    """The judge says ``judge(prompt)``; everybody else passes on the code that stands in the prompt."""

    def say(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        return judge(prompt) if "Judge." in prompt else f"I found {code(prompt)}."

    return Scripted(say)


def own_code(prompt: str) -> str:
    """What a reader knows by heart: the right code of two boxes in five."""
    box = int(re.search(r"box (\d+)", prompt)[1])  # type: ignore[index]
    return f"code{box:03d}" if box % 5 < 2 else "unknown"


def ignores(prompt: str) -> str:
    return own_code(prompt)


def copies(prompt: str) -> str:
    return code(prompt.split("From", 1)[1]) if "From" in prompt else "unknown"


def reacts_to_presence(prompt: str) -> str:
    """Answers what it knows only if somebody wrote, whatever they wrote."""
    return own_code(prompt) if "From" in prompt else "unknown"


async def look(model: Any, graph: AgentGraph = PAIR, work: Task | None = None, **more: Any) -> GraphAudit:
    return await audit_graph(
        graph, work or task(), model, executor="plain", **{"full": "none", "margin": 0.2, **more}
    )


# -- what is said of readers of three kinds


async def test_a_reader_that_ignores_its_messages_is_equivalent_to_mismatched() -> None:
    found = await look(speaking(ignores))
    (audit,) = found.audits
    assert audit.verdict == "equivalent_to_mismatched"
    assert audit.content.mean == 0 and audit.generic.mean == 0 and audit.generic.equivalent
    assert audit.means == {"true": 0.4, "mismatched": 0.4, "empty": 0.4, "full": None}
    assert found.sentence.startswith("the messages' content makes no difference of 20 points (0 [")


async def test_a_reader_that_copies_gets_information() -> None:
    found = await look(speaking(copies))
    (audit,) = found.audits
    assert audit.verdict == "carries_information"
    assert audit.means == {"true": 1, "mismatched": 0, "empty": 0, "full": None}
    assert audit.content.exact is not None and audit.content.exact.only_first == 20
    assert found.sentence.startswith("the messages' content raises the score by 100 points [")
    assert "; their mere presence by 0 [" in found.sentence


async def test_a_reader_that_reacts_to_presence_alone_shows_in_the_generic_effect() -> None:
    found = await look(speaking(reacts_to_presence))
    (audit,) = found.audits
    assert audit.verdict == "equivalent_to_mismatched" and audit.content.mean == 0
    assert (
        audit.generic.mean == pytest.approx(0.4) and audit.generic.low is not None and audit.generic.low > 0.1
    )
    assert "their mere presence raises the score by 40 [" in found.sentence


# -- what the arms are


async def test_others_messages_are_of_another_document_and_every_item_gives_its_own_once(
    tmp_path: Path,
) -> None:
    model = speaking(copies)
    items = [
        Item(
            f"q{i:03d}",
            f"box {i}?",
            f"code{i:03d}",
            context=f"shelf {i // 2}",
            views={"facts": f"code{i:03d}"},
        )
        for i in range(8)
    ]
    shelves = [
        Item(i.id, i.question, i.answer, metadata={"document": f"shelf {n // 2}"}, views=i.views)
        for n, i in enumerate(items)
    ]
    work = Task("boxes", shelves, lambda item, text: Score(float(str(item.answer) in text)))
    found = await look(model, work=work, out=tmp_path / "a")
    assert found.audits[0].content.documents == 4 and found.audits[0].content.n == 8
    read = _read_by_judge(next((tmp_path / "a").glob("mismatched-*")))
    given = {item: int(re.search(r"code(\d+)", text)[1]) for item, text in read.items()}  # type: ignore[index]
    assert sorted(given.values()) == list(range(8))
    assert all(int(item[1:]) // 2 != number // 2 for item, number in given.items())


def _read_by_judge(run: Path) -> dict[str, str]:
    with Ledger.open(run / "ledger.sqlite") as ledger:
        return {row.item: row.text for row in ledger.deliveries() if row.reader == "judge"}


async def test_the_message_nearest_in_length_is_exchanged() -> None:
    def say(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        number = int(re.search(r"box (\d+)", prompt)[1])  # type: ignore[index]
        return "yes" if "Judge." in prompt else "word " * (100 if number % 2 else 3) + f"{number}"

    found = await look(Scripted(say), work=task(10))
    assert found.length_difference is not None and found.length_difference < 2


async def test_only_who_reads_something_else_is_asked_again_and_nobody_for_what_no_one_hears() -> None:
    model = speaking(copies)
    found = await look(model, CHAIN, task(6))
    # The true run asks all three; in the other arms only the judge reads what somebody said.
    assert len(model.requests) == 6 * 3 + 6 + 6
    assert found.paid.runs == 3


async def test_an_edge_in_the_middle_changes_what_lies_downstream_of_it_alone() -> None:
    model = speaking(copies)
    found = await look(model, CHAIN, task(6), edges=["a->b"])
    assert found.edges == ("a->b",)
    assert found.audits[0].content.mean == 1, "the judge copies b, who copies a"
    assert len(model.requests) == 6 * 3 + 2 * 6 * 2


async def test_each_edge_alone_is_corrected_for_their_number() -> None:
    found = await look(speaking(copies), CHAIN, task(10), each=True)
    assert [a.what for a in found.audits] == ["all messages", "a->b", "b->judge"]
    p = found.audits[0].content
    assert p.p_value is not None and p.p_holm == pytest.approx(min(1, 3 * p.p_value))


async def test_full_is_the_message_without_its_channel_where_a_channel_shortens_it() -> None:
    graph = PAIR.with_channel(channels.truncate(characters=4))
    found = await look(speaking(copies), graph, task(10), full="auto")
    (audit,) = found.audits
    assert found.full == "verbatim" and audit.means["true"] == 0 and audit.means["full"] == 1
    assert audit.loss is not None and audit.loss.mean == 1
    assert audit.verdict != "carries_information"
    assert found.saved is not None and found.saved.mean is not None and found.saved.mean > 0


async def test_full_is_what_the_sender_sees_where_its_reader_does_not() -> None:
    def judge(prompt: str) -> str:
        return code(prompt) if "The code is" in prompt else "unknown"

    found = await look(speaking(judge), PAIR, task(10), full="auto")
    (audit,) = found.audits
    assert found.full == "context" and audit.means == {"true": 0, "mismatched": 0, "empty": 0, "full": 1}


async def test_full_by_way_of_a_chain_is_what_stands_at_its_beginning() -> None:
    found = await look(
        speaking(lambda p: code(p) if "The code is" in p else "?"), CHAIN, task(10), full="context"
    )
    assert found.audits[0].means["full"] == 1


async def test_a_full_arm_that_would_differ_in_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no channel on these edges"):
        await look(speaking(copies), full="verbatim")
    same = AgentGraph([Agent("a", "Find."), Agent("judge", "Judge.")], [("a", "judge")], "judge")
    with pytest.raises(ConfigError, match="that their readers don't"):
        await look(speaking(copies), same, full="context")
    found = await look(speaking(ignores), same, task(10), full="auto")
    assert found.full == "none" and found.audits[0].loss is None


async def test_any_channel_is_audited_as_its_readers_read_it(tmp_path: Path) -> None:
    graph = PAIR.with_channel(channels.truncate(characters=8))
    found = await look(speaking(copies), graph, task(6), out=tmp_path / "a")
    assert found.audits[0].means["true"] == 0
    read = set(_read_by_judge(next((tmp_path / "a").glob("mismatched-*"))).values())
    assert read == {"I found"}, "the others' messages as they were cut, not as they were said"


async def test_function_agents_and_what_they_read_are_audited_too() -> None:
    async def vote(turn: Turn) -> str:
        return max((d.text for d in turn.inbox), default="")

    async def source(turn: Turn) -> str:
        return turn.view

    ends = AgentGraph(
        [Agent("source", view="facts", act=source), Agent("b", "Second."), Agent("vote", act=vote)],
        [("source", "b"), ("b", "vote")],
        "vote",
    )
    found = await look(speaking(copies), ends, task(10), each=True)
    assert {a.what: a.content.mean for a in found.audits} == {"all messages": 1, "source->b": 1, "b->vote": 1}


async def test_what_goes_from_function_to_function_is_refused_with_what_to_do() -> None:
    async def say(turn: Turn) -> str:
        return "yes"

    graph = AgentGraph([Agent("a", act=say), Agent("b", act=say)], [("a", "b")], "b")
    with pytest.raises(ConfigError, match="a->b is in no ledger"):
        await look(None, graph, task(4))


async def test_temporal_edges_and_rounds_are_exchanged_round_by_round() -> None:
    graph = AgentGraph(
        [Agent("a", "First.", view="facts"), Agent("b", "Second."), Agent("judge", "Judge.")],
        [("a", "b"), ("a", "judge"), ("b", "judge"), Edge("b", "a", "temporal")],
        "judge",
        rounds=2,
    )

    def say(request: ChatRequest) -> str:
        prompt = "\n".join(m.content for m in request.messages)
        later = "From b" in prompt
        return copies(prompt) if "Judge." in prompt else f"Round {1 + later}: {code(prompt)}"

    found = await look(Scripted(say), graph, task(6))
    assert found.audits[0].means == {"true": 1, "mismatched": 0, "empty": 0, "full": None}


async def test_samples_of_an_item_read_the_same_sample_of_another_and_count_as_one_example(
    tmp_path: Path,
) -> None:
    def say(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        return copies(prompt) if "Judge." in prompt else f"{code(prompt)} in draft {request.seed}"

    found = await look(Scripted(say), work=task(6), samples=2, temperature=1.0, out=tmp_path / "a")
    assert found.audits[0].content.n == 6 and found.audits[0].content.exact is None
    with Ledger.open(tmp_path / "a" / "true" / "ledger.sqlite") as ledger:
        said = {(d.original_text, d.sample) for d in ledger.deliveries()}
    with Ledger.open(next((tmp_path / "a").glob("mismatched-*")) / "ledger.sqlite") as ledger:
        assert {(d.text, d.sample) for d in ledger.deliveries()} == said


# -- runs, limits and going on


async def test_an_interrupted_audit_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    model = speaking(copies)
    stopped = await look(model, CHAIN, task(6), out=tmp_path / "a", limits=Limits(calls=20))
    assert stopped.stopped is not None and not stopped.audits
    found = await look(model, CHAIN, task(6), out=tmp_path / "a")
    assert found.stopped is None and len(model.requests) == 6 * 3 + 6 + 6
    again = await look(model, CHAIN, task(6), out=tmp_path / "a")
    assert len(model.requests) == 30 and again.audits == found.audits
    assert json.loads((tmp_path / "a" / "audit.json").read_text()) == json.loads(json.dumps(again.to_dict()))


async def test_two_audits_with_one_seed_are_equal_and_the_seed_decides_between_equals(tmp_path: Path) -> None:
    async def swaps(seed: int, name: str) -> dict[str, str]:
        await look(speaking(copies), work=task(10), seed=seed, out=tmp_path / name)
        return _read_by_judge(next((tmp_path / name).glob("mismatched-*")))

    first = await swaps(1, "a")
    assert first == await swaps(1, "b") and first != await swaps(2, "c")


async def test_failed_episodes_are_left_out_of_pairs_and_counted() -> None:
    def say(request: ChatRequest) -> Any:
        prompt = request.messages[-1].content
        if "Judge." in prompt and "box 3?" in prompt and "code003" not in prompt:
            return BackendError("no", kind="refused")
        return copies(prompt) if "Judge." in prompt else f"I found {code(prompt)}."

    found = await look(Scripted(say), work=task(10))
    assert found.failed == {"true": 0, "mismatched": 1, "empty": 1}
    assert found.audits[0].content.left_out == 1 and found.audits[0].content.n == 9


async def test_items_of_one_document_and_edges_that_are_not_there_are_refused_before_anything_is_paid() -> (
    None
):
    model = speaking(copies)
    one = Task("one", [Item(f"q{i}", f"box {i}?", "x", context="shelf", views={"facts": "code001"}) for i in range(4)],
               lambda item, text: Score(0.0))  # fmt: skip
    with pytest.raises(UserError, match="of one document"):
        await look(model, work=one)
    with pytest.raises(UserError, match="of one document"):
        await look(model, work=task(1))
    with pytest.raises(GraphError, match="no edge 'a->judge'.*finder->judge"):
        await look(model, edges=["a->judge"])
    alone = AgentGraph([Agent("judge", "Judge.")], [], "judge")
    with pytest.raises(GraphError, match="no message to audit"):
        await look(model, alone)
    assert not model.requests


async def test_the_order_of_a_teams_messages_is_judged_before_and_after_its_channel() -> None:
    def say(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        names = [f"part{code(prompt)}{c * 9}" for c in "abc"]
        if "Judge." in prompt:
            return " ".join(f"{n} fits {m}." for n in names for m in names)
        return "We have " + ", ".join(names) + "."

    with open_scorer("offline/ngram", background="plain words of no kind. " * 40) as scorer:
        graph = PAIR.with_channel(channels.truncate(characters=9))
        found = await look(Scripted(say), graph, task(6), order=scorer)
    order = found.order
    assert order is not None and order.before.gain_bits is not None and order.before.gain_bits > 0.1
    assert order.after is not None and order.after.gain_bits is not None
    assert order.after.gain_bits < order.before.gain_bits, "names that were cut away can't help"
    assert order.change_bits is not None and order.change_bits < 0
