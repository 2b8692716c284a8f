"""On channels whose information is known the bracket holds and intervals cover what they should."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from agentcomm.information import MIEstimate, ScoreMatrix, bounds, compare_mi, draw_candidates, estimate_mi
from tests.information.channels import cells_of, gaussian, symmetric, symmetric_information

GAUSSIAN = 2 * math.log(3)


@pytest.fixture(scope="module")
def fifty() -> list[MIEstimate]:
    """The acceptance test's 200 replicates of the Gaussian channel, N = 50, M = 4."""
    rng = np.random.default_rng(1)
    return [estimate_mi(gaussian(50, rng), with_nwj=True) for _ in range(200)]


@pytest.fixture(scope="module")
def twenty() -> list[ScoreMatrix]:
    rng = np.random.default_rng(2)
    return [gaussian(20, rng) for _ in range(300)]


def mean(estimates: list[MIEstimate], name: str) -> float:
    return float(np.mean([getattr(estimate, name) for estimate in estimates]))


def test_a_gaussian_channel_is_bracketed(fifty: list[MIEstimate]) -> None:
    assert 1.94 <= mean(fifty, "mc_nats") <= 2.01
    assert 2.40 <= mean(fifty, "loo_nats") <= 2.52
    assert 2.16 <= mean(fifty, "doe_nats") <= 2.24
    assert all((estimate.row_nats <= estimate.log_n).all() for estimate in fifty)
    assert {estimate.upper_label for estimate in fifty} == {"upper bound"}


def test_no_lower_bound_lies_above_the_information_on_average(fifty: list[MIEstimate]) -> None:
    for name in ("mc_nats", "nwj_nats", "tempered_nats", "fano_nats"):
        assert 0.3 < mean(fifty, name) <= GAUSSIAN, name


def test_a_symmetric_channel_of_16_letters_is_bracketed() -> None:
    rng = np.random.default_rng(3)
    estimates = [estimate_mi(symmetric(100, rng)) for _ in range(60)]
    assert symmetric_information() == pytest.approx(2.177, abs=1e-3)
    assert mean(estimates, "mc_nats") == pytest.approx(2.12, abs=0.02)
    assert mean(estimates, "loo_nats") == pytest.approx(2.25, abs=0.02)


def test_messages_that_belong_to_no_context_are_below_zero_and_tempering_says_nothing_is_there() -> None:
    rng = np.random.default_rng(4)
    estimates = [estimate_mi(gaussian(50, rng, shuffled=True)) for _ in range(60)]
    assert mean(estimates, "mc_nats") == pytest.approx(-6, abs=0.5)
    assert {estimate.mi_bits_clipped for estimate in estimates} == {0.0}
    assert mean(estimates, "tempered_nats") == pytest.approx(0, abs=0.05)


def test_information_only_shrinks_as_coordinates_are_dropped() -> None:
    rng = np.random.default_rng(5)
    means = [
        mean([estimate_mi(gaussian(50, rng, kept=kept)) for _ in range(60)], "mc_nats")
        for kept in (1, 2, 3, 4)
    ]
    assert means == pytest.approx([0.53, 1.05, 1.53, 1.98], abs=0.06)
    assert means == sorted(means)


def test_an_overconfident_critic_shows_its_negative_value_and_tempering_mends_it() -> None:
    rng = np.random.default_rng(6)
    estimates = [estimate_mi(gaussian(60, rng, scale=20.0)) for _ in range(20)]
    assert {estimate.tempered_n for estimate in estimates} == {45}
    assert mean(estimates, "mc_nats") < -5
    assert mean(estimates, "tempered_nats") >= 1.8
    assert 0 < mean(estimates, "alpha") < 0.2
    for estimate in estimates:
        assert "critic_worse_than_chance" in estimate.warnings
        assert "-" in str(estimate).split("raw")[0], "the raw value is printed first"
        assert estimate.upper_label == "diagnostic"


def test_a_calibrated_critic_loses_little_by_tempering(fifty: list[MIEstimate]) -> None:
    assert mean(fifty, "tempered_nats") > mean(fifty, "mc_nats") - 0.15
    assert 0.7 < mean(fifty, "alpha") < 1.4


@pytest.mark.parametrize(
    ("method", "at_least"), [("jackknife", 0.92), ("cluster_t", 0.84), ("bootstrap", 0.8)]
)
def test_intervals_cover_the_mean_estimate(twenty: list[ScoreMatrix], method: str, at_least: float) -> None:
    estimates = [estimate_mi(matrix, method=method) for matrix in twenty]  # type: ignore[arg-type]
    target = mean(estimates, "mc_nats")
    covered = [e.interval.low <= target <= e.interval.high for e in estimates]  # type: ignore[union-attr]
    assert np.mean(covered) >= at_least
    assert np.mean(covered) < 1, "an interval that always covers is too wide"
    assert {estimate.ci_method for estimate in estimates} == {method}


def test_the_jackknife_covers_on_a_symmetric_channel_and_under_the_scale_that_was_chosen() -> None:
    rng = np.random.default_rng(7)
    estimates = [estimate_mi(symmetric(40, rng)) for _ in range(150)]
    target = mean(estimates, "mc_nats")
    assert np.mean([e.interval.low <= target <= e.interval.high for e in estimates]) >= 0.9  # type: ignore[union-attr]
    fresh = [cells_of(symmetric(30, rng)) for _ in range(100)]
    covered = []
    for alpha in {estimate.alpha for estimate in estimates}:
        target = np.mean([c.mean(bounds.pointwise(c.scaled(alpha))) for c in fresh])  # type: ignore[arg-type,assignment]
        chosen = [estimate.tempered_interval for estimate in estimates if estimate.alpha == alpha]
        covered += [low <= target <= high for low, high in chosen]  # type: ignore[misc]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("method", ["jackknife", "cluster_t"])
def test_paired_intervals_cover_and_are_narrower_than_unpaired_ones(method: str) -> None:
    rng = np.random.default_rng(8)
    differences, widths, unpaired = [], [], []
    for _ in range(150):
        all_of_it, part = paired(20, rng)
        difference = compare_mi(all_of_it, part, method=method)  # type: ignore[arg-type]
        differences.append(difference)
        widths.append(difference.interval.high - difference.interval.low)  # type: ignore[union-attr]
        sides = [estimate_mi(matrix).interval for matrix in (all_of_it, part)]
        unpaired.append(math.hypot(*(side.high - side.low for side in sides)))  # type: ignore[union-attr]
    target = np.mean([difference.difference_nats for difference in differences])
    covered = [d.interval.low <= target <= d.interval.high for d in differences]  # type: ignore[union-attr]
    assert np.mean(covered) >= 0.92
    assert np.mean(unpaired) > 1.15 * np.mean(widths)


def paired(n: int, rng: np.random.Generator) -> tuple[ScoreMatrix, ScoreMatrix]:
    """Two compressors of the same contexts: the second adds more noise."""
    x = rng.standard_normal((n, 4))
    matrices = []
    for snr in (2.0, 1.2):
        z = np.repeat(x, 4, axis=0) + rng.standard_normal((n * 4, 4)) / math.sqrt(snr)
        matrices.append(ScoreMatrix.from_array(-snr / 2 * ((z[:, None] - x[None]) ** 2).sum(axis=2)))
    return matrices[0], matrices[1]


@pytest.mark.parametrize(("n", "expected"), [(10, 1.55), (20, 1.78), (50, 1.95)])
def test_own_queries_are_never_called_information_given_the_query(n: int, expected: float) -> None:
    """The message repeats its query, which says nothing new: I(X;Z|Q) = 0. Still the estimate is high,
    because the query tells the contexts apart."""
    rng = np.random.default_rng(9)
    estimates = []
    for _ in range(100):
        x = rng.standard_normal((n, 4))
        query = x + rng.standard_normal((n, 4)) / math.sqrt(2)
        logp = -((query[:, None] - x[None]) ** 2).sum(axis=2)
        estimates.append(estimate_mi(ScoreMatrix.from_array(logp, queries=list(range(n)))))
    assert mean(estimates, "mc_nats") == pytest.approx(expected, abs=0.1)
    assert {estimate.quantity for estimate in estimates} == {"cross-context information"}
    assert not any("I(X;Z|Q" in str(estimate) for estimate in estimates)


def test_sampled_candidates_are_capped_by_their_number() -> None:
    rng = np.random.default_rng(10)
    full = gaussian(60, rng, snr=20)
    candidates = draw_candidates(full.row_context, 60, 8, rng)
    sampled = replace(full, candidates=candidates, logp=np.where(candidates, full.logp, np.nan))
    estimate, whole = estimate_mi(sampled), estimate_mi(full)
    assert estimate.n_failed == 0, "a cell nobody meant to score has not failed"
    assert estimate.log_n == pytest.approx(math.log(8))
    assert 0 < estimate.mc_nats <= math.log(8) < whole.mc_nats  # type: ignore[operator]
    assert estimate.mc_nats < estimate.loo_nats < math.inf  # type: ignore[operator]
    assert (estimate.ci_method, estimate.saturated, estimate.tempered_nats) == ("cluster_t", True, None)
