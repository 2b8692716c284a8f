"""``agentcomm eval``: a graph on a task, with live progress and a ledger."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.control_runs import Controlled
    from agentcomm.evaluation.run import Run, TopologyOf


def evaluate(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    adapter: o.Adapter = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option("--limit", help="So many items of the split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="learn, validate or score (default).")] = None,
    data: o.Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The run's directory; the same command again continues it. Default: a new one in runs/.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="How often each item is run.")] = 1,
    cut: o.Cut = None,
    policy: o.PolicyFolder = None,
    embedder: o.Embedder = None,
    adversary: o.Adversary = None,
    channel: o.Channel = None,
    channel_edges: o.ChannelEdges = None,
    controls: Annotated[
        str | None,
        typer.Option(
            "--controls",
            metavar="all|single,vote,...",
            help="Also run these controls, beside --out: single, self_consistency, vote, edgeless, random, complete, "
            "fixed, untrained.",
        ),
    ] = None,
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
    checkpoint: o.Checkpoint = None,
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Run GRAPH on every item of TASK and say what it scored and what every edge cost.

    The run's directory holds config.json, ledger.sqlite and results.json. After Ctrl-C, a crash
    or kill -9 the same command with the same --out continues: finished items are not paid again.

    --controls all then runs what the team has to beat (one agent alone, votes, no edges, random
    edges, all edges; with --policy also the best fixed topology and the untrained network) in
    directories beside it, and ends with the comparison.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.evaluation.control_runs import run_controls
    from agentcomm.evaluation.controls import words as control_words
    from agentcomm.evaluation.held import held
    from agentcomm.evaluation.run import evaluate as evaluate_graph
    from agentcomm.loading import load_task

    options = o.run_options(
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        api_key_env=api_key_env,
        timeout_s=timeout,
        max_concurrency=concurrency,
        executor=executor,
        checkpoint=checkpoint,
        cache=cache,
        prices=prices,
        retries=retries,
        run_limit=run_limit,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    model = o.adapted(model, adapter)
    team = o.channelled(o.team(graph, graph_option, adversary), channel, channel_edges)
    loading = o.task_options(task_option, data=data, limit=limit, split=split, seed=None)
    work = load_task(task, loading)
    learned = o.policy(team, policy, embedder, cut)
    wanted = control_words(controls, learned=learned is not None) if controls is not None else ()
    validate = o.validate_task(task, loading) if wanted else None
    where = out or o.new_directory(task, graph)
    topology: TopologyOf = learned if learned is not None else o.topology(team, cut)
    with Live(f"{Path(graph).stem} on {work.name}", show=not json) as progress:

        def next_run(title: str) -> Live:
            progress.begin(title)
            return progress

        async def go() -> tuple[Run, Controlled | None]:
            async with held(model if wanted else None, options):
                run = await evaluate_graph(
                    team,
                    work,
                    model,
                    out=where,
                    topology=topology,
                    samples=samples,
                    name=Path(graph).stem,
                    on_progress=progress,
                    options=options,
                )
                if not wanted or run.stopped:
                    return run, None
                return run, await run_controls(
                    run,
                    team,
                    work,
                    model,
                    wanted,
                    topology=topology,
                    validate=validate,
                    samples=samples,
                    options=options,
                    on_run=next_run,
                )

        try:
            run, controlled = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    summary = run.summary()
    if json:
        if controlled is not None:
            summary["controls"] = _controls_json(where, controlled)
        typer.echo(json_module.dumps(summary, ensure_ascii=False))
    else:
        show(summary)
        if controlled is not None:
            _show_controls(where, controlled)
    runs = [run, *(r for _, r in controlled.runs)] if controlled is not None else [run]
    for one in runs:
        if one.stopped:
            sys.stderr.write(f"stopped early: {one.stopped}; the same command with --out {where} continues\n")
        for episode in [e for e in one.episodes if e.status == "failed"][:3]:
            at = "" if one is run or one.path is None else f"{one.path.name}: "
            # On one line, whatever a server or a user's own agent said.
            why = " ".join(str(episode.failure).split())[:600]
            sys.stderr.write(f"failed: {at}item {episode.item}: {why}\n")
    raise typer.Exit(1 if any(one.failed or one.stopped for one in runs) else 0)


def _controls_json(where: Path, controlled: Controlled) -> dict[str, Any]:
    from agentcomm.evaluation.control_runs import check_controls, control_paths

    paths = [where, *control_paths(where)]
    return {
        "runs": [{**run.summary(), "control": one.name, "note": one.note} for one, run in controlled.runs],
        "single_chosen": controlled.chosen,
        "fixed_chosen": controlled.fixed,
        **check_controls(paths).to_dict(),
        "comparison": _compared(paths),
    }


def _compared(paths: list[Path]) -> dict[str, Any] | None:
    from agentcomm.errors import ConfigError
    from agentcomm.evaluation.compare import compare

    try:
        return compare(paths).to_dict()
    except ConfigError:  # one run, or none with a finished item
        return None


def _show_controls(where: Path, controlled: Controlled) -> None:
    from rich.console import Console

    from agentcomm.cli.compare import show as show_comparison
    from agentcomm.evaluation.compare import compare
    from agentcomm.evaluation.control_runs import check_controls, control_paths

    console = Console(highlight=False)
    paths = [where, *control_paths(where)]
    if len(paths) > 1:
        show_comparison(compare(paths), console)
    if controlled.chosen:
        console.print(f"single agent: {controlled.chosen}", markup=False)
    if controlled.fixed:
        console.print(f"fixed topology: {controlled.fixed}", markup=False)
    console.print(str(check_controls(paths)), markup=False)


def show(summary: dict[str, Any], console: Console | None = None) -> None:
    """The summary of a run as tables on stdout."""
    from rich.console import Console
    from rich.markup import escape

    from agentcomm.cli.ledger import show_channels
    from agentcomm.cli.tables import number, score_text, share_table, usage_table

    console = console or Console()
    tokens, model = summary["tokens"], summary["model"] or "each agent's own model"
    console.print(
        f"[bold]{escape(summary['graph'])}[/] on [bold]{escape(summary['task'])}[/], {escape(model)}: "
        f"score {score_text(summary['score'])} on {summary['scored']} items"
        + (f", [red]{summary['failed']} failed[/]" if summary["failed"] else ""),
        highlight=False,
    )
    cached = f" ({number(tokens['cached'])} cached)" if tokens["cached"] is not None else ""
    console.print(
        f"{number(tokens['input'])} input tokens{cached}, {number(tokens['output'])} output tokens, "
        f"{summary['calls']:,} calls"
        + (f", {summary['failed_calls']} of them failed" if summary["failed_calls"] else "")
        + (f", cost ${summary['cost']:.4f}" if summary["cost"] is not None else ", cost unknown")
        + f", {summary['wall_s']:.1f} s",
        highlight=False,
    )
    if summary["adversaries"]:
        console.print(f"told to mislead: {escape(', '.join(summary['adversaries']))}", highlight=False)
    console.print(usage_table("agent", tokens["by_agent"]))
    if tokens["by_edge"]:
        console.print(share_table("edge", "input tokens its reader paid", tokens["by_edge"], tokens["input"]))
    if summary["channels"]:
        show_channels(summary["channels"], console)
    console.print(share_table("part", "input tokens", tokens["by_part"], tokens["input"]))
    console.print(f"run: {summary['run']}", highlight=False, markup=False)
