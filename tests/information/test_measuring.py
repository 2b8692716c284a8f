"""From a task's items to an estimate: contexts, messages, what failed, what it cost."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentcomm.backends import Scripted
from agentcomm.errors import BackendError, ConfigError, LimitExceeded, TaskError
from agentcomm.information.measuring import Compressor, compress, measure, query_of, sources_of, text_of
from agentcomm.information.scorers import open_scorer
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_task
from agentcomm.options import RunOptions
from agentcomm.task import Item, Score, Task
from tests.servers import CountingServer, status

pytestmark = pytest.mark.anyio


def task_of(*items: Item) -> Task:
    return Task("made up", items, lambda item, answer: Score(0.0))


RECORDS = load_task("records", {"limit": 12})


def test_a_context_is_all_there_is_to_read_beside_the_question() -> None:
    item = Item("1", "q?", context="shared", views={"a": "one", "b": "two"})
    assert text_of(item) == "shared\n\none\n\ntwo"
    assert query_of(Item("1", "q?\nA. x\nB. y", metadata={"asked": "q?"})) == "q?", (
        "options give answers away"
    )


def test_contexts_are_different_ones_in_the_tasks_order() -> None:
    items = [Item(str(i), f"q{i}?", context=f"c{i // 3}") for i in range(9)]
    sources = sources_of(task_of(*items), 3)
    assert (sources.ids, sources.queries) == (("0", "3", "6"), ("q0?", "q3?", "q6?"))
    assert not sources.one_query
    assert sources_of(task_of(*items), 3, query="all?").one_query
    assert sources_of(task_of(*items), 2).reference_set != sources.reference_set
    with pytest.raises(TaskError, match="3 different contexts, not 4"):
        sources_of(task_of(*items), 4)
    with pytest.raises(TaskError, match="no context to compress"):
        sources_of(task_of(Item("1", "q?")), 1)
    with pytest.raises(ConfigError, match="at least 1"):
        sources_of(task_of(*items), 0)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("identity", ("identity", None)),
        ("truncate:9", ("truncate", 9)),
        ("extract", ("extract", 64)),
        ("random:3", ("random", 3)),
        ("mock/echo", ("model", 64)),
    ],
)
def test_compressors_by_name(name: str, parsed: tuple[str, int | None]) -> None:
    made = Compressor.parse(name, 64)
    assert (made.method, made.budget) == parsed


@pytest.mark.parametrize("name", ["truncate:0", "extract:x", "identity:3", "nonsense", "gzip/9", "mock/"])
def test_a_compressor_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigError):
        Compressor.parse(name)
    with pytest.raises(ConfigError, match="budget 0"):
        Compressor.parse("mock/echo", 0)


async def test_rules_that_give_the_same_again_give_one_message() -> None:
    sources = sources_of(RECORDS, 4)
    for name, samples in (("identity", 1), ("truncate:8", 1), ("extract:8", 1), ("random:8", 3)):
        messages = await compress(sources, Compressor.parse(name), samples=3)
        assert [len(texts) for texts in messages.texts] == [samples] * 4
        assert messages.unit == "word"
    assert messages.texts[0][0] != messages.texts[0][1]
    again = await compress(sources, Compressor.parse("random:8"), samples=3)
    assert again.texts == messages.texts


def first_fact(request: dict[str, Any]) -> str:
    text = request["messages"][0]["content"]
    return str(text.split("Text:\n")[1].splitlines()[request["seed"] % 2])


async def test_a_models_messages_are_metered_seeded_and_never_paid_twice() -> None:
    sources = sources_of(RECORDS, 6)
    with CountingServer(reply=first_fact) as server, Ledger.in_memory() as ledger:
        options = RunOptions(base_url=server.url, temperature=0.7)
        made = Compressor.parse("openai/test-model", 32)

        async def go() -> Any:
            async with options.calls(ledger, "openai/test-model", resuming=True) as calls:
                return await compress(sources, made, samples=3, calls=calls)

        messages = await go()
        assert server.tokens.requests == 18
        assert (messages.usage.calls, messages.usage.output_tokens) == (18, server.tokens.completion)
        sent = [served.request for served in server.served]
        assert len({request["seed"] for request in sent}) == 18
        assert {(request["max_tokens"], request["temperature"]) for request in sent} == {(32, 0.7)}
        assert all("at most 24 words" in request["messages"][0]["content"] for request in sent)
        rows = ledger.calls()
        assert {row.phase for row in rows} == {"compress"}
        again = await go()
        assert server.tokens.requests == 18
        assert again.texts == messages.texts
        assert again.usage.calls == 18, "an interrupted run's calls are in the bill"

        measured = measure(sources, messages, open_scorer("offline/codelength"))
        facts = measured.facts()
        assert facts["messages"]["unit"] == "token of openai/test-model"
        assert facts["quantity"] == "cross-context information"
        assert facts["messages"]["mean_length"] == pytest.approx(messages.usage.output_tokens / 18)
        assert measured.estimate.top1 == pytest.approx(1.0, abs=0.2)


async def test_at_temperature_0_one_message_is_made() -> None:
    with CountingServer() as server, Ledger.in_memory() as ledger:
        options = RunOptions(base_url=server.url)
        async with options.calls(ledger, "openai/test-model") as calls:
            messages = await compress(
                sources_of(RECORDS, 2), Compressor.parse("openai/test-model"), samples=5, calls=calls
            )
    assert [len(texts) for texts in messages.texts] == [1, 1]


async def test_a_message_that_could_not_be_made_is_a_failure_and_no_empty_one() -> None:
    from agentcomm.calls import Retry

    sources = sources_of(RECORDS, 12)
    with CountingServer(reply=lambda request: "") as server, Ledger.in_memory() as ledger:
        who = sources.contexts[3].split()[0]
        server.script(status(400), when=lambda request: f"Text:\n{who} " in request["messages"][0]["content"])
        options = RunOptions(base_url=server.url, retry=Retry(scale=0))
        async with options.calls(ledger, "openai/test-model") as calls:
            messages = await compress(sources, Compressor.parse("openai/test-model"), samples=1, calls=calls)
    missing = [i for i, texts in enumerate(messages.texts) if texts == (None,)]
    assert 3 in missing
    assert messages.failures == {"refused": len(missing)}
    measured = measure(sources, messages, open_scorer("offline/codelength"))
    assert measured.estimate.n_failed == 12 * len(missing)
    if measured.ok:
        assert measured.estimate.n_empty == 12 - len(missing)


async def test_a_limit_ends_it_and_what_was_paid_for_is_there_next_time() -> None:
    sources = sources_of(RECORDS, 6)
    made = Compressor.parse("openai/test-model")
    with CountingServer() as server, Ledger.in_memory() as ledger:
        small = RunOptions(base_url=server.url, limits=Limits(calls=4), max_concurrency=1)
        async with small.calls(ledger, "openai/test-model") as calls:
            with pytest.raises(LimitExceeded):
                await compress(sources, made, samples=1, calls=calls)
        assert server.tokens.requests == 4
        enough = RunOptions(base_url=server.url)
        async with enough.calls(ledger, "openai/test-model", resuming=True) as calls:
            await compress(sources, made, samples=1, calls=calls)
        assert server.tokens.requests == 6


async def test_an_error_that_every_call_would_meet_ends_it() -> None:
    with CountingServer(api_key="x") as server, Ledger.in_memory() as ledger:
        options = RunOptions(base_url=server.url)
        async with options.calls(ledger, "openai/test-model") as calls:
            with pytest.raises(BackendError, match="refused the key"):
                await compress(
                    sources_of(RECORDS, 6), Compressor.parse("openai/test-model"), samples=1, calls=calls
                )


async def test_a_model_needs_calls_and_samples_are_counted_from_one() -> None:
    sources = sources_of(RECORDS, 2)
    with pytest.raises(ConfigError, match="needs calls"):
        await compress(sources, Compressor.parse("mock/echo"), samples=1)
    with pytest.raises(ConfigError, match="samples 0"):
        await compress(sources, Compressor.parse("identity"), samples=0)


def test_the_prompt_has_every_fact_once() -> None:
    sources = sources_of(RECORDS, 1)
    assert len(re.findall(r"\w+ (lives|works|has|likes|eats|plays)", sources.contexts[0])) == 16
    assert Scripted
