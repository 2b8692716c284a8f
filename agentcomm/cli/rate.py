"""``agentcomm rate``: what compressors' messages are worth at every length: rate-distortion curves."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.stats import PairedDifference
    from agentcomm.information.flops import Flops, Shape
    from agentcomm.information.intervals import Interval
    from agentcomm.information.rates import RateCurve, RatePoint, Rates


def rate(
    task: o.TaskName,
    compressor: Annotated[
        list[str],
        typer.Option(
            "--compressor",
            "-c",
            metavar="MODEL|extract|truncate|...",
            help="A model that summarises, or a channel without its budget (extract:query=false); repeatable.",
        ),
    ],
    predictor: Annotated[
        str, typer.Option("--predictor", "-p", metavar="MODEL", help="The model that answers from messages.")
    ],
    budgets: Annotated[
        str, typer.Option("--budgets", help="Tokens of a message, of the predictor's.")
    ] = "16,32,64,128",
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option("--limit", help="So many items of the split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="learn, validate or score (default).")] = None,
    data: o.Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the runs; the same command again continues, more budgets are added. "
            "Default: a new one in runs/.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="How often each item is run.")] = 1,
    query: Annotated[
        bool, typer.Option("--query/--no-query", help="Whether compressors are shown the question.")
    ] = True,
    compressor_temperature: Annotated[
        float, typer.Option("--compressor-temperature", help="Of compressors that are models.")
    ] = 0.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="MODEL=PARAMETERS,LAYERS,WIDTH",
            help="For FLOPs, where the model's files are not here; repeatable.",
        ),
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Confidence of intervals.")] = 0.95,
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
    """Let PREDICTOR answer TASK from what each compressor makes of the texts, at every budget.

    Shows the score, tokens and FLOPs of every point beside the full context and no context at all, and
    fits D = C·exp(−b·R) + D0 to the loss of each compressor, with intervals. Pictures are beside rate.json.
    --run-limit holds for all runs together.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.information.rates import errors_of, measure_rates
    from agentcomm.information.ways import budgets_of, ways_of
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
        cache=cache,
        prices=prices,
        retries=retries,
        run_limit=run_limit,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    ways = ways_of(compressor, query=query, temperature=compressor_temperature)
    amounts = budgets_of(budgets)
    shapes = _shapes(shape)
    work = load_task(task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None))
    where = out or o.new_directory("rate", task)
    with Live("", show=not json) as live:

        def on_run(title: str) -> Live:
            live.begin(title)
            return live

        async def go() -> Rates:
            return await measure_rates(
                work,
                ways,
                predictor,
                amounts,
                out=where,
                samples=samples,
                shapes=shapes,
                level=level,
                on_run=on_run,
                options=options,
            )

        try:
            rates = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    if json:
        typer.echo(json_module.dumps(rates.facts(), ensure_ascii=False))
    else:
        show(rates)
    if rates.stopped:
        sys.stderr.write(f"stopped early: {rates.stopped}; the same command with --out {where} continues\n")
    for line in errors_of(rates):
        sys.stderr.write(f"failed: {line}\n")
    raise typer.Exit(1 if rates.failed or rates.stopped else 0)


def _shapes(words: list[str] | None) -> dict[str, Shape]:
    from agentcomm.errors import ConfigError
    from agentcomm.information.flops import Shape

    found = {}
    for word in words or []:
        model, equals, rest = word.rpartition("=")
        if not equals or not model:
            raise ConfigError(f"--shape {word!r}: write MODEL=PARAMETERS,LAYERS,WIDTH")
        found[model] = Shape.parse(rest)
    return found


def show(rates: Rates, console: Console | None = None) -> None:
    """Points, costs and curves on stdout."""
    from rich.console import Console

    from agentcomm.cli.tables import add, number, table

    console = console or Console(highlight=False)
    items = max((p.scored for p in rates.points), default=0)
    console.print(
        f"{rates.predictor} on {rates.task}: {items} items about {rates.documents} texts", markup=False
    )
    made = table("compressor", right=("asked", "got", "adherent", "score", "against full"))
    for p in rates.points:
        add(
            made,
            _named(p),
            "" if p.budget is None else str(p.budget),
            number(p.got, 1),
            "" if p.kept_to_it is None else f"{p.kept_to_it:.0%}",
            "–" if p.score.mean is None else f"{p.score.mean:.2f} [{p.score.low:.2f}, {p.score.high:.2f}]",
            "" if p.kind == "full" else _points(p.against_full),
        )
    console.print(made)
    costs = table("compressor", right=("asked", "tokens", "its own", "saved", "generation", "total"))
    for p in rates.points:
        add(
            costs,
            p.name,
            "" if p.budget is None else str(p.budget),
            number(p.tokens, 1),
            number(p.compressor_tokens, 1),
            "" if p.kind == "full" else _saved(p.saved),
            _flops(p.flops, "decode"),
            _flops(p.flops, "total"),
        )
    console.print(costs)
    console.print(
        "Means of an item. got: tokens of the message, counted as its reader does; tokens: net, of all calls; its own: "
        "the compressor's part; against full: points of score; generation, total: FLOPs without and with reading the "
        f"prompts (– where a model's shape is unknown: --shape). Intervals: {rates.level:.0%}, over texts.",
        markup=False,
    )
    for curve in rates.curves:
        console.print(_curve(curve), markup=False)
    if rates.path is not None:
        console.print(f"results: {rates.path / 'rate.json'}", markup=False)
        drawn = [name for name in ("rate-distortion.svg", "tokens-score.svg") if (rates.path / name).exists()]
        if drawn:
            console.print(f"pictures: {', '.join(str(rates.path / name) for name in drawn)}", markup=False)


def _named(p: RatePoint) -> str:
    failed = p.failed + p.failed_deliveries
    return p.name + (f" ({failed} failed)" if failed else "")


def _points(d: PairedDifference | None) -> str:
    if d is None or d.mean is None:
        return "–"
    if d.low is None or d.high is None:
        return f"{100 * d.mean:+.1f}"
    return f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def _saved(d: PairedDifference | None) -> str:
    if d is None or d.mean is None:
        return "–"
    if d.low is None or d.high is None:
        return f"{d.mean:,.0f}"
    return f"{d.mean:,.0f} [{d.low:,.0f}, {d.high:,.0f}]"


def _flops(flops: Flops | None, what: str) -> str:
    return "–" if flops is None else f"{getattr(flops, what):.2g}"


def _curve(curve: RateCurve) -> str:
    if curve.fit is None:
        return f"{curve.name}: no curve: {curve.why}"
    f = curve.fit

    def value(at: float, interval: Interval | None) -> str:
        return f"{at:.3g}" + ("" if interval is None else f" [{interval.low:.3g}, {interval.high:.3g}]")

    lines = [
        f"{curve.name}: loss = C·exp(−b·R) + D0, R in {f.rate.replace('token', 'tokens', 1)}: C {value(f.c, f.c_interval)}, "
        f"b {value(f.b, f.b_interval)}, D0 {value(f.d0, f.d0_interval)}"
    ]
    return "\n".join([*lines, *(f"  {word}" for word in f.warnings)])
