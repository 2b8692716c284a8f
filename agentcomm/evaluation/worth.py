"""Worth: what a part of a team is worth next to what it costs, a verdict, and what to cut next.

Deliberately absent: running anything (:mod:`agentcomm.evaluation.value`) and the statistics
(:mod:`agentcomm.evaluation.effects`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from agentcomm.evaluation.effects import Effect
from agentcomm.evaluation.parts import Kind
from agentcomm.evaluation.stats import POWER, Interval

Method = Literal["ablation", "regression"]
Verdict = Literal[
    "worth it", "no difference found", "harms", "not enough items", "not measured", "can't be left out"
]


@dataclass(frozen=True)
class Worth:
    """One part: what it is worth, and what it costs. ``None`` is unknown, never 0.

    ``effect`` is the score that is lost without it, in [−1, 1] (negative: it harms). ``tokens`` are its
    own, ``saved`` what an item costs less without it (with interval), both means for an item.
    ``per_1000`` is the effect for 1,000 tokens saved. ``left_out`` counts pairs (or sub-teams) with a
    failed episode.
    """

    kind: Kind
    name: str
    effect: Effect
    p_holm: float | None
    verdict: Verdict
    needed: int | None
    tokens: float | None
    saved: float | None
    saved_low: float | None
    saved_high: float | None
    left_out: int
    gone: tuple[str, ...]
    cut: tuple[str, ...]
    note: str

    @property
    def per_1000(self) -> float | None:
        if self.effect.mean is None or self.saved is None or self.saved <= 0:
            return None
        return 1000 * self.effect.mean / self.saved

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.verdict == "not enough items":
            return f"not enough items: about {self.about:,} needed"
        return f"{self.verdict}: {self.note}" if self.verdict == "can't be left out" else self.verdict

    @property
    def about(self) -> int:
        """``needed`` to two digits; 0 where none are."""
        return _rounded(self.needed or 0)

    def to_dict(self) -> dict[str, Any]:
        e = self.effect
        return {
            "kind": self.kind,
            "name": self.name,
            "worth": e.mean,
            "low": e.low,
            "high": e.high,
            "items": e.items,
            "p_value": e.p_value,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
            "words": self.words,
            "needed": self.needed,
            "tokens": self.tokens,
            "saved": self.saved,
            "saved_low": self.saved_low,
            "saved_high": self.saved_high,
            "worth_per_1000_tokens": self.per_1000,
            "left_out": self.left_out,
            "goes_with_it": list(self.gone),
            "cut": list(self.cut),
            "note": self.note,
        }


@dataclass(frozen=True)
class NextCut:
    """What to cut next: the words of ``--cut``, why, and the tokens an item that it would save."""

    words: tuple[str, ...]
    why: str
    worth: float
    saved: float | None
    share: float | None
    """Of the whole team's tokens."""


@dataclass(frozen=True)
class Paid:
    """What finding out took: runs, episodes, and tokens paid or answered from replies kept."""

    runs: int = 0
    episodes: int = 0
    tokens: int = 0
    replayed: int = 0
    cost: float | None = 0.0
    """US dollars; ``None`` if the price of a call is unknown."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Value:
    """What the parts of a team are worth: ``rows`` from what to cut first to what to keep.

    First what seems to harm, most of all; then by worth for the tokens saved; last what can't be said.
    """

    method: Method
    rows: tuple[Worth, ...]
    score: Interval
    """The whole team's."""
    tokens: float | None
    """Mean tokens of the whole team for an item."""
    items: int
    failed: int
    """Episodes of the whole team that failed."""
    margin: float
    level: float
    paid: Paid
    next: NextCut | None
    stopped: str | None = None
    """Why not everything was measured, if so."""
    path: Path | None = None

    @property
    def what(self) -> str:
        """What the numbers are, in words."""
        if self.method == "ablation":
            return "score lost without it, the rest of the team unchanged"
        return "score lost without it, on average over random sub-teams"

    def by_name(self) -> dict[str, Worth]:
        return {row.name: row for row in self.rows}

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what ``agentcomm value --json`` prints."""
        s = self.score
        return {
            "method": self.method,
            "what": self.what,
            "items": self.items,
            "failed": self.failed,
            "score": {"mean": s.mean, "low": s.low, "high": s.high, "level": s.level},
            "tokens": self.tokens,
            "margin": self.margin,
            "level": self.level,
            "parts": [row.to_dict() for row in self.rows],
            "next": None if self.next is None else dataclasses.asdict(self.next),
            "paid": self.paid.to_dict(),
            "stopped": self.stopped,
            "run": str(self.path) if self.path else None,
        }

    def drawn(self) -> dict[str, Any]:
        """As ``value.json``, which the report draws."""
        return {
            "what": self.what,
            "edges": {
                row.name: {"worth": row.effect.mean, "low": row.effect.low, "high": row.effect.high}
                for row in self.rows
                if row.kind == "edge" and row.effect.mean is not None
            },
        }


def verdict_of(
    effect: Effect, p_holm: float | None, margin: float, tests: int = 1
) -> tuple[Verdict, int | None]:
    """What an effect says, and the items that would be needed where it says nothing.

    "worth it" and "harms" need an interval without 0 and a corrected p-value below 1 − level; "no
    difference found" that the part adds less than ``margin`` (one-sided, at the level). Otherwise there
    aren't enough items: about so many would show an effect of the size that was seen, where that is
    above ``margin`` (at a level corrected for ``tests``), or else that there is less than ``margin``.
    """
    mean, low, high = effect.mean, effect.low, effect.high
    if mean is None or low is None or high is None or effect.upper is None or p_holm is None:
        return "not measured", None
    if p_holm <= 1 - effect.level + 1e-12 and (low > 0 or high < 0):
        return ("worth it" if low > 0 else "harms"), None
    if effect.upper < margin:
        return "no difference found", None
    needed = effect.needed
    if abs(mean) > margin and effect.spread is not None:
        z = float(scipy_stats.norm.isf((1 - effect.level) / 2 / tests) + scipy_stats.norm.ppf(POWER))
        needed = math.ceil((z * effect.spread / mean) ** 2)
    return "not enough items", max(needed or 0, effect.items + 1)


def order(row: Worth) -> tuple[float, ...]:
    mean = row.effect.mean
    if mean is None:
        return (2, float(row.verdict == "can't be left out"), 0)
    if mean < 0:
        return (0, mean, 0)
    # What saves nothing when it is left out comes after all that does.
    return (1, math.inf if row.per_1000 is None else row.per_1000, -(row.saved or 0.0))


def next_cut(rows: Sequence[Worth], tokens: float | None, margin: float) -> NextCut | None:
    """The part to cut next: one that is shown to harm, else one without a difference that saves most.

    Where nothing is shown: the one that saves most of those that seem to add no more than ``margin``, and
    the reason says that it isn't shown. ``None`` where everything seems worth its tokens.
    """

    def saves(row: Worth) -> float:
        return row.saved or 0.0

    def best(wanted: Callable[[Worth], bool], key: Callable[[Worth], float]) -> Worth | None:
        found = [r for r in rows if r.cut and r.effect.mean is not None and wanted(r)]
        return max(found, key=key, default=None)

    chosen = (
        best(lambda r: r.verdict == "harms", lambda r: -_mean(r))
        or best(lambda r: r.verdict == "no difference found" and saves(r) > 0, saves)
        or best(lambda r: r.verdict == "not enough items" and _mean(r) <= margin and saves(r) > 0, saves)
    )
    if chosen is None:
        return None
    why = {"harms": "it harms", "no difference found": "no difference found"}.get(
        chosen.verdict, "a guess: no loss seen, but not enough items to say"
    )
    share = chosen.saved / tokens if chosen.saved is not None and tokens else None
    return NextCut(chosen.cut, why, _mean(chosen), chosen.saved, share)


def _mean(row: Worth) -> float:
    return row.effect.mean if row.effect.mean is not None else math.nan


def _rounded(number: int) -> int:
    """Two significant digits, upwards: "about" so many."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return math.ceil(number / unit) * unit
