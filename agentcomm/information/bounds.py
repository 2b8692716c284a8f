"""Bounds on mutual information, row by row.

Every function takes :class:`~agentcomm.information.cells.Cells` and gives one number in nats per row;
:meth:`Cells.mean` of it is the estimate. L[r, l] = log q(z_r | x_l, q_r); i is the row's own context.

=============  ===========================================  ==================================
`pointwise`    L_i − lse_l L_l + log N                      lower bound for any fixed critic
`nwj`          1 + T_i − mean_B e^T                         lower bound
`fano`         log N − h(e) − e·log(N−1)                    lower bound
`left_out`     L_i − lse_{l≠i} L_l + log(N−1)               upper bound if q is the channel itself
`null_context` L_i − log r(z|q)                             upper bound if q is the channel itself
=============  ===========================================  ==================================

No estimator escapes saturation: a lower bound that holds with high confidence whatever the
distribution can't exceed the order of log N (McAllester & Stratos 2020, arXiv 1811.04251).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp, stdtrit  # type: ignore[import-untyped]

from agentcomm.information.cells import Cells
from agentcomm.information.score_matrix import Array, Booleans


def log_sum(cells: Cells) -> Array:
    """Shape (rows,): log Σ_l q(z|x_l)."""
    values: Array = logsumexp(cells.logp, axis=1)
    return values


def log_sum_without(cells: Cells) -> Array:
    """Shape (rows, N): log Σ_{l≠k} q(z|x_l), for each k.

    Subtracting from the full sum loses all digits where column k dominates it, so the largest column
    is left out by summing anew; any other is at most half of the sum.
    """
    total = log_sum(cells)[:, None]
    row, largest = np.arange(len(cells.own)), cells.logp.argmax(axis=1)
    share = np.minimum(np.exp(cells.logp - total), 0.5)
    without: Array = total + np.log1p(-share)
    rest = cells.logp.copy()
    rest[row, largest] = -np.inf
    with np.errstate(divide="ignore"):
        without[row, largest] = logsumexp(rest, axis=1)
    return without


def pointwise(cells: Cells) -> Array:
    """g = L_i − lse_l L_l + log N: how much better than chance its message points to a context.

    InfoNCE with the critic log q: van den Oord et al. 2018 (arXiv 1807.03748), proof of the bound in
    Poole et al. 2019 (arXiv 1905.06922), eq. 10; as a Monte-Carlo estimate for agents, He et al.
    (arXiv 2512.21720). At most log N in every row. Where candidates were sampled, N is their number.
    """
    values: Array = cells.diagonal - log_sum(cells) + np.log(cells.k)
    return values


def left_out(cells: Cells) -> Array | None:
    """L_i − lse_{l≠i} L_l + log(N−1): the leave-one-out bound; infinite if no other context could
    have given the message.

    Poole et al. 2019 (arXiv 1905.06922), eq. 13. ``None`` if a row has no negatives.
    """
    if (cells.k < 2).any():
        return None
    others = log_sum_without(cells)[np.arange(len(cells.own)), cells.own]
    values: Array = cells.diagonal - others + np.log(cells.k - 1)
    return values


def null_context(cells: Cells) -> Array | None:
    """L_i − log r(z|q): the difference of two cross-entropies, without and with the context.

    McAllester & Stratos 2020 (arXiv 1811.04251), section 5; with r in place of the marginal it is the
    variational upper bound of Barber & Agakov 2003 if q is the channel itself, else no bound. NaN
    where the prior is.
    """
    return None if cells.prior is None else cells.diagonal - cells.prior


def halves(cells: Cells, seed: int) -> tuple[Booleans, Booleans]:
    """Two masks of shape (N, N): for each own context, the others in two random halves."""
    n = cells.n
    place = np.random.default_rng(seed).permutation(n)[cells.rank]
    distance = (place[None, :] - place[:, None] - 1) % n  # n − 1 for a context and itself
    first = distance < (n - 1) // 2
    second = ~first & (distance < n - 1)
    return first, second


def nwj(cells: Cells, seed: int) -> Array | None:
    """1 + T_i − mean_B e^T with T = min(log q − log mean_A q, log(N/2)), over both halves in turn.

    Nguyen, Wainwright & Jordan 2010 (IEEE Trans. Inf. Theory 56, 5847); Poole et al. 2019, eq. 8. The
    baseline comes from other contexts than the penalty: with the same, the bound is
    :func:`left_out`, an upper one. Unclipped it diverges. ``None`` below 3 contexts and where
    candidates were sampled.
    """
    if cells.n < 3 or (cells.k < cells.n).any():
        return None
    first, second = halves(cells, seed)
    cap = math.log(cells.n / 2)
    ab = nwj_given(cells, first, second, cap)
    values: Array = (ab + nwj_given(cells, second, first, cap)) / 2
    return values


def nwj_given(cells: Cells, baseline: Booleans, penalty: Booleans, cap: float) -> Array:
    """The NWJ value with given contexts (shape (N, N), by own context) for baseline and penalty."""
    a, b = baseline[cells.own], penalty[cells.own]
    with np.errstate(divide="ignore"):
        log_a = logsumexp(np.where(a, cells.logp, -np.inf), axis=1) - np.log(a.sum(axis=1))
        ratio = np.where(
            np.isneginf(cells.logp), -np.inf, cells.logp - np.nan_to_num(log_a, neginf=-1e300)[:, None]
        )
    t = np.minimum(ratio, cap)
    paid = np.where(b, np.exp(np.where(b, t, 0.0)), 0.0).sum(axis=1) / b.sum(axis=1)
    values: Array = 1 + t[np.arange(len(cells.own)), cells.own] - paid
    return values


def identified(cells: Cells) -> Array:
    """1 if the row's own context has the highest score, shared among ties; else 0."""
    highest = cells.logp.max(axis=1, keepdims=True)
    ties = (cells.logp == highest).sum(axis=1)
    values: Array = np.where(cells.diagonal == highest[:, 0], 1 / ties, 0.0)
    return values


def error_limit(errors: Array, confidence: float = 0.95) -> float:
    """One-sided upper limit of the error rate, from one rate per context.

    Student's t over contexts; without any error 1 − (1 − confidence)^(1/n) (Clopper & Pearson 1934;
    the "rule of three"). One context with errors gives 1.

    Examples
    --------
    >>> import numpy as np
    >>> round(error_limit(np.zeros(20)), 4)
    0.1391
    """
    n = len(errors)
    if not errors.any():
        return float(1 - (1 - confidence) ** (1 / n))
    if n < 2:
        return 1.0
    error = float(errors.std(ddof=1)) / math.sqrt(n)
    return min(1.0, float(errors.mean()) + float(stdtrit(n - 1, confidence)) * error)


def fano(error: float, n: int) -> float:
    """log n − h(e) − e·log(n−1), in nats: what identifying one of n contexts with error e shows.

    Fano's inequality: Cover & Thomas, Elements of Information Theory (2006), theorem 2.10.1. 0 at and
    beyond chance.

    Examples
    --------
    >>> round(fano(0.0, 16), 4), round(fano(0.1, 16), 4), fano(0.95, 16)
    (2.7726, 2.1767, 0.0)
    """
    if error >= 1 - 1 / n:
        return 0.0
    if error <= 0:
        return math.log(n)
    entropy = -error * math.log(error) - (1 - error) * math.log1p(-error)
    return max(0.0, math.log(n) - entropy - error * math.log(n - 1))
