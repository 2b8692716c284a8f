"""``agentcomm ledger``: what a run cost, by edge, agent, round, phase, part or call."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.ledger.store import Ledger
    from agentcomm.ledger.usage import UsageReport

By = Literal["edge", "agent", "round", "phase", "part", "channel", "call"]


def ledger(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")],
    by: Annotated[By, typer.Option("--by", help="What to group by.")] = "edge",
    json: o.Json = False,
) -> None:
    """Who paid for what in RUN. Works while the run is going, and after a crash.

    --by channel says what channels were asked for and what came of it.
    """
    from rich.console import Console

    from agentcomm.cli.tables import share_table, usage_table
    from agentcomm.evaluation.rundir import RunDir

    with RunDir.open(run).ledger() as book:
        usage = book.usage()
        rows: Any = channelled(book, usage) if by == "channel" else grouped(usage, by)
    if json:
        typer.echo(json_module.dumps(rows, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if by == "channel":
        if rows:
            show_channels(rows, console)
        else:
            console.print("no edge of this run has a channel")
    elif isinstance(rows, list):
        console.print(_call_table(rows))
    elif by in ("edge", "part"):
        console.print(share_table(by, "input tokens", rows, usage.input_tokens))
    else:
        console.print(usage_table(by, rows))
    if usage.unknown_calls:
        console.print(
            f"{usage.unknown_calls} attempts are of unknown cost (failed, or in flight when the run was cut off); "
            "no total includes them"
        )


def grouped(usage: UsageReport, by: By) -> Any:
    """The rows of a usage report as JSON."""
    if by == "call":
        return usage.by_call()
    if by == "edge":
        return usage.by_edge()
    if by == "part":
        return usage.by_part()
    groups: Any = (
        usage.by_agent() if by == "agent" else usage.by_round() if by == "round" else usage.by_phase()
    )
    return {str(key): group.to_dict() for key, group in groups.items()}


def channelled(book: Ledger, usage: UsageReport) -> dict[str, dict[str, Any]]:
    """What channels did, by edge, as JSON."""
    from agentcomm.ledger.adherence import adherence

    edges = adherence(book.channels(texts=False), usage.channel_tokens_by_edge())
    return {name: edge.to_dict() for name, edge in edges.items()}


def show_channels(rows: dict[str, dict[str, Any]], console: Console) -> None:
    """Adherence as a table, an edge a row, and what became of the deliveries below."""
    from rich.markup import escape

    from agentcomm.cli.tables import add, number, table

    made = table("edge", "channel", right=("budget", "said", "read", "own calls", "saved", "as told"))
    for name, row in rows.items():
        counts = ("budget", "original_tokens", "tokens", "own_tokens", "saved")
        told = f"{row['adherent']}/{row['deliveries']}"
        add(made, name, row["channel"], *(number(row[k]) for k in counts), told)
    console.print(made)
    for name, row in rows.items():
        console.print(f"{escape(name)}: {row['text']}")


def _call_table(rows: list[dict[str, Any]]) -> Any:
    from agentcomm.cli.tables import add, number, table

    made = table("item", "agent", "parts or error", right=("round", "attempt", "input", "cached", "output"))
    for row in rows:
        parts = ", ".join(f"{k} {v}" for k, v in (row["parts"] or {}).items())
        add(
            made,
            row["item"],
            row["agent"],
            row["error"] or parts or "–",
            str(row["round"]),
            str(row["attempt"]),
            *(number(row[bucket]) for bucket in ("input_tokens", "cached_tokens", "output_tokens")),
        )
    return made
