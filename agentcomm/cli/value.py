"""``agentcomm value``: what every edge and agent is worth, next to its tokens, to prune by hand."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.worth import Value, Worth
    from agentcomm.task import Task


def value(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    method: Annotated[
        str,
        typer.Option(
            "--method", help="ablation (the team without each part) or regression (fewer episodes)."
        ),
    ] = "ablation",
    limit: Annotated[int | None, typer.Option("--limit", help="So many items of the split.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="validate (default), learn or score (warned about).")
    ] = None,
    data: o.Data = None,
    edges: Annotated[
        list[str] | None,
        typer.Option(
            "--edges",
            metavar="AGENT|FROM->TO,...",
            help="Only these edges and agents; repeatable. Default: all.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            help="Ablation: runs of an item under each team (1). Regression: sub-teams for each item (4).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the runs; the same command again continues. Default: a new one in runs/.",
        ),
    ] = None,
    cut: o.Cut = None,
    adversary: o.Adversary = None,
    channel: o.Channel = None,
    channel_edges: o.ChannelEdges = None,
    margin: Annotated[
        float, typer.Option("--margin", help="Loss of score that doesn't matter (0.02 = 2 points).")
    ] = 0.02,
    level: Annotated[float, typer.Option("--level", help="Confidence of intervals and verdicts.")] = 0.95,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = 0.0,
    max_tokens: o.MaxTokens = 1024,
    run_limit: o.RunLimit = None,
    item_limit: o.ItemLimit = None,
    agent_limit: o.AgentLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    executor: o.Executor = "langgraph",
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Find what each edge and each agent of GRAPH is worth on TASK, and what it costs.

    Each is left out in turn (or, with --method regression, random sub-teams are run) on the same items;
    replies to equal prompts are kept, so only what lies downstream is paid. Ends with the --cut to try
    next. --run-limit holds for all runs together.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.evaluation.value import value as find_value

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
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    team = o.channelled(o.team(graph, graph_option, adversary), channel, channel_edges)
    work = _load(task, task_option, data=data, limit=limit, split=split)
    where = out or o.new_directory("value", task, graph)
    only = [word.strip() for words in edges for word in words.split(",") if word.strip()] if edges else None
    with Live("", show=not json) as live:

        def on_run(title: str) -> Live:
            live.begin(title)
            return live

        async def go() -> Value:
            return await find_value(
                team,
                work,
                model,
                method=method,  # type: ignore[arg-type]  # an unknown word is refused there
                out=where,
                topology=o.topology(team, cut),
                only=only,
                samples=samples,
                margin=margin,
                level=level,
                name=Path(graph).stem,
                on_run=on_run,
                options=options,
            )

        try:
            found = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    if json:
        typer.echo(
            json_module.dumps(
                {"graph": Path(graph).stem, "task": work.name, "model": model, **found.to_dict()},
                ensure_ascii=False,
            )
        )
    else:
        from rich.console import Console

        show(found, f"{Path(graph).stem} on {work.name}", Console(highlight=False), cut or [])
    if found.stopped:
        sys.stderr.write(f"stopped early: {found.stopped}; the same command with --out {where} continues\n")
    raise typer.Exit(1 if found.stopped or found.failed or any(r.left_out for r in found.rows) else 0)


def _load(
    task: str, task_option: list[str] | None, *, data: Path | None, limit: int | None, split: str | None
) -> Task:
    """The task's items to find values on, with a warning where they will be needed for scoring."""
    from agentcomm.errors import TaskError
    from agentcomm.loading import load_task

    given = o.task_options(task_option, data=data, limit=limit, split=split, seed=None)
    if "split" in given:
        work = load_task(task, given)
    else:
        try:
            work = load_task(task, {**given, "split": "validate"})
        except TaskError:
            work = load_task(task, given)  # a task without splits; another mistake is said again
            if any("split" in item.metadata for item in work.items):
                raise
    splits = {item.metadata.get("split") for item in work.items}
    if "score" in splits:
        sys.stderr.write(
            "warning: these are score items: a team pruned by this table looks better on them than it is; "
            "find values with --split validate\n"
        )
    elif splits == {None}:
        sys.stderr.write(
            "warning: the task's items name no split: score the pruned team on other items than these\n"
        )
    return work


def show(found: Value, title: str, console: Console, cut: list[str]) -> None:
    """The table, what its columns mean, what it cost to find out, and the cut to try next."""
    from agentcomm.cli.tables import add, number, score_text, table

    interval = found.score
    score = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    console.print(
        f"{title}, {found.method}: the whole team scores {score_text(score)} on {found.items} items"
        + (f" ({found.failed} episodes failed)" if found.failed else "")
        + f" for {number(found.tokens)} tokens an item",
        markup=False,
    )
    made = table("leave out", "verdict", right=("worth", f"{found.level:.0%}", "tokens", "saved", "/1,000"))
    for row in found.rows:
        add(made, *_cells(row))
    console.print(made)
    console.print(
        f"worth: points of score lost without it ({'the rest unchanged' if found.method == 'ablation' else 'on average over random sub-teams'}); "
        "below 0 it harms. tokens: its own, an item. saved: what an item costs less without it, all that changes "
        "downstream included. /1,000: worth for 1,000 tokens saved; first what to cut, last what to keep. "
        f"Verdicts: Holm's correction over all parts; no difference found: less than {100 * found.margin:g} points are lost; "
        "needs ~N items: not enough to say, about so many would be.",
        markup=False,
    )
    paid = found.paid
    told = f"{paid.runs} runs, {paid.episodes:,} episodes: {paid.tokens:,} tokens paid"
    if paid.replayed:
        told += f", {paid.replayed:,} answered from replies kept"
    told += f", cost ${paid.cost:.4f}" if paid.cost else ""
    console.print(told + f"; they are in {found.path}", markup=False)
    if any(r.left_out for r in found.rows):
        console.print("Pairs with a failed episode are left out and counted in brackets.", markup=False)
    console.print(next_line(found, cut), markup=False, soft_wrap=True)


def _cells(row: Worth) -> list[str]:
    from agentcomm.cli.tables import number

    e = row.effect
    name = row.name + (f" (with {', '.join(row.gone)})" if row.gone else "")
    words = row.words
    if row.verdict == "not enough items":
        words = f"needs ~{row.about:,} items"
    if row.note and row.verdict != "can't be left out":
        words += f" ({row.note})"
    if row.left_out and row.effect.mean is not None:
        words += f" ({row.left_out} failed)"
    return [
        name,
        words,
        "–" if e.mean is None else f"{100 * e.mean:+.1f}",
        "–" if e.low is None or e.high is None else f"{100 * e.low:+.0f}, {100 * e.high:+.0f}",
        number(row.tokens),
        number(row.saved),
        "–" if row.per_1000 is None else f"{100 * row.per_1000:+.1f}",
    ]


def next_line(found: Value, cut: list[str]) -> str:
    """One line: the ``--cut`` to try next and what it would save."""
    chosen = found.next
    if chosen is None:
        return "next: nothing to cut: every part that could be measured seems worth its tokens"
    words = " ".join(f'--cut "{word}"' for word in [*cut, *chosen.words])
    saved = "an unknown number of tokens" if chosen.saved is None else f"{chosen.saved:,.0f} tokens"
    share = "" if chosen.share is None else f" ({chosen.share:.0%})"
    return f"next: {words}: {chosen.why} ({0 - 100 * chosen.worth:+.1f} points without it); saves {saved} an item{share}"
