"""The whole of a deep research on a planted corpus: what is read, kept, cited, paid for and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Line, Scripted
from agentcomm.calls import Retry
from agentcomm.errors import BackendError
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_graph
from agentcomm.research.agents import NOTHING
from agentcomm.research.facts import Research, research_of
from agentcomm.research.forecasting import forecast_research
from agentcomm.task import Item, Score, Task
from tests.research.services import Service
from tests.research.teams import FACTS, QUESTION, notes, part_of, prompt_of, source_of, team, write_corpus

pytestmark = pytest.mark.anyio
ITEM = Item("q", QUESTION)
TASK = Task("research", [ITEM], lambda item, text: Score(float("thistles" in text)))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


async def research(
    out: Path, model: Scripted, corpus: Path | None = None, task: Task = TASK, run: Any = None, **more: Any
) -> tuple[Run, Research]:
    graph = load_graph("deep_research", {**({"corpus": str(corpus)} if corpus else {}), **more})
    made = await evaluate(
        graph, task, model, out=out, executor="plain", retry=Retry(attempts=2, scale=0.0), **(run or {})
    )
    return made, facts(out, made)


def facts(out: Path, run: Run) -> Research:
    with Ledger.open(out / "ledger.sqlite", read_only=True) as book:
        answer = run.episodes[0].answer if run.episodes else None
        return research_of(book.calls(), book.channels(), answer, run.config and "q")


def asked(model: Scripted, part: str) -> list[ChatRequest]:
    return [r for r in model.requests if part_of(r) == part]


async def test_planted_facts_are_found_kept_and_cited(corpus: Path, tmp_path: Path) -> None:
    model = team()
    run, found = await research(tmp_path / "run", model, corpus)
    answer = run.episodes[0].answer
    assert answer is not None
    cited = {s.handle: s.name for s in found.citations.sources}
    for words, source in (("thistles", "goat.md"), ("behind the mill", "house.txt")):
        (handle,) = [n for n, name in cited.items() if name == source]
        assert f"{FACTS[words]} [{handle}]" in answer
    assert (found.chunks, found.relevant, found.irrelevant) == (3, 2, 1), "taxes were never found"
    assert found.relevance_rate == pytest.approx(2 / 3)
    assert found.citations.unknown == ()
    assert not any("tax.txt" in prompt_of(r) for r in model.requests)
    (writer,) = asked(model, "write")
    assert "uncle" not in prompt_of(writer), "the writer sees notes on what is relevant, not texts"
    assert "First food, then place." in prompt_of(writer)


async def test_each_chunk_is_one_metered_call_that_the_edge_pays_for(corpus: Path, tmp_path: Path) -> None:
    model = team()
    run, found = await research(tmp_path / "run", model, corpus, compressor=None)
    assert len(asked(model, "compress")) == 3 == found.stages["compress"].calls
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as book:
        rows = [r for r in book.calls() if r.edge is not None]
    assert {(r.phase, r.edge) for r in rows} == {("compress", "search->notes")}
    assert all(r.input_tokens and r.output_tokens and r.latency_s is not None for r in rows)
    assert len({r.request_id for r in rows}) == 3
    assert run.usage.calls == len(model.requests) == 5
    stages = found.stages.values()
    assert sum(s.input for s in stages) == run.usage.input_tokens
    assert sum(s.output for s in stages) == run.usage.output_tokens
    schemas = [r.schema for r in asked(model, "compress")]
    assert all(s is not None and s["required"] == ["explanation", "relevant"] for s in schemas)
    plain = team()
    await research(tmp_path / "plain", plain, corpus, structured=False)
    assert all(r.schema is None for r in plain.requests)


async def test_chunks_are_compressed_side_by_side(corpus: Path, tmp_path: Path) -> None:
    import anyio

    model, waiting = team(), 0
    meet = anyio.Event()
    say = model.chat

    async def chat(request: ChatRequest) -> Any:
        nonlocal waiting
        if part_of(request) == "compress":
            waiting += 1
            if waiting == 3:
                meet.set()
            with anyio.fail_after(30):
                await meet.wait()  # each waits for all: one after the other would never end
        return await say(request)

    model.chat = chat  # type: ignore[method-assign]
    _, found = await research(tmp_path / "run", model, corpus)
    assert found.relevant == 2


async def test_a_reply_that_is_no_json_is_asked_for_once_more_then_dropped_and_counted(
    corpus: Path, tmp_path: Path
) -> None:
    def mumble(request: ChatRequest) -> Line:
        if source_of(request) == "goat.md":
            return "It is relevant!"
        if source_of(request) == "house.txt" and "Write nothing before" not in prompt_of(request):
            return "Hm."
        return notes(request)

    model = team(compress=mumble)
    run, found = await research(tmp_path / "run", model, corpus)
    assert (found.relevant, found.unreadable, found.retried) == (1, 1, 2)
    assert len(asked(model, "compress")) == 5
    assert run.episodes[0].answer == "Ada's goat lives behind the mill. [1]"
    edge = run.channels["search->notes"]
    assert edge.adherent == 0 and edge.reasons["unreadable"] == 1


async def test_a_compressor_that_never_gives_json_leaves_a_defined_result(
    corpus: Path, tmp_path: Path
) -> None:
    model = team(compress="All of this is very relevant.")
    run, found = await research(tmp_path / "run", model, corpus)
    assert (found.chunks, found.relevant, found.unreadable, found.relevance_rate) == (3, 0, 3, None)
    assert len(asked(model, "compress")) == 6
    assert NOTHING in prompt_of(asked(model, "write")[0])
    assert run.episodes[0].status == "ok"


async def test_no_relevant_chunk_is_told_to_the_writer(corpus: Path, tmp_path: Path) -> None:
    model = team(compress='{"explanation": "", "relevant": false}')
    run, found = await research(tmp_path / "run", model, corpus)
    assert (found.relevant, found.irrelevant, found.relevance_rate) == (0, 3, 0.0)
    assert run.episodes[0].answer == "The notes do not say."
    assert found.citations.sources == ()
    assert run.channels["search->notes"].reasons["nothing_relevant"] == 1


async def test_a_search_that_finds_nothing_makes_no_call_for_chunks(corpus: Path, tmp_path: Path) -> None:
    model = team(plan='{"queries": ["zebra"], "strategy": ""}')
    _, found = await research(tmp_path / "run", model, corpus)
    assert (found.found, found.chunks) == (0, 0)
    assert asked(model, "compress") == []
    assert NOTHING in prompt_of(asked(model, "write")[0])


@pytest.mark.parametrize("plan", ["I would search for goats.", BackendError("broken", kind="broken_reply")])
async def test_without_a_readable_plan_the_question_itself_is_searched_for(
    corpus: Path, tmp_path: Path, plan: Line
) -> None:
    _, found = await research(tmp_path / "run", team(plan=plan), corpus)
    assert found.queries == (QUESTION,)
    assert not found.planned
    assert found.relevant == 2


async def test_a_citation_that_names_no_source_is_reported(corpus: Path, tmp_path: Path) -> None:
    _, found = await research(tmp_path / "run", team(write="Thistles [1, 7] and more [12-13]."), corpus)
    assert found.citations.cited == (1,)
    assert found.citations.unknown == (7, 12, 13)


async def test_one_failed_call_costs_one_chunk_and_all_failed_fail_the_delivery(
    corpus: Path, tmp_path: Path
) -> None:
    def fails(request: ChatRequest) -> Line:
        return (
            BackendError("too long", kind="too_long") if source_of(request) == "goat.md" else notes(request)
        )

    run, found = await research(tmp_path / "one", team(compress=fails), corpus)
    assert (found.failed, found.relevant) == (1, 1)
    assert run.episodes[0].failures == 0
    run, found = await research(
        tmp_path / "all", team(compress=BackendError("too long", kind="too_long")), corpus
    )
    assert run.episodes[0].failures > 0
    assert found.relevant == 0


async def test_a_limit_stops_the_chunks_and_is_no_irrelevant_chunk(corpus: Path, tmp_path: Path) -> None:
    model = team()
    run, found = await research(tmp_path / "run", model, corpus, run={"limits": ac.Limits(calls=2)})
    assert run.stopped is not None and "calls" in run.stopped
    assert len(model.requests) == 2
    assert (found.irrelevant, found.failed) == (0, 0)
    done, found = await research(tmp_path / "run", model, corpus)
    assert done.stopped is None
    assert len(model.requests) == 5, "what was paid for is not paid for again"
    assert found.relevant == 2


async def test_the_same_seed_gives_the_same_requests_in_both_executors(corpus: Path, tmp_path: Path) -> None:
    seen = []
    for i, executor in enumerate(("plain", "langgraph")):
        model = team()
        graph = load_graph("deep_research", {"corpus": str(corpus)})
        await evaluate(graph, TASK, model, out=tmp_path / str(i), executor=executor)
        seen.append(sorted(r.id for r in model.requests))
    assert seen[0] == seen[1]


async def test_a_finished_run_can_be_played_back_without_a_model(corpus: Path, tmp_path: Path) -> None:
    run, _ = await research(tmp_path / "run", team(), corpus)
    graph = load_graph("deep_research", {"corpus": str(corpus)})
    again = await evaluate(graph, TASK, f"replay/{tmp_path / 'run'}", out=tmp_path / "again")
    assert again.episodes[0].answer == run.episodes[0].answer
    assert again.usage.calls == 0
    assert facts(tmp_path / "again", again).stages["compress"].reused == 3


async def test_a_run_does_not_go_on_over_another_corpus(corpus: Path, tmp_path: Path) -> None:
    await research(tmp_path / "run", team(), corpus)
    (corpus / "goat.md").write_text("Ada's goat eats nothing at all these days. " * 5)
    with pytest.raises(ac.UserError, match="another configuration"):
        await research(tmp_path / "run", team(), corpus)


async def test_chunks_above_the_most_are_counted_and_the_likeliest_are_read(tmp_path: Path) -> None:
    texts = {f"goat{i}.txt": f"A goat lives and eats. {'x ' * 60}" for i in range(5)}
    corpus = write_corpus(tmp_path / "c", {**texts, "z.txt": "Ada's goat eats thistles. " * 6})
    model = team()
    _, found = await research(tmp_path / "run", model, corpus, chunks=2)
    assert (found.chunks, found.left_out) == (2, 4)
    assert "z.txt" in {source_of(r) for r in asked(model, "compress")}


async def test_a_long_source_is_read_chunk_by_chunk_under_one_number(tmp_path: Path) -> None:
    text = (
        "Ada's goat eats thistles. " + "word " * 3000 + "Ada's goat lives behind the mill. " + "word " * 500
    )
    corpus = write_corpus(tmp_path / "c", {"long.txt": text, "short.txt": "A goat."})
    model = team()
    _, found = await research(tmp_path / "run", model, corpus)
    assert found.chunks == 3
    assert found.short == 1
    assert [s.name for s in found.citations.sources] == ["long.txt"]
    assert found.relevant == 2


async def test_adaptive_rounds_search_for_what_is_missing_and_stop_when_nothing_is(
    corpus: Path, tmp_path: Path
) -> None:
    def plan(request: ChatRequest) -> Line:
        prompt = prompt_of(request)
        if "thistles" not in prompt:
            return '{"queries": [{"query": "eats", "task": ""}], "strategy": "s", "enough": true}'
        if "behind the mill" not in prompt:
            return '{"queries": [{"query": "eats", "task": ""}, {"query": "mill", "task": "place"}], "enough": false}'
        return '{"queries": [], "enough": true}'

    model = team(plan=plan)
    run, found = await research(tmp_path / "run", model, corpus, rounds=5)
    assert found.rounds == 2
    assert len(asked(model, "plan")) == 3, "the third says that it is enough"
    assert [source_of(r) for r in asked(model, "compress")] == ["goat.md", "house.txt"], (
        "nothing is read twice"
    )
    assert run.episodes[0].answer == "Ada's goat eats thistles. [1] Ada's goat lives behind the mill. [2]"
    plans = asked(model, "plan")
    assert prompt_of(plans[1]).startswith(prompt_of(plans[0])), "prompts only grow"


async def test_adaptive_rounds_end_at_the_most(corpus: Path, tmp_path: Path) -> None:
    model = team(plan='{"queries": ["eats"], "strategy": "", "enough": false}')
    _, found = await research(tmp_path / "run", model, corpus, rounds=3)
    assert found.rounds == 3
    assert len(asked(model, "plan")) == 3
    assert len(asked(model, "compress")) == 1


async def test_without_a_corpus_the_items_texts_are_searched(tmp_path: Path) -> None:
    item = Item("q", QUESTION, views={"goat": "Ada's goat eats thistles. " * 5}, context="Nothing. " * 20)
    run, found = await research(
        tmp_path / "run", team(), task=Task("t", [item], lambda item, text: Score(1.0))
    )
    assert [s.name for s in found.citations.sources] == ["goat"]
    assert run.episodes[0].answer == "Ada's goat eats thistles. [1]"


async def test_a_services_results_are_recorded_and_a_resumed_run_reads_the_same(tmp_path: Path) -> None:
    result = {"title": "Goat", "url": "http://g", "content": "Ada's goat eats thistles. " * 5}
    record = str(tmp_path / "searches.jsonl")
    with Service({"results": [result]}) as service:
        more = {"search": f"{service.url}/s?q={{query}}", "record": record}
        run, _ = await research(tmp_path / "run", team(), run={"limits": ac.Limits(calls=1)}, **more)
        assert run.stopped
        assert len(service.asked) == 2, "two queries"
        service.always = {"results": []}
        run, found = await research(tmp_path / "run", team(), **more)
        assert found.relevant == 1
        assert run.episodes[0].answer == "Ada's goat eats thistles. [1]"
        assert len(service.asked) == 2
    _, played = await research(tmp_path / "played", team(), record=record)
    assert played.relevant == 1


async def test_a_service_that_fails_for_every_query_ends_the_run_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with Service({"error": "quota"}) as service:
        model = team()
        run, _ = await research(tmp_path / "run", model, search=service.url)
    assert run.failed == 1
    assert run.stopped is not None and "no list of results" in run.stopped
    assert [part_of(r) for r in model.requests] == ["plan"]


async def test_the_forecast_bounds_what_is_paid(corpus: Path, tmp_path: Path) -> None:
    graph = load_graph("deep_research", {"corpus": str(corpus)})
    expected = await forecast_research(graph, ITEM, 1024)
    assert (expected.sources, expected.chunks, expected.most_chunks) == (4, 4, 4)
    model = team(compress="never JSON")
    run, _ = await research(tmp_path / "run", model, corpus)
    assert run.usage.calls <= expected.most_calls == 1 + 1 + 2 * 4
    with pytest.raises(ac.UserError, match="not several"):
        load_graph("deep_research", {"corpus": str(corpus), "search": "http://127.0.0.1"})
