"""Mining: what is tried, on which items it is verified, and what becomes a label."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import SplitGuard, hash_of
from agentcomm.graph import Topology
from agentcomm.message import Usage
from agentcomm.pruning import mining
from agentcomm.pruning.environment import Budget, Metered, Outcome
from agentcomm.pruning.mining import Plan
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.pruning.records import Collector, Origin, Records, labels, read_records
from agentcomm.task import Item

pytestmark = pytest.mark.anyio

WORLD = PlantedWorld(103, agents=5, domains=2, misleaders=1)
ITEMS = WORLD.items(12)
VECTORS = WORLD.embed([item.question for item in ITEMS])
PLAN = Plan(12, rounds=1, candidates=10, first=2, second=3)


class Watched:
    """A world that remembers who was asked, and may answer otherwise."""

    pool = WORLD.pool

    def __init__(self, answer: Any = None) -> None:
        self.seen: list[tuple[str, Topology, int]] = []
        self.answer = answer

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        self.seen.append((item.id, topology, seed))
        if self.answer is None:
            return WORLD.outcome(item, topology, seed)
        found: Outcome = self.answer(len(self.seen), item, topology)
        return found


def worth(utility: float | None, tokens: int = 100) -> Outcome:
    if utility is None:
        return Outcome(None, None, Usage(tokens, 0), status="failed", failure="down")
    return Outcome(float(utility > 0), utility, Usage(tokens, 0))


async def mine(environment: Any, plan: Plan = PLAN, **more: Any) -> list[mining.Label]:
    return await mining.mine(environment, ITEMS, VECTORS, plan, seed=0, stage_round=1, **more)


# -------------------------------------------------------------------------------- candidates


def test_sizes_come_from_a_truncated_normal_and_subsets_are_uniform() -> None:
    pool, rng = PlantedWorld(0).pool, np.random.default_rng(0)
    keeps = np.array([mining.sized(pool, rng).keep for _ in range(4000)])
    sizes = keeps.sum(axis=1)
    assert set(np.unique(keeps)) == {0.0, 1.0}
    assert (sizes.min(), sizes.max()) == (2, 8)
    # Of N(4, 2^2) rounded and cut to 2..8: P(size = 4) is 0.1974 / 0.8822.
    assert (sizes == 4).mean() == pytest.approx(0.2238, abs=0.025)
    assert keeps.mean(axis=0) == pytest.approx(np.full(8, sizes.mean() / 8), abs=0.03)


def test_candidates_differ_and_as_many_as_there_are() -> None:
    rng = np.random.default_rng(0)
    found = [r for r, _ in mining.draw_candidates(WORLD.pool, 40, rng)]
    assert len({(r.keep.tobytes(), r.spatial.tobytes()) for r in found}) == len(found) == 40
    tiny = PlantedWorld(0, agents=2, facts=1, misleaders=0).pool
    # Either agent alone, or both: without an edge, or either way.
    assert len(mining.draw_candidates(tiny, 40, rng)) == 5


def test_later_rounds_take_four_fifths_from_the_network_and_rule_nothing_out() -> None:
    sure = EdgeProbabilities.of([1, 1, 1, 1, 0], np.zeros((5, 5)))
    found = mining.draw_candidates(WORLD.pool, 20, np.random.default_rng(0), sure)
    from_network = [how for _, how in found if set(np.unique(how.keep)) == {0.05, 0.95}]
    assert len(from_network) == 16
    assert {float(how.spatial.min()) for how in from_network} == {0.05}


def test_pairs_that_the_pool_lacks_are_never_tried() -> None:
    from agentcomm import topologies
    from agentcomm.graph import Agent
    from agentcomm.pruning.pool import Pool

    pool = Pool(topologies.chain([Agent(n, role=n) for n in "abcd"], Agent("judge", role="You decide.")))
    for drawn, _ in mining.draw_candidates(pool, 30, np.random.default_rng(0)):
        assert not (drawn.spatial & ~pool.spatial_allowed).any()


def test_soft_pruning_alone_keeps_every_agent() -> None:
    found = mining.draw_candidates(WORLD.pool, 10, np.random.default_rng(0), learn_nodes=False)
    assert all(r.keep.all() for r, _ in found)


def test_the_nearest_items_are_the_most_similar_others() -> None:
    near = mining.nearest(VECTORS)
    assert near.shape == (12, 11)
    alike = VECTORS @ VECTORS.T
    for at, others in enumerate(near):
        assert at not in others
        assert (np.diff(alike[at, others]) <= 1e-9).all()


# -------------------------------------------------------------------------------------- plan


def test_the_default_plan_for_160_items_is_that_of_the_specification() -> None:
    assert Plan(160).rollouts == 92_160
    assert Plan(160, rounds=3, candidates=8, first=2, second=4).rollouts == 19_200


@pytest.mark.parametrize("items", [1, 2, 7, 40, 160])
def test_a_plan_shrinks_to_any_budget_that_allows_a_rollout(items: int) -> None:
    for budget in (1, 2, 5, 17, 60, 300, 1000, 5000, 20_000, 95_000):
        plan = Plan(items).within(budget)
        assert 1 <= plan.rollouts <= budget
        assert plan.first + plan.second <= items - 1
    assert Plan(items).within(None).rounds == 6
    with pytest.raises(LimitExceeded):
        Plan(items).within(0)


def test_a_plan_without_rounds_is_refused() -> None:
    with pytest.raises(ConfigError):
        Plan(10, rounds=0)


# -------------------------------------------------------------------------------------- rule


async def test_a_round_makes_the_planned_rollouts_with_different_seeds() -> None:
    environment = Watched()
    found = await mine(environment)
    assert len(environment.seen) == PLAN.rollouts == 12 * (10 + 8 * 2 + 4 * 3)
    assert len({seed for _, _, seed in environment.seen}) > 0.99 * len(environment.seen)
    assert Counter(label.item.id for label in found) == {item.id: 2 for item in ITEMS}
    assert {label.weight for label in found} == {0.5}
    assert {label.utility_n for label in found} == {5}


async def test_graphs_are_verified_on_the_nearest_other_items() -> None:
    environment = Watched()
    await mine(environment)
    near = mining.nearest(VECTORS)
    verified = environment.seen[120:]
    assert [i for i, _, _ in verified[:16]] == [ITEMS[j].id for j in near[0, :2]] * 8
    assert [i for i, _, _ in verified[192:204]] == [ITEMS[j].id for j in near[0, 2:5]] * 4


async def test_first_scores_are_discarded() -> None:
    """A graph that was lucky once, and never again, is no label if others do better elsewhere."""

    def answer(count: int, item: Item, topology: Topology) -> Outcome:
        size = len(topology.masks[0].agents) - 1
        if count <= 120:
            return worth(1.0 if size >= 3 else 0.9)
        return worth(0.1 * (5 - size))

    for label in await mine(Watched(answer)):
        assert label.utility == pytest.approx(0.1 * (5 - label.realisation.keep.sum()))


async def test_equal_graphs_are_told_apart_by_their_tokens() -> None:
    def answer(count: int, item: Item, topology: Topology) -> Outcome:
        return worth(0.5, tokens=10 * len(topology.masks[0].agents) + len(topology.masks[0].edges))

    for label in await mine(Watched(answer)):
        assert label.realisation.keep.sum() == 2


async def test_failed_rollouts_are_never_labels() -> None:
    failing = {ITEMS[0].id}

    def answer(count: int, item: Item, topology: Topology) -> Outcome:
        return worth(None) if item.id in failing else worth(0.5)

    found = await mine(Watched(answer))
    assert {label.item.id for label in found} == {i.id for i in ITEMS} - failing
    assert {label.utility for label in found} == {0.5}  # not dragged down by failures


async def test_nothing_but_failures_is_an_error() -> None:
    with pytest.raises(TaskError, match="120 failed"):
        await mine(Watched(lambda *_: worth(None)))


async def test_the_control_takes_what_was_right_once_and_cheap() -> None:
    environment = Watched()
    found = await mine(environment, rule="cheapest")
    asked = {item.id: 0 for item in ITEMS}
    for item_id, _, _ in environment.seen:
        asked[item_id] += 1
    assert max(asked.values()) <= PLAN.each  # as many rollouts, all on the item itself
    assert all(label.correct == 1.0 and label.utility_n == 1 for label in found)
    right = [
        (outcome.total_tokens or 0)
        for i, t, s in environment.seen
        if i == ITEMS[0].id and (outcome := WORLD.outcome(ITEMS[0], t, s)).correct
    ]
    got = [(x.prompt or 0) + (x.completion or 0) for x in found if x.item.id == ITEMS[0].id]
    assert got == sorted(right)[: len(got)]


# ----------------------------------------------------------------------------------- records


def collector(path: Path, environment: Any = WORLD) -> Collector:
    guard = SplitGuard.of([*ITEMS, *WORLD.items(5, "validate"), *WORLD.items(5, "score")])
    return Collector(environment, Records(path), guard, Origin("run", "agp", "planted", "planted"))


async def test_labels_are_stored_beside_all_that_was_tried_and_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    to = collector(path)
    found = await mine(Metered(to, Budget()))
    rollouts = len(read_records(path)) - len(found)
    assert rollouts + to.reused == PLAN.rollouts
    stored = labels(read_records(path), to.guard)
    assert [(r.item_hash, r.keep, r.spatial, r.weight, r.utility_n) for r in stored] == [
        (
            hash_of(x.item),
            x.realisation.keep.astype(int).tolist(),
            x.realisation.spatial.astype(int).tolist(),
            0.5,
            5,
        )
        for x in found
    ]
    assert {r.stage_round for r in stored} == {1}
    to.records.close()

    again = collector(path, environment=Watched(lambda *_: pytest.fail("paid twice")))
    repeated = await mine(again)
    again.records.close()
    assert len(read_records(path)) == rollouts + len(found)
    assert [x.realisation.topology for x in repeated] == [x.realisation.topology for x in found]


async def test_mining_that_was_cut_off_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    limited = collector(path, Metered(WORLD, Budget(tokens=100_000)))
    with pytest.raises(LimitExceeded):
        await mine(limited)
    limited.records.close()
    before = len(read_records(path))
    assert 0 < before < PLAN.rollouts

    watched = Watched()
    to = collector(path, watched)
    found = await mine(to)
    to.records.close()
    assert len(watched.seen) + before + to.reused - before <= PLAN.rollouts
    assert to.reused >= before
    whole = await mine(WORLD)
    assert [dataclasses.astuple(x.realisation.topology) for x in found] == [
        dataclasses.astuple(x.realisation.topology) for x in whole
    ]


async def test_items_outside_the_learn_split_are_refused(tmp_path: Path) -> None:
    to = collector(tmp_path / "records.jsonl")
    items = WORLD.items(5, "score")
    vectors = WORLD.embed([item.question for item in items])
    with pytest.raises(TaskError, match="not among the learn items"):
        await mining.mine(to, items, vectors, Plan(5, first=1, second=1), seed=0, stage_round=1)
    to.records.close()
