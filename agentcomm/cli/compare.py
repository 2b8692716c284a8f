"""``agentcomm compare``: runs side by side, what pruning saved and whether anything was lost."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.compare import Against, Comparison


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories; the first is the reference.")
    ],
    controls: Annotated[
        bool,
        typer.Option(
            "--controls",
            help="Add the controls run beside a RUN (one with a policy first); ends with 1 if one is missing.",
        ),
    ] = False,
    common: Annotated[
        bool, typer.Option("--common", help="Compare only the items that all runs have.")
    ] = False,
    margin: Annotated[
        float, typer.Option("--margin", help="Loss of score that doesn't matter (0.02 = 2 points).")
    ] = 0.02,
    level: Annotated[float, typer.Option("--level", help="Confidence of the intervals.")] = 0.95,
    amortise: Annotated[
        int, typer.Option("--amortise", help="Items over which the tokens of learning are spread.")
    ] = 1000,
    json: o.Json = False,
) -> None:
    """Compare RUNs on the same items: score, tokens, calls, cost, and the paired difference."""
    from rich.console import Console

    from agentcomm.errors import ConfigError
    from agentcomm.evaluation.compare import compare as compare_runs
    from agentcomm.evaluation.control_runs import check_controls, control_paths, is_learned

    if controls:
        named = {p.resolve() for p in runs}
        # Of several runs with controls, those of one with a policy: it is what has to prove itself.
        beside = [control_paths(p) for p in sorted(runs, key=lambda p: not is_learned(p))]
        runs = [*runs, *(p for p in next(filter(None, beside), []) if p.resolve() not in named)]
        report = check_controls(runs)
        if len(runs) == 1:
            raise ConfigError(
                f"{runs[0]} has no control beside it; run agentcomm eval ... --out {runs[0]} --controls all"
            )
    comparison = compare_runs(runs, common=common, margin=margin, level=level, amortise=amortise)
    if json:
        more = {"controls": report.to_dict()} if controls else {}
        typer.echo(json_module.dumps({**comparison.to_dict(), **more}, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        show(comparison, console)
        if controls:
            console.print(str(report), markup=False)
    if controls and not report.complete:
        raise typer.Exit(1)  # a table without what it has to be measured by is no report


def show(comparison: Comparison, console: Console) -> None:
    """The comparison as a table and one sentence a run."""
    from agentcomm.cli.tables import add, number, table

    # A column in which every run would show the same says nothing.
    with_net = any(row["tokens"]["net"] != row["tokens"]["gross"] for row in comparison.rows)
    with_learning = any(row["tokens"]["learning"] != 0 for row in comparison.rows)
    with_cost = any(row["cost"] is not None for row in comparison.rows)
    columns = ["score", f"{comparison.level:.0%}", "input", "output", "calls", "saved", "front"]
    columns += ["net"] * with_net + ["cost $"] * with_cost
    made = table("run", right=tuple(columns))
    saved = {a.run: a.tokens_saved for a in comparison.against}
    for row in comparison.rows:
        share = saved.get(row["run"])
        front, score = row["front_probability"], row["score"]
        cells = [
            row["run"] + (f" ({row['failed']} failed)" if row["failed"] else ""),
            number(score["mean"], 2),
            "–" if score["low"] is None else f"{score['low']:.2f}–{score['high']:.2f}",
            number(row["tokens"]["input"]),
            number(row["tokens"]["output"]),
            number(row["calls"]),
            "" if share is None else f"{share:.0%}",
            "–" if front is None else f"{'yes' if row['on_front'] else 'no'} {front:.0%}",
        ]
        cells += [number(row["tokens"]["net"])] * with_net + [number(row["cost"], 4)] * with_cost
        add(made, *cells)
    console.print(made)
    console.print(
        f"{comparison.items} items, paired against {comparison.reference}. saved: share of the reference's input and "
        "output tokens. front: whether no other run scores as high for fewer tokens, and how sure that is."
        + (" net: all the tokens that the run paid, channels included" if with_net else "")
        + (f", and learning spread over {comparison.amortise:,} items" if with_net and with_learning else "")
        + ("." if with_net else ""),
        markup=False,
    )
    for against in comparison.against:
        console.print(sentence(against, comparison.reference), markup=False)
    for row in comparison.rows:
        if (line := paid_back(row, {a.run: a for a in comparison.against}, comparison.reference)) is not None:
            console.print(line, markup=False)


def paid_back(row: dict[str, Any], against: dict[str, Against], reference: str) -> str | None:
    """What learning a run's policy took and when that is paid back; ``None`` where nothing was learned."""
    learning = row["tokens"]["learning"]
    if learning == 0:
        return None
    if learning is None:
        return f"{row['run']}: what learning its policy took is unknown"
    text = f"{row['run']}: learning its policy took {learning:,} tokens"
    if row["run"] not in against:
        return text
    items, net = against[row["run"]].break_even, against[row["run"]].net_saved
    if net is not None:
        text += f" (saved net of it: {net:.0%})"
    if items is None:
        return f"{text}, never paid back: it uses no fewer than {reference}"
    return f"{text}, paid back after {items:,.0f} items against {reference}"


def sentence(against: Against, reference: str) -> str:
    """One run's verdict in words."""
    d, v = against.difference, against.verdict
    if d.mean is None:
        return f"{against.run}: no pair of scored items"
    spread = "" if d.low is None or d.high is None else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    text = f"{against.run}: {100 * d.mean:+.1f} points{spread} against {reference}"
    points = f"{100 * v.margin:g} points"
    if v.verdict == "yes":
        text += f"; not worse by {points} ({v.level:.0%} confident)"
    elif v.verdict == "no":
        text += f"; worse by more than {points}"
    else:
        text += f"; whether it is worse by {points} can't be said from {v.items} items (about {v.needed:,} would be needed)"
    if against.p_holm is not None:
        text += f"; p = {against.p_holm:.3f}"
        if against.p_holm > 0.05:
            text += " (no difference found)"
    if against.failures_as_wrong is not None and against.failures_as_wrong.mean is not None:
        f = against.failures_as_wrong
        text += f"; {against.left_out} pairs with a failure left out (counted as wrong: {100 * (f.mean or 0.0):+.1f} points)"
    return text
