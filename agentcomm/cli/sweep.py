"""``agentcomm sweep``: a grid of graphs, tasks, models and seeds, and one table at its end."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from agentcomm.cli.live import Live
    from agentcomm.evaluation.sweep import Cell, CellResult, Row, Sweep


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="The grid; examples/sweep.toml shows how.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the cells. Default: runs/ and the file's name.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, list the cells and their calls, run nothing.")
    ] = False,
    margin: Annotated[
        float, typer.Option("--margin", help="Loss of score that doesn't matter (0.02 = 2 points).")
    ] = 0.02,
    level: Annotated[float, typer.Option("--level", help="Confidence of the intervals.")] = 0.95,
    json: o.Json = False,
) -> None:
    """Run every graph on every task with every model and seed that FILE.toml names.

    Each cell is a run directory below --out. The same command again runs only what is missing or
    failed; a cell whose settings changed in the file is a new one. With controls = "all" in the file,
    what each team has to beat is run beside its cell.
    """
    import anyio
    from rich.console import Console

    from agentcomm.cli.live import Live
    from agentcomm.evaluation.sweep import Sweep, control_table, run_sweep, table

    where = out or Path("runs") / file.stem
    grid = Sweep.load(file, where)
    if dry_run:
        _plan(grid, json)
        return
    with Live("", show=not json) as live:

        def on_cell(number: int, cell: Cell) -> Live:
            live.begin(f"[{number + 1}/{len(grid.cells)}] {cell.title}")
            return live

        def on_control(number: int, cell: Cell, title: str) -> Live:
            live.begin(f"[{number + 1}/{len(grid.cells)}] {cell.title}: {title}")
            return live

        async def go() -> tuple[CellResult, ...]:
            return await run_sweep(grid, on_cell=on_cell, on_control=on_control)

        try:
            results = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    rows = table(results, margin=margin, level=level)
    controls = control_table(results, margin=margin, level=level)
    if json:
        made = {
            "sweep": str(file),
            "out": str(where),
            "reference": grid.graphs[0],
            "table": [row.to_dict() for row in rows],
            "cells": [result.to_dict() for result in results],
            **({"controls": [row.to_dict() for row in controls]} if grid.cells[0].controls else {}),
        }
        typer.echo(json_module.dumps(made, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        show(rows, grid.graphs[0], console)
        if grid.cells[0].controls:
            _show_controls(results, controls, console)
    for result in results:
        _complain(result)
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


def _complain(result: CellResult) -> None:
    if result.error is not None:
        sys.stderr.write(f"failed: {result.cell.title}: {' '.join(result.error.split())}\n")
    for run in result.runs:
        if run.failed and (result.error is None or run is not result.run):
            first = next(e for e in run.episodes if e.status == "failed")
            at = "" if run is result.run else f", {run.config['graph']['name']}"
            sys.stderr.write(
                f"failed: {result.cell.title}{at}: {run.failed} items, the first {first.item}: {first.failure}\n"
            )


def _plan(grid: Sweep, json: bool) -> None:
    from rich.console import Console

    from agentcomm.cli.tables import add, number, table
    from agentcomm.evaluation.sweep import is_finished

    cells = [(cell, is_finished(cell)) for cell in grid.cells]
    calls = sum(cell.calls for cell, finished in cells if not finished)
    if json:
        listed: list[dict[str, Any]] = [
            {
                "task": cell.task,
                "model": cell.model,
                "seed": cell.seed,
                "graph": cell.graph,
                "path": str(cell.path),
                "items": len(cell.work.items),
                "calls": cell.calls,
                "finished": finished,
            }
            for cell, finished in cells
        ]
        plan = {"cells": listed, "calls": calls, "controls": list(cells[0][0].controls)}
        typer.echo(json_module.dumps(plan, ensure_ascii=False))
        return
    made = table("task", "model", "seed", "graph", right=("items", "calls", ""))
    for cell, finished in cells:
        add(
            made,
            cell.task,
            cell.model,
            str(cell.seed),
            cell.graph,
            number(len(cell.work.items)),
            number(cell.calls),
            "finished" if finished else "",
        )
    console = Console(highlight=False)
    console.print(made)
    left = sum(not finished for _, finished in cells)
    console.print(f"{len(cells)} cells, {left} to run: at most {calls:,} model calls if none fails")
    if controls := cells[0][0].controls:
        console.print(f"not counted are the controls of each cell: {', '.join(controls)}")


def _show_controls(results: Sequence[CellResult], rows: Sequence[Row], console: Console) -> None:
    if rows:
        console.print()
        show(rows, "its graph", console)
    said: dict[str, None] = {}  # each reason once, in order
    for result in results:
        made, at = result.controls, f"{result.cell.graph} on {result.cell.task}"
        if made is None:
            continue
        said |= dict.fromkeys(f"{at}: no {name}: {why}" for name, why in made.not_applicable.items())
        chosen = {"single agent": made.chosen, "fixed topology": made.fixed}
        seed = f", seed {result.cell.seed}"
        said |= dict.fromkeys(f"{at}{seed}: {what}: {how}" for what, how in chosen.items() if how)
    for line in said:
        console.print(line, markup=False)


def show(rows: Sequence[Row], reference: str, console: Console) -> None:
    """The table of a sweep or of its controls, and what its columns mean."""
    from agentcomm.cli.tables import add, number, table

    several = {axis: len({getattr(row, axis) for row in rows}) > 1 for axis in ("task", "model")}
    seeds = len(rows[0].by_seed) > 1
    priced = any(row.cost is not None for row in rows)
    left = [axis for axis in ("task", "model") if several[axis]] + ["graph"]
    left += ["control"] * any(row.control is not None for row in rows)
    right = ["score", *(["by seed"] if seeds else []), "input", "output", "calls", "saved", "difference"]
    right += ["p", *(["cost $"] if priced else [])]
    made = table(*left, right=tuple(right))
    for row in rows:
        s, d = row.score, row.difference
        values = [v for v in row.by_seed.values() if v is not None]
        cells = [getattr(row, axis) or "" for axis in left]
        cells[-1] += f" ({row.failed} failed)" if row.failed else ""
        cells.append("–" if s.mean is None else f"{s.mean:.2f} [{s.low:.2f}, {s.high:.2f}]")
        if seeds:
            cells.append(f"{min(values):.2f}–{max(values):.2f}" if values else "–")
        cells += [
            number(v, 1 if v is not None and v < 100 else 0) for v in (row.input_tokens, row.output_tokens)
        ]
        cells += [number(row.calls, 1), "" if row.tokens_saved is None else f"{row.tokens_saved:.0%}"]
        if d is None:
            cells.append("reference" if row.graph == reference else "–")
        elif d.mean is None or d.low is None or d.high is None:
            cells.append("–")
        else:
            cells.append(f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]")
        cells.append("" if d is None else number(row.p_holm, 3))
        cells += [number(row.cost, 4)] if priced else []
        add(made, *cells)
    console.print(made)
    compared = [row for row in rows if row.p_holm is not None]
    console.print(
        "Tokens and calls are means for an item. saved: share of the reference's tokens. difference: points of score "
        f"against {reference} on the same items{' and seeds (an item with its seeds counts once)' if seeds else ''}, "
        f"with {rows[0].score.level:.0%} interval."
        + (f" p: sign-flip test, Holm's correction over {len(compared)} comparisons." if compared else ""),
        markup=False,
    )
    if any(row.left_out for row in rows):
        console.print("Pairs with a failure are left out of differences.")
