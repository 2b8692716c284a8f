"""What ``agentcomm view`` shows of the folders that rate, mi, audit and allocate leave: pictures and a sentence.

::

    rate.json         and its SVGs: rate-distortion curves, score over tokens
    mi.SCORER.json    information over the length of messages; over score where a curve has the same compressor
    audit.json        its verdict
    allocation.json   nothing of its own: its runs

The runs that lie in such a folder are the caller's to show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentcomm.errors import ConfigError
from agentcomm.evaluation.report import Finding
from agentcomm.evaluation.rundir import CONFIG, LEDGER, read_json
from agentcomm.information.pictures import Point, Series, mi_against_score, scatter

RATE, AUDIT, ALLOCATION, MI = "rate.json", "audit.json", "allocation.json", "mi.*.json"
PICTURES = (
    ("rate-distortion.svg", "Rate-distortion", "Loss over what is read. Down and to the left is better."),
    (
        "tokens-score.svg",
        "Score against tokens",
        "With the compressors' own calls. Up and to the left is better.",
    ),
)


def results_in(folder: Path) -> list[Path]:
    """The result files of a folder."""
    named = [folder / name for name in (RATE, AUDIT, ALLOCATION)]
    return [p for p in [*named, *sorted(folder.glob(MI))] if p.is_file()]


def runs_in(folder: Path) -> list[Path]:
    """The runs that lie in a folder, in the order in which they began."""
    found = [p for p in folder.iterdir() if (p / CONFIG).is_file() and (p / LEDGER).is_file()]
    return sorted(found, key=lambda p: ((p / CONFIG).stat().st_mtime_ns, p.name))


def findings(folders: Sequence[Path]) -> list[Finding]:
    """What there is to show of result folders, together.

    Raises
    ------
    ConfigError
        If a result file or picture can't be read.
    """
    found: list[Finding] = []
    information: list[dict[str, Any]] = []
    scores: dict[tuple[str, str, Any], dict[str, Any]] = {}
    for folder in folders:
        for file in results_in(folder):
            facts = read_json(file)
            try:
                if file.name == RATE:
                    found += _drawn(folder, str(facts["task"]), str(facts["predictor"]))
                    for curve in facts["curves"]:
                        for p in curve["points"]:
                            scores[str(facts["task"]), _plain(str(curve["compressor"])), p["asked"]] = p[
                                "score"
                            ]
                elif file.name == AUDIT:
                    found.append(Finding(f"Audit: {folder.name}", str(facts["sentence"])))
                elif file.name != ALLOCATION:
                    information.append(_measured(facts))
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"{file} is not what its command wrote ({error!r}); run the command again"
                ) from error
    return found + _of_information(information, scores)


def _drawn(folder: Path, task: str, predictor: str) -> list[Finding]:
    found = []
    for name, title, words in PICTURES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            svg = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"can't read {path}: {error}; the same `agentcomm rate` draws it again"
            ) from error
        found.append(Finding(f"{title}: {predictor} on {task}", words, svg))
    return found


def _plain(compressor: str) -> str:
    """A rule without its number: what ``rate`` calls it."""
    word, colon, number = compressor.rpartition(":")
    return word if colon and number.isdecimal() else compressor


def _measured(facts: dict[str, Any]) -> dict[str, Any]:
    estimate = facts["estimate"]
    return {
        "task": str(facts["task"]),
        "compressor": _plain(str(facts["compressor"])),
        "budget": facts["budget"],
        "scorer": str(facts["scorer"]),
        "length": facts["messages"]["mean_length"],
        "bits": estimate.get("mc_bits"),
        "interval": estimate.get("ci_bits") or (None, None),
        "saturated": estimate.get("saturated") is True,
    }


def _known(*values: Any) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


def _of_information(
    rows: Sequence[dict[str, Any]], scores: dict[tuple[str, str, Any], dict[str, Any]]
) -> list[Finding]:
    """For each task and scorer: information over length, and score over information where both are known."""
    found = []
    for task, scorer in dict.fromkeys((r["task"], r["scorer"]) for r in rows):
        of = [r for r in rows if (r["task"], r["scorer"]) == (task, scorer)]
        known = [r for r in of if _known(r["bits"], r["length"])]
        words = "; ".join(_said(r) for r in of)
        by_length: dict[str, list[Point]] = {}
        by_score: dict[str, list[Point]] = {}
        for r in known:
            low, high = r["interval"]
            by_length.setdefault(r["compressor"], []).append(Point(r["length"], r["bits"], low, high))
            score = scores.get((task, r["compressor"], r["budget"]), {})
            if _known(score.get("mean")):
                at = Point(r["bits"], score["mean"], score["low"], score["high"], str(r["budget"]), low, high)
                by_score.setdefault(r["compressor"], []).append(at)
        svg = None
        if known:
            svg = scatter(
                f"{task}: information by {scorer}",
                [Series(name, points, joined=True) for name, points in by_length.items()],
                x="length of a message, in its maker's tokens",
                y="bits about the context, raw",
            )
        found.append(Finding(f"Information: {task}", words, svg))
        if by_score:
            drawn = [Series(name, points, joined=True) for name, points in by_score.items()]
            title = f"{task}: score over information by {scorer}"
            found.append(
                Finding(
                    f"Information against score: {task}",
                    "The same compressor and budget in `agentcomm mi` and `agentcomm rate`.",
                    mi_against_score(title, drawn),
                )
            )
    return found


def _said(row: dict[str, Any]) -> str:
    name = row["compressor"] + ("" if row["budget"] is None else f", {row['budget']}")
    if not _known(row["bits"]):
        return f"{name}: no estimate"
    low, high = row["interval"]
    between = f" [{low:.2f}, {high:.2f}]" if _known(low, high) else ""
    return f"{name}: {row['bits']:.2f} bits{between}" + (", lower bound only" if row["saturated"] else "")
