"""Bits per token: real lengths, a ratio of means, the tempered value of an offline critic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from agentcomm.errors import UserError
from agentcomm.information import ScoreMatrix, estimate_mi
from agentcomm.information.efficiency import bits_per
from agentcomm.information.scorers.offline import NGram
from tests.information.channels import gaussian


def test_it_is_the_estimate_over_the_mean_length() -> None:
    matrix = gaussian(30, np.random.default_rng(0), m=2)
    lengths = np.random.default_rng(1).integers(5, 50, size=60)
    found = bits_per(matrix, lengths, "token")
    estimate = estimate_mi(matrix)
    assert estimate.mc_bits is not None
    assert found.bits == pytest.approx(estimate.mc_bits / lengths.mean())
    assert found.mean_length == pytest.approx(lengths.mean())
    assert found.interval is not None
    assert found.interval.low < found.bits < found.interval.high


def test_its_interval_is_the_jackknife_of_the_ratio() -> None:
    n = 12
    matrix = gaussian(n, np.random.default_rng(2), m=1)
    lengths = np.arange(1, n + 1, dtype=float)
    ratios = []
    for k in range(n):
        keep = np.delete(np.arange(n), k)
        part = estimate_mi(matrix.logp[np.ix_(keep, keep)])
        assert part.mc_bits is not None
        ratios.append(part.mc_bits / lengths[keep].mean())
    spread = math.sqrt((n - 1) / n * float(((np.array(ratios) - np.mean(ratios)) ** 2).sum()))
    found = bits_per(matrix, lengths, "token")
    assert found.interval is not None
    half = (found.interval.high - found.interval.low) / 2
    assert half / spread == pytest.approx(2.201, abs=1e-3), "Student's t with 11 degrees of freedom"


def test_with_equal_lengths_it_is_the_estimates_interval() -> None:
    matrix = gaussian(20, np.random.default_rng(3))
    found, estimate = bits_per(matrix, [10] * 80, "token"), estimate_mi(matrix)
    assert found.interval is not None
    assert estimate.ci_bits is not None
    assert found.interval.low == pytest.approx(estimate.ci_bits.low / 10)


def test_a_repeated_word_counts_every_time() -> None:
    contexts = [f"{name} is here" for name in ("Ada", "Ben", "Cara", "Dan")] * 4
    short, long = [[c.split()[0]] for c in contexts], [[f"{c.split()[0]} " * 8] for c in contexts]
    made = NGram(background="abc")
    a, b = (made.score_matrix(contexts, "q", texts) for texts in (short, long))
    assert a.n_bytes is not None and b.n_bytes is not None
    assert b.n_bytes.mean() > 8 * a.n_bytes.mean()


def test_nothing_is_known_without_an_estimate_lengths_or_text() -> None:
    matrix = gaussian(6, np.random.default_rng(0), m=1)
    nan = replace(matrix, logp=np.full((6, 6), np.nan))
    assert bits_per(nan, [1] * 6, "token").bits is None
    assert bits_per(matrix, [1, 2, 3, 4, 5, -1], "token").bits is None
    nothing = bits_per(matrix, [0] * 6, "token")
    assert (nothing.bits, nothing.mean_length) == (None, 0.0)
    with pytest.raises(UserError, match="as many lengths"):
        bits_per(matrix, [1], "token")


def test_a_saturated_estimate_measures_brevity_only() -> None:
    sharp = np.log(np.full((8, 8), 1e-9) + np.eye(8))
    assert bits_per(ScoreMatrix.from_array(sharp), [5] * 8, "token").brevity_only


def test_an_offline_critics_is_its_tempered_value() -> None:
    matrix = replace(gaussian(40, np.random.default_rng(0), scale=20), kind="critic")
    estimate = estimate_mi(matrix)
    found = bits_per(matrix, [10] * 160, "byte")
    assert estimate.mc_nats is not None and estimate.mc_nats < 0
    assert found.bits == pytest.approx((estimate.tempered_bits or 0) / 10)
    few = replace(gaussian(6, np.random.default_rng(0)), kind="critic")
    assert bits_per(few, [10] * 24, "byte").bits is None, "too few contexts to temper"
