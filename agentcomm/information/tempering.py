"""A critic whose scale is learned on contexts that don't count.

Any critic fixed beforehand gives a lower bound, and a badly scaled one gives a poor bound, even far
below zero. α·log q with the α that is best on held-out contexts mends that without giving the
evaluation away: calibration shares neither rows nor columns with it. A critic without a model needs
this always.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from agentcomm.information.bounds import pointwise
from agentcomm.information.cells import Cells
from agentcomm.information.score_matrix import Array, Integers

ALPHAS: Array = np.concatenate([[0.0], np.geomspace(0.02, 5.0, 25)])
"""Scales that are tried; 0 is the critic that knows nothing."""

SHARE, AT_LEAST = 0.25, 8
"""Contexts given to calibration: a quarter, but no fewer than eight."""

_LEFT = 3
"""Contexts that must be left to evaluate on."""


class Tempered(NamedTuple):
    """The evaluation contexts under the scaled critic."""

    cells: Cells
    alpha: float

    @property
    def nats(self) -> float:
        return self.cells.mean(pointwise(self.cells))


def split(cells: Cells, seed: int) -> tuple[Integers, Integers] | None:
    """Calibration and evaluation contexts, or ``None`` if there are too few."""
    n = cells.n
    held_out = max(AT_LEAST, math.ceil(SHARE * n))
    if n - held_out < _LEFT:
        return None
    place = np.random.default_rng(seed).permutation(n)[cells.rank]
    return np.flatnonzero(place < held_out), np.flatnonzero(place >= held_out)


def best_alpha(cells: Cells) -> float:
    """The scale with the highest estimate on these contexts; the smaller of two that are equal."""
    estimates = [cells.mean(pointwise(cells.scaled(float(alpha)))) for alpha in ALPHAS]
    return float(ALPHAS[int(np.argmax(estimates))])


def temper(cells: Cells, seed: int) -> Tempered | None:
    """The critic scaled on held-out contexts (temperature scaling: Guo et al. 2017, arXiv 1706.04599,
    here with InfoNCE as the objective).

    ``None`` if fewer than 3 contexts would be left, if either part has no rows, or where candidates
    were sampled, because then the parts share contexts.
    """
    parts = split(cells, seed)
    if parts is None or (cells.k < cells.n).any():
        return None
    calibration, evaluation = (cells.select(part) for part in parts)
    if not len(calibration.own) or not len(evaluation.own):
        return None
    alpha = best_alpha(calibration)
    return Tempered(evaluation.scaled(alpha), alpha)
