"""Formulas by hand, and what must hold for every matrix."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]

import agentcomm as ac
from agentcomm.errors import UserError
from agentcomm.information import ScoreMatrix, bounds, estimate_mi, intervals, tempering
from tests.information.channels import cells_of, gaussian

Array = NDArray[np.float64]
PERMUTED = ("mc_nats", "loo_nats", "doe_nats", "top1", "fano_nats", "saturation")


@st.composite
def matrices(draw: st.DrawFn) -> Array:
    n, m = draw(st.integers(2, 7)), draw(st.integers(1, 3))
    return draw(arrays(np.float64, (n * m, n), elements=st.floats(-300, 0, width=32)))


def test_two_contexts_with_two_messages_each_by_hand() -> None:
    p = np.array([[0.8, 0.2], [0.5, 0.5], [0.3, 0.6], [0.1, 0.9]])
    estimate = estimate_mi(np.log(p))
    g = [math.log(0.8 / 1.0 * 2), math.log(0.5 / 1.0 * 2), math.log(0.6 / 0.9 * 2), math.log(0.9 / 1.0 * 2)]
    assert estimate.row_nats == pytest.approx(g)
    assert estimate.context_nats == pytest.approx([(g[0] + g[1]) / 2, (g[2] + g[3]) / 2])
    assert estimate.mc_nats == pytest.approx(sum(g) / 4)
    assert estimate.loo_nats == pytest.approx((math.log(4) + 0 + math.log(2) + math.log(9)) / 4)
    assert estimate.top1 == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert (estimate.N, estimate.M, estimate.log_n) == (2, 2, pytest.approx(math.log(2)))
    assert estimate.mc_bits == estimate.mi_bits == pytest.approx(sum(g) / 4 / math.log(2))
    assert estimate.saturation == pytest.approx(sum(g) / 4 / math.log(2))
    assert estimate.log2_n_bits == pytest.approx(1)


def test_contexts_weigh_the_same_however_many_messages_they_have() -> None:
    p = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    assert estimate_mi(p, rows=[0, 0, 0, 1]).mc_nats == pytest.approx(math.log(1.8) / 2)


def test_student_s_t_takes_one_number_per_context_however_many_messages_it_has() -> None:
    full = gaussian(12, np.random.default_rng(0))
    estimate = estimate_mi(full.logp[:-3], rows=full.row_context[:-3], method="cluster_t")
    half = stats.t.ppf(0.975, 11) * estimate.context_nats.std(ddof=1) / math.sqrt(12)
    middle = estimate.context_nats.mean()
    assert estimate.mc_nats == pytest.approx(middle)
    assert estimate.interval == pytest.approx((middle - half, min(middle + half, estimate.log_n)))


def test_rows_in_another_order_give_the_same() -> None:
    logp = gaussian(12, np.random.default_rng(0), m=2).logp
    order = np.random.default_rng(1).permutation(24)
    shuffled = estimate_mi(logp[order], rows=np.repeat(np.arange(12), 2)[order])
    assert shuffled.mc_nats == pytest.approx(estimate_mi(logp).mc_nats, abs=1e-12)


@given(matrices(), st.randoms())
def test_the_order_of_the_contexts_changes_nothing(logp: Array, random: object) -> None:
    rows, n = logp.shape
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    own = np.repeat(np.arange(n), rows // n)
    place = np.argsort(order)
    one, other = estimate_mi(logp), estimate_mi(logp[:, order], rows=place[own])
    for name in PERMUTED:
        a, b = getattr(one, name), getattr(other, name)
        assert a == b or a == pytest.approx(b, rel=1e-12, abs=1e-12), name
    if one.interval is not None:
        assert one.interval == pytest.approx(other.interval, rel=1e-9, abs=1e-9)


def test_random_splits_follow_the_contexts_content_and_not_their_order() -> None:
    matrix = gaussian(20, np.random.default_rng(0))
    names = tuple(f"{i:02}" for i in np.random.default_rng(1).permutation(20))
    order = np.random.default_rng(2).permutation(20)
    one = replace(matrix, context_hashes=names)
    other = replace(
        matrix,
        logp=matrix.logp[:, order],
        row_context=np.argsort(order)[matrix.row_context],
        context_hashes=tuple(names[i] for i in order),
    )
    a, b = estimate_mi(one, with_nwj=True), estimate_mi(other, with_nwj=True)
    for name in (*PERMUTED, "tempered_nats", "nwj_nats", "alpha", "tempered_interval"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-12), name


@given(matrices(), st.floats(-100, 100))
def test_a_constant_added_to_a_row_changes_nothing(logp: Array, shift: float) -> None:
    moved = logp + shift * np.arange(len(logp))[:, None]
    one, other = estimate_mi(logp, with_nwj=True), estimate_mi(moved, with_nwj=True)
    for name in ("mc_nats", "loo_nats", "nwj_nats"):
        a, b = getattr(one, name), getattr(other, name)
        assert a == b or a == pytest.approx(b, rel=1e-6, abs=1e-6), name


@given(matrices())
def test_bounds_keep_their_order_and_their_caps(logp: Array) -> None:
    estimate = estimate_mi(logp, with_nwj=True)
    assert estimate.mc_nats <= estimate.log_n  # type: ignore[operator]
    assert (estimate.row_nats <= estimate.log_n).all()
    assert 0 <= estimate.fano_nats <= estimate.log_n  # type: ignore[operator]
    if estimate.nwj_nats is not None:
        assert estimate.nwj_nats <= 1 + math.log(estimate.N / 2) + 1e-9
    if estimate.interval is not None:
        assert estimate.interval.low <= estimate.mc_nats <= estimate.log_n  # type: ignore[operator]
        assert estimate.interval.high <= estimate.log_n
    # What beats the average of the others is estimated higher without itself among them, and the
    # other way round: leaving the positive out moves every row away from 0.
    cells = cells_of(logp)
    g, without = bounds.pointwise(cells), bounds.left_out(cells)
    assert without is not None
    assert (np.where(g >= 0, without - g, g - without) >= -1e-9).all()


@given(matrices())
@settings(max_examples=50)
def test_the_jackknife_equals_estimating_again_without_each_context(logp: Array) -> None:
    rows, n = logp.shape
    own = np.repeat(np.arange(n), rows // n)
    fast = intervals.left_out_estimates(cells_of(logp))
    if n < 3:
        assert fast is None
        return
    again = [estimate_mi(np.delete(logp[own != k], k, axis=1)).mc_nats for k in range(n)]
    assert fast == pytest.approx(np.array(again), rel=1e-9, abs=1e-9)


def test_leaving_out_a_dominant_column_keeps_every_digit() -> None:
    logp = np.array([[0.0, -800.0, -801.0], [-5.0, 0.0, -5.0], [-1.0, -2.0, 0.0]])
    assert bounds.log_sum_without(cells_of(logp))[0, 0] == pytest.approx(
        logsumexp([-800.0, -801.0]), rel=1e-14
    )
    assert estimate_mi(logp).loo_nats > 250  # type: ignore[operator]


def test_nwj_with_one_set_of_negatives_is_the_leave_one_out_value() -> None:
    matrix = gaussian(20, np.random.default_rng(0), snr=0.5)
    cells = cells_of(matrix)
    others = ~np.eye(20, dtype=bool)
    trap = bounds.nwj_given(cells, others, others, math.inf)
    assert trap == pytest.approx(bounds.left_out(cells))
    shipped = bounds.nwj(cells, 0)
    assert shipped is not None and shipped.mean() < trap.mean()
    assert estimate_mi(matrix).nwj_nats is None, "off by default"


def test_the_halves_of_nwj_are_disjoint_and_never_hold_the_positive() -> None:
    matrix = gaussian(9, np.random.default_rng(0))
    first, second = bounds.halves(cells_of(matrix), seed=3)
    assert not (first & second).any() and not np.diag(first | second).any()
    assert (first.sum(axis=1) == 4).all() and (second.sum(axis=1) == 4).all()


def test_calibration_and_evaluation_share_no_context() -> None:
    matrix = gaussian(40, np.random.default_rng(0))
    cells = cells_of(matrix)
    parts = tempering.split(cells, 0)
    assert parts is not None
    assert [len(part) for part in parts] == [10, 30]
    assert not set(parts[0]) & set(parts[1])
    assert parts[0].tolist() != tempering.split(cells, 1)[0].tolist()  # type: ignore[index]
    estimate = estimate_mi(matrix)
    again = cells_of(matrix).select(parts[1]).scaled(estimate.alpha)  # type: ignore[arg-type]
    assert estimate.tempered_nats == pytest.approx(again.mean(bounds.pointwise(again)))
    ruined = np.array(matrix.logp)
    ruined[:, parts[1]] += 50 * np.random.default_rng(1).standard_normal((160, 30))
    assert estimate_mi(ruined).alpha == estimate.alpha, "the evaluation's columns choose nothing"


@pytest.mark.parametrize(("n", "left"), [(10, None), (11, 3), (32, 24), (60, 45)])
def test_a_quarter_but_at_least_eight_contexts_calibrate(n: int, left: int | None) -> None:
    assert estimate_mi(gaussian(n, np.random.default_rng(0))).tempered_n == left


@pytest.mark.parametrize(("n", "m"), [(20, 1), (49, 3), (93, 5)])
def test_fano_counts_the_errors_that_were_not_seen(n: int, m: int) -> None:
    estimate = estimate_mi(np.repeat(5 * np.eye(n), m, axis=0))
    unseen = 1 - 0.05 ** (1 / n)
    entropy = -unseen * math.log(unseen) - (1 - unseen) * math.log(1 - unseen)
    assert estimate.top1 == 1
    assert estimate.fano_nats == pytest.approx(math.log(n) - entropy - unseen * math.log(n - 1))


def test_what_each_query_says_of_each_context_is_averaged_over_queries() -> None:
    rng = np.random.default_rng(0)
    good, bad = gaussian(12, rng, m=2), gaussian(12, rng, m=2, kept=1)
    rows = np.concatenate([good.row_context, bad.row_context])
    queries = ["who"] * 24 + ["when"] * 24
    crossed = ScoreMatrix.from_array(np.concatenate([good.logp, bad.logp]), rows, queries=queries)
    estimate = estimate_mi(crossed)
    parts = [estimate_mi(good).mc_nats, estimate_mi(bad).mc_nats]
    assert (estimate.design, estimate.quantity, estimate.M) == ("crossed", "I(X;Z|Q)", 2)
    assert estimate.mc_nats == pytest.approx(np.mean(parts))  # type: ignore[arg-type]
    logp = np.array(crossed.logp)
    logp[[0, 1], 5] = np.nan  # one context loses one query: that query's block averages over the rest
    lost = estimate_mi(ScoreMatrix.from_array(logp, rows, queries=queries))
    remaining = estimate_mi(good.logp[2:], good.row_context[2:]).mc_nats
    assert lost.mc_nats == pytest.approx(np.mean([remaining, parts[1]]))
    assert lost.interval.low < lost.mc_nats < lost.interval.high  # type: ignore[union-attr,operator]


def test_the_design_is_read_off_the_queries() -> None:
    logp, rows = np.zeros((4, 2)), [0, 0, 1, 1]
    designs = {
        label: ScoreMatrix.from_array(logp, rows, queries=queries).design
        for label, queries in {
            "one": "aaaa",
            "each to every context": "abba",
            "each its own": "aabb",
            "partly shared": "abbc",
            "not known": None,
        }.items()
    }
    assert list(designs.values()) == ["shared", "crossed", "own", "own", "own"]


def test_scores_without_unit_have_no_likelihood_and_offline_critics_ask_for_tempering() -> None:
    matrix = gaussian(20, np.random.default_rng(0))
    relevance = estimate_mi(replace(matrix, kind="relevance"))
    assert (relevance.loo_nats, relevance.doe_nats) == (None, None)
    critic = estimate_mi(replace(matrix, kind="critic", exact=False))
    assert critic.loo_nats is not None and critic.upper_label == "diagnostic"
    assert "untempered_critic" in critic.warnings and "not_tempered" not in critic.warnings
    small = gaussian(9, np.random.default_rng(0))
    assert "not_tempered" in estimate_mi(replace(small, kind="critic")).warnings


def test_repeated_contexts_are_legitimate_and_counted() -> None:
    matrix = gaussian(12, np.random.default_rng(0))
    logp = np.array(matrix.logp)
    logp[:, 1] = logp[:, 0]
    names = ("a", "a", *map(str, range(10)))
    estimate = estimate_mi(replace(matrix, logp=logp, context_hashes=names))
    assert (estimate.N, estimate.n_distinct_contexts, estimate.status) == (12, 11, "ok")
    assert estimate.row_nats[:8].max() <= math.log(6) + 1e-12, "a copy is as probable as the original"


def test_the_same_seed_gives_the_same_and_every_fact_is_json() -> None:
    matrix = gaussian(20, np.random.default_rng(0))
    one, other = (estimate_mi(matrix, method="bootstrap", with_nwj=True, seed=4).facts() for _ in range(2))
    assert one == other
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    spec = """mi_bits mi_bits_clipped ci_bits ci_method N M n_contexts_scored n_rows_dropped
        n_contexts_dropped n_empty n_distinct_contexts log2_n_bits saturation saturated top1 fano_bits loo_bits
        doe_bits nwj_bits tempered_bits alpha exact include_eos design reference_set scorer_id prompt_id seeds
        warnings status mc_nats mc_bits loo_nats log_n interval n_failed"""
    assert set(spec.split()) <= set(one)
    assert estimate_mi(matrix, method="bootstrap", seed=5).interval != tuple(one["interval"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"matrix": np.zeros((5, 2))}, "5 rows can't be shared out equally among 2 contexts"),
        ({"matrix": np.zeros(4)}, "rows and columns"),
        ({"matrix": np.zeros((0, 0))}, "rows and columns"),
        ({"matrix": [["a"]]}, "array of numbers"),
        ({"matrix": np.zeros((2, 2)), "rows": [0, 2]}, "row 1 belongs to context 2, but columns are 0 to 1"),
        ({"matrix": np.zeros((2, 2)), "rows": [0, 0.5]}, "one column number per row"),
        ({"matrix": np.zeros((2, 2)), "rows": [0]}, "2 rows need 2 contexts"),
        ({"matrix": np.zeros((2, 2)), "method": "naive"}, "no interval method 'naive'"),
        ({"matrix": np.zeros((2, 2)), "level": 95}, "95 % is 0.95"),
    ],
)
def test_what_makes_no_sense_is_told(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        estimate_mi(**arguments)  # type: ignore[arg-type]


def test_the_room_loads_when_it_is_first_used() -> None:
    assert ac.information.estimate_mi is estimate_mi
    assert "information" in dir(ac)
