"""Two compressors are compared on the same contexts, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentcomm.errors import UserError
from agentcomm.information import ScoreMatrix, compare_mi, estimate_mi
from tests.information.channels import gaussian


@pytest.fixture
def matrix() -> ScoreMatrix:
    return gaussian(20, np.random.default_rng(0))


def weaker(matrix: ScoreMatrix) -> ScoreMatrix:
    return replace(matrix, logp=0.2 * matrix.logp)


def test_a_compressor_compared_with_itself_differs_by_nothing(matrix: ScoreMatrix) -> None:
    difference = compare_mi(matrix, matrix)
    assert difference.difference_nats == 0 and difference.interval == pytest.approx((0, 0))
    assert difference.verdict == "undecided"


@pytest.mark.parametrize("method", ["jackknife", "cluster_t"])
def test_turning_the_comparison_round_turns_the_sign(matrix: ScoreMatrix, method: str) -> None:
    one = compare_mi(matrix, weaker(matrix), method=method)  # type: ignore[arg-type]
    other = compare_mi(weaker(matrix), matrix, method=method)  # type: ignore[arg-type]
    assert one.difference_nats == pytest.approx(-other.difference_nats)  # type: ignore[operator]
    assert one.interval == pytest.approx((-other.interval.high, -other.interval.low))  # type: ignore[union-attr]
    assert (one.verdict, other.verdict) == ("first_higher", "second_higher")
    assert one.first_nats == pytest.approx(estimate_mi(matrix).mc_nats)


def test_nothing_is_decided_at_the_cap() -> None:
    sure, surer = 8 * np.eye(12), 80 * np.eye(12)
    assert compare_mi(sure, surer).verdict == "undecided_saturated"


def test_numbers_of_messages_may_differ(matrix: ScoreMatrix) -> None:
    fewer = matrix.logp[::2]
    assert compare_mi(matrix.logp, fewer).difference_nats == pytest.approx(
        estimate_mi(matrix.logp).mc_nats - estimate_mi(fewer).mc_nats  # type: ignore[operator]
    )


def test_offline_critics_are_compared_at_scales_learned_elsewhere(matrix: ScoreMatrix) -> None:
    critic = replace(matrix, kind="critic", exact=False)
    scaled = replace(critic, logp=20 * critic.logp)
    difference = compare_mi(critic, scaled)
    assert difference.tempered and difference.n_contexts == 12
    assert difference.difference_nats == pytest.approx(0, abs=0.1), "the scale of a critic decides nothing"
    assert abs(estimate_mi(critic).mc_nats - estimate_mi(scaled).mc_nats) > 2  # type: ignore[operator]
    small = ScoreMatrix.from_array(np.eye(5), kind="critic")
    with pytest.raises(UserError, match="5 are too few"):
        compare_mi(small, small)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reference_set": "other"}, "reference sets: 'unnamed' and 'other'"),
        ({"scorer_id": "other"}, "scorers"),
        ({"prompt_id": "other"}, "prompts"),
        ({"include_eos": True}, "end token"),
        ({"kind": "critic"}, "kinds of scorer"),
        ({"context_hashes": tuple(map(str, range(20)))}, "different contexts"),
        ({"query_hashes": ("a",) * 80}, "designs"),
    ],
)
def test_estimates_that_measure_different_things_are_not_compared(
    matrix: ScoreMatrix, change: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        compare_mi(matrix, replace(matrix, **change))  # type: ignore[arg-type]


def test_different_queries_or_numbers_of_contexts_are_not_compared(matrix: ScoreMatrix) -> None:
    asked, other = (replace(matrix, query_hashes=(query,) * 80) for query in "ab")
    with pytest.raises(UserError, match="different queries"):
        compare_mi(asked, other)
    with pytest.raises(UserError, match="20 and 3"):
        compare_mi(matrix, np.zeros((3, 3)))
    with pytest.raises(UserError, match="no bootstrap"):
        compare_mi(matrix, matrix, method="bootstrap")  # type: ignore[arg-type]
