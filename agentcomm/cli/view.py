"""``agentcomm view``: runs as one HTML file, to be looked at."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from agentcomm.errors import ConfigError


def view(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories; the first is the reference.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; else report.html in the first run's directory."),
    ] = None,
    size: Annotated[
        float, typer.Option("--size", min=1, help="Megabytes that conversations may fill the file up to.")
    ] = 18.0,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the report of RUNs as one HTML file that needs no network, and print its path.

    Works on finished runs, on those cut off and on those still going.
    """
    from agentcomm.evaluation.report import write_report

    path = out if out is not None else runs[0] / "report.html"
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the file to write with --out")
    written = write_report(runs, path, size=int(size * 1_000_000))
    if written.conversations < written.rows:
        sys.stderr.write(
            f"{written.conversations:,} of {written.rows:,} conversations are in the file (see its foot); "
            "--size takes in more\n"
        )
    typer.echo(str(path))
    if open_:
        webbrowser.open(path.resolve().as_uri())
