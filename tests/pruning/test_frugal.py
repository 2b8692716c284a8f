"""Frugal: few rollouts find good teams, none is wasted, and too few change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import SplitGuard, hash_of
from agentcomm.graph import Topology
from agentcomm.message import Usage
from agentcomm.pruning.clusters import find_clusters
from agentcomm.pruning.embeddings import HashEmbedder
from agentcomm.pruning.environment import Budget, Metered, Outcome
from agentcomm.pruning.frugal import Frugal, FrugalPolicy
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import load
from agentcomm.pruning.pool import Arrays, Pool, levels
from agentcomm.pruning.records import Collector, Origin, Records, read_records
from agentcomm.pruning.team_value import Hyper, Observations, TeamValue
from agentcomm.pruning.teams import Space, Team, Teams, reach, smaller
from agentcomm.task import Item
from tests.pruning.toys import Toy, toy_items, toy_pool

pytestmark = pytest.mark.anyio

SMALL = {"agents": 5, "domains": 1, "misleaders": 1}


def small(seed: int = 100, **changes: Any) -> PlantedWorld:
    return PlantedWorld(seed, **{**SMALL, **changes})


def same(a: FrugalPolicy, b: FrugalPolicy) -> bool:
    """Whether two policies decide the same, to the last bit."""
    ours, theirs = a.state(), b.state()
    return ours[0] == theirs[0] and all(ours[1][n].tobytes() == theirs[1][n].tobytes() for n in ours[1])


def teams_of(policy: FrugalPolicy, items: Sequence[Item]) -> list[Arrays]:
    return [policy.pool.arrays(policy(i)) for i in items]


# ------------------------------------------------------------------------------- what it finds


async def test_400_rollouts_find_the_team_of_a_small_world() -> None:
    world = small()
    policy = await Frugal(embedder=world).fit(world.items(60), world, Budget(rollouts=400))
    found = world.assess(policy)
    assert found.regret <= 0.1 and found.node_f1 >= 0.85
    assert policy.card.spent["rollouts"] == 400


async def test_questions_that_need_different_teams_get_them() -> None:
    world = small(101, domains=2)
    policy = await Frugal(embedder=world).fit(world.items(60), world, Budget(rollouts=900))
    teams = {world.domain_of(i): str(world.pool.arrays(policy(i)).keep) for i in world.items(40, "score")}
    assert len(policy.probabilities) == 2 and len(set(teams.values())) == 2
    assert world.assess(policy).regret <= 0.15


@pytest.mark.slow
async def test_3000_rollouts_reach_a_regret_of_a_tenth_on_the_standard_world() -> None:
    regrets, edges = [], []
    for seed in range(5):
        world = PlantedWorld(seed)
        metered = Metered(world, Budget(rollouts=3000))
        policy = await Frugal(seed=seed, embedder=world).fit(world.items(160), metered, metered.budget)
        found = world.assess(policy)
        assert metered.rollouts <= 3000
        regrets.append(found.regret)
        edges.append(found.edge_f1)
    assert np.mean(regrets) <= 0.1 and max(regrets) <= 0.2


async def test_graded_scores_are_learned_from() -> None:
    """Nobody but a1 is of any use, and answers are half right."""

    class Graded(Toy):
        async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
            arrays = self.pool.arrays(topology)
            noise = np.random.default_rng([seed, int(item.metadata["k"])]).normal(0, 0.05)
            score = float(np.clip(0.3 + 0.4 * arrays.keep[1] + noise, 0, 1))
            cost = 0.02 * float(arrays.keep.sum()) + 0.01 * float(arrays.spatial.sum())
            return Outcome(score, score - cost, Usage(10, 1))

    world = Graded(toy_pool(4), lambda item, arrays: 0.0)
    policy = await Frugal().fit(toy_items(30), world, Budget(rollouts=150))
    (team,) = teams_of(policy, toy_items(1, "score"))
    assert team.keep.tolist() == [False, True, False, False]


# ------------------------------------------------------------------------- what it doesn't claim


async def test_where_nothing_beats_the_complete_team_it_is_kept() -> None:
    def worth(item: Item, arrays: Arrays) -> float:
        return float(arrays.keep.all() and arrays.spatial.sum() == 6)

    world = Toy(toy_pool(4), worth)
    policy = await Frugal().fit(toy_items(30), world, Budget(rollouts=50))
    (team,) = teams_of(policy, toy_items(1, "score"))
    assert team.keep.all() and team.spatial.sum() == 6
    assert "complete one for 1" in " ".join(policy.card.notes)


@pytest.mark.parametrize("rollouts", [1, 7, 50])
async def test_a_tiny_budget_is_kept_and_gives_a_team(rollouts: int) -> None:
    world = PlantedWorld(100)
    metered = Metered(world, Budget(rollouts=rollouts))
    policy = await Frugal(embedder=world).fit(world.items(30), metered, metered.budget)
    assert metered.rollouts == rollouts
    assert all(a.keep.any() for a in teams_of(policy, world.items(10, "score")))


async def test_a_larger_budget_goes_on_where_a_smaller_one_ended() -> None:
    tried = []
    for rollouts in (150, 320):
        toy = Toy(toy_pool(4), lambda item, arrays: float(arrays.keep[0] and not arrays.keep[2]))
        await Frugal(seed=3).fit(toy_items(30), toy, Budget(rollouts=rollouts))
        tried.append(toy.seen)
    assert len(tried[0]) == 150 and len(tried[1]) == 320
    assert tried[1][:130] == tried[0][:130]


async def test_the_same_seed_gives_the_same_policy_and_another_one_another() -> None:
    world = small()
    fits = [
        await Frugal(seed=s, embedder=world).fit(world.items(40), world, Budget(rollouts=120))
        for s in (0, 0, 1)
    ]
    assert same(fits[0], fits[1]) and not same(fits[0], fits[2])


async def test_a_team_meets_new_items_before_it_meets_one_again() -> None:
    toy = Toy(toy_pool(3), lambda item, arrays: float(arrays.keep[0]))
    await Frugal().fit(toy_items(30), toy, Budget(rollouts=200))
    met: dict[Topology, list[str]] = {}
    for item, topology, _ in toy.seen:
        met.setdefault(topology, []).append(item)
    assert max(map(len, met.values())) > 5
    for items in met.values():
        assert len(set(items)) == min(len(items), 30)
    assert len(set(toy.seen)) == len(toy.seen)  # and never with the seed that it had


# ------------------------------------------------------------------------------ what goes wrong


async def test_failed_rollouts_are_paid_for_and_tell_nothing() -> None:
    world = small(failure_rate=0.3)
    metered = Metered(world, Budget(rollouts=300))
    policy = await Frugal(embedder=world).fit(world.items(60), metered, metered.budget)
    assert metered.rollouts == 300 and policy.card.trace["seen"] < 260
    assert world.assess(policy).regret < 0.5


async def test_nothing_but_failures_is_an_error() -> None:
    toy = Toy(toy_pool(3), lambda item, arrays: None)
    with pytest.raises(TaskError, match="toy failure"):
        await Frugal().fit(toy_items(30), toy, Budget(rollouts=400))
    assert len(toy.seen) < 400


async def test_bad_input_is_refused() -> None:
    toy = Toy(toy_pool(3), lambda item, arrays: 1.0)
    with pytest.raises(TaskError, match="split"):
        await Frugal().fit(toy_items(5, "score"), toy, Budget(rollouts=10))
    with pytest.raises(TaskError, match="no items"):
        await Frugal().fit((), toy, Budget(rollouts=10))
    with pytest.raises(TaskError, match="no rollouts and no records"):
        await Frugal().fit(toy_items(5), toy, Budget(rollouts=0))
    for wrong in ({"first": 0}, {"growth": 0.0}, {"caution": -1.0}, {"rollouts": 0}):
        with pytest.raises(ConfigError):
            Frugal(**wrong)  # type: ignore[arg-type]


async def test_a_limit_on_tokens_strikes_in_the_middle() -> None:
    world = small()
    with pytest.raises(LimitExceeded):
        await Frugal(embedder=world).fit(world.items(30), world, Budget(rollouts=300, tokens=50_000))


# ---------------------------------------------------------------------------- rollouts of others


async def test_recorded_rollouts_are_worth_as_much_as_own_ones(tmp_path: Path) -> None:
    world = small()
    items = world.items(60)
    path = tmp_path / "records.jsonl"
    with Records(path) as records:
        collector = Collector(world, records, SplitGuard.of(items), Origin("r", "frugal", "planted", "none"))
        first = await Frugal(embedder=world).fit(items, collector, Budget(rollouts=400))
    toy = Toy(world.pool, lambda item, arrays: None)
    learner = Frugal(embedder=world, records=read_records(path))
    again = await learner.fit(items[:1], toy, Budget(rollouts=0))
    assert toy.seen == []
    assert world.assess(again).regret <= 0.1
    assert again.card.learned_from == first.card.learned_from == frozenset(map(hash_of, items))
    assert again.card.spent["rollouts"] == 0


@pytest.mark.parametrize("count", [1, 60])
async def test_a_recorded_rollout_is_not_paid_again_nor_counted_as_a_second_observation(
    count: int, tmp_path: Path
) -> None:
    world, items = small(), small().items(count)
    origin = Origin("r", "frugal", "planted", "none")
    with Records(tmp_path / "r.jsonl") as records:
        collector = Collector(world, records, SplitGuard.of(items), origin)
        await Frugal(embedder=world).fit(items, collector, Budget(rollouts=60))
        known = tuple(records)
        again = Frugal(embedder=world, records=[*known, *known])
        policy = await again.fit(items, collector, Budget(rollouts=50))
        assert collector.reused == 0 and len(list(records)) == 110
        assert policy.card.trace["seen"] == 110


async def test_a_team_that_was_measured_meets_new_items_first(tmp_path: Path) -> None:
    pool, items = toy_pool(3), toy_items(40)
    toy = Toy(pool, lambda item, arrays: float(arrays.keep[0]))
    whole = Space(pool).topology(Space(pool).complete)
    with Records(tmp_path / "r.jsonl") as records:
        collector = Collector(toy, records, SplitGuard.of(items), Origin("r", "x", "toy", "none"))
        for item in items[:20]:
            await collector.rollout(item, whole, 0)
        measured = tuple(records)
    toy.seen.clear()
    await Frugal(records=measured, reference=6).fit(items, toy, Budget(rollouts=60))
    met = [item for item, topology, _ in toy.seen if topology == whole]
    assert 0 < len(met) <= 20 and set(met) <= {i.id for i in items[20:]}


async def test_labels_of_other_methods_are_no_rollouts(tmp_path: Path) -> None:
    world, items = small(), small().items(20)
    with Records(tmp_path / "r.jsonl") as records:
        collector = Collector(world, records, SplitGuard.of(items), Origin("r", "x", "planted", "none"))
        await Frugal(embedder=world).fit(items, collector, Budget(rollouts=40))
        rolled = list(records)
    labels = [dataclasses.replace(r, utility_n=4, utility=9.0, correct=1.0, weight=0.5) for r in rolled]
    without = await Frugal(embedder=world, records=rolled).fit(items, world, Budget(rollouts=0))
    beside = await Frugal(embedder=world, records=[*rolled, *labels]).fit(items, world, Budget(rollouts=0))
    assert beside.card.trace["seen"] == without.card.trace["seen"] == len(rolled)
    assert same(without, beside)


async def test_records_of_other_splits_and_teams_are_refused(tmp_path: Path) -> None:
    world, items = small(), small().items(10)
    with Records(tmp_path / "r.jsonl") as records:
        collector = Collector(world, records, SplitGuard.of(items), Origin("r", "x", "planted", "none"))
        await Frugal(embedder=world).fit(items, collector, Budget(rollouts=10))
        stranger = [dataclasses.replace(r, split="score") for r in records]
        with pytest.raises(TaskError, match="split"):
            await Frugal(embedder=world, records=stranger).fit(items, world, Budget(rollouts=0))
        other = small(agents=6)
        with pytest.raises(ConfigError, match="another team"):
            await Frugal(embedder=other, records=list(records)).fit(other.items(5), other, Budget(rollouts=0))


# ------------------------------------------------------------------------------------- its file


async def test_a_policy_is_saved_and_decides_the_same(tmp_path: Path) -> None:
    world = small(domains=2)
    policy = await Frugal(embedder=world).fit(world.items(40), world, Budget(rollouts=100))
    policy.save(tmp_path)
    again = load(tmp_path, world.graph, world)
    assert isinstance(again, FrugalPolicy) and same(policy, again)
    assert again.card == policy.card and again.spec() == policy.spec()
    items = world.items(20, "score")
    assert [again(i) for i in items] == [policy(i) for i in items]


async def test_a_policy_refuses_other_embeddings_and_other_teams(tmp_path: Path) -> None:
    world = small(domains=2)
    policy = await Frugal(embedder=world).fit(world.items(40), world, Budget(rollouts=60))
    policy.save(tmp_path)
    with pytest.raises(ConfigError, match="embedding"):
        load(tmp_path, world.graph, HashEmbedder())
    with pytest.raises(ConfigError, match="embed"):
        load(tmp_path, world.graph)
    with pytest.raises(ConfigError, match="another graph"):
        load(tmp_path, small(agents=6).graph, world)


async def test_a_card_says_that_questions_were_compared_by_hashed_words() -> None:
    toy, items = Toy(toy_pool(3), lambda item, arrays: float(arrays.keep[0])), toy_items(20)
    told = (await Frugal().fit(items, toy, Budget(rollouts=20))).card.notes
    assert any("no embedder was given" in note for note in told)
    wanted = HashEmbedder(notes=("no model is here",))  # what `fit` found no model for
    assert (
        "no model is here" in (await Frugal(embedder=wanted).fit(items, toy, Budget(rollouts=20))).card.notes
    )
    chosen = (await Frugal(embedder=HashEmbedder()).fit(items, toy, Budget(rollouts=20))).card.notes
    assert not any("hash" in note for note in chosen)


async def test_hashed_words_need_not_be_given_again(tmp_path: Path) -> None:
    toy = Toy(toy_pool(3, "graph"), lambda item, arrays: float(arrays.keep[0]))
    policy = await Frugal(embedder=HashEmbedder(64)).fit(toy_items(20), toy, Budget(rollouts=40))
    policy.save(tmp_path)
    assert load(tmp_path, toy.pool.graph)(toy_items(1)[0]) == policy(toy_items(1)[0])


async def test_a_higher_threshold_never_adds_anything() -> None:
    world = small()
    policy = await Frugal(embedder=world).fit(world.items(40), world, Budget(rollouts=200))
    item = world.items(1, "score")[0]
    before = policy.pool.arrays(policy(item))
    for threshold in (0.6, 0.8, 0.95):
        policy.node_threshold = policy.edge_threshold = threshold
        after = policy.pool.arrays(policy(item))
        assert (after.spatial <= before.spatial).all() and after.keep.any()
        before = after


# ---------------------------------------------------------------------------------- every pool


@pytest.mark.parametrize("n", [2, 3, 50])
async def test_pools_of_any_size(n: int) -> None:
    toy = Toy(toy_pool(n), lambda item, arrays: float(arrays.keep[0]))
    policy = await Frugal(first=20).fit(toy_items(30), toy, Budget(rollouts=40))
    assert len(toy.seen) == 40
    (team,) = teams_of(policy, toy_items(1, "score"))
    levels(team.spatial)


async def test_a_lone_agent_stays() -> None:
    toy = Toy(toy_pool(1), lambda item, arrays: float(item.metadata["k"] % 2))
    policy = await Frugal().fit(toy_items(30), toy, Budget(rollouts=20))
    assert teams_of(policy, toy_items(1, "score"))[0].keep.tolist() == [True]


@pytest.mark.parametrize("edges", ["graph", "complete"])
async def test_several_rounds_have_temporal_edges_of_their_own(edges: Any) -> None:
    """Worth something: a0 reads a1's words of the round before."""
    pool = toy_pool(3, edges, rounds=2, memory=False)
    if edges == "graph":
        pool = debating(3)

    def worth(item: Item, arrays: Arrays) -> float:
        return float(arrays.temporal[1, 0]) - 0.02 * float(arrays.spatial.sum() + arrays.temporal.sum())

    toy = Toy(pool, worth)
    policy = await Frugal().fit(toy_items(30), toy, Budget(rollouts=200))
    (team,) = teams_of(policy, toy_items(1, "score"))
    assert team.temporal[1, 0] and team.temporal.sum() <= 2
    assert not (team.spatial & ~pool.spatial_allowed).any()


def debating(n: int) -> Pool:
    from agentcomm import topologies

    return Pool(topologies.debate([f"a{i}" for i in range(n)], decision="judge", rounds=2))


async def test_in_a_graph_where_few_are_heard_a_team_is_what_would_run() -> None:
    from agentcomm import topologies

    pool = Pool(topologies.chain([f"a{i}" for i in range(4)], decision="judge"))
    toy = Toy(pool, lambda item, arrays: float(arrays.keep[3]) - 0.05 * float(arrays.keep.sum()))
    policy = await Frugal().fit(toy_items(30), toy, Budget(rollouts=80))
    assert all(not t or t.masks for _, t, _ in toy.seen)
    (team,) = teams_of(policy, toy_items(1, "score"))
    assert team.keep.tolist() == [False, False, False, True]


# ---------------------------------------------------------------------------------------- parts


def test_planted_domains_are_found_without_being_told() -> None:
    for world in (PlantedWorld(100), PlantedWorld(101, domains=7, noise=0.6)):
        items = world.items(200)
        vectors = world.embed([i.question for i in items])
        clusters = find_clusters(vectors, np.random.default_rng(0))
        kinds, domains = clusters.of(vectors), [world.domain_of(i) for i in items]
        assert len(clusters.centres) == world.domains
        assert len(set(zip(kinds.tolist(), domains, strict=True))) == world.domains


def test_vectors_without_clusters_stay_together() -> None:
    rng = np.random.default_rng(0)
    for dimensions in (16, 384):
        vectors = rng.normal(size=(150, dimensions))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert len(find_clusters(vectors, rng).centres) == 1
    assert len(find_clusters(np.tile(vectors[:1], (30, 1)), rng).centres) == 1
    assert len(find_clusters(vectors[:1], rng).centres) == 1


@pytest.mark.parametrize(("edges", "rounds"), [("complete", 1), ("complete", 2), ("graph", 1)])
def test_random_teams_and_their_neighbours_are_teams_of_the_pool(edges: Any, rounds: int) -> None:
    pool = toy_pool(6, edges, rounds, memory=False)
    space, rng = Space(pool), np.random.default_rng(0)
    start = space.random(300, rng)
    after = space.neighbours(start, rng.integers(1, 5, size=300), rng)
    for teams in (start, after, space.neighbours(after, np.full(300, 6), rng)):
        for i in range(teams.size):
            team = teams.one(i)
            assert team.keep.any()
            both = team.keep[:, None] & team.keep
            assert not ((team.spatial | team.temporal) & ~both).any()
            levels(team.spatial)
            assert Teams.of([Team(*pool.arrays(space.topology(team)))]).keys == Teams.of([team]).keys
    moved = sum(a != b for a, b in zip(start.keys, after.keys, strict=True))
    assert moved > 200 and len(set(start.keys)) > 150


def test_every_part_of_a_team_can_be_taken_away() -> None:
    keep = np.array([True, True, False])
    spatial, temporal = np.zeros((3, 3), np.bool_), np.zeros((3, 3), np.bool_)
    spatial[0, 1] = temporal[1, 0] = True
    fewer = smaller(Team(keep, spatial, temporal))
    assert fewer is not None and fewer.size == 4
    assert fewer.keep.sum(axis=1).tolist() == [1, 1, 2, 2]
    assert fewer.spatial.sum(axis=(1, 2)).tolist() == [0, 0, 0, 1]
    assert fewer.temporal.sum(axis=(1, 2)).tolist() == [0, 0, 1, 0]
    alone = Team(np.array([True, False]), np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_))
    assert smaller(alone) is None


def test_reach_is_what_a_message_can_reach() -> None:
    """Against following every message by hand, round by round."""
    pool, rng = toy_pool(5, rounds=3, memory=False), np.random.default_rng(1)
    teams = Space(pool).random(60, rng)
    found = reach(teams.spatial, teams.temporal, 3)
    for b in range(teams.size):
        last: list[set[tuple[int, int]]] = [set() for _ in range(5)]
        for r in range(3):
            now = [set() if not r else set[tuple[int, int]]() for _ in range(5)]
            for j in np.argsort(levels(teams.spatial[b]), kind="stable").tolist():
                for i in np.flatnonzero(teams.spatial[b][:, j]).tolist():
                    now[j] |= now[i] | {(i, r)}
                if r:
                    for i in np.flatnonzero(teams.temporal[b][:, j]).tolist():
                        now[j] |= last[i] | {(i, r - 1)}
            last = now
        expected = np.zeros((5, 5), np.bool_)
        for j, heard in enumerate(last):
            for i, _ in heard:
                expected[i, j] = True
        assert (found[b] == expected).all()


def seen_of(space: Space, count: int, score: Any, kinds: int = 1) -> Observations:
    rng = np.random.default_rng(0)
    teams, seen = space.random(count, rng), Observations.none()
    for i in range(count):
        seen.add(i % kinds, i % 20, teams.one(i), float(score(teams.one(i), i, rng)))
    return seen


def test_the_value_model_learns_who_is_needed_and_how_sure_it_is() -> None:
    space = Space(toy_pool(5))
    seen = seen_of(space, 400, lambda team, i, rng: rng.random() < 0.2 + 0.6 * team.keep[2])
    model = TeamValue(space)
    model.fit(seen)
    fresh = space.random(200, np.random.default_rng(9))
    joint = model.joint(fresh, 0)
    truth = 0.2 + 0.6 * fresh.keep[:, 2]
    assert np.abs(joint.mean - truth).mean() < 0.1
    assert (np.abs(joint.mean - truth) < 2.5 * joint.sd).mean() > 0.9
    draws = joint.draw(np.random.default_rng(0), 3000)
    assert np.allclose(draws.mean(axis=0), joint.mean, atol=0.02)
    assert np.allclose(draws.std(axis=0), joint.sd, atol=0.02)


def test_hard_items_don_t_speak_against_the_teams_that_met_them() -> None:
    space = Space(toy_pool(4))
    rng = np.random.default_rng(0)
    teams, seen = space.random(6, rng), Observations.none()
    for i in range(240):  # even teams meet hard items twice as often; all teams score alike
        team = i % 6
        item = (
            int(rng.integers(0, 10))
            if rng.random() < (2 / 3 if team % 2 == 0 else 1 / 3)
            else 10 + int(rng.integers(0, 10))
        )
        seen.add(0, item, teams.one(team), 0.2 if item < 10 else 0.8)
    model = TeamValue(space)
    model.fit(seen)
    model.fit(seen)
    raw = [np.mean([s for s, t in zip(seen.score, seen.team, strict=True) if t == k]) for k in range(6)]
    assert np.ptp(model.mean(Teams.of(seen.teams), 0)) < 0.4 * np.ptp(raw)


def test_kinds_of_question_that_need_the_same_team_are_learned_as_one() -> None:
    space = Space(toy_pool(5))

    def alike(team: Team, i: int, rng: np.random.Generator) -> bool:
        return bool(rng.random() < 0.15 + 0.7 * team.keep[2])

    def apart(team: Team, i: int, rng: np.random.Generator) -> bool:
        return bool(rng.random() < 0.15 + 0.7 * team.keep[i % 4])

    shared = []
    for score in (alike, apart):
        model = TeamValue(space, Hyper(shared=0.5))
        model.fit(seen_of(space, 400, score, kinds=4))
        shared.append(model.hyper.shared)
    assert shared[0] == 1.0 and shared[1] < 1.0
