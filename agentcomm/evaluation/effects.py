"""Effects: what leaving a part of a team out does to its score (or its tokens), with an interval.

Two designs, both over items that are drawn together with all their rows:

* **paired**: the whole team and the team without one part, on the same items and seeds. The effect is
  the mean difference: what the part adds to *this* team.
* **masked**: random sub-teams, each part kept with a known probability of its own. One row tells
  something of every part at once. The effect of part u is what it adds on average to a sub-team, given
  that what it can't do without (``needs``: an edge's two ends) is there::

      beta_u = E[y | u kept, needs kept] - E[y | u left out, needs kept]

  It is the average over the company a part may find itself in (with keep probability 1/2 it is the
  Banzhaf value); as keep probabilities go to 1 it becomes the paired one.

How beta is estimated. With x_u = (prod of z_v over needs) * (z_u - p_u), z the kept bits, every
regressor is uncorrelated with every other and with anything that doesn't depend on z_u. So the
population's least-squares coefficients of y on x *are* the beta above, whatever y depends on (no model
of the team is assumed), and the population's Gram matrix V is known: diagonal, with
V_u = P(needs kept) p_u (1 - p_u). The sample's Gram matrix G is noisy where rows are few; it is
shrunk towards V (ridge regression whose target is the known design instead of no effect)::

    beta = ((1 - w) G + w V)^-1 X'y / n,      w = m / (m + n) for m parts and n rows

w = 1 would be the Horvitz-Thompson estimate, w = 0 least squares. Coefficients are not shrunk, so
intervals can cover. What makes an item easy or hard is taken out first: y is regressed on the mean of
the item's *other* rows (of the whole team's too, where given), which can't depend on the row's own
mask.

Intervals are beta +- t * (standard deviation over resamples of items).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from agentcomm.errors import UserError
from agentcomm.evaluation.stats import POWER, non_inferiority, paired_bootstrap, sign_flip

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """What a part adds: mean over items and a two-sided interval; ``None`` where nothing was seen.

    ``upper`` is the one-sided bound at the same level: the effect is at most that. ``p_value`` is of
    no effect, two-sided. ``items`` bear on it. ``needed`` are the items that would show, with 80 %
    power, that the part adds less than ``margin`` if it adds nothing.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    upper: float | None = None
    p_value: float | None = None
    items: int = 0
    level: float = 0.95
    needed: int | None = None
    spread: float | None = None
    """Standard deviation of one item's effect, in the units of the mean."""


def paired(
    whole: Sequence[float],
    without: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    rng: np.random.Generator,
    margin: float = 0.02,
    level: float = 0.95,
) -> Effect:
    """The effect on a score in [0, 1], from rows that both teams have.

    Parameters
    ----------
    whole, without:
        Scores, row by row the same item and seed.
    clusters:
        The item of each row.
    """
    if not len(whole):
        return Effect(level=level)
    a, b = list(whole), list(without)
    d = paired_bootstrap(a, b, clusters=clusters, rng=rng, level=level)
    v = non_inferiority(b, a, clusters=clusters, rng=rng, level=level, margin=margin)
    assert d.mean is not None and d.low is not None and d.high is not None
    spread = math.sqrt(v.needed) * margin / (_z(level) + _z(POWER))
    return Effect(
        d.mean,
        d.low,
        d.high,
        -v.lower,
        sign_flip(a, b, clusters=clusters, rng=rng),
        d.items,
        level,
        v.needed,
        spread,
    )


@dataclass(frozen=True)
class Design:
    """Random sub-teams: one row each.

    Parameters
    ----------
    kept:
        [rows, parts]; whether each part was kept. Parts are kept on their own: each has its probability
        whatever the others do.
    keep:
        [parts]; the probabilities, above 0 and below 1.
    needs:
        For each part the parts without which it does nothing, by number.
    clusters:
        The item of each row.
    """

    kept: NDArray[np.bool_]
    keep: Array
    needs: tuple[tuple[int, ...], ...]
    clusters: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        rows, parts = self.kept.shape
        if self.keep.shape != (parts,) or len(self.needs) != parts or len(self.clusters) != rows:
            raise UserError(
                f"a design of {rows} rows and {parts} parts needs {parts} probabilities and needs, and {rows} "
                f"items; it has {self.keep.shape[0]}, {len(self.needs)} and {len(self.clusters)}"
            )
        if not ((self.keep > 0) & (self.keep < 1)).all():
            raise UserError(
                "a part that is always kept, or never, shows no effect; leave it out of the design"
            )

    @property
    def regressors(self) -> Array:
        """[rows, parts]: x_u = (prod of z over needs) (z_u - p_u)."""
        x: Array = self.kept - self.keep
        for u, needs in enumerate(self.needs):
            for v in needs:
                x[:, u] *= self.kept[:, v]
        return x

    @property
    def variances(self) -> Array:
        """[parts]: the known variance of each regressor."""
        there = np.array([math.prod(self.keep[v] for v in needs) for needs in self.needs])
        variances: Array = there * self.keep * (1 - self.keep)
        return variances

    def shows(self, u: int) -> int:
        """Items with a row in which part ``u`` was left out and its needs were there."""
        out = ~self.kept[:, u]
        for v in self.needs[u]:
            out &= self.kept[:, v]
        return len({self.clusters[i] for i in out.nonzero()[0]})


def masked(
    values: ArrayLike,
    design: Design,
    *,
    rng: np.random.Generator,
    whole: ArrayLike | None = None,
    margin: float = 0.02,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[Effect, ...]:
    """The effect of every part of a masked design on ``values``.

    Parameters
    ----------
    values:
        [rows]; scores or tokens, NaN where a row has none (a failed episode): it is left out.
    whole:
        [rows]; the whole team's value on each row's item, NaN where unknown. It only sharpens.
    margin:
        For ``needed``.

    Returns
    -------
    tuple[Effect, ...]
        One for each part; all ``None`` where fewer than three items have a value.
    """
    y = np.asarray(values, dtype=np.float64)
    seen = np.isfinite(y)
    parts = design.kept.shape[1]
    index: dict[Hashable, int] = {}
    item = np.array([index.setdefault(c, len(index)) for c in np.array(design.clusters, dtype=object)[seen]])
    n, items = int(seen.sum()), len(index)
    if items < 3:
        return tuple(Effect(level=level, items=items) for _ in range(parts))
    x, y = design.regressors[seen], y[seen]
    own = np.full(n, np.nan) if whole is None else np.asarray(whole, dtype=np.float64)[seen]
    y = y - _level(y, own, item, items)

    # Sums by item, so that a resample is a weighting of items.
    gram = np.zeros((items, parts, parts))
    np.add.at(gram, item, x[:, :, None] * x[:, None, :])
    cross, first = np.zeros((items, parts)), np.zeros((items, parts))
    np.add.at(cross, item, x * y[:, None])
    np.add.at(first, item, x)
    rows, total = (np.bincount(item, weights=w, minlength=items) for w in (None, y))
    shrink = parts / (parts + n)
    target = np.diag(design.variances)

    def solve(weights: Array) -> Array:
        """[resamples, items] -> [resamples, parts]."""
        count = (weights @ rows)[:, None]
        mean_x, mean_y = weights @ first / count, (weights @ total)[:, None] / count
        g = np.einsum("bi,ijk->bjk", weights, gram, optimize=True) / count[:, :, None]
        g -= mean_x[:, :, None] * mean_x[:, None, :]
        right = weights @ cross / count - mean_x * mean_y
        found: Array = np.linalg.solve((1 - shrink) * g + shrink * target, right[:, :, None])[:, :, 0]
        return found

    beta = solve(np.ones((1, items)))[0]
    drawn = rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)
    # Fitted residuals are smaller than true ones by the degrees of freedom that were fitted.
    error = solve(drawn).std(axis=0, ddof=1) * math.sqrt(n / (n - parts * (1 - shrink)))
    bounded = bool((np.abs(np.asarray(values, dtype=np.float64)[seen] - 0.5) <= 0.5).all())
    found = []
    for u in range(parts):
        se, mean, out = float(error[u]), float(beta[u]), design.shows(u)
        if out < 2:
            found.append(Effect(level=level))
            continue
        t2, t1 = (float(scipy_stats.t.ppf(q, out - 1)) for q in ((1 + level) / 2, level))
        wide, upper = t2 * se, t1 * se
        if bounded:
            # Rows that all agree show no spread; then the rule of three over items that lacked the part.
            least = 1 - ((1 - level) / 2) ** (1 / out)
            if se < 1e-9:
                wide, upper = least, 1 - (1 - level) ** (1 / out)
        p = 1.0 if se < 1e-9 else float(2 * scipy_stats.t.sf(abs(mean) / se, out - 1))
        spread = (se if se >= 1e-9 else wide / _z((1 + level) / 2)) * math.sqrt(items)
        needed = math.ceil(((_z(level) + _z(POWER)) * spread / margin) ** 2)
        low, high, most = mean - wide, mean + wide, mean + upper
        if bounded:  # no difference of two scores is larger than 1
            low, high, most = max(-1.0, low), min(1.0, high), min(1.0, most)
        found.append(Effect(mean, low, high, most, p, items, level, max(needed, 1), spread))
    return tuple(found)


def _level(y: Array, whole: Array, item: NDArray[np.int64], items: int) -> Array:
    """What the other rows of an item say of the row's value, by least squares; [rows]."""
    sums, counts = (np.bincount(item, weights=w, minlength=items) for w in (y, None))
    known = np.isfinite(whole)
    others = sums[item] - y + np.where(known, whole, 0.0)
    number = counts[item] - 1 + known
    mean = float(y.mean())
    about = np.where(number > 0, others / np.maximum(number, 1), mean)
    about = about - about.mean()
    size = float(about @ about)
    slope = float(about @ (y - mean)) / size if size > 1e-12 else 0.0
    level: Array = mean + slope * about
    return level


def _z(probability: float) -> float:
    return float(scipy_stats.norm.ppf(probability))
