"""Bits per token: how much of a context a message carries for what it costs to read.

R = information / mean length, a ratio of means. Lengths are real ones, with every repetition, in one
named unit; across tokenizers compare bits per byte. An offline critic's information is its tempered
value: the raw one depends on an arbitrary scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from agentcomm.errors import UserError
from agentcomm.information.cells import find_failures, survivors
from agentcomm.information.estimators import estimate_mi
from agentcomm.information.intervals import Interval, jackknife, left_out_estimates
from agentcomm.information.results import MIEstimate
from agentcomm.information.score_matrix import Array, ScoreMatrix
from agentcomm.information.tempering import split

SATURATED = 0.9
"""Share of the cap from which an estimate is only a lower bound."""


@dataclass(frozen=True)
class Efficiency:
    """Bits per unit of length.

    Attributes
    ----------
    bits:
        Raw: below 0 where the estimate is. ``None`` without an estimate or any length, and for an
        offline critic that could not be tempered.
    interval:
        Delete-one jackknife of the ratio, over contexts.
    mean_length, unit:
        Mean length of the messages that count, contexts weighing the same.
    brevity_only:
        Whether the estimate is at its cap, so that this measures how short messages are.
    """

    bits: float | None
    interval: Interval | None
    mean_length: float | None
    unit: str
    brevity_only: bool


def bits_per(
    matrix: ScoreMatrix, lengths: ArrayLike, unit: str, *, estimate: MIEstimate | None = None
) -> Efficiency:
    """Bits per unit of length.

    Parameters
    ----------
    lengths:
        Shape (rows,): each message's length; negative where unknown (that row must have failed).
    unit:
        What was counted, e.g. ``"token of smollm2"`` or ``"byte"``.
    estimate:
        :func:`~agentcomm.information.estimate_mi` of the matrix, if it is at hand.

    Raises
    ------
    UserError
        If there isn't one length a row.

    Examples
    --------
    >>> import numpy as np
    >>> matrix = ScoreMatrix.from_array(np.log(np.full((4, 4), 0.01) + 0.96 * np.eye(4)))
    >>> found = bits_per(matrix, [10, 10, 20, 20], "byte")
    >>> round(found.bits, 3), found.mean_length
    (0.13, 15.0)
    """
    counted = np.asarray(lengths, dtype=np.float64)
    if counted.shape != (len(matrix.logp),):
        raise UserError(f"{len(matrix.logp)} rows need as many lengths, not {counted.shape}")
    known = estimate or estimate_mi(matrix)
    nothing = Efficiency(None, None, None, unit, known.saturated)
    if known.mc_nats is None:
        return nothing
    dropped = find_failures(matrix)
    cells, kept, nats = survivors(matrix, dropped), counted[~dropped.rows], known.mc_nats
    if matrix.offline:
        parts = split(cells, known.seed)
        if parts is None or known.tempered_nats is None or known.alpha is None:
            return nothing
        kept = kept[np.isin(cells.own, parts[1])]
        cells, nats = cells.select(parts[1]).scaled(known.alpha), known.tempered_nats
    saturated = nats >= SATURATED * math.log(cells.n) if matrix.offline else known.saturated
    if (kept < 0).any():
        return nothing
    mean, bits = cells.mean(kept), nats / math.log(2)
    if mean == 0:  # only empty messages: no tokens to share nothing among
        return Efficiency(None, None, 0.0, unit, saturated)
    interval = None
    without = None if matrix.sampled else left_out_estimates(cells)
    if without is not None:
        own, per_context = cells.by_context(kept)
        of_all = np.full(cells.n, np.nan)
        of_all[own] = per_context
        ratios = _ratios(without, of_all)
        interval = None if ratios is None else jackknife(bits / mean, ratios, known.level)
    return Efficiency(bits / mean, interval, mean, unit, saturated)


def _ratios(without: Array, lengths: Array) -> Array | None:
    """The ratio without each context; one that has no rows takes no length away."""
    own = ~np.isnan(lengths)
    total, count = float(lengths[own].sum()), int(own.sum())
    left = np.where(own, total - np.nan_to_num(lengths), total)
    means = left / np.where(own, count - 1, count)
    if not (means > 0).all():
        return None
    ratios: Array = without / math.log(2) / means
    return ratios
