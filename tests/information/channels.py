"""Channels whose information is known, scored by their own probabilities."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agentcomm.information import ScoreMatrix
from agentcomm.information.cells import Cells, find_failures, survivors

Array = NDArray[np.float64]


def gaussian(
    n: int,
    rng: np.random.Generator,
    *,
    m: int = 4,
    snr: float = 2.0,
    kept: int = 4,
    shuffled: bool = False,
    scale: float = 1.0,
) -> ScoreMatrix:
    """x ∈ R⁴ standard normal, z = x + noise of variance 1/snr: I = 2·log(1 + snr) nats.

    ``kept`` coordinates of z arrive; ``shuffled`` messages belong to no context; ``scale`` multiplies
    the critic.
    """
    x = rng.standard_normal((n, 4))
    z = np.repeat(x, m, axis=0) + rng.standard_normal((n * m, 4)) / math.sqrt(snr)
    if shuffled:
        z = rng.permutation(z)
    x, z = x[:, :kept], z[:, :kept]
    logp = kept / 2 * math.log(snr / (2 * math.pi)) - snr / 2 * ((z[:, None] - x[None]) ** 2).sum(axis=2)
    variance = 1 + 1 / snr
    prior = -kept / 2 * math.log(2 * math.pi * variance) - (z**2).sum(axis=1) / (2 * variance)
    return ScoreMatrix.from_array(scale * logp, prior=prior, exact=scale == 1)


def symmetric(
    n: int, rng: np.random.Generator, *, m: int = 4, letters: int = 16, error: float = 0.1
) -> Array:
    """A letter arrives as it is, or with probability ``error`` as any other."""
    x = rng.integers(letters, size=n)
    z = np.repeat(x, m)
    wrong = rng.random(n * m) < error
    z = np.where(wrong, (z + rng.integers(1, letters, size=n * m)) % letters, z)
    return np.where(z[:, None] == x[None], math.log(1 - error), math.log(error / (letters - 1)))


def symmetric_information(letters: int = 16, error: float = 0.1) -> float:
    """Nats that a message of :func:`symmetric` carries."""
    entropy = -error * math.log(error) - (1 - error) * math.log(1 - error)
    return math.log(letters) - entropy - error * math.log(letters - 1)


def cells_of(matrix: ScoreMatrix | Array) -> Cells:
    """What is left of a matrix after failures."""
    scores = matrix if isinstance(matrix, ScoreMatrix) else ScoreMatrix.from_array(matrix)
    return survivors(scores, find_failures(scores))
