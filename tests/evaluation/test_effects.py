"""Effects of leaving parts out: intervals cover the truth of a planted world, and never claim certainty."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from agentcomm.errors import UserError
from agentcomm.evaluation.effects import Design, Effect, masked, paired
from tests.evaluation.planted_team import WORLD, chance, exact, left, names, needs, team, varied

GRAPH = team()
PARTS = varied(GRAPH)
KEEP = 0.8


def scores(repeat: int, count: int) -> tuple[list[str], list[float], dict[str, list[float]]]:
    """Items, the whole team's scores, and those without each part: drawn, as rollouts are."""
    items = WORLD.items(count, "validate", start=repeat * count)
    whole = [WORLD.outcome(i, GRAPH.topology(), repeat).correct or 0.0 for i in items]
    found = {}
    for part in PARTS:
        assert part.left is not None
        found[part.name] = [WORLD.outcome(i, part.left, repeat).correct or 0.0 for i in items]
    return [i.id for i in items], whole, found


def teams(repeat: int, count: int, draws: int) -> tuple[Design, list[float], list[float]]:
    """A masked design, its drawn scores, and the whole team's for each row."""
    items = WORLD.items(count, "learn", start=repeat * count)
    rng = np.random.default_rng([repeat, 1])
    kept = rng.random((count * draws, len(PARTS))) < KEEP
    owner = [i for i in items for _ in range(draws)]
    y = [
        WORLD.outcome(i, left(GRAPH, PARTS, row), n).correct or 0.0
        for n, (i, row) in enumerate(zip(owner, kept, strict=True))
    ]
    whole = {i.id: WORLD.outcome(i, GRAPH.topology(), repeat).correct or 0.0 for i in items}
    design = Design(kept, np.full(len(PARTS), KEEP), needs(PARTS), tuple(i.id for i in owner))
    return design, y, [whole[i.id] for i in owner]


def covered(effect: Effect, truth: float) -> bool:
    assert effect.low is not None and effect.high is not None
    return effect.low <= truth <= effect.high


def test_intervals_of_ablation_cover_the_planted_effects_about_95_times_in_100() -> None:
    truth = {p.name: chance(GRAPH.topology()) - chance(p.left) for p in PARTS if p.left is not None}
    assert len({round(t, 6) for t in truth.values()}) > 4  # parts that matter, that don't, that harm
    hits = []
    for repeat in range(25):
        items, whole, found = scores(repeat, 60)
        rng = np.random.default_rng(repeat)
        hits += [covered(paired(whole, found[n], items, rng=rng), t) for n, t in truth.items()]
    assert len(hits) == 25 * len(PARTS)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_intervals_of_regression_cover_the_planted_effects_about_95_times_in_100() -> None:
    truth = exact(GRAPH, PARTS, KEEP)
    hits, estimates = [], []
    for repeat in range(40):
        design, y, whole = teams(repeat, 50, 2)
        rng = np.random.default_rng(repeat)
        found = masked(y, design, rng=rng, whole=whole, resamples=300)
        hits += [covered(e, t) for e, t in zip(found, truth, strict=True)]
        estimates.append([e.mean for e in found])
    assert 0.92 <= np.mean(hits) <= 0.985
    # Unbiased: the mean over repeats is where the truth is, up to its own error.
    drawn = np.array(estimates, dtype=float)
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - truth) < 3.5 * error + 0.01).all()


def test_a_misleaders_parts_come_out_harmful_and_a_solvers_worth_it_in_both() -> None:
    solver, misleader = names()
    items, whole, found = scores(0, 600)
    rng = np.random.default_rng(0)
    by_ablation = {n: paired(whole, found[n], items, rng=rng) for n in found}
    design, y, base = teams(0, 600, 3)
    by_regression = dict(zip((p.name for p in PARTS), masked(y, design, rng=rng, whole=base), strict=True))
    for effects in (by_ablation, by_regression):
        for name in (misleader, f"{misleader}->{solver}", f"{misleader}->judge"):
            high = effects[name].high
            assert high is not None and high < 0, name
        low = effects[f"{solver}->judge"].low
        assert low is not None and low > 0


def test_regression_tells_as_much_from_a_third_of_the_episodes() -> None:
    # 11 parts: ablation takes 12 teams an item; regression here 1 + 3.
    items, whole, found = scores(1, 100)
    rng = np.random.default_rng(1)
    ablation = [paired(whole, found[p.name], items, rng=rng) for p in PARTS]
    design, y, base = teams(1, 100, 3)
    regression = masked(y, design, rng=rng, whole=base)

    def width(effects: list[Effect] | tuple[Effect, ...]) -> float:
        return float(np.mean([e.high - e.low for e in effects if e.high is not None and e.low is not None]))

    assert len(PARTS) == 11
    assert width(regression) < 1.6 * width(ablation)


def test_knowing_the_whole_teams_score_sharpens_where_items_differ() -> None:
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(80), 2)
    hard = np.repeat(rng.random(80) < 0.5, 2)
    kept = rng.random((160, 2)) < 0.7
    y = np.where(hard, 0.1, 0.9) + 0.05 * kept[:, 0]
    design = Design(kept, np.full(2, 0.7), ((), ()), tuple(items.tolist()))
    blind = masked(y[::2], Design(kept[::2], design.keep, design.needs, tuple(range(80))), rng=rng)
    told = masked(
        y[::2],
        Design(kept[::2], design.keep, design.needs, tuple(range(80))),
        rng=rng,
        whole=np.where(hard, 0.15, 0.95)[::2],
    )
    assert told[0].low is not None and blind[0].low is not None and told[0].mean is not None
    assert told[0].mean - told[0].low < 0.2 * (blind[0].mean or 0) - 0.2 * blind[0].low
    assert covered(told[0], 0.05) and covered(told[1], 0.0)
    # Other rows of the item serve where the whole team is unknown.
    alone = masked(y, design, rng=rng)
    assert covered(alone[0], 0.05) and alone[0].high is not None and alone[0].high < 0.1


def test_scores_that_all_agree_show_no_certainty() -> None:
    kept = np.random.default_rng(0).random((60, 3)) < KEEP
    design = Design(kept, np.full(3, KEEP), ((), (), ()), tuple(range(60)))
    found = masked(np.ones(60), design, rng=np.random.default_rng(0))
    for u, effect in enumerate(found):
        out = int((~kept[:, u]).sum())
        assert effect.mean == pytest.approx(0) and effect.p_value == 1.0
        assert effect.high == pytest.approx(1 - 0.025 ** (1 / out), abs=1e-6)
        assert effect.upper is not None and effect.upper > 0.05


def test_a_part_that_was_left_out_less_than_twice_is_not_said_anything_of() -> None:
    kept = np.ones((10, 2), dtype=bool)
    kept[:5, 0] = False
    kept[0, 1] = False
    design = Design(kept, np.full(2, 0.5), ((), ()), tuple(range(10)))
    first, second = masked(np.arange(10) / 10, design, rng=np.random.default_rng(0))
    assert first.mean is not None and second.mean is None


def test_an_edge_is_judged_by_rows_that_have_both_its_ends() -> None:
    rng = np.random.default_rng(0)
    kept = rng.random((4000, 3)) < 0.5  # two agents and the edge between them
    y = (kept.all(axis=1)).astype(float)
    design = Design(kept, np.full(3, 0.5), ((), (), (0, 1)), tuple(range(4000)))
    agent, _, edge = masked(y, design, rng=rng, resamples=200)
    assert covered(edge, 1.0) and edge.mean == pytest.approx(1.0, abs=0.05)
    assert covered(agent, 0.25) and agent.mean == pytest.approx(0.25, abs=0.05)
    assert design.shows(2) == (~kept[:, 2] & kept[:, 0] & kept[:, 1]).sum()


def test_failed_rows_are_left_out_and_rows_of_an_item_count_once() -> None:
    design, y, _ = teams(2, 30, 2)
    gone = [v if n % 7 else float("nan") for n, v in enumerate(y)]
    rows = [n for n in range(len(y)) if n % 7]
    smaller = Design(design.kept[rows], design.keep, design.needs, tuple(design.clusters[n] for n in rows))
    a = masked(gone, design, rng=np.random.default_rng(0))
    b = masked([y[n] for n in rows], smaller, rng=np.random.default_rng(0))
    assert [e.mean for e in a] == [e.mean for e in b]
    assert a[0].items == len({design.clusters[n] for n in rows})
    # Ten copies of the same rows are no more items.
    many = Design(
        np.repeat(design.kept, 10, axis=0),
        design.keep,
        design.needs,
        tuple(np.repeat(np.array(design.clusters), 10).tolist()),
    )
    assert Counter(many.clusters)[design.clusters[0]] == 20
    c = masked(np.repeat(y, 10), many, rng=np.random.default_rng(0))
    d = masked(y, design, rng=np.random.default_rng(0))
    assert (c[0].high or 0) - (c[0].low or 0) > 0.5 * ((d[0].high or 0) - (d[0].low or 0))


def test_with_fewer_than_three_items_nothing_is_known() -> None:
    kept = np.array([[True], [False], [True], [False]])
    design = Design(kept, np.full(1, 0.5), ((),), ("a", "a", "b", "b"))
    assert masked([1, 0, 1, 0], design, rng=np.random.default_rng(0))[0].mean is None
    assert paired([], [], [], rng=np.random.default_rng(0)).mean is None


def test_a_design_that_shows_nothing_is_refused() -> None:
    kept = np.ones((4, 1), dtype=bool)
    for keep in (0.0, 1.0):
        with pytest.raises(UserError, match="always kept, or never"):
            Design(kept, np.full(1, keep), ((),), (1, 2, 3, 4))
    with pytest.raises(UserError, match="a design of 4 rows"):
        Design(kept, np.full(2, 0.5), ((),), (1, 2, 3, 4))
