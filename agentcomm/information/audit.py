"""Audit: does the content of messages matter, or only that there are some?

Four arms on the same examples, alike otherwise::

    true         the reader reads what was said
    mismatched   it reads what was said on another example
    empty        it reads nothing
    full         it reads what the message was made from

    content = true − mismatched    did the reader use this message?
    generic = mismatched − empty   what any message does: its format, its presence, a prompt
    loss    = full − true          what saying it shorter costs

That a message without its content does as well is a claim of its own: it needs two one-sided tests at a
stated margin, not a test that found nothing. A reader that copies gets ``carries_information``, one
that ignores what it reads, or reacts only to its presence, ``equivalent_to_mismatched`` (which two of
them it is, the generic effect says). Audits of shared caches showed why the second arm is needed: where
zeroing cost 14.7 points, exchanging cost 0.4.

Numbers in, numbers out; no model and no file. The document an example belongs to is the unit: examples
of one document are not independent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from agentcomm.errors import UserError
from agentcomm.evaluation.stats import (
    POWER,
    McNemar,
    holm,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    sign_flip,
)
from agentcomm.information.score_matrix import Array

ARMS = ("true", "mismatched", "empty", "full")
MARGIN = 0.02
Verdict = Literal["carries_information", "equivalent_to_mismatched", "misleads", "undecided"]
"""The specification's three, and ``misleads``: the content makes the score worse."""


@dataclass(frozen=True)
class Arms:
    """Scores of the arms, row by row the same example.

    Parameters
    ----------
    true, mismatched, empty, full:
        Shape (rows,), in [0, 1]; NaN where an example has none (a failed episode). ``full`` may be
        missing.
    documents:
        What each row's example was drawn from; an example of its own where there is none.
    examples:
        The example each row is a sample of, if there are several samples of each; else rows are
        examples.
    """

    true: ArrayLike
    mismatched: ArrayLike
    empty: ArrayLike
    full: ArrayLike | None
    documents: Sequence[Hashable]
    examples: Sequence[Hashable] | None = None


@dataclass(frozen=True)
class Contrast:
    """The mean difference of two arms; ``None`` where nothing is known.

    Attributes
    ----------
    mean, low, high:
        In points of score / 100, with a cluster-t interval over documents.
    lower, upper:
        One-sided bounds at the same level, for equivalence: not more confident than Student's t, the
        bootstrap, Agresti and Min, or the rule of three.
    p_value, p_holm:
        Of no difference, two-sided: by Student's t over documents; by flipped signs where they all
        agree. ``p_holm`` over all that were audited together.
    exact:
        McNemar's exact test, for scores of 0 and 1 with one row an example.
    n, documents:
        Pairs and documents it rests on.
    left_out:
        Rows that lack one of the two scores.
    needed:
        Examples with which a difference of the margin would show: (z + z_power)² σ²/margin², with σ²
        the variance of one example's difference (examples that share documents count as less).
    equivalent:
        Whether the difference is within ±margin, by two one-sided tests.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    exact: McNemar | None = None
    n: int = 0
    documents: int = 0
    left_out: int = 0
    needed: int | None = None
    equivalent: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Audit:
    """What the messages of one channel do for their reader."""

    what: str
    content: Contrast
    generic: Contrast
    loss: Contrast | None
    verdict: Verdict
    means: dict[str, float | None]
    """Mean score of each arm, over the rows that have one."""
    margin: float
    level: float

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, in points of score.

        >>> true, other = np.repeat([1.0, 0.0], [90, 10]), np.repeat([1.0, 0.0], [30, 70])
        >>> audit(Arms(true, other, other, None, range(100))).sentence
        "the messages' content raises the score by 60 points [50, 70]; their mere presence by 0 [-4, 4]"
        """
        if self.content.mean is None:
            return "nothing is known: no example has a score with its own messages and with others'"
        content = _change("the messages' content", self.content)
        if self.verdict == "equivalent_to_mismatched":
            content = (
                f"the messages' content makes no difference of {_points(self.margin)} points "
                f"({_range(self.content)})"
            )
        if self.generic.mean is None:
            return f"{content}; what their mere presence does is unknown"
        both_raise = content.startswith("the messages' content raises") and self.generic.mean >= 0
        presence = (
            f"their mere presence by {_range(self.generic)}"
            if both_raise
            else _change("their mere presence", self.generic, "")
        )
        said = f"{content}; {presence}"
        if self.verdict == "undecided" and self.content.needed is not None:
            said += f" (undecided: about {_rounded(self.content.needed):,} examples would show {_points(self.margin)} points)"
        return said

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "what": self.what,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "means": self.means,
            "content": self.content.to_dict(),
            "generic": self.generic.to_dict(),
            "loss": None if self.loss is None else self.loss.to_dict(),
            "margin": self.margin,
            "level": self.level,
        }


def audit(arms: Arms, *, margin: float = MARGIN, level: float = 0.95, seed: int = 0) -> Audit:
    """The audit of one channel.

    Parameters
    ----------
    margin:
        Difference of score that doesn't matter, for equivalence.
    level:
        Confidence of intervals and verdicts.
    seed:
        Of the resampling behind one of the one-sided bounds.

    Raises
    ------
    UserError
        If the arms don't have the same rows, a score is outside [0, 1], or there is no row at all.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> ignores = rng.random(400).round()
    >>> audit(Arms(ignores, ignores, ignores, None, range(400))).verdict
    'equivalent_to_mismatched'
    """
    return audit_all({"all messages": arms}, margin=margin, level=level, seed=seed)[0]


def audit_all(
    channels: Mapping[str, Arms], *, margin: float = MARGIN, level: float = 0.95, seed: int = 0
) -> tuple[Audit, ...]:
    """Audits of several channels, with Holm's correction over them; in the order given.

    Raises
    ------
    UserError
        As :func:`audit`.
    """
    if not 0 < margin < 1:
        raise UserError(f"the margin must lie between 0 and 1, not {margin!r}; two points are 0.02")
    if not 0 < level < 1:
        raise UserError(f"a confidence lies between 0 and 1, not {level!r}; 95 % is 0.95")
    read = {name: _Read.of(arms) for name, arms in channels.items()}
    found: dict[str, dict[str, Contrast]] = {
        effect: {
            name: contrast(
                getattr(r, better),
                getattr(r, worse),
                r.documents,
                examples=r.examples,
                margin=margin,
                level=level,
                seed=seed,
            )
            for name, r in read.items()
            if getattr(r, better) is not None
        }
        for effect, (better, worse) in {
            "content": ("true", "mismatched"),
            "generic": ("mismatched", "empty"),
            "loss": ("full", "true"),
        }.items()
    }
    found = {effect: _corrected(contrasts) for effect, contrasts in found.items()}
    return tuple(
        Audit(
            name,
            found["content"][name],
            found["generic"][name],
            found["loss"].get(name),
            _verdict(found["content"][name], level),
            {arm: _mean(getattr(r, arm)) for arm in ARMS},
            margin,
            level,
        )
        for name, r in read.items()
    )


def contrast(
    a: ArrayLike,
    b: ArrayLike,
    documents: Sequence[Hashable],
    *,
    examples: Sequence[Hashable] | None = None,
    margin: float = MARGIN,
    level: float = 0.95,
    seed: int = 0,
) -> Contrast:
    """The mean of a − b over examples, with documents as the unit; NaN rows are left out.

    Notes
    -----
    With d̄ the mean over examples and r_g the sum of (d − d̄) over document g's examples, the variance
    of d̄ is G/(G−1) Σ r_g² / n² (linearised, G − 1 degrees of freedom); one example a document gives
    Student's t. Where all documents agree there is no spread to see, and the interval is that of the
    rule of three (:func:`agentcomm.evaluation.stats.paired_bootstrap`).
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    left_out = int((~both).sum())
    if not both.any():
        return Contrast(left_out=left_out)
    names = list(range(len(first))) if examples is None else list(examples)
    x, y, document = _by_example(first[both], second[both], _at(names, both), _at(documents, both))
    difference = x - y
    n, groups = len(difference), len(set(document))
    mean = float(difference.mean())
    error = _error(difference, document)
    rng = np.random.default_rng(seed)
    low = high = p_value = None
    if error is not None and error > 1e-12:
        wide = _t((1 + level) / 2, groups - 1) * error
        low, high = max(-1.0, mean - wide), min(1.0, mean + wide)
        p_value = float(2 * scipy_stats.t.sf(abs(mean) / error, groups - 1))
    elif error is not None:  # all agree
        bounds = paired_bootstrap(*_by_document(x, y, document), rng=rng, level=level, resamples=1)
        low, high = bounds.low, bounds.high
        p_value = sign_flip(x, y, clusters=document, rng=rng)
    lower, upper = _one_sided(x, y, document, mean, error, level, rng)
    binary = n == int(both.sum()) and bool(np.isin(np.concatenate([x, y]), (0, 1)).all())
    return Contrast(
        mean,
        low,
        high,
        lower,
        upper,
        p_value,
        p_value,
        mcnemar(x, y) if binary else None,
        n,
        groups,
        left_out,
        _needed(difference, error, margin, level),
        lower > -margin and upper < margin,
    )


@dataclass(frozen=True)
class _Read:
    """Arms as arrays of one length."""

    true: Array
    mismatched: Array
    empty: Array
    full: Array | None
    documents: Sequence[Hashable]
    examples: Sequence[Hashable] | None

    @classmethod
    def of(cls, arms: Arms) -> _Read:
        n = len(arms.documents)
        if not n:
            raise UserError("there are no examples to audit")
        arrays: dict[str, Array | None] = {}
        for arm in ARMS:
            given = getattr(arms, arm)
            if given is None and arm == "full":
                arrays[arm] = None
                continue
            scores = np.asarray(given, dtype=np.float64)
            if scores.shape != (n,):
                raise UserError(f"arm {arm!r} has the shape {scores.shape}; {n} documents need {n} scores")
            if (bad := (scores < 0) | (scores > 1)).any():
                raise UserError(f"arm {arm!r}: a score of {scores[bad][0]} is outside 0 to 1")
            arrays[arm] = scores
        if arms.examples is not None and len(arms.examples) != n:
            raise UserError(f"{n} rows need as many examples, not {len(arms.examples)}")
        return cls(**arrays, documents=arms.documents, examples=arms.examples)  # type: ignore[arg-type]


def _at(names: Sequence[Hashable], kept: Any) -> list[Hashable]:
    return [name for name, stays in zip(names, kept, strict=True) if stays]


def _by_example(
    x: Array, y: Array, examples: list[Hashable], documents: list[Hashable]
) -> tuple[Array, Array, list[Hashable]]:
    """One row an example: its samples are averaged."""
    index: dict[Hashable, int] = {}
    which = np.array([index.setdefault(e, len(index)) for e in examples])
    size = np.bincount(which)
    document = dict(zip(examples, documents, strict=True))
    return (
        np.bincount(which, weights=x) / size,
        np.bincount(which, weights=y) / size,
        [document[e] for e in index],
    )


def _by_document(x: Array, y: Array, document: list[Hashable]) -> tuple[Array, Array]:
    means = _by_example(x, y, document, document)
    return means[0], means[1]


def _error(difference: Array, document: list[Hashable]) -> float | None:
    """Standard error of the mean; ``None`` with one document."""
    index: dict[Hashable, int] = {}
    which = np.array([index.setdefault(g, len(index)) for g in document])
    if len(index) < 2:
        return None
    residuals = np.bincount(which, weights=difference - difference.mean())
    scale = len(index) / (len(index) - 1)
    return math.sqrt(scale * float((residuals**2).sum())) / len(difference)


def _one_sided(
    x: Array,
    y: Array,
    document: list[Hashable],
    mean: float,
    error: float | None,
    level: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Bounds for the two one-sided tests: the least confident of several ways."""
    by = _by_document(x, y, document)
    bounds = non_inferiority(*by, rng=rng, level=level)
    wide = _t(level, len(by[0]) - 1) * error if error is not None else math.inf
    return max(-1.0, min(bounds.lower, mean - wide)), min(1.0, max(bounds.upper, mean + wide))


def _needed(difference: Array, error: float | None, margin: float, level: float) -> int | None:
    n = len(difference)
    if error is None:
        return None
    variance = n * error**2
    if variance < 1e-12:  # no spread seen: as many as exclude the margin if nothing ever goes wrong
        return math.ceil(math.log(1 - level) / math.log(1 - margin))
    z = float(scipy_stats.norm.ppf((1 + level) / 2) + scipy_stats.norm.ppf(POWER))
    return math.ceil(z**2 * variance / margin**2)


def _corrected(contrasts: dict[str, Contrast]) -> dict[str, Contrast]:
    known = {name: c.p_value for name, c in contrasts.items() if c.p_value is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {name: dataclasses.replace(c, p_holm=adjusted.get(name)) for name, c in contrasts.items()}


def _verdict(content: Contrast, level: float) -> Verdict:
    if content.mean is None:
        return "undecided"
    shown = content.p_holm is not None and content.p_holm <= 1 - level + 1e-12
    if shown and content.low is not None and content.low > 0:
        return "carries_information"
    if shown and content.high is not None and content.high < 0:
        return "misleads"
    return "equivalent_to_mismatched" if content.equivalent else "undecided"


def _mean(scores: Array | None) -> float | None:
    if scores is None or not np.isfinite(scores).any():
        return None
    return float(scores[np.isfinite(scores)].mean())


def _t(probability: float, df: int) -> float:
    return float(scipy_stats.t.ppf(probability, max(df, 1)))


def _change(what: str, c: Contrast, unit: str = " points") -> str:
    """ "… raises the score by 12 points [5, 19]"; what lowers it is told as a positive number."""
    assert c.mean is not None
    if c.mean >= 0:
        return f"{what} raises the score by {_range(c, unit)}"
    turned = dataclasses.replace(
        c,
        mean=-c.mean,
        low=None if c.high is None else -c.high,
        high=None if c.low is None else -c.low,
    )
    return f"{what} lowers the score by {_range(turned, unit)}"


def _range(c: Contrast, unit: str = "") -> str:
    assert c.mean is not None
    limits = "unknown" if c.low is None or c.high is None else f"{_points(c.low)}, {_points(c.high)}"
    return f"{_points(c.mean)}{unit} [{limits}]"


def _points(score: float) -> str:
    """A share as points; small ones keep a digit."""
    points = 100 * score
    text = (
        f"{points:.1f}"
        if 0.05 <= abs(points) < 0.95 or (abs(points - round(points)) > 0.05 and abs(points) < 3)
        else f"{points:.0f}"
    )
    return "0" if float(text) == 0 else text


def _rounded(number: int) -> int:
    unit = int(10 ** max(0, len(str(number)) - 2))
    return math.ceil(number / unit) * unit
