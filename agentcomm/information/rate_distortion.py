"""Rate and distortion: how fast an error falls as messages say more.

    D(R) = C·exp(−b·R) + D0,   C, b, D0 ≥ 0,   C + D0 ≤ 1

D is a loss in [0, 1] (1 − accuracy), R what a message carries or costs: tokens, bits, bits a token. One
fit is for one predictor (and one compressor): D0 is the loss that it would keep however long its
messages were, C what messages can win, and 1/b the rate at which they have won 63 % of it.

For a given b the curve is linear in C and D0, and least squares over the triangle of allowed (C, D0) has
an exact solution: the free one if it lies inside, else the best on one of the three sides. b is scanned
on a logarithmic grid of u = b·median(R) and refined by golden section, so nothing has to converge and
the same data give the same fit. Intervals resample documents: all rates of a document go together, and
distortions (and rates, where each document has its own) are computed anew.

Numpy only; no model. (``../shared/spec/information.md``, section 5.)
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentcomm.errors import UserError
from agentcomm.information.intervals import RESAMPLES, Interval
from agentcomm.information.score_matrix import Array

Whole = NDArray[np.intp]

FEWEST_RATES = 4
"""Three parameters go through any three points."""
SCAN = np.geomspace(0.01, 50, 400)
"""Values of u = b·median(R)."""
GOLDEN = (math.sqrt(5) - 1) / 2
STEPS = 32
"""Of golden section: each leaves 0.62 of the range, which begins at two steps of the scan."""
NEAR = 1e-9
_CHUNK = 2_000_000

BOUNDARIES = {
    "C=0": "longer messages don't lower the loss in these data: b is not determined",
    "D0=0": "the floor is at its least, 0",
    "C+D0=1": "the curve begins at its most, a loss of 1 at rate 0",
    "b at least": "the loss falls too slowly for these rates: C and D0 are not determined, only the slope",
    "b at most": "the loss is at its floor from the lowest rate on: C and b are not determined",
}
"""What it means that a fit lies at a boundary."""


@dataclass(frozen=True)
class RateDistortion:
    """A fitted curve.

    Attributes
    ----------
    c, b, d0:
        The parameters; b in 1 / unit of the rate.
    c_interval, b_interval, d0_interval:
        Percentiles of the bootstrap over documents.
    rate:
        What R is, such as ``"token of vllm/models/qwen"`` or ``"bit"``.
    rates, distortions:
        Shape (K,): the points that were fitted, rates ascending.
    boundary:
        Keys of ``BOUNDARIES``: where the fit lies at the edge of what is allowed.
    at_boundary:
        Share of the resamples whose fit lies at some boundary. If it is large, the intervals are cut off
        there.
    rmse:
        Root mean square of the residuals, in distortion.
    documents, resamples:
        How many documents, and resamples that could be fitted.
    draws:
        Shape (resamples, 3): C, b and D0 of every resample.
    """

    c: float
    b: float
    d0: float
    c_interval: Interval | None
    b_interval: Interval | None
    d0_interval: Interval | None
    level: float
    rate: str
    rates: tuple[float, ...]
    distortions: tuple[float, ...]
    boundary: tuple[str, ...]
    at_boundary: float | None
    rmse: float
    documents: int
    resamples: int
    seed: int
    draws: Array = field(repr=False, compare=False)

    def at(self, rate: ArrayLike) -> Array:
        """D at these rates.

        Examples
        --------
        >>> import numpy as np
        >>> r = np.array([0.2, 0.5, 1, 1.5, 2.5, 4])
        >>> fit = fit_rate_distortion(np.tile(0.6 * np.exp(-1.5 * r) + 0.2, (3, 1)).T, r)
        >>> [round(float(x), 3) for x in fit.at([0, 1, 100])]
        [0.8, 0.334, 0.2]
        """
        r = np.asarray(rate, dtype=np.float64)
        curve: Array = self.c * np.exp(-self.b * r) + self.d0
        return curve

    def band(self, rate: ArrayLike) -> tuple[Array, Array] | None:
        """Pointwise interval of D at these rates; ``None`` without resamples."""
        if not len(self.draws):
            return None
        r = np.asarray(rate, dtype=np.float64)
        c, b, d0 = self.draws.T[:, :, None]
        low, high = np.quantile(c * np.exp(-b * r) + d0, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)
        return low, high

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the parameters are believed, one sentence each."""
        found = [f"{word}: {BOUNDARIES[word]}" for word in self.boundary]
        if self.c_interval is None:
            found.append("one document: no intervals")
        elif self.at_boundary is not None and self.at_boundary > 0.1:
            found.append(f"{self.at_boundary:.0%} of the resamples lie at a boundary: intervals end there")
        return tuple(found)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "formula": "D = C*exp(-b*R) + D0",
            "rate": self.rate,
            "C": self.c,
            "b": self.b,
            "D0": self.d0,
            "C_interval": _listed(self.c_interval),
            "b_interval": _listed(self.b_interval),
            "D0_interval": _listed(self.d0_interval),
            "level": self.level,
            "rates": list(self.rates),
            "distortions": list(self.distortions),
            "rmse": self.rmse,
            "boundary": list(self.boundary),
            "resamples_at_boundary": self.at_boundary,
            "documents": self.documents,
            "resamples": self.resamples,
            "seed": self.seed,
            "warnings": list(self.warnings),
        }


def fit_rate_distortion(
    distortion: ArrayLike,
    rates: ArrayLike,
    *,
    rate: str = "token",
    documents: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RateDistortion:
    """Fit D(R) = C·exp(−b·R) + D0.

    Parameters
    ----------
    distortion:
        Shape (K, n): the loss in [0, 1] of each of n items at each of K rates; NaN where unknown (a
        failed episode). Every rate weighs the same.
    rates:
        Shape (K,), or (K, n) where each item has its own, NaN where unknown: R is then their mean, and
        resampled with the losses.
    rate:
        What the rate is: kept with the fit, since a b per token and one per bit have nothing in common.
    documents:
        Which document each of the n items belongs to; by default each is one. Documents are resampled.

    Raises
    ------
    UserError
        Below four distinct rates, for losses outside [0, 1], or shapes that don't fit.
    """
    lost, given = np.asarray(distortion, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    _check(lost, given, level, resamples)
    which = _indices(lost.shape[1], documents)
    d, d_weight = _by_document(lost, which)
    if (d_weight.sum(axis=1) == 0).any():
        raise UserError("a rate has no known loss at all: leave it out")
    own_rates = given.ndim == 2
    r, r_weight = _by_document(given, which) if own_rates else (given[:, None], np.ones((len(given), 1)))
    if (r_weight.sum(axis=1) == 0).any():
        raise UserError("a rate is known of no item: leave it out")
    mean_d, mean_r = d.sum(axis=1) / d_weight.sum(axis=1), r.sum(axis=1) / r_weight.sum(axis=1)
    if (distinct := _distinct(mean_r)) < FEWEST_RATES:
        raise UserError(
            f"{distinct} distinct rates can't tell the curve's three parameters apart: at least {FEWEST_RATES} are "
            "needed; add budgets, or texts that are longer than the budgets"
        )
    c, b, d0 = _fit(mean_d[None], mean_r[None])
    point = (float(c[0]), float(b[0]), float(d0[0]))
    drawn_c = drawn_b = drawn_d0 = np.empty(0)
    n = d.shape[1]
    if n > 1 and resamples:
        weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        counts = weights @ d_weight.T
        resampled_d = np.divide(weights @ d.T, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        resampled_r = mean_r[None]
        if own_rates:
            counts = weights @ r_weight.T
            resampled_r = np.divide(
                weights @ r.T, counts, out=np.full(counts.shape, np.nan), where=counts > 0
            )
        known = np.isfinite(resampled_d).all(axis=1) & np.isfinite(resampled_r).all(axis=1)
        of_known = resampled_r[known] if own_rates else resampled_r
        drawn_c, drawn_b, drawn_d0 = _fit(resampled_d[known], of_known)
    draws = np.stack([drawn_c, drawn_b, drawn_d0], axis=1)
    order = np.argsort(mean_r, kind="stable")
    median = float(np.median(mean_r))
    at = [bool(_boundaries(row[0], row[1], row[2], median)) for row in draws.tolist()]
    residuals = point[0] * np.exp(-point[1] * mean_r) + point[2] - mean_d
    spread = [_percentiles(values, level) for values in draws.T]
    return RateDistortion(
        *point,
        c_interval=spread[0],
        b_interval=spread[1],
        d0_interval=spread[2],
        level=level,
        rate=rate,
        rates=tuple(mean_r[order].tolist()),
        distortions=tuple(mean_d[order].tolist()),
        boundary=_boundaries(*point, median),
        at_boundary=sum(at) / len(at) if at else None,
        rmse=float(np.sqrt((residuals**2).mean())),
        documents=n,
        resamples=len(draws),
        seed=seed,
        draws=draws,
    )


# -- the fit, for many data sets at once -------------------------------------------------------


def _fit(d: Array, r: Array) -> tuple[Array, Array, Array]:
    """C, b and D0, each of shape (B,), for B data sets: ``d`` of shape (B, K), ``r`` of (B, K) or (1, K)."""
    medians = np.median(r, axis=1)
    best = np.empty(len(d), dtype=np.intp)
    size = max(1, _CHUNK // (len(SCAN) * d.shape[1]))
    for start in range(0, len(d), size):
        part = slice(start, start + size)
        rates = r if len(r) == 1 else r[part]
        b = SCAN / np.median(rates, axis=1)[:, None]
        best[part] = _line(d[part], np.exp(-b[:, :, None] * rates[:, None, :]))[2].argmin(axis=1)
    low = np.log(SCAN[np.maximum(best - 1, 0)])
    high = np.log(SCAN[np.minimum(best + 1, len(SCAN) - 1)])

    def line_at(log_u: Array) -> tuple[Array, Array, Array]:
        c, d0, error = _line(d, np.exp(-(np.exp(log_u) / medians)[:, None] * r)[:, None, :])
        return c[:, 0], d0[:, 0], error[:, 0]

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    e_left, e_right = line_at(left)[2], line_at(right)[2]
    for _ in range(STEPS):
        nearer = e_left <= e_right  # the least lies in [low, right]
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
        again = np.where(nearer, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        e_again = line_at(again)[2]
        left, right = np.where(nearer, again, right), np.where(nearer, left, again)
        e_left, e_right = np.where(nearer, e_again, e_right), np.where(nearer, e_left, e_again)
    log_u = (low + high) / 2
    # Where a scanned value was no worse, or lies at an end of the scan, it stays.
    log_u = np.where(line_at(np.log(SCAN[best]))[2] < line_at(log_u)[2], np.log(SCAN[best]), log_u)
    c, d0, _ = line_at(log_u)
    return c, np.exp(log_u) / medians, d0


def _line(d: Array, e: Array) -> tuple[Array, Array, Array]:
    """The exact least squares of d ≈ C·e + D0 over C, D0 ≥ 0, C + D0 ≤ 1: C, D0 and the squared error.

    Shapes: ``d`` (B, K), ``e`` (B or 1, U, K); results (B, U). The error is convex, so it is least at the
    free solution if that is allowed, else on a side of the triangle, where it is a parabola in one variable.
    """
    k = d.shape[1]
    mean_d, mean_e = d.mean(axis=1)[:, None], e.mean(axis=2)
    dd, de = d - mean_d, e - mean_e[:, :, None]
    d_spread, e_spread = (dd * dd).sum(axis=1)[:, None], (de * de).sum(axis=2)
    both = _products(de, dd)
    c = _ratio(both, e_spread)
    d0 = mean_d - c * mean_e
    allowed = (c >= 0) & (d0 >= 0) & (c + d0 <= 1) & (e_spread > 0)
    zero = np.zeros(c.shape)
    flat = np.clip(mean_d, 0, 1) + zero
    steep, steep_error = _through_origin(d, e)
    from_one, from_one_error = _through_origin(d - 1, e - 1)
    errors = np.stack(
        [
            np.where(allowed, d_spread - c * both, np.inf),
            d_spread + k * (mean_d - flat) ** 2,
            steep_error,
            from_one_error,
        ]
    )
    pick = np.where(allowed, 0, errors.argmin(axis=0))[None]

    def picked(values: list[Array]) -> Array:
        taken: Array = np.take_along_axis(np.stack(values), pick, axis=0)[0]
        return taken

    error: Array = np.take_along_axis(errors, pick, axis=0)[0]
    return picked([c, zero, steep, from_one]), picked([d0, flat, zero, 1 - from_one]), error


def _through_origin(d: Array, e: Array) -> tuple[Array, Array]:
    """The best d ≈ C·e with 0 ≤ C ≤ 1, and its squared error."""
    both, squares = _products(e, d), (e * e).sum(axis=2)
    c = np.clip(_ratio(both, squares), 0, 1)
    return c, c * c * squares - 2 * c * both + (d * d).sum(axis=1)[:, None]


def _products(e: Array, d: Array) -> Array:
    """Sums over K: (B or 1, U, K) and (B, K) to (B, U)."""
    out: Array = d @ e[0].T if len(e) == 1 else (e @ d[:, :, None])[:, :, 0]
    return out


def _ratio(a: Array, b: Array) -> Array:
    out: Array = np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 0)
    return out


# -- around it ------------------------------------------------------------------------------


def _check(d: Array, r: Array, level: float, resamples: int) -> None:
    if d.ndim != 2 or not d.size:
        raise UserError(f"distortions have the shape (rates, items), not {d.shape}")
    if r.shape not in ((len(d),), d.shape):
        raise UserError(
            f"{len(d)} rows of distortions need rates of shape {(len(d),)} or {d.shape}, not {r.shape}"
        )
    if not ((np.nan_to_num(d) >= 0) & (np.nan_to_num(d) <= 1)).all():
        raise UserError("a distortion lies between 0 and 1; scale the loss, e.g. 1 - score")
    if np.isinf(r).any() or (np.nan_to_num(r) < 0).any() or (r.ndim == 1 and np.isnan(r).any()):
        raise UserError("a rate is finite and at least 0")
    if not 0 < level < 1:
        raise UserError(f"a confidence lies between 0 and 1, not {level!r}; 95 % is 0.95")
    if resamples < 0:
        raise UserError(f"resamples={resamples}; it must be at least 0")


def _distinct(rates: Array) -> int:
    ordered = np.sort(rates)
    return 1 + int((np.diff(ordered) > NEAR * max(1.0, float(ordered[-1]))).sum())


def _indices(n: int, documents: Sequence[Hashable] | None) -> Whole:
    if documents is None:
        return np.arange(n)
    if len(documents) != n:
        raise UserError(f"{n} items need as many documents, not {len(documents)}")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in documents])


def _by_document(values: Array, which: Whole) -> tuple[Array, Array]:
    """Sums and counts of what is known, shape (K, documents)."""
    total = np.zeros((len(values), int(which.max()) + 1))
    count = np.zeros_like(total)
    for k, row in enumerate(values):
        np.add.at(total[k], which, np.nan_to_num(row))
        np.add.at(count[k], which, np.isfinite(row).astype(np.float64))
    return total, count


def _boundaries(c: float, b: float, d0: float, median: float) -> tuple[str, ...]:
    u = b * median
    near = 1 + 1e-3
    found = {
        "C=0": c <= NEAR,
        "D0=0": d0 <= NEAR,
        "C+D0=1": c + d0 >= 1 - NEAR,
        "b at least": u <= SCAN[0] * near,
        "b at most": u >= SCAN[-1] / near,
    }
    return tuple(word for word, true in found.items() if true)


def _percentiles(values: Array, level: float) -> Interval | None:
    if len(values) < 2:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
