"""``agentcomm research``: a question, sources, and a report that cites them."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o
from agentcomm.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.run import Run
    from agentcomm.graph import AgentGraph
    from agentcomm.research.facts import Research
    from agentcomm.research.forecasting import ResearchForecast

ITEM = "question"
"""What the one item of such a run is called in its ledger."""
SEARCHES = "searches.jsonl"
"""The file of a run's directory with what a search service answered."""


def research(
    question: Annotated[str, typer.Argument(help="What to find out.")],
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Folder of text files to search (BM25).")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="URL",
            help="A search service that answers with JSON instead; {query} goes in, or the query is posted.",
        ),
    ] = None,
    search_key_env: Annotated[
        str | None,
        typer.Option("--search-key-env", metavar="[HEADER:]NAME", help="Variable with the service's key."),
    ] = None,
    compressor: Annotated[
        str | None, typer.Option("--compressor", "-c", help="Model that reads every chunk; default: P.")
    ] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", "-p", help="Model that plans and writes, P.")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Above 1: adaptive, until nothing is missing.")
    ] = 1,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Queries of a plan, at most.")] = 5,
    sources: Annotated[int, typer.Option("--sources", min=1, help="Sources for a query, at most.")] = 10,
    chunks: Annotated[int, typer.Option("--chunks", min=1, help="Chunks read in a round, at most.")] = 60,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Characters of a chunk.")] = 6000,
    overlap: Annotated[
        int, typer.Option("--overlap", min=0, help="Characters that neighbouring chunks share.")
    ] = 200,
    note_tokens: Annotated[int, typer.Option("--note-tokens", min=1, help="Longest note on a chunk.")] = 300,
    words: Annotated[int, typer.Option("--words", min=1, help="Longest report.")] = 400,
    structured: Annotated[
        bool, typer.Option("--schema/--no-schema", help="Ask the server for JSON by a schema.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's directory; the same command again continues it."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost at most; call no model.")
    ] = False,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    seed: o.Seed = 0,
    temperature: o.Temperature = 0.0,
    max_tokens: o.MaxTokens = 1024,
    run_limit: o.RunLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    executor: o.Executor = "langgraph",
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Plan, search, let a small model read every chunk, and have a larger one write a report that cites.

    The report is on stdout, what each stage cost on stderr. The run's directory is one like those of
    agentcomm eval: agentcomm ledger and agentcomm view read it. Results of a search service are kept in
    it, so that the run can go on, and be repeated, with what it read.
    """
    import anyio

    from agentcomm.evaluation.run import evaluate
    from agentcomm.loading import load_graph
    from agentcomm.research.facts import citations, research_of
    from agentcomm.research.forecasting import forecast_research
    from agentcomm.task import Item, Score, Task, as_item

    asked = as_item(question).question
    if (corpus is None) == (search is None):
        raise ConfigError("where to search? give --corpus FOLDER, or --search URL")
    if predictor is None and not dry_run:
        raise ConfigError("who writes? give --predictor MODEL, e.g. local/smollm2 or openai/NAME")
    options = o.run_options(
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        api_key_env=api_key_env,
        timeout_s=timeout,
        max_concurrency=concurrency,
        executor=executor,
        cache=cache,
        prices=prices,
        retries=retries,
        run_limit=run_limit,
        item_limit=None,
        agent_limit=None,
    )
    where = out or o.new_directory("research")
    record = where / SEARCHES if search is not None else None
    if search is not None and predictor is not None and predictor.startswith("replay/"):
        # What is played back read what was found then.
        search, record = None, Path(predictor.removeprefix("replay/")) / SEARCHES
    team = load_graph(
        "deep_research",
        {
            "corpus": str(corpus) if corpus is not None else None,
            "search": search,
            "search_key": search_key_env,
            "record": str(record) if record is not None else None,
            "compressor": compressor,
            "rounds": rounds,
            "queries": queries,
            "sources": sources,
            "chunks": chunks,
            "chunk": chunk,
            "overlap": overlap,
            "note_tokens": note_tokens,
            "words": words,
            "structured": structured,
        },
    )
    item = Item(ITEM, asked)
    expected = anyio.run(forecast_research, team, item, options.max_tokens)
    if dry_run:
        if json:
            typer.echo(json_module.dumps({"forecast": expected.to_dict(), "files_left_out": _left_out(team)}))
        else:
            _forecast(team, expected, sys.stdout)
        return
    if not json:
        _forecast(team, expected, sys.stderr)

    def cites(item: Item, answer: str) -> Score:
        return Score(float(bool(citations(answer))), note="whether the report cites anything")

    work = Task("research", [item], cites, "Whether the report cites anything.")

    async def go() -> Run:
        return await evaluate(team, work, predictor, out=where, name="deep_research", options=options)

    try:
        run = anyio.run(go)
    except KeyboardInterrupt:
        raise o.Interrupted(f"the same command with --out {where} continues") from None
    from agentcomm.evaluation.rundir import RunDir

    with RunDir.open(where).ledger() as book:
        done = next(iter(run.episodes), None)
        answer = done.answer if done is not None else None
        facts = research_of(book.calls(), book.channels(), answer, ITEM)
    failure = done.failure if done is not None else run.stopped
    if json:
        made = {
            "question": asked,
            "answer": answer,
            "failure": failure,
            "run": str(where),
            "forecast": expected.to_dict(),
            "files_left_out": _left_out(team),
            **facts.to_dict(),
        }
        typer.echo(json_module.dumps(made, ensure_ascii=False))
    elif answer is not None:
        typer.echo(report(answer, facts))
    if not json:
        from rich.console import Console

        show(facts, where, Console(stderr=True, highlight=False))
    for complaint in complaints(facts, answer):
        sys.stderr.write(f"note: {complaint}\n")
    if failure is not None:
        sys.stderr.write(f"failed: {' '.join(str(failure).split())[:600]}\n")
    if failure is None and done is not None and done.failures:
        sys.stderr.write(f"note: {done.failures} turns or deliveries failed; the report rests on the rest\n")
    if run.stopped:
        sys.stderr.write(f"stopped early: {run.stopped}; the same command with --out {where} continues\n")
    broken = failure is not None or run.stopped or (done is not None and done.failures)
    raise typer.Exit(1 if broken else 0)


def report(answer: str, facts: Research) -> str:
    """The report with the sources that it cites."""
    sources = [s for s in facts.citations.sources if s.handle in facts.citations.cited]
    lines = [f"[{s.handle}] {s.name}" + (f" ({s.title})" if s.title != s.name else "") for s in sources]
    return "\n".join([answer.strip(), *(["", "Sources:", *lines] if lines else [])])


def complaints(facts: Research, answer: str | None) -> list[str]:
    """What a reader of the report should know, a sentence each."""
    found: list[str] = []
    if facts.rounds and not facts.planned:
        found.append("a plan could not be read, so the question itself was searched for")
    if facts.rounds and not facts.found:
        found.append("the search found nothing")
    elif facts.chunks and not facts.relevant:
        found.append("no chunk was found relevant, so the report rests on no source")
    elif facts.rounds and facts.found and not facts.chunks and not facts.failed:
        found.append("no chunk was read")
    if facts.left_out:
        found.append(f"{facts.left_out} chunks were not read; raise --chunks to read more")
    if facts.short:
        found.append(f"{facts.short} sources are too short to be read")
    if facts.unreadable:
        found.append(f"the compressor gave no readable note on {facts.unreadable} of {facts.chunks} chunks")
    if facts.failed:
        found.append(f"the calls for {facts.failed} of {facts.chunks} chunks failed")
    if answer is not None:
        if facts.citations.unknown:
            cited = ", ".join(f"[{n}]" for n in facts.citations.unknown)
            found.append(f"the report cites {cited}, which names no source")
        if not facts.citations.cited:
            found.append("the report cites no source")
    return found


def show(facts: Research, where: Path, console: Console) -> None:
    """What each stage cost and kept."""
    from agentcomm.cli.tables import add, number, table

    made = table("stage", right=("calls", "failed", "input", "output", "seconds", "cost $"))
    for name, stage in facts.stages.items():
        unknown = stage.calls > 0 and stage.unknown == stage.calls
        add(
            made,
            name,
            number(stage.calls),
            number(stage.failed),
            number(None if unknown else stage.input),
            number(None if unknown else stage.output),
            number(stage.seconds, 1),
            number(stage.cost, 4),
        )
    console.print(made)
    rate = "–" if facts.relevance_rate is None else f"{facts.relevance_rate:.0%}"
    console.print(
        f"{_many(facts.rounds, 'round')}, {_many(len(facts.queries), 'query', 'queries')}, "
        f"{_many(facts.found, 'source')}, {_many(facts.chunks, 'chunk')}: "
        f"{facts.relevant} relevant ({rate}), {facts.irrelevant} not, {facts.unreadable} unreadable, "
        f"{facts.failed} failed, {facts.retried} asked again; {len(facts.citations.cited)} of "
        f"{len(facts.citations.sources)} sources cited",
        markup=False,
    )
    if reused := sum(stage.reused for stage in facts.stages.values()):
        console.print(f"{_many(reused, 'reply', 'replies')} from a cache or a replay, which cost nothing")
    console.print(f"run: {where}", markup=False, soft_wrap=True)


def _many(count: int, one: str, more: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _left_out(team: AgentGraph) -> list[dict[str, Any]]:
    from agentcomm.research.agents import SEARCH, Searching
    from agentcomm.research.search import FolderSearch

    looks = team.by_name[SEARCH].act
    if isinstance(looks, Searching) and isinstance(looks.search, FolderSearch):
        return [left._asdict() for left in looks.search.left_out]
    return []


def _forecast(team: AgentGraph, expected: ResearchForecast, to: Any) -> None:
    if expected.sources is not None:
        left = _left_out(team)
        names = ", ".join(f"{x['name']} {x['why']}" for x in left[:3]) + (", ..." if len(left) > 3 else "")
        skipped = f"; {_many(len(left), 'file')} left out ({names})" if left else ""
        to.write(
            f"{_many(expected.sources, 'text')}{skipped}; the question alone finds "
            f"{_many(expected.chunks or 0, 'chunk')}, the plan may "
            f"find up to {expected.most_chunks}\n"
        )
    said = "" if expected.most_output_tokens is None else f" and {expected.most_output_tokens:,} output"
    to.write(
        f"at most {expected.most_calls:,} calls and about {expected.most_input_tokens:,} input{said} tokens, "
        "every chunk asked twice\n"
    )
