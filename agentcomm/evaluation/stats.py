"""Statistics that say how much a table of results can be trusted.

Pure functions over sequences of numbers; randomness comes in as a generator. Three rules hold
throughout:

- **Unknown is not zero.** No items give ``None``, not 0; a NaN is an error, not a small number.
- **An item is the unit.** Runs of one item with several seeds are averaged first (or resampled
  together, which is the same for means), so ten seeds of one question are not ten questions.
- **Agreement is not certainty.** Twenty items on which two runs agree do not show that they always
  do. Where data have no spread, resampling reports none; then bounds come from the *rule of three*
  (Hanley & Lippman-Hand, 1983): an event not seen in n items may still have probability
  1 − α^(1/n) ≈ 3/n.

Intervals are two-sided, verdicts one-sided, both at ``level``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]

from agentcomm.errors import UserError

Numbers = Sequence[float] | NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_]
Array = NDArray[np.float64]

POWER = 0.8
"""Probability with which a planned comparison is to succeed."""

_CHUNK = 4_000_000
"""Numbers drawn at a time, so that 10,000 resamples of 10,000 items stay in memory."""


@dataclass(frozen=True)
class Interval:
    """A mean with the range the data leave open; all three are ``None`` where there are no data."""

    mean: float | None
    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of ``a − b`` over items, with a two-sided interval; ``None`` where there are no items."""

    mean: float | None
    low: float | None
    high: float | None
    level: float
    items: int


@dataclass(frozen=True)
class McNemar:
    """Items only one of two runs solved, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class NonInferiority:
    """Whether ``a`` is not worse than ``b`` by ``margin`` or more.

    Attributes
    ----------
    verdict:
        ``"yes"``: the lower bound is above ``−margin``. ``"no"``: the upper bound is below it, so that
        ``a`` is shown to be worse. ``"not enough items"``: neither.
    difference:
        Mean of ``a − b``; ``None`` without items.
    lower, upper:
        One-sided bounds, each at ``level``; −1 and 1 without items.
    needed:
        Items with which the verdict would be "yes" with 80 % power if the two were equally good.
    """

    verdict: Literal["yes", "no", "not enough items"]
    difference: float | None
    lower: float
    upper: float
    level: float
    margin: float
    items: int
    needed: int


@dataclass(frozen=True)
class RunPoint:
    """Scores and tokens of one run, item by item, in an order all compared runs share."""

    name: str
    scores: Numbers
    tokens: Numbers


@dataclass(frozen=True)
class FrontPoint:
    """Where a run lies, whether no other run beats it, and how sure that is.

    ``probability`` is the share of resamples of the items in which the run is on the front.
    """

    name: str
    score: float
    tokens: float
    on_front: bool
    probability: float


# ----------------------------------------------------------------------------------- one run


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    successes, n:
        How many of how many. With ``n = 0`` nothing is known and every field is ``None``.
    level:
        Two-sided confidence.

    Notes
    -----
    Centre (p̂ + z²/2n)/(1 + z²/n), half-width z√(p̂(1−p̂)/n + z²/4n²)/(1 + z²/n). It never leaves
    [0, 1] and has a width also at 0 and n successes.

    References
    ----------
    E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference,
    J. Am. Stat. Assoc. 22:209-212.

    Examples
    --------
    >>> i = wilson(145, 160)
    >>> f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]"
    '0.906 [0.851, 0.942]'
    >>> wilson(0, 0)
    Interval(mean=None, low=None, high=None, level=0.95)
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise UserError(f"{successes} successes of {n} can't be")
    if n == 0:
        return Interval(None, None, None, level)
    low, high = _wilson_bounds(successes / n, n, _z((1 + level) / 2))
    return Interval(successes / n, low, high, level)


def mean_interval(
    values: Numbers, *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Interval:
    """Interval of the mean of scores in [0, 1], such as token F1 or several seeds of each item.

    Parameters
    ----------
    values:
        One score per row.
    clusters:
        The item each row belongs to, if items have several rows. An item counts once, with the mean
        of its rows.
    level:
        Two-sided confidence.

    Notes
    -----
    Items that score 0 or 1 (in every row of theirs) get :func:`wilson`. Otherwise Wilson's formula is used with
    the *effective* number of items n* = m(1−m)/v and a t quantile, where v is the variance of the mean
    over items. So that items without spread do not pretend to certainty, m and v are taken with two
    more items, one scored 0 and one scored 1; n* is then about n for 0/1 scores and larger for scores
    that vary less.

    References
    ----------
    E. L. Korn, B. I. Graubard (1998), Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data, Survey Methodology 24:193-201 (effective size).
    A. Agresti, B. A. Coull (1998), Approximate is better than "exact", Am. Stat. 52:119-126 (two more).

    Examples
    --------
    >>> mean_interval([1, 0, 1, 1]) == wilson(3, 4)
    True
    >>> seeds = mean_interval([1, 1, 1, 0, 0, 0], clusters=["q1", "q1", "q1", "q2", "q2", "q2"])
    >>> seeds == wilson(1, 2)  # six rows, but two questions
    True
    """
    _check_level(level)
    scores = _scores("scores", values)
    items = _item_means(scores, clusters)
    n = len(items)
    if n == 0:
        return Interval(None, None, None, level)
    if np.isin(items, (0, 1)).all():
        return wilson(int(items.sum()), n, level)
    padded = np.append(items, (0.0, 1.0))
    centre = padded.mean()
    effective = centre * (1 - centre) / (padded.var(ddof=1) / n)
    quantile = float(special.stdtrit(n + 1, (1 + level) / 2))
    mean = float(items.mean())
    low, high = _wilson_bounds(mean, float(effective), quantile)
    return Interval(mean, low, high, level)


def _wilson_bounds(p: float, n: float, z: float) -> tuple[float, float]:
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # The mean itself belongs to the interval; rounding must not push it out at 0 and 1.
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


# ---------------------------------------------------------------------------------- two runs


def paired_bootstrap(
    a: Numbers,
    b: Numbers,
    *,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
) -> PairedDifference:
    """Mean of ``a − b`` on the same rows, with a percentile bootstrap over items.

    Parameters
    ----------
    a, b:
        Scores (or tokens) of the two runs, row by row the same item and seed.
    rng:
        Where the resamples come from.
    clusters:
        The item of each row; all rows of an item are drawn together.
    resamples, level:
        Number of resamples, and two-sided confidence.

    Notes
    -----
    If every item has the same difference, resampling has nothing to vary. Differences of scores (all
    within [−1, 1]) then get the rule of three on either side instead of a width of zero; other
    quantities have no bound to fall back on and get ``low = high = None``.

    References
    ----------
    B. Efron, R. J. Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.

    Examples
    --------
    >>> import numpy as np
    >>> d = paired_bootstrap([1, 1, 0, 1], [0, 1, 0, 0], rng=np.random.default_rng(0))
    >>> d.mean, d.low, d.high, d.items
    (0.5, 0.0, 1.0, 4)
    """
    _check_level(level)
    if resamples < 1:
        raise UserError(f"at least one resample is needed, not {resamples}")
    differences = _differences(a, b, clusters)
    n = len(differences)
    if n == 0:
        return PairedDifference(None, None, None, level, 0)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        if np.abs(np.append(_finite("a", a), _finite("b", b)) - 0.5).max() > 0.5:
            return PairedDifference(mean, None, None, level, n)
        unseen = _unseen(n, (1 - level) / 2)
        # Against the worst that the unseen share of items could do.
        low, high = mean - unseen * (1 + mean), mean + unseen * (1 - mean)
        return PairedDifference(mean, low, high, level, n)
    means = _resampled_means(differences, resamples, rng)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return PairedDifference(mean, float(low), float(high), level, n)


def mcnemar(a: Numbers, b: Numbers) -> McNemar:
    """McNemar's exact test on two runs scored 0/1 over the same items, one row per item.

    Notes
    -----
    p = min(1, 2 Σ_{k ≤ min(b,c)} C(b+c, k) / 2^(b+c)), where b and c count the items that only one of
    the two solved. Several seeds of an item are not independent: use :func:`paired_bootstrap`.

    References
    ----------
    Q. McNemar (1947), Psychometrika 12:153-157; exact binomial form.

    Examples
    --------
    >>> mcnemar([0] * 6 + [1], [1] * 6 + [1])
    McNemar(only_first=0, only_second=6, p_value=0.03125)
    """
    first, second = _pair(a, b)
    for name, values in (("a", first), ("b", second)):
        if not np.isin(values, (0, 1)).all():
            raise UserError(f"McNemar's test needs scores of 0 or 1; {name} has others")
    only_first = int((first > second).sum())
    only_second = int((second > first).sum())
    discordant = only_first + only_second
    tail = float(special.bdtr(min(only_first, only_second), discordant, 0.5)) if discordant else 1.0
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def sign_flip(
    a: Numbers,
    b: Numbers,
    *,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
) -> float:
    """Two-sided p-value that ``a`` and ``b`` score the same, by flipping the signs of differences.

    Parameters
    ----------
    a, b:
        Scores of the two runs, row by row the same item and seed.
    rng, resamples:
        Where random flips come from, and how many; all 2^k flips are tried where they are fewer.
    clusters:
        The item of each row; an item's rows are averaged first.

    Notes
    -----
    If the two runs are alike, an item's difference is as likely to be d as −d. p is the share of flips
    whose mean is at least as far from 0, (1 + hits)/(1 + resamples) for random ones. On one row of 0/1
    scores an item it is McNemar's exact test; it holds for other scores and for several seeds too.

    References
    ----------
    R. A. Fisher (1935), The Design of Experiments, section 21.

    Examples
    --------
    >>> import numpy as np
    >>> sign_flip([0] * 6 + [1], [1] * 6 + [1], rng=np.random.default_rng(0))
    0.03125
    """
    if resamples < 1:
        raise UserError(f"at least one resample is needed, not {resamples}")
    differences = _differences(a, b, clusters)
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    reached = abs(float(moved.sum())) * (1 - 1e-12)  # sums of the same numbers may differ in their last bit
    if 2 ** len(moved) <= resamples:
        bits = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((1 - 2.0 * bits) @ moved) >= reached).mean())
    hits = 0
    for size in _chunks(resamples, len(moved)):
        signs = rng.integers(0, 2, (size, len(moved)), dtype=np.int8) * 2.0 - 1
        hits += int((np.abs(signs @ moved) >= reached).sum())
    return (1 + hits) / (1 + resamples)


def non_inferiority(
    a: Numbers,
    b: Numbers,
    *,
    rng: np.random.Generator,
    margin: float = 0.02,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
) -> NonInferiority:
    """Is ``a`` not worse than ``b`` by ``margin``? Yes, no, or not enough items to say.

    Parameters
    ----------
    a, b:
        Scores in [0, 1], row by row the same item and seed; ``b`` is the reference.
    rng, clusters, resamples:
        As in :func:`paired_bootstrap`.
    margin:
        The largest loss that does not matter, 0.02 for two points.
    level:
        Confidence of each one-sided bound.

    Notes
    -----
    The lower bound is the lowest of three, so that no single method's blind spot decides:

    1. the bootstrap percentile;
    2. the bound of Agresti and Min, a normal one with two more items (half an item won by each, one
       tied), which still has a width where all items agree;
    3. where no item got worse at all: the share of items that got better, at its own lower bound, less
       the share 1 − α^(1/n) that may get worse unseen (rule of three).

    Hence two runs equal on every item are "not worse than −2 points" from 149 items on, not before.

    ``needed`` is (z_level + z_power)² σ²/margin², with the variance σ² of item differences as in (2), but
    at least the number from (3).

    References
    ----------
    A. Agresti, Y. Min (2005), Simple improved confidence intervals for comparing matched proportions,
    Stat. Med. 24:729-740. J. A. Hanley, A. Lippman-Hand (1983), If nothing goes wrong, is everything
    all right?, JAMA 249:1743-1745.

    Examples
    --------
    >>> import numpy as np
    >>> same = non_inferiority([1] * 100, [1] * 100, rng=np.random.default_rng(0))
    >>> same.verdict, same.needed
    ('not enough items', 152)
    >>> non_inferiority([1] * 200, [1] * 200, rng=np.random.default_rng(0)).verdict
    'yes'
    """
    _check_level(level)
    if not 0 < margin < 1:
        raise UserError(f"the margin must lie between 0 and 1, not {margin!r}; two points are 0.02")
    differences = _differences(_scores("a", a), _scores("b", b), clusters)
    n = len(differences)
    if n == 0:
        return NonInferiority("not enough items", None, -1.0, 1.0, level, margin, 0, _fewest(margin, level))
    means = np.full(1, differences[0])
    if np.ptp(differences) > 0:
        means = _resampled_means(differences, resamples, rng)
    lower = _lower_bound(differences, means, level)
    upper = -_lower_bound(-differences, -means, level)
    verdict: Literal["yes", "no", "not enough items"] = "not enough items"
    if lower > -margin:
        verdict = "yes"
    elif upper < -margin:
        verdict = "no"
    _, variance = _padded_moments(differences)
    spread = (_z(level) + _z(POWER)) ** 2 * variance / margin**2
    needed = max(math.ceil(spread), _fewest(margin, level))
    return NonInferiority(verdict, float(differences.mean()), lower, upper, level, margin, n, needed)


def _lower_bound(differences: Array, means: Array, level: float) -> float:
    n = len(differences)
    centre, variance = _padded_moments(differences)
    bounds = [float(np.quantile(means, 1 - level)), centre - _z(level) * math.sqrt(variance / (n + 2))]
    if not (differences < 0).any():
        won = float(differences.sum())
        surely_won = _wilson_bounds(won / n, n, _z(level))[0] if won else 0.0
        bounds.append(surely_won - _unseen(n, 1 - level))
    return max(-1.0, min(bounds))


def _padded_moments(differences: Array) -> tuple[float, float]:
    """Mean and variance with two more items: half a win, half a loss, one tie (Agresti & Min)."""
    n = len(differences) + 2
    mean = float(differences.sum()) / n
    return mean, (float((differences**2).sum()) + 1) / n - mean**2


def _unseen(n: int, alpha: float) -> float:
    """Largest probability of an event that n items did not show (rule of three)."""
    return float(1 - alpha ** (1 / n))


def _fewest(margin: float, level: float) -> int:
    """Items below which even a faultless record can't exclude a loss of ``margin``."""
    return math.ceil(math.log(1 - level) / math.log(1 - margin))


# --------------------------------------------------------------------------------- many runs


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: compare each with the usual 0.05.

    Notes
    -----
    The i-th smallest of m is multiplied by m − i + 1 and by no less than its predecessor's result.
    Controls the probability of any false alarm, whatever the dependence between tests.

    References
    ----------
    S. Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6:65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    p = _finite("p-values", p_values)
    if ((p < 0) | (p > 1)).any():
        raise UserError("p-values lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(p) else p
    return tuple(float(x) for x in adjusted)


def resolvable_difference(n: int, discordant: float, *, level: float = 0.95, power: float = POWER) -> float:
    """The smallest difference that ``n`` paired items would show with 80 % power.

    Parameters
    ----------
    n:
        Items.
    discordant:
        Share of items on which the two runs differ. A share below 3/n can't be told from one of 3/n
        and is taken for that.
    level, power:
        Two-sided confidence of the test and its power.

    Notes
    -----
    (z_level + z_power) √(ψ/n), at most 1; from R. J. Connor (1987), Sample size for testing differences
    in proportions for the paired-sample design, Biometrics 43:207-211, without its second-order term.

    Examples
    --------
    >>> round(resolvable_difference(1960, 0.10), 4)
    0.02
    """
    _check_level(level)
    _check_level(power)
    if n < 1:
        raise UserError("without items no difference can be resolved")
    if not 0 <= discordant <= 1:
        raise UserError(f"the share of discordant items lies between 0 and 1, not {discordant!r}")
    share = max(discordant, min(1.0, 3 / n))
    return min(1.0, (_z((1 + level) / 2) + _z(power)) * math.sqrt(share / n))


def items_needed(difference: float, discordant: float, *, level: float = 0.95, power: float = POWER) -> int:
    """How many paired items show ``difference`` with 80 % power; the inverse of
    :func:`resolvable_difference`.

    Examples
    --------
    >>> items_needed(0.02, 0.10)
    1963
    """
    _check_level(level)
    _check_level(power)
    if not 0 < abs(difference) <= 1:
        raise UserError(f"the difference must be between 0 and 1, not {difference!r}")
    if not 0 < discordant <= 1:
        raise UserError(f"the share of discordant items must be above 0 and at most 1, not {discordant!r}")
    return math.ceil((_z((1 + level) / 2) + _z(power)) ** 2 * discordant / difference**2)


def pareto_front(
    points: Sequence[RunPoint], *, rng: np.random.Generator, resamples: int = 2_000
) -> tuple[FrontPoint, ...]:
    """Which runs no other run beats in both score and tokens, and how sure that is.

    A run is off the front if another has at least its mean score for at most its mean tokens, and
    better in one of the two. All runs are resampled on the same items, so what makes an item hard for
    all does not blur the comparison.

    Parameters
    ----------
    points:
        Runs over the same items in the same order (one row per item).
    rng, resamples:
        Where the resamples come from, and how many.

    Returns
    -------
    tuple[FrontPoint, ...]
        In the order given.

    Examples
    --------
    >>> import numpy as np
    >>> cheap = RunPoint("cheap", [1, 0, 1, 0], [10, 10, 10, 10])
    >>> good = RunPoint("good", [1, 1, 1, 0], [50, 50, 50, 50])
    >>> waste = RunPoint("waste", [1, 0, 1, 0], [90, 90, 90, 90])
    >>> for p in pareto_front([cheap, good, waste], rng=np.random.default_rng(0)):
    ...     print(p.name, p.score, p.tokens, p.on_front, p.probability)
    cheap 0.5 10.0 True 1.0
    good 0.75 50.0 True 0.684
    waste 0.5 90.0 False 0.0
    """
    if resamples < 1:
        raise UserError(f"at least one resample is needed, not {resamples}")
    if not points:
        return ()
    scores = np.array(_equally_long({p.name: _finite(f"scores of {p.name}", p.scores) for p in points}))
    tokens = np.array([_finite(f"tokens of {p.name}", p.tokens) for p in points])
    if scores.shape != tokens.shape:
        raise UserError("every run needs one number of tokens per score")
    n = scores.shape[1]
    if n == 0:
        raise UserError("runs without items have no place on a front")
    on_front = _front(scores.mean(axis=1)[None], tokens.mean(axis=1)[None])[0]
    wins = np.zeros(len(points))
    for size in _chunks(resamples, n * len(points)):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size) / n
        wins += _front(weights @ scores.T, weights @ tokens.T).sum(axis=0)
    return tuple(
        FrontPoint(p.name, float(s.mean()), float(t.mean()), bool(on), float(w / resamples))
        for p, s, t, on, w in zip(points, scores, tokens, on_front, wins, strict=True)
    )


def _front(scores: Array, tokens: Array) -> NDArray[np.bool_]:
    """For each row of means, which columns no other column dominates."""
    tiny = 1e-12  # two sums of the same numbers may differ in their last bit
    better, cheaper = scores[:, :, None] - scores[:, None, :], tokens[:, None, :] - tokens[:, :, None]
    slack = tiny * (1 + np.abs(tokens[:, None, :]))
    dominates = (better >= -tiny) & (cheaper >= -slack) & ((better > tiny) | (cheaper > slack))
    undominated: NDArray[np.bool_] = np.logical_not(np.any(dominates, axis=1))
    return undominated


# ----------------------------------------------------------------------------------- helpers


def _z(probability: float) -> float:
    return float(special.ndtri(probability))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"a confidence lies between 0 and 1, not {level!r}; 95 % is 0.95")


def _finite(name: str, values: Numbers | Sequence[float]) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name}: not a sequence of numbers") from None
    if array.ndim != 1:
        raise UserError(f"{name}: expected one row of numbers, not {array.ndim} dimensions")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise UserError(f"{name}: number {bad[0] + 1} is {array[bad[0]]}; leave unknown items out")
    return array


def _scores(name: str, values: Numbers) -> Array:
    array = _finite(name, values)
    bad = np.flatnonzero((array < 0) | (array > 1))
    if len(bad):
        raise UserError(f"{name}: number {bad[0] + 1} is {array[bad[0]]}; a score lies between 0 and 1")
    return array


def _equally_long(named: dict[str, Array]) -> list[Array]:
    lengths = {name: len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UserError(f"only runs on the same items can be compared: {told} rows")
    return list(named.values())


def _pair(a: Numbers, b: Numbers) -> tuple[Array, Array]:
    first, second = _equally_long({"a": _finite("a", a), "b": _finite("b", b)})
    return first, second


def _differences(a: Numbers, b: Numbers, clusters: Sequence[Hashable] | None) -> Array:
    first, second = _pair(a, b)
    return _item_means(first - second, clusters)


def _item_means(values: Array, clusters: Sequence[Hashable] | None) -> Array:
    """One number per item, items in order of appearance."""
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise UserError(f"{len(values)} rows need as many items, not {len(clusters)}")
    index: dict[Hashable, int] = {}
    which = np.array([index.setdefault(c, len(index)) for c in clusters], dtype=np.intp)
    sums = np.bincount(which, weights=values, minlength=len(index))
    means: Array = sums / np.bincount(which, minlength=len(index))
    return means


def _resampled_means(values: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Means of resamples drawn with replacement.

    Scores take few distinct values, and a resample is then known by how often it has each: one
    multinomial draw instead of n draws of an item.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 64:
        drawn: Array = rng.multinomial(n, counts / n, size=resamples) @ distinct / n
        return drawn
    parts = [values[rng.integers(n, size=(size, n))].mean(axis=1) for size in _chunks(resamples, n)]
    return np.concatenate(parts)


def _chunks(total: int, width: int) -> list[int]:
    """Sizes that sum to ``total``, each so small that ``size · width`` numbers fit in memory."""
    size = max(1, _CHUNK // max(1, width))
    return [min(size, total - start) for start in range(0, total, size)]
