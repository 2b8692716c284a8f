"""The rate-distortion fit: planted parameters come back, and what can't be known is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentcomm.errors import UserError
from agentcomm.information.rate_distortion import RateDistortion, _line, fit_rate_distortion

RATES = np.array([0.2, 0.5, 1, 1.5, 2.5, 4])
PLANTED = {"c": 0.6, "b": 1.5, "d0": 0.2}


def curve(
    rates: NDArray[np.float64] = RATES, c: float = 0.6, b: float = 1.5, d0: float = 0.2
) -> NDArray[np.float64]:
    made: NDArray[np.float64] = c * np.exp(-b * rates) + d0
    return made


def answers(seed: int, documents: int = 200, rates: NDArray[np.float64] = RATES) -> NDArray[np.float64]:
    """Wrong (1) or right (0) for each document at each rate, wrong as often as the planted curve says."""
    wrong = np.random.default_rng(seed).random((len(rates), documents)) < curve(rates)[:, None]
    return wrong.astype(np.float64)


def test_planted_parameters_come_back_and_intervals_cover_them() -> None:
    fits = [fit_rate_distortion(answers(s), RATES, resamples=200, seed=s) for s in range(100)]
    for name, near in (("c", 0.03), ("b", 0.1), ("d0", 0.02)):
        truth = PLANTED[name]
        assert np.median([getattr(f, name) for f in fits]) == pytest.approx(truth, abs=near)
        intervals = [getattr(f, f"{name}_interval") for f in fits]
        assert np.mean([i.low <= truth <= i.high for i in intervals]) >= 0.88
        assert np.mean([i.high - i.low for i in intervals]) < 4 * {"c": 0.09, "b": 0.5, "d0": 0.04}[name]


def test_four_rates_are_enough_and_three_are_refused() -> None:
    four = RATES[[0, 2, 4, 5]]
    fit = fit_rate_distortion(answers(0, rates=four), four)
    assert fit.rates == tuple(four)
    with pytest.raises(UserError, match="3 distinct rates"):
        fit_rate_distortion(answers(0, rates=four[:3]), four[:3])
    with pytest.raises(UserError, match="3 distinct rates"):
        fit_rate_distortion(answers(0), [1, 1, 1, 2, 2, 3])
    with pytest.raises(UserError, match="1 distinct rates"):  # every text is shorter than every budget
        fit_rate_distortion(answers(0), np.full((6, 200), 40.0))


def test_a_second_run_is_identical() -> None:
    first, second = (fit_rate_distortion(answers(3), RATES, seed=7) for _ in range(2))
    assert first == second
    assert (first.draws == second.draws).all()
    assert first.resamples == 2000
    assert json.dumps(first.facts(), allow_nan=False) == json.dumps(second.facts())
    assert fit_rate_distortion(answers(3), RATES, seed=8).c_interval != first.c_interval


def test_the_order_and_unit_of_rates_change_nothing_but_b() -> None:
    d = answers(1)
    fit = fit_rate_distortion(d, RATES, rate="bit", resamples=50)
    turned = fit_rate_distortion(d[::-1], RATES[::-1], resamples=50)
    tokens = fit_rate_distortion(d, 100 * RATES, rate="token", resamples=50)
    for other in (turned, tokens):
        assert (other.c, other.d0) == pytest.approx((fit.c, fit.d0), abs=1e-6)
    assert tokens.b == pytest.approx(fit.b / 100, rel=1e-5)
    assert turned.rates == fit.rates
    assert fit.facts()["rate"] == "bit"


def test_points_on_the_curve_give_it_exactly() -> None:
    fit = fit_rate_distortion(np.tile(curve()[:, None], 5), RATES, resamples=20)
    assert (fit.c, fit.b, fit.d0) == pytest.approx((0.6, 1.5, 0.2), abs=1e-5)
    assert fit.rmse < 1e-7
    assert fit.at([0.0, 1e9]) == pytest.approx([0.8, 0.2], abs=1e-5)
    assert fit.boundary == ()


@settings(max_examples=40, deadline=None)
@given(
    d=st.lists(st.floats(0, 1), min_size=4, max_size=7),
    b=st.floats(0.001, 30),
    seed=st.integers(0, 100),
)
def test_for_a_given_b_no_allowed_c_and_d0_are_better(d: list[float], b: float, seed: int) -> None:
    r = np.linspace(0.1, 4, len(d))
    e = np.exp(-b * r)
    c, d0, error = (x[0, 0] for x in _line(np.array([d]), e[None, None, :]))
    assert c >= 0 and d0 >= 0 and c + d0 <= 1 + 1e-12
    assert error == pytest.approx(((c * e + d0 - d) ** 2).sum(), abs=1e-12)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([1, 1, 1], size=400)  # all of the triangle, and its sides and corners
    shares[:100, 0] = 0
    shares[100:200, 1] = 0
    shares[200:300] /= shares[200:300, :2].sum(axis=1, keepdims=True)
    shares[:200] /= shares[:200].sum(axis=1, keepdims=True)
    others = ((shares[:, :1] * e + shares[:, 1:2] - np.array(d)) ** 2).sum(axis=1)
    assert (others >= error - 1e-12).all()


@pytest.mark.parametrize(
    ("distortion", "flag"),
    [
        (np.full(6, 0.4), "C=0"),
        (0.9 * np.exp(-0.5 * RATES), "D0=0"),
        (np.minimum(1, 1.3 * np.exp(-RATES)), "C+D0=1"),
        (0.8 - 0.003 * RATES, "b at least"),
        (np.array([0.9, 0.3, 0.3, 0.3, 0.3, 0.3]), "C+D0=1"),
        (curve(), None),
    ],
)
def test_parameters_at_a_boundary_are_flagged(distortion: NDArray[np.float64], flag: str | None) -> None:
    fit = fit_rate_distortion(np.tile(distortion[:, None], 3), RATES, resamples=20)
    assert (flag in fit.boundary) if flag else not fit.boundary
    assert fit.c >= 0 and fit.d0 >= 0 and fit.c + fit.d0 <= 1 + 1e-12
    assert any(word.startswith(flag) for word in fit.warnings) if flag else True


def test_a_floor_that_is_reached_at_once_is_flagged() -> None:
    rates = np.array([0, 0.1, 2, 3, 4, 5])
    fit = fit_rate_distortion(np.tile(np.array([[0.9], *[[0.3]] * 5]), 3), rates, resamples=20)
    assert fit.boundary == ("b at most",)
    assert any("b at most" in word for word in fit.warnings)


def test_a_loss_that_rises_with_the_rate_is_flat_at_best() -> None:
    fit = fit_rate_distortion(np.tile(np.linspace(0.1, 0.9, 6)[:, None], 4), RATES, resamples=20)
    assert fit.c == 0
    assert fit.d0 == pytest.approx(0.5)
    assert "C=0" in fit.boundary


def test_documents_are_resampled_whole() -> None:
    once = answers(5, documents=40)
    copied = np.repeat(once, 5, axis=1)
    names = [f"text {i // 5}" for i in range(200)]
    alone = fit_rate_distortion(once, RATES)
    together = fit_rate_distortion(copied, RATES, documents=names)
    assert together.documents == 40
    assert together.c_interval == pytest.approx(alone.c_interval, abs=1e-6)
    as_if = fit_rate_distortion(copied, RATES)
    assert as_if.c_interval is not None and alone.c_interval is not None
    assert as_if.c_interval.high - as_if.c_interval.low < 0.8 * (alone.c_interval.high - alone.c_interval.low)


def test_rates_of_each_document_are_resampled_with_its_losses() -> None:
    d = answers(6)
    own = RATES[:, None] * np.random.default_rng(0).uniform(0.2, 1.8, size=(1, 200))
    fit, fixed = fit_rate_distortion(d, own), fit_rate_distortion(d, own.mean(axis=1))
    assert (fit.c, fit.b) == pytest.approx((fixed.c, fixed.b), abs=1e-6)
    assert fit.b_interval != fixed.b_interval


def test_a_failed_episode_is_no_wrong_answer() -> None:
    d = answers(2)
    holes = np.random.default_rng(9).random(d.shape) < 0.2
    d[holes] = np.nan
    fit = fit_rate_distortion(d, RATES)
    expected = [np.nanmean(row) for row in d]
    assert fit.distortions == pytest.approx(expected)
    assert fit.resamples == 2000
    d[3] = np.nan
    with pytest.raises(UserError, match="no known loss"):
        fit_rate_distortion(d, RATES)


def test_one_document_has_a_curve_and_no_interval() -> None:
    fit = fit_rate_distortion(curve()[:, None], RATES)
    assert fit.c == pytest.approx(0.6, abs=1e-5)
    assert fit.c_interval is None and fit.band(RATES) is None
    assert fit.facts()["C_interval"] is None
    assert "no intervals" in " ".join(fit.warnings)


def test_the_band_holds_the_curve() -> None:
    fit = fit_rate_distortion(answers(4), RATES)
    band = fit.band([0.0, 1.0, 4.0])
    assert band is not None
    low, high = band
    middle = fit.at([0.0, 1.0, 4.0])
    assert ((low < middle) & (middle < high)).all()


@pytest.mark.parametrize(
    ("d", "r", "complaint"),
    [
        (np.full((6, 3), 1.2), RATES, "between 0 and 1"),
        (np.zeros((6, 3)), RATES[:5], "shape"),
        (np.zeros(6), RATES, "shape"),
        (np.zeros((6, 3)), -RATES, "at least 0"),
        (np.zeros((6, 3)), np.full(6, np.nan), "finite"),
        (np.zeros((6, 0)), RATES, "shape"),
    ],
)
def test_what_is_no_curve_is_refused(d: NDArray[np.float64], r: NDArray[np.float64], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        fit_rate_distortion(d, r)


def test_level_and_documents_are_checked() -> None:
    with pytest.raises(UserError, match="95 % is 0.95"):
        fit_rate_distortion(answers(0), RATES, level=95)
    with pytest.raises(UserError, match="as many documents"):
        fit_rate_distortion(answers(0), RATES, documents=["a"])
    made: RateDistortion = fit_rate_distortion(answers(0), RATES, resamples=0)
    assert made.c_interval is None
