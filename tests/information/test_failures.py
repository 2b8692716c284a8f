"""Failures are counted and left out; what is empty, impossible or single is not a failure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agentcomm.information import ScoreMatrix, compare_mi, estimate_mi
from tests.information.channels import gaussian

N, M = 12, 3
VALUES = ("mc_nats", "loo_nats", "top1", "fano_nats", "tempered_nats", "log_n", "saturation")


@pytest.fixture
def logp() -> NDArray[np.float64]:
    return np.array(gaussian(N, np.random.default_rng(0), m=M).logp)


def own_contexts() -> NDArray[np.intp]:
    return np.repeat(np.arange(N), M)


@pytest.mark.parametrize("column", [4 // M, 7], ids=["its own context", "another context"])
def test_one_failed_cell_is_the_same_as_its_row_left_out(logp: NDArray[np.float64], column: int) -> None:
    failed = logp.copy()
    failed[4, column] = np.nan
    estimate = estimate_mi(failed)
    without = estimate_mi(np.delete(logp, 4, axis=0), np.delete(own_contexts(), 4))
    assert (estimate.n_failed, estimate.n_rows_dropped, estimate.n_contexts_dropped) == (1, 1, 0)
    assert (without.n_failed, without.n_rows_dropped) == (0, 0)
    for name in VALUES:
        assert getattr(estimate, name) == pytest.approx(getattr(without, name), abs=1e-12), name
    assert estimate.interval == pytest.approx(without.interval)
    assert estimate.status == "ok" and estimate.N == N and estimate.M == M
    assert np.flatnonzero(np.isnan(estimate.row_nats)).tolist() == [4]


def test_a_failure_is_not_a_zero(logp: NDArray[np.float64]) -> None:
    failed, zero = logp.copy() - 150, logp.copy() - 150
    failed[4, 7], zero[4, 7] = np.nan, 0.0
    assert abs(estimate_mi(failed).mc_nats - estimate_mi(logp).mc_nats) < 0.3  # type: ignore[operator]
    assert estimate_mi(zero).mc_nats < estimate_mi(logp).mc_nats - 1.5  # type: ignore[operator]


def test_a_context_most_of_whose_column_failed_is_dropped_with_its_rows(logp: NDArray[np.float64]) -> None:
    failed = logp.copy()
    failed[: N * M // 2 + 1, 11] = np.nan
    estimate = estimate_mi(failed)
    without = estimate_mi(np.delete(logp, 11, axis=1)[: 11 * M])
    assert (estimate.n_contexts_dropped, estimate.n_rows_dropped, estimate.N) == (1, M, N - 1)
    assert estimate.n_failed == N * M // 2 + 1
    assert estimate.mc_nats == pytest.approx(without.mc_nats, abs=1e-12)
    assert estimate.log_n == pytest.approx(math.log(N - 1))
    assert np.flatnonzero(np.isnan(estimate.context_nats)).tolist() == [11]


def test_exactly_half_a_column_is_not_most_of_it(logp: NDArray[np.float64]) -> None:
    failed = logp.copy()
    failed[: N * M // 2, 11] = np.nan
    estimate = estimate_mi(failed)
    assert (estimate.n_contexts_dropped, estimate.status) == (0, "too_many_failures")


@pytest.mark.parametrize(("rows", "status"), [(3, "ok"), (4, "too_many_failures")])
def test_more_than_a_tenth_of_the_rows_is_too_many(logp: NDArray[np.float64], rows: int, status: str) -> None:
    failed = logp[:30].copy()[:, :10]  # 30 rows of 10 contexts
    failed[[0, 5, 10, 15][:rows], 8] = np.nan
    estimate = estimate_mi(failed)
    assert (estimate.status, estimate.n_failed, estimate.n_rows_dropped) == (status, rows, rows)
    assert (estimate.mc_nats is None) == (status != "ok")


def test_without_a_single_score_nothing_is_claimed() -> None:
    estimate = estimate_mi(np.full((N * M, N), np.nan))
    assert estimate.status == "too_many_failures"
    assert estimate.n_failed == N * M * N and estimate.failures == {"missing": N * M * N}
    unknown = (
        "mc_nats",
        "mc_bits",
        "mi_bits_clipped",
        "loo_nats",
        "top1",
        "interval",
        "saturation",
        "ci_bits",
    )
    assert [getattr(estimate, name) for name in unknown] == [None] * len(unknown)
    assert not estimate.saturated and estimate.warnings == ("too_many_failures",)
    assert "unknown" in str(estimate)
    assert estimate.facts()["mc_nats"] is None


def test_a_context_left_without_rows_stays_a_negative(logp: NDArray[np.float64]) -> None:
    failed = logp.copy()
    failed[:M, 5] = np.nan  # all three messages of context 0
    estimate = estimate_mi(failed)
    assert (estimate.n_contexts_scored, estimate.N, estimate.n_contexts_dropped) == (N - 1, N, 0)
    assert estimate.mc_nats == pytest.approx(estimate_mi(logp[M:], own_contexts()[M:]).mc_nats)
    assert estimate.mc_nats != pytest.approx(estimate_mi(logp[M:, 1:]).mc_nats, abs=1e-3)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_infinite_own_score_is_a_failure(logp: NDArray[np.float64], value: float) -> None:
    failed = logp.copy()
    failed[4, 1] = value
    estimate = estimate_mi(failed)
    assert estimate.n_failed == 1
    assert estimate.mc_nats == pytest.approx(
        estimate_mi(np.delete(logp, 4, 0), np.delete(own_contexts(), 4)).mc_nats
    )


def test_a_message_that_is_impossible_elsewhere_is_no_failure(logp: NDArray[np.float64]) -> None:
    certain = logp.copy()
    certain[4] = np.where(np.arange(N) == 1, logp[4], -np.inf)
    estimate = estimate_mi(certain)
    assert (estimate.n_failed, estimate.status) == (0, "ok")
    assert estimate.row_nats[4] == pytest.approx(math.log(N))
    assert estimate.loo_nats == math.inf, "no other context could have given it"
    assert estimate.facts()["loo_nats"] == "inf"
    assert all(math.isfinite(getattr(estimate, name)) for name in VALUES if name != "loo_nats")
    assert estimate_mi(certain, with_nwj=True).nwj_nats == pytest.approx(
        estimate_mi(logp, with_nwj=True).nwj_nats, abs=0.3
    )


def test_messages_each_possible_in_one_context_only_reach_the_cap() -> None:
    with np.errstate(divide="ignore"):
        estimate = estimate_mi(np.log(np.eye(12)), with_nwj=True)
    assert (estimate.mc_nats, estimate.top1, estimate.saturation) == (
        pytest.approx(estimate.log_n),
        1,
        pytest.approx(1),
    )
    assert estimate.mc_nats <= estimate.log_n  # type: ignore[operator]
    assert estimate.interval == pytest.approx((estimate.log_n, estimate.log_n))
    assert "saturated" in estimate.warnings and "lower bound only" in str(estimate)
    assert estimate.nwj_nats == pytest.approx(1 + math.log(6))


def test_a_probability_above_one_is_a_failure_of_a_language_model_only(logp: NDArray[np.float64]) -> None:
    scores = logp - logp.max() - 1
    scores[4, 7] = 0.5
    model = estimate_mi(ScoreMatrix(scores, own_contexts(), "test"))
    assert model.failures == {"probability above 1": 1} and model.n_rows_dropped == 1
    density = estimate_mi(scores)
    assert density.n_failed == 0 and "scores_above_zero" in density.warnings
    scores[4, 7] = 1e-8
    assert estimate_mi(ScoreMatrix(scores, own_contexts(), "test")).n_failed == 0


def test_reasons_are_counted_each_for_itself(logp: NDArray[np.float64]) -> None:
    failed = logp.copy()
    failed[4, [2, 3]] = np.nan
    failed[8, 2] = np.nan
    matrix = replace(
        ScoreMatrix.from_array(failed), reasons={(4, 2): "timeout", (8, 2): "timeout", (4, 3): "refused"}
    )
    assert estimate_mi(matrix).failures == {"refused": 1, "timeout": 2}


def test_an_empty_message_says_nothing_and_is_counted(logp: NDArray[np.float64]) -> None:
    scores = logp.copy()
    scores[4] = 0
    estimate = estimate_mi(scores)
    assert (estimate.n_empty, estimate.n_failed, estimate.n_rows_dropped) == (1, 0, 0)
    assert estimate.row_nats[4] == pytest.approx(0, abs=1e-12)
    with_end_token = ScoreMatrix(logp - 99, own_contexts(), "t", n_bytes=np.where(np.arange(36) == 4, 0, 9))
    assert estimate_mi(with_end_token).n_empty == 1
    failed = np.array(with_end_token.logp)
    failed[4, 0] = np.nan
    assert estimate_mi(replace(with_end_token, logp=failed)).n_empty == 0, "its row was left out"


def test_one_context_gives_zero_and_no_interval() -> None:
    estimate = estimate_mi(np.log([[0.3], [0.7]]))
    assert (estimate.mc_nats, estimate.interval, estimate.log_n, estimate.top1) == (0, None, 0, 1)
    assert (estimate.N, estimate.M, estimate.loo_nats, estimate.saturation) == (1, 2, None, None)
    assert "no_interval" in estimate.warnings and not estimate.saturated
    assert estimate_mi([[np.nan]]).status == "too_many_failures"


def test_two_contexts_have_no_interval_because_leaving_one_out_says_nothing() -> None:
    estimate = estimate_mi(np.log([[0.9, 0.1], [0.1, 0.9]]))
    assert estimate.mc_nats == pytest.approx(math.log(1.8)) and estimate.interval is None


def test_few_contexts_are_marked() -> None:
    rng = np.random.default_rng(0)
    assert "ci_unreliable" in estimate_mi(gaussian(9, rng)).warnings
    assert "ci_unreliable" not in estimate_mi(gaussian(10, rng)).warnings


def test_messages_equal_under_every_context_say_nothing() -> None:
    estimate = estimate_mi(np.full((N * M, N), -42.0))
    assert estimate.mc_nats == pytest.approx(0, abs=1e-12)
    assert estimate.loo_nats == pytest.approx(0, abs=1e-12)
    assert estimate.top1 == pytest.approx(1 / N) and estimate.fano_nats == 0
    assert estimate.interval == pytest.approx((0, 0), abs=1e-9)
    assert "identical_samples" in estimate.warnings


def test_identical_messages_of_all_contexts_are_no_more_than_chance() -> None:
    row = np.random.default_rng(0).normal(size=N) * 5
    estimate = estimate_mi(np.tile(row, (N * M, 1)))
    assert estimate.mc_nats <= 0  # type: ignore[operator]
    assert estimate.tempered_nats is not None and estimate.top1 == pytest.approx(1 / N)


def test_a_failed_score_without_context_leaves_the_row_out_of_doe_only() -> None:
    matrix = gaussian(N, np.random.default_rng(0), m=M)
    prior = np.array(matrix.prior)
    prior[3] = np.nan
    estimate, whole = estimate_mi(replace(matrix, prior=prior)), estimate_mi(matrix)
    assert (estimate.n_prior_failed, estimate.n_failed) == (1, 0)
    assert estimate.mc_nats == whole.mc_nats
    assert estimate.doe_nats == pytest.approx(whole.doe_nats, abs=0.3) and estimate.doe_nats != whole.doe_nats
    assert "prior_failed" in estimate.warnings
    prior[: N * M // 2] = np.nan
    assert estimate_mi(replace(matrix, prior=prior)).doe_nats is None


def test_a_comparison_leaves_out_of_both_what_failed_in_one(logp: NDArray[np.float64]) -> None:
    weak, failed = 0.2 * logp, logp.copy()
    failed[4, 7] = np.nan
    kept = np.delete(own_contexts(), 4)
    difference = compare_mi(failed, weak)
    first, second = (estimate_mi(np.delete(scores, 4, 0), kept).mc_nats for scores in (logp, weak))
    assert difference.n_rows_dropped == (1, 1)
    assert difference.difference_nats == pytest.approx(first - second)  # type: ignore[operator]
    other = weak.copy()
    other[: N * M // 2 + 1, 11] = np.nan
    assert compare_mi(logp, other).n_contexts == N - 1
    assert compare_mi(logp, other).first_nats == pytest.approx(estimate_mi(logp[: 11 * M, :11]).mc_nats)
    failed[:, :4] = np.nan
    lost = compare_mi(weak, failed)
    assert (lost.verdict, lost.difference_nats, lost.interval) == ("too_many_failures", None, None)
