"""Tables and numbers as the commands show them: narrow enough for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table: text columns to the left, then number columns to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    for name in left:
        made.add_column(name, overflow="fold", min_width=min(12, len(name) + 8))
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def add(made: Table, *cells: str) -> None:
    """Add a row of cells shown as they are: names may hold what rich would take for markup."""
    from rich.text import Text

    made.add_row(*map(Text, cells))


def number(value: float | None, digits: int = 0) -> str:
    """A number for a table; unknown is a dash, never 0."""
    return "–" if value is None else f"{value:,.{digits}f}"


def score_text(score: dict[str, Any]) -> str:
    """``0.42 [0.29, 0.56]``, or a dash when nothing was scored."""
    if score["mean"] is None:
        return "–"
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def usage_table(name: str, rows: dict[str, dict[str, Any]]) -> Table:
    made = table(name, right=("calls", "input", "cached", "output"))
    for key, row in rows.items():
        add(made, str(key), *(number(row.get(field)) for field in ("calls", "input", "cached", "output")))
    return made


def share_table(name: str, what: str, rows: dict[str, int], total: int | None) -> Table:
    made = table(name, right=(what, "share of all input"))
    for key, value in rows.items():
        add(made, key, number(value), f"{value / total:.1%}" if total else "–")
    return made
