"""Mutual information between contexts and messages, from a score matrix. No model is needed here.

>>> import numpy as np
>>> p = np.full((3, 3), 0.1) + 0.7 * np.eye(3)           # each message is most probable in its context
>>> estimate = estimate_mi(np.log(p))
>>> round(estimate.mc_nats, 3), round(estimate.log_n, 3), estimate.top1, estimate.n_failed
(0.875, 1.099, 1.0, 0)

The estimate is a lower bound for any scorer fixed beforehand: a scorer that is not the compressor can
only loosen it. It can't exceed log N, and close to it it says "at least", not "as much as".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from agentcomm.errors import UserError
from agentcomm.information import bounds, intervals
from agentcomm.information.cells import Cells, Dropped, find_failures, survivors
from agentcomm.information.intervals import Interval, Method
from agentcomm.information.results import MIEstimate
from agentcomm.information.score_matrix import Array, ScoreMatrix, digest
from agentcomm.information.tempering import Tempered, temper

_EMPTY = digest("")
FEW = 10
"""Contexts below which an interval is marked unreliable."""


def estimate_mi(
    matrix: ScoreMatrix | ArrayLike,
    rows: ArrayLike | None = None,
    *,
    method: Method | None = None,
    level: float = 0.95,
    with_nwj: bool = False,
    seed: int = 0,
) -> MIEstimate:
    """How much messages say about the contexts they were made from.

    Parameters
    ----------
    matrix:
        A :class:`ScoreMatrix`, or an array of shape (N·M, N): row i·M+j holds the natural-log
        probabilities of message z_ij under every context, NaN where scoring failed. M follows from
        the shape.
    rows:
        For an array: each row's own context, where rows come in another order or number.
    method:
        How the interval is made: ``"jackknife"``, ``"cluster_t"`` or ``"bootstrap"``. The jackknife,
        unless candidates were sampled; then Student's t over contexts.
    level:
        Confidence of the intervals.
    with_nwj:
        Also give the NWJ bound, which never was tighter than ``mc``.
    seed:
        For the random splits of the contexts and the bootstrap.

    Returns
    -------
    MIEstimate
        With ``status="too_many_failures"`` and no values if more than 10 % of the rows failed.

    Raises
    ------
    UserError
        If the array's shape doesn't fit, or the method or level is none.

    Notes
    -----
    mc = mean_i mean_j (L[ij,i] − logsumexp_l L[ij,l] + log N), with contexts of equal weight: InfoNCE
    (van den Oord et al. 2018, arXiv 1807.03748) with the critic log q(z|x); see
    :mod:`agentcomm.information.bounds` for the others.

    Examples
    --------
    >>> import numpy as np
    >>> never = estimate_mi(np.zeros((6, 3)))              # the same under every context
    >>> never.mc_nats, never.n_empty
    (0.0, 6)
    """
    scores = as_matrix(matrix, rows)
    chosen = choose_method(scores, method, level)
    dropped = find_failures(scores)
    if dropped.too_many:
        return _without_value(scores, dropped, level, seed)
    cells = survivors(scores, dropped)
    g = bounds.pointwise(cells)
    cap = float(np.log(cells.k.max()))
    mc = min(cells.mean(g), cap)  # every row is at most the cap; a sum may round above it
    by_context = cells.by_context(g)[1]
    interval = _interval(cells, mc, by_context, chosen, level, seed)
    upper = _upper(scores, cells)
    tempered = temper(cells, seed)
    tempered_interval = None if tempered is None else _tempered_interval(tempered, level)
    credit = bounds.identified(cells)
    error = bounds.error_limit(cells.by_context(1 - credit)[1])  # so that no error is exactly 0
    nwj = bounds.nwj(cells, seed) if with_nwj else None

    estimate = _without_value(scores, dropped, level, seed)
    estimate = replace(
        estimate,
        status="ok",
        mc_nats=mc,
        interval=intervals.capped(interval, cap),
        ci_method=None if interval is None else chosen,
        loo_nats=upper.loo,
        doe_nats=upper.doe,
        n_prior_failed=upper.n_prior_failed,
        nwj_nats=None if nwj is None else cells.mean(nwj),
        tempered_nats=None if tempered is None else tempered.nats,
        tempered_interval=tempered_interval,
        tempered_n=None if tempered is None else tempered.cells.n,
        alpha=None if tempered is None else tempered.alpha,
        top1=cells.mean(credit),
        fano_nats=bounds.fano(error, int(cells.k.max())),
        log_n=cap,
        N=cells.n,
        n_distinct_contexts=_distinct(scores, dropped),
        row_nats=_back_in_place(g, dropped),
        context_nats=_per_context(scores, g, dropped),
    )
    return replace(estimate, warnings=_warnings(scores, estimate))


def as_matrix(matrix: ScoreMatrix | ArrayLike, rows: ArrayLike | None = None) -> ScoreMatrix:
    """The matrix itself, or one from an array."""
    if isinstance(matrix, ScoreMatrix):
        if rows is not None:
            raise UserError("a ScoreMatrix says itself which context a row belongs to: leave rows out")
        return matrix
    return ScoreMatrix.from_array(matrix, rows)


def choose_method(matrix: ScoreMatrix, method: Method | None, level: float) -> Method:
    """The interval method to use.

    Raises
    ------
    UserError
        If it doesn't exist, or is the jackknife where candidates were sampled.
    """
    chosen: Method = method or ("cluster_t" if matrix.sampled else "jackknife")
    intervals.check_method(chosen, level)
    if matrix.sampled and chosen == "jackknife":
        raise UserError("the jackknife needs every cell; with sampled candidates take cluster_t")
    return chosen


def _interval(
    cells: Cells, mc: float, by_context: Array, method: Method, level: float, seed: int
) -> Interval | None:
    if cells.n < 3:  # one context always gives 0, and two left out one by one do too
        return None
    if method == "jackknife":
        return intervals.jackknife(mc, intervals.left_out_estimates(cells), level)
    if method == "cluster_t":
        return intervals.cluster_t(by_context, level)
    return intervals.bootstrap(by_context, level, seed)


def _tempered_interval(tempered: Tempered, level: float) -> Interval | None:
    without = intervals.left_out_estimates(tempered.cells)
    interval = intervals.jackknife(tempered.nats, without, level)
    return intervals.capped(interval, math.log(tempered.cells.n))


class _Upper(NamedTuple):
    loo: float | None
    doe: float | None
    n_prior_failed: int


def _upper(scores: ScoreMatrix, cells: Cells) -> _Upper:
    """Leave-one-out and null-context values; neither exists for a score that is no likelihood."""
    if scores.kind == "relevance":
        return _Upper(None, None, 0)
    left_out = bounds.left_out(cells)
    loo = None if left_out is None else cells.mean(left_out)
    doe = bounds.null_context(cells)
    if doe is None or cells.prior is None:
        return _Upper(loo, None, 0)
    good = np.isfinite(cells.prior)
    if scores.kind == "language_model":
        good &= cells.prior <= 0
    failed = int((~good).sum())
    if 10 * failed > len(good):
        return _Upper(loo, None, failed)
    answered = replace(cells, logp=cells.logp[good], own=cells.own[good], block=cells.block[good])
    return _Upper(loo, answered.mean(doe[good]), failed)


def _without_value(scores: ScoreMatrix, dropped: Dropped, level: float, seed: int) -> MIEstimate:
    """Everything that is known before anything is estimated."""
    n_rows = len(scores.logp)
    n = scores.n_contexts if scores.candidates is None else int(scores.candidates.sum(axis=1).max())
    samples = np.unique(np.stack([scores.blocks, scores.row_context]), axis=1, return_counts=True)[1]
    return MIEstimate(
        status="too_many_failures",
        mc_nats=None,
        interval=None,
        ci_method=None,
        level=level,
        loo_nats=None,
        doe_nats=None,
        nwj_nats=None,
        tempered_nats=None,
        tempered_interval=None,
        alpha=None,
        tempered_n=None,
        top1=None,
        fano_nats=None,
        log_n=math.log(n),
        N=scores.n_contexts,
        M=int(samples.max()),
        n_contexts_scored=len(np.unique(scores.row_context[~dropped.rows])),
        n_contexts_dropped=int(dropped.contexts.sum()),
        n_distinct_contexts=None if scores.context_hashes is None else len(set(scores.context_hashes)),
        n_rows=n_rows,
        n_rows_dropped=int(dropped.rows.sum()),
        n_empty=int((_empty(scores) & ~dropped.rows).sum()),
        n_failed=dropped.n_failed,
        failures=dropped.reasons,
        n_prior_failed=0,
        design=scores.design,
        kind=scores.kind,
        exact=scores.exact,
        include_eos=scores.include_eos,
        reference_set=scores.reference_set,
        scorer_id=scores.scorer_id,
        prompt_id=scores.prompt_id,
        seeds=scores.seeds,
        seed=seed,
        warnings=("too_many_failures",),
        row_nats=np.full(n_rows, np.nan),
        context_nats=np.full(scores.n_contexts, np.nan),
    )


def _warnings(scores: ScoreMatrix, estimate: MIEstimate) -> tuple[str, ...]:
    tempered = estimate.tempered_nats is not None
    facts = {
        "critic_worse_than_chance": estimate.interval is not None and estimate.interval.high < 0,
        "saturated": estimate.saturated,
        "no_interval": estimate.interval is None,
        "ci_unreliable": estimate.interval is not None and min(estimate.N, estimate.n_contexts_scored) < FEW,
        "tempered_ci_unreliable": estimate.tempered_n is not None and estimate.tempered_n < FEW,
        "not_tempered": scores.offline and not tempered,
        "untempered_critic": scores.offline,
        "identical_samples": _identical_samples(scores),
        "scores_above_zero": scores.kind == "density" and bool((scores.logp > 0).any()),
        "prior_failed": estimate.n_prior_failed > 0,
    }
    return tuple(word for word, holds in facts.items() if holds)


def _empty(scores: ScoreMatrix) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which messages are empty: by their text or length where known, else the rows that are all zero,
    because an empty text has probability one under every context."""
    if scores.text_hashes is not None:
        return np.array([text == _EMPTY for text in scores.text_hashes], dtype=np.bool_)
    for lengths in (scores.n_bytes, scores.n_tokens):
        if lengths is not None:
            return np.asarray(lengths == 0, dtype=np.bool_)
    unscored = False if scores.candidates is None else ~scores.candidates
    return np.asarray(((scores.logp == 0) | unscored).all(axis=1), dtype=np.bool_)


def _identical_samples(scores: ScoreMatrix) -> bool:
    """Whether there are several messages a context and they never differ."""
    messages = scores.text_hashes or tuple(row.tobytes() for row in scores.logp)
    seen: dict[tuple[int, int], object] = {}
    for key, message in zip(zip(scores.blocks, scores.row_context, strict=True), messages, strict=True):
        if seen.setdefault(key, message) != message:
            return False
    return len(seen) < len(messages)


def _distinct(scores: ScoreMatrix, dropped: Dropped) -> int | None:
    if scores.context_hashes is None:
        return None
    kept = zip(scores.context_hashes, dropped.contexts.tolist(), strict=True)
    return len({context for context, gone in kept if not gone})


def _back_in_place(g: Array, dropped: Dropped) -> Array:
    placed = np.full(len(dropped.rows), np.nan)
    placed[~dropped.rows] = g
    return placed


def _per_context(scores: ScoreMatrix, g: Array, dropped: Dropped) -> Array:
    own = scores.row_context[~dropped.rows]
    sums = np.bincount(own, weights=g, minlength=scores.n_contexts)
    counts = np.bincount(own, minlength=scores.n_contexts)
    with np.errstate(invalid="ignore"):
        values: Array = sums / counts
    return values
