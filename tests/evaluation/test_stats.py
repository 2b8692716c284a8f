"""Intervals cover what they should, verdicts don't claim more than the items show."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import UserError
from agentcomm.evaluation import stats
from agentcomm.evaluation.stats import (
    Interval,
    RunPoint,
    holm,
    items_needed,
    mcnemar,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    pareto_front,
    resolvable_difference,
    wilson,
)

BITS = st.lists(st.integers(0, 1), min_size=1, max_size=60)
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------ one run


@pytest.mark.parametrize(("successes", "low", "high"), [(145, 85.1, 94.2), (140, 81.5, 91.8)])
def test_wilson_gives_the_intervals_of_the_specification(successes: int, low: float, high: float) -> None:
    interval = wilson(successes, 160)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (low, high)  # type: ignore[operator]


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_mean_stays_in_bounds_and_is_symmetric(case: tuple[int, int]) -> None:
    successes, n = case
    i, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= i.low <= i.mean <= i.high <= 1  # type: ignore[operator]
    assert i.high - i.low > 0  # type: ignore[operator]
    assert i.low == pytest.approx(1 - mirrored.high)  # type: ignore[operator]
    wide, narrow = wilson(successes, n, 0.99), wilson(successes, n, 0.5)
    assert wide.high - wide.low > narrow.high - narrow.low  # type: ignore[operator]


def test_no_items_are_unknown_and_not_zero() -> None:
    unknown = Interval(None, None, None, 0.95)
    assert wilson(0, 0) == unknown
    assert mean_interval([]) == unknown
    nothing = paired_bootstrap([], [], rng=rng())
    assert (nothing.mean, nothing.low, nothing.high, nothing.items) == (None, None, None, 0)
    verdict = non_inferiority([], [], rng=rng())
    assert (verdict.verdict, verdict.difference) == ("not enough items", None)


@given(BITS)
def test_zero_one_scores_of_single_items_get_wilsons_interval(bits: list[int]) -> None:
    assert mean_interval(bits) == wilson(sum(bits), len(bits))
    assert mean_interval(bits, clusters=range(len(bits))) == wilson(sum(bits), len(bits))


@given(SCORES)
def test_the_interval_of_a_mean_holds_it_and_is_never_a_point(scores: list[float]) -> None:
    i = mean_interval(scores)
    assert i.mean == pytest.approx(np.mean(scores), abs=1e-12)
    assert 0 <= i.low <= i.mean <= i.high <= 1  # type: ignore[operator]
    assert i.high - i.low > 1e-4  # type: ignore[operator]


@given(BITS, st.integers(2, 5))
def test_repeating_every_item_adds_no_certainty(bits: list[int], times: int) -> None:
    items = list(range(len(bits)))
    once = mean_interval([b * 0.5 for b in bits], clusters=items)
    often = mean_interval([b * 0.5 for b in bits] * times, clusters=items * times)
    assert often.low == pytest.approx(once.low)
    assert often.high == pytest.approx(once.high)


def test_seeds_of_one_item_do_not_count_as_items() -> None:
    generator = rng(1)
    items = generator.random(40) < 0.6
    rows, clusters = np.repeat(items, 10), np.repeat(np.arange(40), 10).tolist()
    clustered, naive = mean_interval(rows, clusters=clusters), mean_interval(rows)
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)  # type: ignore[operator]


@pytest.mark.parametrize("n", [15, 60])
def test_the_interval_of_partial_scores_covers_the_true_mean(n: int) -> None:
    generator = rng(2)
    covered = 0
    for _ in range(1000):
        scores = np.where(generator.random(n) < 0.3, 1.0, generator.beta(2, 2, size=n))
        interval = mean_interval(scores)
        covered += interval.low <= 0.3 + 0.7 * 0.5 <= interval.high  # type: ignore[operator]
    assert 930 <= covered <= 995  # never too sure; a little too careful with few items


# ----------------------------------------------------------------------------------- two runs


def test_the_bootstrap_interval_covers_a_known_difference_as_often_as_it_says() -> None:
    generator = rng(3)
    covered = 0
    for _ in range(1000):
        easy = generator.random(300)
        a, b = easy < 0.65, (easy + generator.normal(0, 0.2, 300)) < 0.6
        d = paired_bootstrap(a, b, rng=generator, resamples=1000)
        true = 0.65 - TRUE_B
        covered += d.low <= true <= d.high  # type: ignore[operator]
    assert 930 <= covered <= 970


def _true_b() -> float:
    """P(U + N(0, 0.2²) < 0.6) by integration over U."""
    grid = (np.arange(200_000) + 0.5) / 200_000
    return float(np.mean([0.5 * math.erfc(-(0.6 - u) / 0.2 / math.sqrt(2)) for u in grid[::20]]))


TRUE_B = _true_b()


def test_the_clustered_bootstrap_covers_and_the_naive_one_does_not() -> None:
    generator = rng(4)
    clustered = naive = 0
    clusters = np.repeat(np.arange(60), 5).tolist()
    for _ in range(300):
        gain = np.repeat(generator.choice([-1, 0, 1], p=[0.15, 0.6, 0.25], size=60), 5)
        flip = generator.random(300) < 0.1
        difference = np.where(flip, 0, gain)
        a, b = (difference > 0).astype(float), (difference < 0).astype(float)
        for chosen in (clusters, None):
            d = paired_bootstrap(a, b, rng=generator, clusters=chosen, resamples=600)
            hit = d.low <= 0.1 * 0.9 <= d.high  # type: ignore[operator]
            clustered, naive = (clustered + hit, naive) if chosen else (clustered, naive + hit)
    assert clustered >= 0.90 * 300
    assert naive < 0.8 * 300


@given(PAIRS, st.integers(0, 5))
def test_swapping_the_runs_turns_the_difference_round(pairs: list[tuple[int, int]], seed: int) -> None:
    a, b = (list(x) for x in zip(*pairs, strict=True))
    forward = paired_bootstrap(a, b, rng=rng(seed), resamples=200)
    backward = paired_bootstrap(b, a, rng=rng(seed), resamples=200)
    assert forward.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert forward.mean == pytest.approx(-backward.mean)  # type: ignore[operator]
    assert forward.low <= forward.mean <= forward.high  # type: ignore[operator]


def test_the_same_generator_gives_the_same_interval() -> None:
    a, b = rng(1).random(100), rng(2).random(100)
    assert paired_bootstrap(a, b, rng=rng(7)) == paired_bootstrap(a, b, rng=rng(7))
    assert paired_bootstrap(a, b, rng=rng(7)) != paired_bootstrap(a, b, rng=rng(8))


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_the_bootstrap_interval_has_the_place_and_width_theory_gives(noise: float) -> None:
    a = np.append(np.ones(360), np.zeros(40)) + noise * rng(1).random(400)  # noise: many distinct values
    d = paired_bootstrap(a, np.zeros(400), rng=rng(2))
    half = 1.96 * math.sqrt(0.9 * 0.1 / 400)
    assert d.low == pytest.approx(0.9 - half, abs=0.004)
    assert d.high == pytest.approx(0.9 + half, abs=0.004)


def test_few_and_many_distinct_values_are_resampled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rng(1).integers(0, 40, 500) / 40, rng(2).integers(0, 2, 500)
    counted = paired_bootstrap(a, b, rng=rng(0))
    fine = a + rng(3).random(500) * 1e-9
    drawn = paired_bootstrap(fine, b, rng=rng(0))
    monkeypatch.setattr(stats, "_CHUNK", 10_000)
    chunked = paired_bootstrap(fine, b, rng=rng(0))
    for other in (drawn, chunked):
        assert other.low == pytest.approx(counted.low, abs=2e-3)
        assert other.high == pytest.approx(counted.high, abs=2e-3)


def test_runs_that_agree_everywhere_are_not_called_certainly_equal() -> None:
    d = paired_bootstrap([1] * 20, [1] * 20, rng=rng())
    assert d.mean == 0
    assert d.low == pytest.approx(-(1 - 0.025 ** (1 / 20)))
    assert d.high == pytest.approx(1 - 0.025 ** (1 / 20))
    better = paired_bootstrap([1] * 20, [0] * 20, rng=rng())
    assert better.low < 1 == better.high  # type: ignore[operator]
    tokens = paired_bootstrap([300.0] * 20, [100.0] * 20, rng=rng())
    assert (tokens.mean, tokens.low, tokens.high) == (200.0, None, None)


@pytest.mark.parametrize(("b", "c", "p"), [(0, 6, 0.03125), (3, 3, 1.0), (0, 0, 1.0), (1, 8, 0.0390625)])
def test_mcnemar_is_exact(b: int, c: int, p: float) -> None:
    result = mcnemar([1] * b + [0] * c + [1, 0], [0] * b + [1] * c + [1, 0])
    assert (result.only_first, result.only_second) == (b, c)
    assert result.p_value == pytest.approx(p)


@given(PAIRS)
def test_mcnemar_is_symmetric_and_follows_its_formula(pairs: list[tuple[int, int]]) -> None:
    a, b = (list(x) for x in zip(*pairs, strict=True))
    one, other = mcnemar(a, b), mcnemar(b, a)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    n = one.only_first + one.only_second
    tail = sum(math.comb(n, k) for k in range(min(one.only_first, one.only_second) + 1)) / 2**n
    assert one.p_value == other.p_value == pytest.approx(min(1, 2 * tail))


# ---------------------------------------------------------------------------- non-inferiority


def test_many_equal_items_are_not_worse_and_few_are_not_enough() -> None:
    few, many = [1] * 148, [1] * 200
    verdict = non_inferiority(few, few, rng=rng())
    assert verdict.verdict == "not enough items"
    assert verdict.needed >= 149
    assert non_inferiority(many, many, rng=rng()).verdict == "yes"
    assert non_inferiority([0] * 200, [0] * 200, rng=rng()).verdict == "yes"


def test_a_run_that_loses_clearly_is_worse_and_one_that_wins_clearly_is_not() -> None:
    lost, won = [0] * 30 + [1] * 70, [1] * 100
    assert non_inferiority(lost, won, rng=rng()).verdict == "no"
    assert non_inferiority(won, lost, rng=rng()).verdict == "yes"


@given(PAIRS)
def test_a_verdict_agrees_with_its_bounds_and_small_samples_never_pass(pairs: list[tuple[int, int]]) -> None:
    a, b = (list(x) for x in zip(*pairs, strict=True))
    v = non_inferiority(a, b, rng=rng(), resamples=300)
    assert v.lower <= v.difference <= v.upper  # type: ignore[operator]
    assert (v.verdict == "yes") == (v.lower > -0.02)
    assert (v.verdict == "no") == (v.upper < -0.02)
    if v.difference <= 0:  # type: ignore[operator]
        assert v.verdict != "yes"  # 60 items can't exclude a loss of two points


@given(st.integers(1, 400))
def test_agreeing_items_pass_exactly_when_the_rule_of_three_lets_them(n: int) -> None:
    verdict = non_inferiority([1] * n, [1] * n, rng=rng())
    assert (verdict.verdict == "yes") == (n >= 149)


@pytest.mark.parametrize(("n", "won", "lost"), [(60, 0.0, 0.02), (100, 0.03, 0.05), (300, 0.10, 0.12)])
def test_a_run_that_is_worse_by_the_margin_seldom_passes(n: int, won: float, lost: float) -> None:
    generator = rng(5)
    passed = 0
    for _ in range(1000):
        u = generator.random(n)
        a, b = u >= lost, (u < lost) | (u >= lost + won)
        passed += non_inferiority(a, b, rng=generator, resamples=400).verdict == "yes"
    assert passed <= 65  # 5 %, and chance


def test_the_needed_items_do_give_a_yes_with_about_the_promised_power() -> None:
    generator = rng(6)
    pilot = generator.random(300)
    needed = non_inferiority(pilot >= 0.05, (pilot < 0.05) | (pilot >= 0.1), rng=generator).needed
    assert 1000 < needed < 2500
    yes = 0
    for _ in range(200):
        u = generator.random(needed)
        yes += (
            non_inferiority(u >= 0.05, (u < 0.05) | (u >= 0.1), rng=generator, resamples=400).verdict == "yes"
        )
    assert 0.6 * 200 <= yes <= 0.97 * 200


def test_seeds_are_kept_together_in_the_verdict() -> None:
    a, b = [1] * 200, [1] * 200
    clusters = [i // 4 for i in range(200)]
    verdict = non_inferiority(a, b, rng=rng(), clusters=clusters)
    assert (verdict.items, verdict.verdict) == (50, "not enough items")


# ---------------------------------------------------------------------------------- many runs


def test_holm_corrects_as_published() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_only_raises_keeps_the_order_and_follows_permutations(p: list[float], random: object) -> None:
    adjusted = holm(p)
    assert all(p_i <= a <= 1 and a <= p_i * len(p) + 1e-12 for p_i, a in zip(p, adjusted, strict=True))
    for (p1, a1), (p2, a2) in itertools.pairwise(sorted(zip(p, adjusted, strict=True))):
        assert p1 > p2 or a1 <= a2
    assert holm(p[::-1]) == adjusted[::-1]


def test_two_points_at_ten_percent_discordance_need_the_items_the_specification_says() -> None:
    assert resolvable_difference(1960, 0.10) == pytest.approx(0.02, abs=1e-4)
    assert items_needed(0.02, 0.10) == pytest.approx(1960, abs=5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_resolvable_difference_is_never_zero_and_shrinks_with_items(n: int, discordant: float) -> None:
    now, later = resolvable_difference(n, discordant), resolvable_difference(4 * n, discordant)
    assert 0 < later <= now <= 1
    if now < 1 and discordant >= 3 / n:
        assert later == pytest.approx(now / 2)


def test_a_run_that_another_beats_in_both_is_off_the_front() -> None:
    generator = rng(9)
    n = 400
    runs = [
        RunPoint("cheap", generator.random(n) < 0.5, generator.normal(100, 10, n)),
        RunPoint("good", generator.random(n) < 0.8, generator.normal(500, 50, n)),
        RunPoint("bad", generator.random(n) < 0.4, generator.normal(600, 50, n)),
    ]
    cheap, good, bad = pareto_front(runs, rng=generator)
    assert (cheap.on_front, good.on_front, bad.on_front) == (True, True, False)
    assert (cheap.probability, bad.probability) == (1.0, 0.0)
    assert good.probability > 0.99


def test_the_front_says_how_sure_it_is() -> None:
    generator = rng(10)
    scores = generator.random(50) < 0.5
    close = scores.copy()
    close[np.flatnonzero(~scores)[:1]] = True  # one item better, for more tokens
    first, second = pareto_front(
        [RunPoint("a", scores, np.full(50, 10)), RunPoint("b", close, np.full(50, 20))], rng=generator
    )
    assert (first.on_front, second.on_front) == (True, True)
    assert second.probability == pytest.approx(1 - (1 - 1 / 50) ** 50, abs=0.05)


def test_equal_runs_are_both_on_the_front() -> None:
    runs = [RunPoint(name, [0.1, 0.2, 0.7], [1, 2, 3]) for name in "ab"]
    assert [p.probability for p in pareto_front(runs, rng=rng())] == [1.0, 1.0]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.sampled_from([10, 20, 30])), min_size=1, max_size=6
    )
)
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, int]]) -> None:
    front = pareto_front(
        [RunPoint(f"{i}", [s] * 3, [t] * 3) for i, (s, t) in enumerate(points)], rng=rng(), resamples=5
    )
    for (score, tokens), found in zip(points, front, strict=True):
        beaten = any(s >= score and t <= tokens and (s, t) != (score, tokens) for s, t in points)
        assert found.on_front == (not beaten)
        assert found.probability == (0.0 if beaten else 1.0)


# ------------------------------------------------------------------------------------ bad input

NAN = float("nan")


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([0.5, NAN]),
        lambda: mean_interval([0.5, 1.5]),
        lambda: mean_interval([1, 0], clusters=["a"]),
        lambda: mean_interval(["a"]),  # type: ignore[list-item]
        lambda: mean_interval([None, 1.0]),  # type: ignore[list-item]
        lambda: mean_interval(np.zeros((2, 2))),
        lambda: wilson(5, 4),
        lambda: wilson(-1, 4),
        lambda: wilson(1, 4, level=95),
        lambda: paired_bootstrap([1, 0], [1], rng=rng()),
        lambda: paired_bootstrap([1, NAN], [1, 0], rng=rng()),
        lambda: paired_bootstrap([1, float("inf")], [1, 0], rng=rng()),
        lambda: paired_bootstrap([1, 0], [1, 0], rng=rng(), resamples=0),
        lambda: mcnemar([1, 0.5], [1, 0]),
        lambda: mcnemar([1], [1, 0]),
        lambda: mcnemar([NAN], [1]),
        lambda: non_inferiority([1, 0], [1], rng=rng()),
        lambda: non_inferiority([1, 2], [1, 0], rng=rng()),
        lambda: non_inferiority([1, 0], [1, 0], rng=rng(), margin=2),
        lambda: non_inferiority([1, 0], [1, 0], rng=rng(), clusters=["a"]),
        lambda: holm([0.1, NAN]),
        lambda: holm([1.1]),
        lambda: resolvable_difference(0, 0.1),
        lambda: resolvable_difference(10, 10),
        lambda: items_needed(0, 0.1),
        lambda: pareto_front([RunPoint("a", [1], [1]), RunPoint("b", [1, 0], [1, 1])], rng=rng()),
        lambda: pareto_front([RunPoint("a", [1, 0], [1])], rng=rng()),
        lambda: pareto_front([RunPoint("a", [1], [NAN])], rng=rng()),
        lambda: pareto_front([RunPoint("a", [], [])], rng=rng()),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call: object) -> None:
    with pytest.raises(UserError):
        call()  # type: ignore[operator]
