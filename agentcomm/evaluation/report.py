"""Report: what runs did, gathered from their directories and written as one HTML file.

Two passes over the ledgers, item by item, so that memory holds numbers and never the texts of a
run. The first adds up what every item, edge, agent and part cost. The second writes the
conversations: all of them if they fit into the file's size, otherwise the failed, disagreed,
retried, most expensive and a sample of the rest, taken in turns; the report says which it lacks.

A run that is still going, was cut off, or was made by an older agentcomm is read as far as it
goes, and the report says so. An edge's worth is drawn where it is known: from ``value.json`` in
the run's directory, or given to :func:`write_report`. It maps ``"sender->reader"`` (or
``"sender->reader temporal"`` for one kind) to a number, the score that is lost without the edge::

    {"what": "score lost without the edge", "edges": {"solver->judge": 0.12, "critic->judge": -0.01}}
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.evaluation.page import Page, packed
from agentcomm.evaluation.report_facts import (
    ABSENT,
    FAILED,
    NOT_RUN,
    OK,
    Cell,
    Key,
    Source,
    compare,
    count,
    preview,
    set_worth,
    tokens_of,
)
from agentcomm.evaluation.report_texts import LONGEST, conversation

SIZE = 18_000_000
"""Bytes that a report takes at most, unless its table alone needs more."""
PREVIEW = 160
"""Characters of a question that the table shows and searches."""
CHUNK = 400_000
"""Characters of conversations that are packed together: opened at once when one is looked at."""


class Written(NamedTuple):
    """What :func:`write_report` made."""

    path: Path
    bytes: int
    rows: int
    conversations: int
    """Rows whose conversations are in the file."""


class Finding(NamedTuple):
    """Something that is shown beside runs: a title, what it says, and a picture (SVG) if there is one."""

    title: str
    words: str
    svg: str | None = None


def _order(rows: Sequence[Key], sources: Sequence[Source]) -> Iterator[tuple[Key, str]]:
    """Rows in the order in which their conversations are kept, and why: the interesting ones in turns."""
    cells = {k: [s.cells[k] for s in sources if k in s.cells] for k in rows}
    by_hash = sorted(
        rows, key=lambda k: hashlib.sha256("\0".join(map(str, k)).encode("utf-8", "replace")).digest()
    )
    began = [k for k in by_hash if any(c.state > NOT_RUN or c.calls for c in cells[k])]
    queues = {
        "failed": [k for k in began if any(c.state == FAILED for c in cells[k])],
        "disagreed": [k for k in began if disagreed(cells[k])],
        "most expensive": sorted(began, key=lambda k: -max(map(tokens_of, cells[k])))[
            : max(50, len(began) // 100)
        ],
        "retried": [k for k in began if any(c.failed_calls for c in cells[k])],
        "sampled": began,
    }
    seen: set[Key] = set()
    waiting = {why: iter(keys) for why, keys in queues.items()}
    while waiting:
        for why, keys in list(waiting.items()):
            key = next((k for k in keys if k not in seen), None)
            if key is None:
                del waiting[why]
            else:
                seen.add(key)
                yield key, why


def disagreed(cells: Iterable[Cell]) -> bool:
    """Whether runs scored the same row differently."""
    return len({c.score for c in cells if c.state == OK and c.score is not None}) > 1


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    size: int = SIZE,
    findings: Sequence[Finding] = (),
) -> Written:
    """Write the report of runs, the first being the reference.

    Parameters
    ----------
    paths:
        Run directories; finished, cut off or still going.
    out:
        The HTML file; replaced whole.
    values:
        By a run's name, what its edges are worth, as ``value.json`` would say it.
    size:
        Bytes that conversations may fill the file up to.
    findings:
        Shown above the runs; with some, ``paths`` may be empty.

    Raises
    ------
    ConfigError
        If a path is no run, a run's file can't be read, or ``out`` can't be written.
    """
    if not paths and not findings:
        raise ConfigError("no run to show; name one or more run directories")
    with ExitStack() as stack:
        names = _names(paths)
        sources = [Source(p, n, stack) for p, n in zip(paths, names, strict=True)]
        for source in sources:
            count(source)
            set_worth(source, (values or {}).get(source.name))
        if sources:
            compare(sources)
        rows = list(dict.fromkeys(k for s in sources for k in s.cells))
        partial = out.with_name(out.name + ".partial")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                kept = _write(Page(file), sources, rows, size, findings)
            partial.replace(out)
        except OSError as error:
            raise ConfigError(f"can't write {out}: {error.strerror}; choose another --out") from error
        return Written(out, out.stat().st_size, len(rows), kept)


def _write(
    page: Page, sources: Sequence[Source], rows: Sequence[Key], size: int, findings: Sequence[Finding]
) -> int:
    """Write all data, the conversations first; returns how many of those there are."""
    page.data("findings", [_shown(one) for one in findings])
    table = packed(_table(sources, rows))
    room = size - page.written - len(table) - 100_000 - 20 * len(rows) // 3
    where: dict[Key, tuple[int, int]] = {}
    reasons: Counter[str] = Counter()
    waiting: list[dict[str, Any]] = []
    keys: list[tuple[Key, str]] = []
    held = chunks = 0

    def flush() -> bool:
        nonlocal held, chunks, room
        text = packed(waiting)
        fits = len(text) <= room
        if fits:
            page.packed(f"chunk-{chunks}", text)
            for i, (key, why) in enumerate(keys):
                where[key] = (chunks, i)
                reasons[why] += 1
            chunks, room = chunks + 1, room - len(text)
        waiting.clear()
        keys.clear()
        held = 0
        return fits

    full = False
    for key, why in _order(rows, sources):
        row = conversation(sources, key)
        waiting.append(row)
        keys.append((key, why))
        # Close to what its JSON takes, without making it twice.
        held += 600 + sum(len(t if isinstance(t, str) else t[0]) for t in row["texts"])
        held += 150 * sum(len(t.get("calls", ())) for e in row["runs"] if e for t in e["turns"])
        if held >= CHUNK and not flush():
            full = True
            break
    if not full and waiting:
        full = not flush()
    position = [where.get(k, (-1, 0)) for k in rows]
    page.packed("table", table)
    page.packed("where", packed([[c for c, _ in position], [i for _, i in position]]))
    page.data(
        "facts",
        {
            "made": time.time(),
            "runs": [_finite(asdict(s.facts)) for s in sources],
            "rows": len(rows),
            "kept": len(where),
            "full": full,
            "reasons": dict(reasons),
            "longest": LONGEST,
        },
    )
    page.end()
    return len(where)


def _shown(finding: Finding) -> dict[str, str | None]:
    """With the picture as an image of its own: no rule or script in it reaches the page."""
    image = None
    if finding.svg is not None:
        image = "data:image/svg+xml;base64," + base64.b64encode(finding.svg.encode("utf-8")).decode("ascii")
    return {"title": finding.title, "words": finding.words, "image": image}


def _table(sources: Sequence[Source], rows: Sequence[Key]) -> dict[str, Any]:
    """Column by column: what gzip likes best, and what the page reads fastest."""
    previews = []
    for item, digest, sample in rows:
        source = next(s for s in sources if (item, digest, sample) in s.cells)
        asked = source.question(item)
        previews.append("" if asked is None or sample else preview(str(asked.get("question", "")), PREVIEW))
    absent = Cell(ABSENT)
    return {
        "item": [k[0] for k in rows],
        "sample": [k[2] for k in rows],
        "question": previews,
        "runs": [
            {name: [getattr(s.cells.get(k, absent), name) for k in rows] for name in Cell._fields}
            for s in sources
        ],
    }


def _finite(value: Any) -> Any:
    """NaN and infinities as null, and numpy's numbers as Python's: JSON has neither."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the directory's, or as much of its path as it takes."""
    if not paths:
        return []
    whole = [Path(os.path.abspath(p)) for p in paths]  # noqa: PTH100 -- without following links
    if len(set(whole)) < len(whole):
        raise ConfigError("the same run is named twice; name each once")
    for depth in range(1, max(len(p.parts) for p in whole) + 1):
        names = ["/".join(p.parts[-depth:]) for p in whole]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in whole]
