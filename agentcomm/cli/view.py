"""``agentcomm view``: runs, curves and audits as one HTML file, to be looked at."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from agentcomm.errors import ConfigError


def view(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directories, the first being the reference; also folders of rate, mi, audit, allocate.",
        ),
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

    Works on finished runs, on those cut off and on those still going. A folder that rate, mi, audit or
    allocate made gives its curves and verdicts and the runs in it; several are shown together.
    """
    from agentcomm.evaluation.report import write_report

    path = out if out is not None else runs[0] / "report.html"
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the file to write with --out")
    shown, results = _sorted(runs)
    findings = []
    if results:
        from agentcomm.information.shown import findings as found

        findings = found(results)
    written = write_report(shown, path, size=int(size * 1_000_000), findings=findings)
    if written.conversations < written.rows:
        sys.stderr.write(
            f"{written.conversations:,} of {written.rows:,} conversations are in the file (see its foot); "
            "--size takes in more\n"
        )
    typer.echo(str(path))
    if open_:
        webbrowser.open(path.resolve().as_uri())


def _sorted(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Runs to show, and folders of results."""
    from agentcomm.evaluation.rundir import CONFIG
    from agentcomm.information.shown import results_in, runs_in

    runs: list[Path] = []
    results: list[Path] = []
    for path in paths:
        if path.is_dir() and results_in(path):
            results.append(path)
            runs += runs_in(path)
        elif (path / CONFIG).exists():
            runs.append(path)
        else:
            raise ConfigError(
                f"no run at {path}, and no result of rate, mi, audit or allocate (rate.json, mi.*.json, "
                "audit.json, allocation.json); name a directory that one of these or `agentcomm eval` made"
            )
    return runs, results
