"""Rates: what a predictor's answers are worth when compressors tell it so many tokens.

Every compressor at every budget is an ordinary run (:func:`agentcomm.evaluate`) of the graph
``compressor_predictor`` in a directory of its own, so that the same call again goes on where it was,
limits hold for all runs together, and every call is in a ledger::

    DIR/full/                the predictor reads the whole text: one end
    DIR/none/                it reads nothing but the question: the other
    DIR/NAME-BUDGET-ID/      a compressor at a budget
    DIR/replies.sqlite       replies by request: all runs read and fill it
    DIR/rate.json            points and fits
    DIR/rate-distortion.svg, DIR/tokens-score.svg

The rate of a point is what the predictor *got*, in its own tokenizer's tokens, not what was asked for.
Tokens, costs and FLOPs are those of all calls of an item, the compressor's included; replies from the
file count as what they took when they were made. Failed episodes are no wrong answers: they are left
out and counted. Intervals resample documents (items that are about the same text).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.errors import AgentCommError, ConfigError, LedgerError, TaskError, UserError
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Run
from agentcomm.evaluation.rundir import RunDir, write_json
from agentcomm.evaluation.sharing import REPLIES, Key, OnRun, Runs, directory_for, keeping, phase_of, slug
from agentcomm.evaluation.stats import Interval, PairedDifference, mean_interval, paired_bootstrap
from agentcomm.graph import AgentGraph
from agentcomm.information.arms import document_of
from agentcomm.information.flops import Flops, Shape, flops_of_calls, shape_of
from agentcomm.information.measuring import text_of
from agentcomm.information.pictures import Level, Point, Series, rate_distortion, tokens_against_score
from agentcomm.information.rate_distortion import RateDistortion, fit_rate_distortion
from agentcomm.information.ways import Way
from agentcomm.ledger.adherence import EdgeAdherence
from agentcomm.ledger.rows import NOT_RECORDED, CallRow
from agentcomm.loading import load_graph
from agentcomm.message import content_id
from agentcomm.options import RunOptions, model_name
from agentcomm.task import Task

GRAPH = "compressor_predictor"
PREDICTOR = "predictor"
Kind = Literal["full", "none", "budget"]


@dataclass(frozen=True)
class RatePoint:
    """One run: a compressor at a budget, or an end.

    Attributes
    ----------
    name, kind, budget:
        The compressor's name; for the ends ``"full context"`` and ``"no context"``.
    got, original:
        Mean tokens of what was read and of what there was, by ``counted_by``; ``None`` where nobody
        counted.
    adherence:
        What the channel was asked for and what came of it.
    score:
        Of the items that were answered, with an interval over documents.
    against_full, saved:
        Score gained and tokens saved against the full context on the same items; both may be negative.
    tokens, compressor_tokens:
        Mean net tokens of an item, input and output of all calls, and the compressor's part of them.
    flops, compressor_flops:
        Means of an item; ``None`` where a model's shape is unknown.
    losses, rates:
        1 − score and tokens got, by (item, sample).
    """

    name: str
    kind: Kind
    budget: int | None
    items: int
    scored: int
    failed: int
    failed_deliveries: int
    got: float | None
    original: float | None
    counted_by: str
    adherence: EdgeAdherence | None
    score: Interval
    against_full: PairedDifference | None
    saved: PairedDifference | None
    tokens: float | None
    compressor_tokens: float | None
    flops: Flops | None
    compressor_flops: Flops | None
    cost: float | None
    path: str | None
    stopped: str | None
    losses: Mapping[Key, float] = field(repr=False)
    rates: Mapping[Key, float] = field(repr=False)

    @property
    def kept_to_it(self) -> float | None:
        """Share of the deliveries on which the compressor did as it was told."""
        a = self.adherence
        return a.adherent / a.deliveries if a is not None and a.deliveries else None

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "compressor": self.name,
            "kind": self.kind,
            "asked": self.budget,
            "got": self.got,
            "original": self.original,
            "counted_by": self.counted_by,
            "adherent": self.kept_to_it,
            "adherence": self.adherence.to_dict() if self.adherence is not None else None,
            "items": self.items,
            "scored": self.scored,
            "failed": self.failed,
            "failed_deliveries": self.failed_deliveries,
            "score": {"mean": self.score.mean, "low": self.score.low, "high": self.score.high},
            "against_full": _difference(self.against_full),
            "saved_tokens": _difference(self.saved),
            "tokens": self.tokens,
            "compressor_tokens": self.compressor_tokens,
            "flops": self.flops.facts() if self.flops is not None else None,
            "compressor_flops": self.compressor_flops.facts() if self.compressor_flops is not None else None,
            "cost": self.cost,
            "run": self.path,
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class RateCurve:
    """A compressor's points, and the curve through them or why there is none."""

    name: str
    points: tuple[RatePoint, ...]
    fit: RateDistortion | None
    why: str = ""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "compressor": self.name,
            "points": [p.facts() for p in self.points],
            "fit": self.fit.facts() if self.fit is not None else None,
            "no_fit": self.why or None,
        }


@dataclass(frozen=True)
class Rates:
    """Curves of one predictor, between the ends."""

    task: str
    predictor: str
    budgets: tuple[int, ...]
    ends: tuple[RatePoint, ...]
    curves: tuple[RateCurve, ...]
    shapes: Mapping[str, Shape | None]
    documents: int
    level: float
    stopped: str | None
    path: Path | None

    @property
    def points(self) -> tuple[RatePoint, ...]:
        """The ends, then every curve's."""
        return (*self.ends, *(p for curve in self.curves for p in curve.points))

    @property
    def failed(self) -> int:
        """Episodes that failed, in all runs."""
        return sum(p.failed for p in self.points)

    def facts(self) -> dict[str, Any]:
        """As JSON: what ``agentcomm rate --json`` prints."""
        return {
            "task": self.task,
            "predictor": self.predictor,
            "budgets": list(self.budgets),
            "documents": self.documents,
            "level": self.level,
            "ends": [p.facts() for p in self.ends],
            "curves": [c.facts() for c in self.curves],
            "shapes": {name: s.facts() if s is not None else None for name, s in self.shapes.items()},
            "stopped": self.stopped,
            "results": str(self.path) if self.path is not None else None,
        }

    def pictures(self) -> dict[str, str]:
        """SVGs by file name; none where nothing was scored."""
        title = f"{self.predictor} on {self.task}"
        curves = [(c, [p for p in c.points if p.score.mean is not None]) for c in self.curves]
        curves = [(c, points) for c, points in curves if points]
        ends = [p for p in self.ends if p.score.mean is not None]
        if not curves:
            return {}
        lost: list[Level] = []
        scores: list[Series] = []
        for p in ends:
            s = p.score
            lost.append(Level(p.name, 1 - (s.mean or 0), 1 - (s.high or 0), 1 - (s.low or 0)))
            scores.append(Series(p.name, [_scored(p)]))
        made = {}
        by_rate = [
            Series(c.name, [_lost(p) for p in points if p.got is not None], c.fit, joined=True)
            for c, points in curves
        ]
        by_rate = [s for s in by_rate if s.points]
        if by_rate:
            read = f"tokens of the message, {curves[0][1][0].counted_by or 'estimated'}"
            made["rate-distortion.svg"] = rate_distortion(
                f"{title}: loss over rate", by_rate, lost, rate=read
            )
        by_tokens = [
            Series(c.name, [_scored(p) for p in points if p.tokens is not None], joined=True)
            for c, points in curves
        ]
        drawn = [s for s in [*by_tokens, *scores] if s.points]
        if drawn and all(p.tokens is not None for p in ends):
            made["tokens-score.svg"] = tokens_against_score(f"{title}: score over tokens", drawn)
        return made


def _lost(p: RatePoint) -> Point:
    assert p.score.mean is not None and p.score.low is not None and p.score.high is not None
    return Point(p.got or 0.0, 1 - p.score.mean, 1 - p.score.high, 1 - p.score.low)


def _scored(p: RatePoint) -> Point:
    assert p.score.mean is not None
    return Point(p.tokens or 0.0, p.score.mean, p.score.low, p.score.high, str(p.budget or ""))


def _difference(d: PairedDifference | None) -> dict[str, Any] | None:
    return None if d is None else {"mean": d.mean, "low": d.low, "high": d.high, "items": d.items}


# -- measuring ---------------------------------------------------------------------------------


async def measure_rates(
    task: Task,
    ways: Sequence[Way],
    predictor: str | Backend,
    budgets: Sequence[int],
    *,
    out: Path | str | None = None,
    samples: int = 1,
    shapes: Mapping[str, Shape] | None = None,
    level: float = 0.95,
    max_tokens: int | None = None,
    on_run: OnRun | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> Rates:
    """Run each compressor at each budget, and the two ends, and fit a curve to each compressor.

    Parameters
    ----------
    out:
        Where the runs are; the same call again continues, and one with more budgets or compressors
        adds them. ``None`` keeps nothing.
    samples:
        How often each item is run under each setting.
    shapes:
        Shapes of models whose files don't tell them, by model string, for FLOPs.
    max_tokens:
        Longest answer of the predictor.
    options, overrides:
        As for :func:`agentcomm.evaluate`. Limits hold for all runs together.

    Raises
    ------
    TaskError
        If no item has a text to compress.
    UserError
        As :func:`agentcomm.evaluate`.
    """
    if not any(text_of(item) for item in task.items):
        raise TaskError(
            f"the items of task {task.name!r} have no context to compress; take one that has (records, squad, ...)"
        )
    if not budgets:
        raise ConfigError("name at least one budget of tokens")
    where = directory_for(out, "rates")
    opts = RunOptions.of(options, **overrides)
    documents = {item.id: document_of(item) for item in task.items}
    found = _Measurer(task, documents, samples, level, dict(shapes or {}), where is not None)
    whole = load_graph(GRAPH, {"method": "full", **({"max_tokens": max_tokens} if max_tokens else {})})
    with contextlib.ExitStack() as stack:
        kept = where if where is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with held(predictor, opts), keeping(predictor, opts, kept / REPLIES) as (asked, opts):
            runs = Runs(task, asked, kept, phase_of(task), opts, on_run)

            async def one(name: str, kind: Kind, budget: int | None, graph: AgentGraph) -> RatePoint | None:
                if runs.stopped is not None:
                    return None
                label: str = kind
                title = name
                if budget is not None:
                    spec = content_id([e.to_dict() for e in graph.edges])[:8]
                    label, title = f"{slug(name)}-{budget}-{spec}", f"{name}, {budget} tokens"
                run = await runs.run(graph, label, title, name=f"{GRAPH}, {title}", samples=samples)
                return found.point(name, kind, budget, run)

            full = await one("full context", "full", None, whole)
            none = await one("no context", "none", None, whole.prune(agents=["source"]))
            curves = []
            for way in ways:
                async with AsyncExitStack() as holding:
                    if way.model not in (None, predictor):
                        await holding.enter_async_context(held(way.model, opts))
                    points = []
                    for budget in sorted(budgets):
                        graph = whole.with_channel(way.at(budget))
                        point = await one(way.name, "budget", budget, graph)
                        if point is not None:
                            points.append(point)
                curves.append(found.curve(way.name, points, opts.seed))
    ends = [p for p in (full, none) if p is not None]
    rates = Rates(
        task.name,
        model_name(predictor) or "",
        tuple(sorted(budgets)),
        tuple(found.with_length(p, curves) for p in ends),
        tuple(curves),
        found.shapes,
        len(set(documents.values())),
        level,
        runs.stopped,
        where,
    )
    if where is not None:
        write_json(where / "rate.json", rates.facts())
        write_pictures(where, rates.pictures())
    return rates


def write_pictures(folder: Path, pictures: Mapping[str, str]) -> None:
    """Write SVGs into a folder.

    Raises
    ------
    LedgerError
        If they can't be written.
    """
    for name, svg in pictures.items():
        try:
            (folder / name).write_text(svg, encoding="utf-8")
        except OSError as error:
            raise LedgerError(f"can't write {folder / name}: {error.strerror}; free space first") from error


@dataclass
class _Measurer:
    """Turns runs into points; remembers the full context's, which others are compared with."""

    task: Task
    documents: Mapping[str, str]
    samples: int
    level: float
    shapes: dict[str, Shape | None]
    kept: bool
    full_losses: Mapping[Key, float] | None = None
    full_tokens: Mapping[Key, float] = field(default_factory=dict)

    def point(self, name: str, kind: Kind, budget: int | None, run: Run) -> RatePoint:
        ok = {(e.item, e.sample) for e in run.episodes if e.status == "ok"}
        losses = {
            (e.item, e.sample): 1 - float(e.score)
            for e in run.episodes
            if e.status == "ok" and e.score is not None
        }
        rows = [r for r in run.usage.rows if (r.item, r.sample) in ok and r.error_kind != NOT_RECORDED]
        own = [r for r in rows if r.edge is not None]
        for row in rows:
            if row.model not in self.shapes:
                self.shapes[row.model] = shape_of(row.model)
        tokens = tokens_of(rows, ok)
        got, original, counted_by = self._lengths(run, ok)
        if kind == "full":
            self.full_losses, self.full_tokens = losses, tokens
        compared = kind != "full" and self.full_losses is not None
        return RatePoint(
            name=name,
            kind=kind,
            budget=budget,
            items=run.items,
            scored=len(losses),
            failed=run.failed,
            failed_deliveries=sum(a.failed for a in run.channels.values()),
            got=_mean(got.values()) if kind == "budget" else 0.0 if kind == "none" else None,
            original=_mean(original.values()),
            counted_by=counted_by,
            adherence=next(iter(run.channels.values()), None),
            score=mean_interval(
                [1 - loss for loss in losses.values()], clusters=self._documents(losses), level=self.level
            ),
            against_full=self._paired(self.full_losses or {}, losses) if compared else None,
            saved=self._paired(self.full_tokens, tokens) if compared else None,
            tokens=_mean(tokens.values()),
            compressor_tokens=_mean(tokens_of(own, ok).values()),
            flops=_each(flops_of_calls(rows, self.shapes), len(ok)),
            compressor_flops=_each(flops_of_calls(own, self.shapes), len(ok)),
            cost=_cost(rows, len(ok)),
            path=str(run.path) if self.kept and run.path is not None else None,
            stopped=run.stopped,
            losses=losses,
            rates=got,
        )

    def curve(self, name: str, points: Sequence[RatePoint], seed: int) -> RateCurve:
        """The points and the fit through those that were scored."""
        known = [p for p in points if p.losses and any(math.isfinite(r) for r in p.rates.values())]
        keys = [(item.id, s) for item in self.task.items for s in range(self.samples)]
        try:
            if not known:
                raise UserError("no budget has both scores and counted tokens")
            fit = fit_rate_distortion(
                np.array([[p.losses.get(k, math.nan) for k in keys] for p in known]),
                np.array([[p.rates.get(k, math.nan) for k in keys] for p in known]),
                rate=f"token of {known[0].counted_by}",
                documents=[self.documents[item] for item, _ in keys],
                level=self.level,
                seed=seed,
            )
        except UserError as error:
            return RateCurve(name, tuple(points), None, str(error))
        return RateCurve(name, tuple(points), fit)

    def with_length(self, end: RatePoint, curves: Iterable[RateCurve]) -> RatePoint:
        """The full context as long as the compressors found it."""
        if end.kind != "full":
            return end
        for point in (p for curve in curves for p in curve.points):
            if point.original is not None:
                return dataclasses.replace(
                    end, got=point.original, original=point.original, counted_by=point.counted_by
                )
        return end

    def _lengths(self, run: Run, ok: set[Key]) -> tuple[dict[Key, float], dict[Key, float], str]:
        """Tokens read and there were, by (item, sample); of all sources together."""
        got: dict[Key, float] = {}
        original: dict[Key, float] = {}
        by = ""
        if run.path is None or not run.channels:
            return got, original, by
        with RunDir.open(run.path).ledger(read_only=True) as ledger:
            for row in ledger.channels(texts=False):
                key = (row.item, row.sample)
                if key not in ok:
                    continue
                by = by or row.counted_by
                lost = 0 if row.status == "failed" else row.tokens
                for kept, value in ((got, lost), (original, row.original_tokens)):
                    kept[key] = kept.get(key, 0.0) + (math.nan if value is None else value)
        return got, original, by

    def _documents(self, values: Mapping[Key, float]) -> list[str]:
        return [self.documents[item] for item, _ in values]

    def _paired(self, before: Mapping[Key, float], after: Mapping[Key, float]) -> PairedDifference | None:
        """``before`` − ``after`` on the pairs both know: loss taken away, tokens saved."""
        keys = [k for k in before if k in after and math.isfinite(before[k] - after[k])]
        if not keys:
            return None
        return paired_bootstrap(
            [before[k] for k in keys],
            [after[k] for k in keys],
            rng=np.random.default_rng(0),
            clusters=[self.documents[item] for item, _ in keys],
            resamples=2_000,
            level=self.level,
        )


def tokens_of(rows: Iterable[CallRow], episodes: Iterable[Key]) -> dict[Key, float]:
    """Input and output tokens by (item, sample), failed attempts included where their tokens are known;
    NaN where a reply didn't tell them."""
    totals = dict.fromkeys(episodes, 0.0)
    for row in rows:
        known = row.input_tokens is not None and row.output_tokens is not None
        if known:
            totals[row.item, row.sample] += (row.input_tokens or 0) + (row.output_tokens or 0)
        elif row.error_kind is None:
            totals[row.item, row.sample] = math.nan
    return totals


def _mean(values: Iterable[float]) -> float | None:
    """Of all of them; unknown if one is, or if there are none."""
    listed = list(values)
    mean = sum(listed) / len(listed) if listed else math.nan
    return mean if math.isfinite(mean) else None


def _each(flops: Flops | None, episodes: int) -> Flops | None:
    return None if flops is None or not episodes else Flops(flops.prefill / episodes, flops.decode / episodes)


def _cost(rows: Sequence[CallRow], episodes: int) -> float | None:
    """US dollars paid for an item; ``None`` if a price is unknown or everything came from a file of replies."""
    paid = [r for r in rows if not r.cache_hit]
    if not episodes or not paid or any(r.cost is None and r.error_kind is None for r in paid):
        return None
    return sum(r.cost or 0.0 for r in paid) / episodes


def errors_of(rates: Rates) -> list[str]:
    """The first failure of every run that has some, for people."""
    told = []
    for point in rates.points:
        if not point.failed or point.path is None:
            continue
        try:
            episodes = RunDir.open(Path(point.path)).results()["episodes"]
        except (AgentCommError, KeyError):
            continue
        for episode in [e for e in episodes if e["status"] == "failed"][:1]:
            why = " ".join(str(episode["failure"]).split())[:600]
            told.append(f"{Path(point.path).name}: {point.failed} items, the first {episode['item']}: {why}")
    return told
