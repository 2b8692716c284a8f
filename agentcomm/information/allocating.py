"""Allocating: measuring what each edge of a team loses at each budget, spreading a budget, and checking it.

Items are split by document into two halves. On the first, the team runs as it is and then with one edge
compressed at one budget, for every edge and budget; on the other, the allocation is run beside the same
budget spread evenly and beside the team as it is. Each is an ordinary run::

    DIR/verbatim/              the team as it is, first half
    DIR/EDGE-BUDGET-ID/        one edge compressed
    DIR/check-verbatim/, DIR/check-allocated-ID/, DIR/check-even-ID/    the other half
    DIR/replies.sqlite         replies by request: whoever reads the same says the same, once
    DIR/allocation.json

An edge's tokens are what its reader pays for its messages, those read again from memory included; a
compressor's own calls stand beside them, in the net tokens of an item.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.errors import ConfigError, GraphError, TaskError, UserError
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Run
from agentcomm.evaluation.rundir import write_json
from agentcomm.evaluation.sharing import REPLIES, Key, OnRun, Runs, directory_for, keeping, phase_of, slug
from agentcomm.evaluation.stats import Interval, PairedDifference, mean_interval, paired_bootstrap
from agentcomm.graph import AgentGraph
from agentcomm.information.allocation import Allocation, EdgeOptions, Option, allocate
from agentcomm.information.arms import document_of
from agentcomm.information.rates import tokens_of
from agentcomm.information.routing import halves
from agentcomm.information.ways import Way
from agentcomm.ledger.usage import ARROW, is_edge
from agentcomm.message import content_id
from agentcomm.options import RunOptions
from agentcomm.task import Task


@dataclass(frozen=True)
class Checked:
    """How a team did on the other half.

    ``read`` are tokens that readers paid for all messages an item, ``tokens`` net tokens of all calls;
    differences are against the team as it is (score gained, tokens saved).
    """

    name: str
    score: Interval
    read: float | None
    tokens: float | None
    difference: PairedDifference | None
    saved: PairedDifference | None
    items: int
    failed: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "score": {"mean": self.score.mean, "low": self.score.low, "high": self.score.high},
            "read_tokens": self.read,
            "tokens": self.tokens,
            "against_verbatim": _difference(self.difference),
            "saved_tokens": _difference(self.saved),
            "items": self.items,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Allocated:
    """An allocation, and how it did where it wasn't measured."""

    allocation: Allocation
    checked: tuple[Checked, ...]
    against_even: PairedDifference | None
    """Score of the allocation less that of the even spread, paired."""
    measured_items: int
    level: float
    failed: int
    path: Path | None

    def facts(self) -> dict[str, Any]:
        """As JSON: what ``agentcomm allocate --json`` prints."""
        return {
            **self.allocation.facts(),
            "measured_items": self.measured_items,
            "checked": [c.facts() for c in self.checked],
            "against_even": _difference(self.against_even),
            "level": self.level,
            "failed": self.failed,
            "results": str(self.path) if self.path is not None else None,
        }


async def allocate_budget(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None,
    way: Way,
    budgets: Sequence[int],
    total: float,
    *,
    edges: Sequence[str] | None = None,
    out: Path | str | None = None,
    name: str = "graph",
    level: float = 0.95,
    on_run: OnRun | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> Allocated:
    """Measure every edge, spread ``total`` tokens an item over them, and check it on other items.

    Parameters
    ----------
    edges:
        ``"sender->reader"`` of those that may be compressed; all by default. Others stay as they are,
        and their tokens are not part of ``total``.
    out:
        Where the runs are; the same call again continues. ``None`` keeps nothing.

    Raises
    ------
    GraphError
        If the graph has no edges, or not one that is named.
    TaskError
        If there are fewer than two documents.
    UserError
        If ``total`` is too small for the smallest options, and as :func:`agentcomm.evaluate`.
    """
    names = _named(graph, edges)
    if not budgets:
        raise ConfigError("name at least one budget of tokens")
    documents = {item.id: document_of(item) for item in task.items}
    opts = RunOptions.of(options, **overrides)
    first = halves([documents[item.id] for item in task.items], opts.seed)
    parts = [
        tuple(i for i, own in zip(task.items, first.tolist(), strict=True) if own is side)
        for side in (True, False)
    ]
    if not all(parts):
        raise TaskError(
            "the items are all about one text: budgets are measured on one half and checked on another"
        )
    measured, checking = (dataclasses.replace(task, items=items) for items in parts)
    where = directory_for(out, "allocations")
    with contextlib.ExitStack() as stack:
        kept = where if where is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with (
            held(model, opts),
            held(way.model if way.model != model else None, opts),
            keeping(model, opts, kept / REPLIES) as (asked, opts),
        ):
            work = _Work(Runs(task, asked, kept, phase_of(task), opts, on_run), documents, level)
            whole = await work.run(graph, "verbatim", "verbatim", name, measured)
            found = []
            for edge in names:
                points = [Option(None, whole.read_on(edge), 0.0, 0.0, 0.0)]
                for budget in sorted(budgets):
                    sender, _, reader = edge.partition(ARROW)
                    made = graph.with_channel(way.at(budget), [(sender, reader)])
                    spec = content_id([e.to_dict() for e in made.edges])[:8]
                    title = f"{edge}, {budget} tokens"
                    one = await work.run(made, f"{slug(edge)}-{budget}-{spec}", title, name, measured)
                    lost = work.paired(whole.scores, one.scores)
                    if lost is None or lost.mean is None:
                        raise UserError(f"{title}: no item was scored, so nothing is known of this edge")
                    points.append(Option(budget, one.read_on(edge), lost.mean, lost.low, lost.high))
                found.append(EdgeOptions(edge, tuple(points)))
            spread = allocate(found, total, compressor=way.name)
            sides = {"verbatim": await work.run(graph, "check-verbatim", "check: verbatim", name, checking)}
            for which, even in (("allocated", False), ("spread evenly", True)):
                made = spread.apply(graph, even=even, way=way)
                spec = content_id([e.to_dict() for e in made.edges])[:8]
                sides[which] = await work.run(
                    made, f"check-{which.split()[-1]}-{spec}", f"check: {which}", name, checking
                )
    base = sides["verbatim"]
    made_of = Allocated(
        spread,
        tuple(
            Checked(
                which,
                mean_interval(
                    list(side.scores.values()), clusters=[documents[i] for i, _ in side.scores], level=level
                ),
                side.read_on(None),
                side.mean_tokens,
                None if side is base else work.paired(side.scores, base.scores),
                None if side is base else work.paired(base.tokens, side.tokens),
                len(side.scores),
                side.failed,
            )
            for which, side in sides.items()
        ),
        work.paired(sides["allocated"].scores, sides["spread evenly"].scores),
        len(measured.items),
        level,
        work.failed,
        where,
    )
    if where is not None:
        write_json(where / "allocation.json", made_of.facts())
    return made_of


def _named(graph: AgentGraph, edges: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(str(key) for key in graph.by_key))
    if not known:
        raise GraphError("the graph has no edges, so there is nothing to spread a budget over")
    if edges is None:
        return known
    wanted = [ARROW.join(end.strip() for end in word.split(ARROW)) for word in edges]
    if strange := [word for word in wanted if word not in known]:
        raise GraphError(f"no edge {strange[0]} in the graph; there are: {', '.join(known)}")
    return [word for word in known if word in wanted]


@dataclass(frozen=True)
class _Side:
    """A run: scores, net tokens, and what readers paid for each edge's messages, by episode."""

    scores: Mapping[Key, float]
    tokens: Mapping[Key, float]
    read: Mapping[str, float]
    episodes: int
    failed: int

    @classmethod
    def of(cls, run: Run) -> _Side:
        ok = {(e.item, e.sample) for e in run.episodes if e.status == "ok"}
        rows = [r for r in run.usage.rows if (r.item, r.sample) in ok and r.error_kind is None]
        read: dict[str, float] = {}
        for row in rows:
            if row.edge is None:
                for part, tokens in (row.parts or {}).items():
                    if is_edge(part):
                        read[part] = read.get(part, 0.0) + tokens
        scores = {
            (e.item, e.sample): float(e.score)
            for e in run.episodes
            if e.status == "ok" and e.score is not None
        }
        return cls(scores, tokens_of(rows, ok), read, len(ok), run.failed)

    def read_on(self, edge: str | None) -> float:
        """Tokens an item that readers paid for an edge's messages; for all edges together with ``None``."""
        total = sum(self.read.values()) if edge is None else self.read.get(edge, 0.0)
        return total / self.episodes if self.episodes else 0.0

    @property
    def mean_tokens(self) -> float | None:
        mean = sum(self.tokens.values()) / len(self.tokens) if self.tokens else math.nan
        return mean if math.isfinite(mean) else None


@dataclass
class _Work:
    runs: Runs
    documents: Mapping[str, str]
    level: float
    failed: int = 0

    async def run(self, graph: AgentGraph, label: str, title: str, name: str, task: Task) -> _Side:
        run = await self.runs.run(graph, label, title, name=f"{name}, {title}", task=task)
        if self.runs.stopped is not None:
            raise UserError(
                f"stopped early in {self.runs.stopped}; without all runs nothing can be spread: raise the limit and "
                "repeat the command, no reply is paid for again"
            )
        side = _Side.of(run)
        self.failed += side.failed
        return side

    def paired(self, a: Mapping[Key, float], b: Mapping[Key, float]) -> PairedDifference | None:
        """``a`` − ``b`` on the pairs both know, over documents."""
        keys = [k for k in a if k in b and math.isfinite(a[k] - b[k])]
        if not keys:
            return None
        return paired_bootstrap(
            [a[k] for k in keys],
            [b[k] for k in keys],
            rng=np.random.default_rng(0),
            clusters=[self.documents[item] for item, _ in keys],
            resamples=2_000,
            level=self.level,
        )


def _difference(d: PairedDifference | None) -> dict[str, Any] | None:
    return None if d is None else {"mean": d.mean, "low": d.low, "high": d.high, "items": d.items}
