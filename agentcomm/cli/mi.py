"""``agentcomm mi``: how much of a context a compressor's messages carry."""

from __future__ import annotations

import json as json_module
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o
from agentcomm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentcomm.information.efficiency import Efficiency
    from agentcomm.information.measuring import Compressor, Measured, Messages, Sources
    from agentcomm.information.scorers import Scorer
    from agentcomm.options import RunOptions


def mi(
    task: o.TaskName,
    compressor: Annotated[
        str,
        typer.Option("--compressor", "-c", help="A model, or identity, truncate:64, extract:64, random:64."),
    ],
    scorer: Annotated[
        str, typer.Option("--scorer", "-s", help="hf/FOLDER, vllm/FOLDER, openai/NAME, offline/codelength.")
    ],
    contexts: Annotated[int, typer.Option("--contexts", "-n", help="Different contexts, N.")] = 20,
    samples: Annotated[
        int, typer.Option("--samples", "-k", help="Messages of each, M; 1 at temperature 0.")
    ] = 3,
    budget: Annotated[int, typer.Option("--budget", help="Most tokens of a message.")] = 64,
    query: Annotated[
        str | None,
        typer.Option("--query", help="One question for all contexts ('': none); default: each item's own."),
    ] = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    scorer_url: Annotated[
        str | None, typer.Option("--scorer-url", help="Where the scorer's server answers (…/v1).")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of an hf/ scorer: float32, bfloat16.")] = "float32",
    device: Annotated[str | None, typer.Option("--device", help="Of an hf/ scorer: cpu, cuda.")] = None,
    ceiling: Annotated[
        int | None, typer.Option("--ceiling", help="Most tokens that scoring may read.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for messages, cells and results; the same command continues it."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="learn, validate or score (default).")] = None,
    data: o.Data = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the compressor.")] = 0.7,
    run_limit: o.RunLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Estimate how much the messages of a compressor say about the contexts of TASK.

    Every message is scored under every context; a message that fits its own context better than the
    others carries information about it. No answer is needed, and no predictor.

    With --out, what was compressed and scored is kept: the same command continues after an
    interruption, and another --scorer scores the same messages.
    """
    import anyio

    from agentcomm.information.measuring import Compressor, compress, measure

    made = Compressor.parse(compressor, budget)
    options = o.run_options(
        seed=seed,
        temperature=temperature,
        max_tokens=budget,
        base_url=base_url,
        api_key_env=api_key_env,
        timeout_s=timeout,
        max_concurrency=concurrency,
        cache=cache,
        prices=prices,
        retries=retries,
        run_limit=run_limit,
        item_limit=None,
        agent_limit=None,
    )
    sources = _sources(task, contexts, query, task_option, data, split)
    directory = _Directory(out, made, sources, samples, options)
    note = _slowly()
    try:
        with directory as at:
            judge = _open_scorer(scorer, sources, scorer_url, dtype, device, ceiling, at, note)
            with judge:
                judge.check()

                async def go() -> Messages:
                    if made.method != "model":
                        return await compress(sources, made, samples=samples, seed=seed)
                    with at.ledger() as ledger:
                        async with options.calls(ledger, compressor, resuming=True) as calls:
                            await _check(calls)
                            return await compress(
                                sources, made, samples=samples, seed=seed, calls=calls, note=note
                            )

                messages = anyio.run(go)
                at.keep_messages(messages)
                measured = measure(sources, messages, judge)
            facts = {"task": task, "scorer": measured.matrix.scorer_id, **measured.facts()}
            at.keep(scorer, facts, measured)
    except KeyboardInterrupt:
        where = f"the same command with --out {out} continues" if out else "with --out it could be continued"
        raise o.Interrupted(where) from None
    if json:
        typer.echo(json_module.dumps(facts, ensure_ascii=False))
    else:
        show(facts, measured)
    if not measured.ok:
        sys.stderr.write(f"no estimate: {_why(measured)}\n")
        raise typer.Exit(1)


def _sources(
    task: str, contexts: int, query: str | None, words: list[str] | None, data: Path | None, split: str | None
) -> Sources:
    """Items with so many different contexts; several may share one, so more are loaded until it is enough."""
    from agentcomm.errors import TaskError
    from agentcomm.information.measuring import sources_of
    from agentcomm.loading import load_task

    limit = max(contexts, 1)
    while True:
        loaded = load_task(task, o.task_options(words, data=data, limit=limit, split=split, seed=None))
        try:
            return sources_of(loaded, contexts, query=query)
        except TaskError:
            if len(loaded.items) < limit or limit >= 64 * max(contexts, 1):
                raise
            limit *= 4


def _open_scorer(
    name: str,
    sources: Sources,
    url: str | None,
    dtype: str,
    device: str | None,
    ceiling: int | None,
    at: _Directory,
    note: Callable[[str], None],
) -> Scorer:
    from agentcomm.information.compressing import prompt_for
    from agentcomm.information.scorers import open_scorer

    options: dict[str, Any] = {"cells": at.cells, "ceiling": ceiling, "note": note}
    if not name.startswith("offline/"):
        options["prompt"] = prompt_for(sources.queries)
    if name.startswith("hf/"):
        options |= {"dtype": dtype, "device": device}
    return open_scorer(name, base_url=url, **options)


async def _check(calls: Any) -> None:
    from agentcomm.api import check

    await check(calls.backend(None))


class _Directory:
    """``--out``: config.json, ledger.sqlite (calls), messages.jsonl, cells.sqlite, and for each scorer
    mi.NAME.json and matrix.NAME.json. Without it nothing is kept."""

    def __init__(
        self, path: Path | None, made: Compressor, sources: Sources, samples: int, options: RunOptions
    ) -> None:
        from agentcomm.evaluation.rundir import RunDir

        self.run = None if path is None else RunDir.create(path)
        self.config = {
            "measures": "mi",
            "compressor": made.name,
            "budget": made.budget,
            "samples": samples,
            "reference_set": sources.reference_set,
            "queries": list(dict.fromkeys(sources.queries)),
            "options": options.identity(),
        }
        self.sources = sources
        self._lock: Any = None

    @property
    def cells(self) -> Path | None:
        return None if self.run is None else self.run.path / "cells.sqlite"

    def __enter__(self) -> _Directory:
        from agentcomm.information.score_matrix import digest

        if self.run is not None:
            self._lock = self.run.locked()
            self._lock.__enter__()
            try:
                hashes = dict(zip(self.sources.ids, map(digest, self.sources.contexts), strict=True))
                self.run.settle(self.config, hashes)
            except BaseException:
                self._lock.__exit__(None, None, None)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.__exit__(None, None, None)

    def ledger(self) -> Any:
        from agentcomm.ledger.store import Ledger

        return Ledger.in_memory() if self.run is None else self.run.ledger()

    def keep_messages(self, messages: Messages) -> None:
        if self.run is None:
            return
        path = self.run.path / "messages.jsonl"
        lines = [
            json_module.dumps({"item": name, "sample": j, "text": text})
            for name, texts in zip(self.sources.ids, messages.texts, strict=True)
            for j, text in enumerate(texts)
        ]
        try:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"can't write {path}: {error.strerror}; free space first") from error

    def keep(self, scorer: str, facts: dict[str, Any], measured: Measured) -> None:
        from agentcomm.evaluation.rundir import write_json
        from agentcomm.information.matrix_files import save_matrix

        if self.run is None:
            return
        name = re.sub(r"[^\w.-]+", "-", scorer).strip("-")
        facts["results"] = str(self.run.path / f"mi.{name}.json")
        save_matrix(self.run.path / f"matrix.{name}.json", measured.matrix)
        write_json(self.run.path / f"mi.{name}.json", facts)


def show(facts: dict[str, Any], measured: Measured) -> None:
    """The estimate as a table on stdout."""
    from rich.console import Console

    from agentcomm.cli.tables import add, number, table
    from agentcomm.information.results import WARNINGS

    console = Console(highlight=False)
    estimate, messages = measured.estimate, facts["messages"]
    length = number(messages["mean_length"], 1)
    console.print(
        f"{facts['compressor']} on {facts['task']}: {estimate.quantity}, scored by {facts['scorer']}\n"
        f"N = {estimate.N} contexts, M = {estimate.M} messages each, {length} {_plural(messages['unit'])} on average",
        markup=False,
    )
    lower, upper = "lower bound", estimate.upper_label
    rows: list[tuple[str, float | None, Any, str]] = [
        ("mc, raw", estimate.mc_bits, estimate.ci_bits, lower),
        ("mc, not below 0", estimate.mi_bits_clipped, None, ""),
        ("tempered", estimate.tempered_bits, _in_bits(estimate.tempered_interval), _tempered(estimate)),
        ("from top-1 (Fano)", estimate.fano_bits, None, lower),
        ("loo", estimate.loo_bits, None, upper),
        ("doe", estimate.doe_bits, None, upper),
        ("cap, log N", estimate.log2_n_bits, None, ""),
    ]
    made = table("quantity", "what it is", right=("bits", f"{estimate.level:.0%} interval"))
    for name, value, interval, what in rows:
        add(made, name, what, number(value, 2), _between(interval, 2))
    console.print(made)
    facts_table = table("", right=("value", f"{estimate.level:.0%} interval"))
    add(facts_table, "saturation (at 0.9: lower bound only)", number(estimate.saturation, 2), "")
    add(
        facts_table, f"own context scores highest (chance {1 / estimate.N:.2f})", number(estimate.top1, 2), ""
    )
    for efficiency in (measured.per_token, measured.per_scorer_token, measured.per_byte):
        if efficiency is not None:
            add(facts_table, *_per(efficiency))
    console.print(facts_table)
    console.print(
        f"failures: {estimate.n_failed} cells, {estimate.n_rows_dropped} of {estimate.n_rows} messages left out, "
        f"{sum(messages['failed'].values())} not made; {estimate.n_empty} empty, {messages['cut_off']} cut off "
        "at the budget",
        markup=False,
    )
    for reason, count in estimate.failures.items():
        console.print(f"  {count} cells: {reason}", markup=False)
    for word in estimate.warnings:
        console.print(f"{word}: {WARNINGS[word]}", markup=False)
    if facts["calls"]["made"]:
        calls = facts["calls"]
        console.print(
            f"compressing: {calls['made']} calls, {number(calls['input_tokens'])} input and "
            f"{number(calls['output_tokens'])} output tokens",
            markup=False,
        )
    if "results" in facts:
        console.print(f"results: {facts['results']}", markup=False)


def _plural(unit: str) -> str:
    """``"token of m"``: ``"tokens of m"``."""
    first, *rest = unit.split(" ", 1)
    return " ".join([f"{first}s", *rest])


def _tempered(estimate: Any) -> str:
    if estimate.tempered_nats is None:
        return "lower bound; too few contexts"
    return f"lower bound, α = {estimate.alpha:.2g}, {estimate.tempered_n} contexts"


def _in_bits(interval: Any) -> Any:
    from agentcomm.information.results import bits

    return None if interval is None else [bits(end) for end in interval]


def _between(interval: Any, digits: int) -> str:
    return "" if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _per(efficiency: Efficiency) -> tuple[str, str, str]:
    from agentcomm.cli.tables import number

    label = f"bits per {efficiency.unit}" + (" (measures brevity only)" if efficiency.brevity_only else "")
    return label, number(efficiency.bits, 4), _between(efficiency.interval, 4)


def _why(measured: Measured) -> str:
    reasons = {**measured.messages.failures, **measured.estimate.failures}
    most = max(reasons, key=lambda reason: reasons[reason], default="unknown")
    return f"{measured.estimate.n_rows_dropped} of {measured.estimate.n_rows} messages failed, most often: {most}"


def _slowly(every_s: float = 10.0) -> Callable[[str], None]:
    """Says on stderr what it hears, the first time and then now and then."""
    said_at = [-every_s]

    def note(text: str) -> None:
        if time.monotonic() - said_at[0] >= every_s or "tokens" in text or "vLLM" in text:
            said_at[0] = time.monotonic()
            sys.stderr.write(text + "\n")

    return note
