"""How sure an estimate is. The unit is the context; the target is what the estimator gives on average
at this number of contexts, not the information itself.

The delete-one jackknife is the default: leaving a context out removes its rows *and* its column, so it
sees that the negatives are random too. Student's t over contexts and the bootstrap keep the
denominators fixed and are a little short (85 to 93 % where 95 was asked, at N = 20 to 50).

Two ways are absent on purpose. Resampling rows and columns puts copies of a context among its own
negatives, each as probable as the positive: coverage falls to 0 at N = 50. Rows of one context are
not independent either.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from agentcomm.errors import UserError
from agentcomm.information.bounds import log_sum_without
from agentcomm.information.cells import Cells
from agentcomm.information.score_matrix import Array

Method = Literal["jackknife", "cluster_t", "bootstrap"]
RESAMPLES = 2_000


class Interval(NamedTuple):
    """Two-sided limits, in the unit of what they belong to."""

    low: float
    high: float


def check_method(method: str, level: float) -> None:
    """Raises :class:`UserError` for an unknown way or a level that is no confidence."""
    if method not in ("jackknife", "cluster_t", "bootstrap"):
        raise UserError(
            f"no interval method {method!r}: take jackknife, cluster_t or bootstrap (resampling rows and columns, "
            "or rows as if independent, gives intervals that are far too short)"
        )
    if not 0 < level < 1:
        raise UserError(f"a confidence lies between 0 and 1, not {level!r}; 95 % is 0.95")


def cluster_t(by_context: Array, level: float) -> Interval | None:
    """Student's t over one number per context; ``None`` for fewer than two.

    Examples
    --------
    >>> import numpy as np
    >>> [round(end, 3) for end in cluster_t(np.array([1.0, 2.0, 3.0]), 0.95)]
    [-0.484, 4.484]
    """
    n = len(by_context)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(by_context.std(ddof=1)) / math.sqrt(n)
    return Interval(float(by_context.mean()) - half, float(by_context.mean()) + half)


def bootstrap(by_context: Array, level: float, seed: int) -> Interval | None:
    """Percentiles of the mean over resampled contexts, each with the value it has among all contexts:
    the denominators are not resampled (Efron & Tibshirani 1993, chapter 13)."""
    n = len(by_context)
    if n < 2:
        return None
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(by_context[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def left_out_estimates(cells: Cells) -> Array | None:
    """Shape (N,): the estimate without each context, its rows and its column.

    ``None`` below 3 contexts (with one context left every estimate is 0, which says nothing), or if
    only one has rows.
    """
    n = cells.n
    if n < 3 or len(np.unique(cells.own)) < 2:
        return None
    g = cells.diagonal[:, None] - log_sum_without(cells) + math.log(n - 1)
    g[np.arange(len(cells.own)), cells.own] = 0.0  # deleted together with its context, below
    group, block, context = cells.groups()
    means = np.zeros((len(context), n))
    np.add.at(means, group, g)
    means /= np.bincount(group)[:, None]
    kept = (context[:, None] != np.arange(n)[None, :]).astype(np.float64)
    blocks = np.unique(block, return_inverse=True)[1]
    sums, counts = np.zeros((blocks.max() + 1, n)), np.zeros((blocks.max() + 1, n))
    np.add.at(sums, blocks, means * kept)
    np.add.at(counts, blocks, kept)
    # A query whose only answered context is left out drops out of that estimate.
    values: Array = (sums / np.maximum(counts, 1)).sum(axis=0) / (counts > 0).sum(axis=0)
    return values


def jackknife(estimate: float, without: Array | None, level: float) -> Interval | None:
    """estimate ± t · sqrt((n−1)/n · Σ(θ_k − θ̄)²), with n−1 degrees of freedom.

    Tukey 1958 (Ann. Math. Stat. 29, 614); Efron & Stein 1981 (Ann. Stat. 9, 586). Centred on the
    estimate from all contexts.

    Examples
    --------
    The jackknife of a mean is Student's t:

    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> [round(end, 3) for end in jackknife(2.0, (x.sum() - x) / 2, 0.95)]
    [-0.484, 4.484]
    """
    if without is None:
        return None
    n = len(without)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Interval(estimate - half, estimate + half)


def capped(interval: Interval | None, cap: float) -> Interval | None:
    """The interval below the most that the estimator can give; the lower end stays where it is."""
    return None if interval is None else Interval(min(interval.low, cap), min(interval.high, cap))
