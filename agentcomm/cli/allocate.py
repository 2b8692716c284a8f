"""``agentcomm allocate``: one budget of tokens for a whole team, spread over its edges."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentcomm.cli import options as o
from agentcomm.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.information.allocating import Allocated


def allocate(
    graph: o.GraphName,
    task: o.TaskName,
    total: Annotated[
        float,
        typer.Option("--total", help="Tokens an item that readers may pay for messages, all edges together."),
    ],
    model: o.Model = None,
    compressor: Annotated[
        str,
        typer.Option(
            "--compressor", "-c", metavar="MODEL|extract|truncate|...", help="What shortens messages."
        ),
    ] = "extract",
    budgets: Annotated[
        str, typer.Option("--budgets", help="Tokens of a message, tried on every edge.")
    ] = "16,32,64",
    edges: Annotated[
        str | None, typer.Option("--edges", metavar="FROM->TO,...", help="Only these edges; default: all.")
    ] = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option("--limit", help="So many items of the split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="learn, validate or score (default).")] = None,
    data: o.Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the runs; the same command again continues. Default: a new one in runs/.",
        ),
    ] = None,
    query: Annotated[
        bool, typer.Option("--query/--no-query", help="Whether the compressor is shown the question.")
    ] = True,
    level: Annotated[float, typer.Option("--level", help="Confidence of intervals.")] = 0.95,
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
    """Find the budget of every edge of GRAPH that keeps most of the score on TASK within --total tokens.

    Each edge is compressed alone at every budget on half of the texts (equal prompts are paid once); losses
    are taken to add up, and the best combination is found exactly. On the other half it is run beside the
    same budget spread evenly and the team as it is. --run-limit holds for all runs together.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.information.allocating import allocate_budget
    from agentcomm.information.ways import Way, budgets_of
    from agentcomm.loading import load_task

    if not total >= 0:
        raise ConfigError(f"--total {total}: it must be at least 0")
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
    team = o.team(graph, graph_option, None)
    way, amounts = Way.parse(compressor, query=query), budgets_of(budgets)
    work = load_task(task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None))
    where = out or o.new_directory("allocate", task, graph)
    with Live("", show=not json) as live:

        def on_run(title: str) -> Live:
            live.begin(title)
            return live

        async def go() -> Allocated:
            return await allocate_budget(
                team,
                work,
                model,
                way,
                amounts,
                total,
                edges=edges.split(",") if edges is not None else None,
                out=where,
                name=Path(graph).stem,
                level=level,
                on_run=on_run,
                options=options,
            )

        try:
            found = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    if json:
        typer.echo(json_module.dumps(found.facts(), ensure_ascii=False))
    else:
        show(found)
    if found.failed:
        sys.stderr.write(
            f"{found.failed} episodes failed; the same command with --out {where} tries them again\n"
        )
    raise typer.Exit(1 if found.failed else 0)


def show(found: Allocated, console: Console | None = None) -> None:
    """Budgets of edges and the check, on stdout."""
    from rich.console import Console

    from agentcomm.cli.rate import _points, _saved
    from agentcomm.cli.tables import add, number, table

    console = console or Console(highlight=False)
    a = found.allocation
    console.print(
        f"{a.total:g} tokens an item over {len(a.edges)} edges, measured on {found.measured_items} items",
        markup=False,
    )
    made = table("edge", right=("budget", "tokens", "loss", "spread evenly", "tokens", "loss"))
    for edge, chosen, even in zip(a.edges, a.chosen.options, a.even.options, strict=True):
        cells: list[str] = []
        for option in (chosen, even):
            budget = "verbatim" if option.budget is None else str(option.budget)
            cells += [budget, number(option.tokens, 1), f"{100 * option.loss:+.1f}"]
        add(made, edge.edge, *cells)
    cells = []
    for both in (a.chosen, a.even):
        cells += ["", number(both.tokens, 1), f"{100 * both.loss:+.1f}"]
    add(made, "together", *cells)
    console.print(made)
    console.print("loss: points of score, taken to add up over edges. On other items:", markup=False)
    checked = table("team", right=("score", "against verbatim", "read", "tokens", "saved"))
    for c in found.checked:
        s = c.score
        add(
            checked,
            c.name,
            "–" if s.mean is None else f"{s.mean:.2f} [{s.low:.2f}, {s.high:.2f}]",
            "" if c.name == "verbatim" else _points(c.difference),
            number(c.read, 1),
            number(c.tokens, 1),
            "" if c.name == "verbatim" else _saved(c.saved),
        )
    console.print(checked)
    console.print(
        f"allocated against spread evenly: {_points(found.against_even)} points of score", markup=False
    )
    if found.path is not None:
        console.print(f"results: {found.path / 'allocation.json'}", markup=False)
