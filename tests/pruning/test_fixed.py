"""Teams nobody learned: as they are, by a rule, the best of several, and random ones of a given size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm import topologies
from agentcomm.errors import ConfigError, GraphError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.graph import Agent, AgentGraph
from agentcomm.message import Usage
from agentcomm.pruning.environment import Budget, Outcome
from agentcomm.pruning.fixed import FIXED, BestFixed, Fixed, MatchedRandom, NoPruning, RandomPolicy
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import Card, Policy, StaticPolicy, load
from agentcomm.pruning.pool import Arrays, Pool, levels
from agentcomm.pruning.realise import EdgeProbabilities, realise
from agentcomm.task import Item
from tests.pruning.toys import Toy, toy_items, toy_pool

pytestmark = pytest.mark.anyio

NO_LIMIT = Budget()
(ITEM,) = toy_items(1)


def nothing(item: Item, arrays: Arrays) -> float:
    raise AssertionError("nobody learns here, so nothing may be run")


async def fitted(learner: Any, pool: Pool) -> Policy:
    """What a learner makes of a pool without a single rollout."""
    policy = await learner.fit(toy_items(3), Toy(pool, nothing), Budget(rollouts=0))
    assert policy.card.spent == {"rollouts": 0}
    assert isinstance(policy, Policy)
    return policy


def sizes(pool: Pool, policy: Policy, item: Item) -> tuple[list[int], list[int], list[int]]:
    """Agents, spatial and temporal edges that are executed, by round."""
    keep, spatial, temporal = pool.arrays(policy(item))
    n = len(pool)
    return (
        keep.reshape(-1, n).sum(axis=1).tolist(),
        spatial.reshape(-1, n * n).sum(axis=1).tolist(),
        temporal.reshape(-1, n * n).sum(axis=1).tolist(),
    )


# ---------------------------------------------------------------------------- none and by a rule


@pytest.mark.parametrize("rounds", [1, 2])
async def test_without_pruning_a_graph_stays_as_it_is(rounds: int) -> None:
    pool = toy_pool(4, "graph", rounds)
    policy = await fitted(NoPruning(), pool)
    assert policy.card.method == "none"
    assert policy(ITEM).masks == pool.graph.topology().masks


async def test_without_pruning_a_complete_pool_is_the_complete_dag_and_later_the_mesh() -> None:
    for rounds in (1, 2):
        pool = toy_pool(4, rounds=rounds)
        keep, spatial, temporal = pool.arrays((await fitted(NoPruning(), pool))(ITEM))
        assert keep.all()
        np.testing.assert_array_equal(spatial, np.triu(np.ones((4, 4), bool), 1))
        np.testing.assert_array_equal(temporal, ~np.eye(4, dtype=bool) & (rounds > 1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("independent", {}),
        ("chain", {}),
        ("star", {}),
        ("star", {"direction": "in"}),
        ("tree", {"b": 3}),
        ("layered", {"layers": 3}),
        ("complete", {}),
        ("mesh", {}),
    ],
)
async def test_fixed_topologies_have_their_builders_edges(name: str, options: dict[str, Any]) -> None:
    pool = toy_pool(5)
    policy = await fitted(Fixed(name, options), pool)
    built = topologies.BUILDERS[name](pool.agents, pool.graph.by_name["judge"], **options)
    expected = {(e.sender, e.reader) for e in built.edges if e.kind == "spatial"}
    assert {(e.sender, e.reader) for e in policy(ITEM).masks[0].edges} == expected


async def test_a_debate_needs_its_second_round() -> None:
    pool = toy_pool(3, rounds=2, memory=False)
    keep, spatial, temporal = pool.arrays((await fitted(Fixed("debate"), pool))(ITEM))
    assert keep.all() and not spatial.any() and temporal.all()
    with pytest.raises(GraphError, match="rounds=1"):
        await fitted(Fixed("debate"), toy_pool(3))


async def test_one_agent_alone_and_edges_of_one_s_own() -> None:
    pool = toy_pool(3)
    alone = (await fitted(Fixed("single", {"agent": "a1"}), pool))(ITEM)
    assert alone.masks[0].agents == {"a1", "judge"}
    own = await fitted(Fixed("custom", {"spatial": [("a2", "a0")]}), pool)
    assert np.argwhere(pool.arrays(own(ITEM)).spatial).tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("fixed", "edges", "words"),
    [
        (Fixed("ring"), "complete", "no fixed topology 'ring'"),
        (Fixed("random_dag"), "complete", "no fixed topology 'random_dag'"),
        (Fixed("chain", {"width": 2}), "complete", "width"),
        (Fixed("single", {"agent": "nobody"}), "complete", "nobody"),
        (Fixed("single", {"who": "a1"}), "complete", "'who'"),
        (Fixed("custom", {"spatial": [("a0", "nobody")]}), "complete", "nobody"),
        (Fixed("star", {"direction": "in"}), "graph", "a1->a0"),
    ],
)
async def test_topologies_that_a_pool_can_t_have_are_refused(fixed: Fixed, edges: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        await fitted(fixed, toy_pool(3, edges))


# --------------------------------------------------------------------------------- best of several


async def test_the_best_fixed_topology_is_the_one_with_the_largest_mean_utility() -> None:
    env = Toy(toy_pool(4), lambda item, arrays: float(arrays.spatial[1, 0]))  # only a star inwards has it
    policy = await BestFixed().fit(toy_items(5, "validate"), env, NO_LIMIT)
    assert pool_edges(policy) == {("a1", "a0"), ("a2", "a0"), ("a3", "a0")}
    assert len(env.seen) == len(FIXED) * 5
    assert len({(i, s) for i, _, s in env.seen}) == 5  # the same items and seeds for all
    assert policy.card.learned_from == frozenset(map(hash_of, toy_items(5, "validate")))
    told = policy.card.trace["candidates"]
    assert [row["utility"] for row in told if row["topology"] == "chain"] == [0.0]


def pool_edges(policy: Policy) -> set[tuple[str, str]]:
    return {(e.sender, e.reader) for e in policy(ITEM).masks[0].edges if e.reader != "judge"}


class Priced(Toy):
    """Tells the edges as tokens."""

    async def rollout(self, item: Item, topology: Any, seed: int) -> Outcome:
        outcome = await super().rollout(item, topology, seed)
        return Outcome(outcome.correct, outcome.utility, Usage(len(topology.masks[0].edges), 0))


async def test_ties_go_to_fewer_tokens() -> None:
    env = Priced(toy_pool(4), lambda item, arrays: 1.0)
    policy = await BestFixed((Fixed("complete"), Fixed("chain"), Fixed("star"))).fit(
        toy_items(2), env, NO_LIMIT
    )
    assert policy.card.settings["chosen"] == "chain"


async def test_a_budget_takes_items_from_all_candidates_alike() -> None:
    env = Toy(toy_pool(4), lambda item, arrays: float(arrays.spatial[0, 1]))
    two = BestFixed((Fixed("chain"), Fixed("independent")), repeats=2)
    policy = await two.fit(toy_items(9), env, Budget(rollouts=11))
    assert len(env.seen) == 8 and len(policy.card.learned_from) == 2
    assert policy.card.spent["rollouts"] == 8
    with pytest.raises(LimitExceeded, match="takes 4"):
        await two.fit(toy_items(9), env, Budget(rollouts=3))


async def test_failures_don_t_count_and_nothing_but_failures_is_an_error() -> None:
    def chain_fails_sometimes(item: Item, arrays: Arrays) -> float | None:
        if arrays.spatial[1, 2]:
            return None if item.metadata["k"] else 0.9
        return 0.5

    pair = BestFixed((Fixed("independent"), Fixed("chain")))
    policy = await pair.fit(toy_items(4), Toy(toy_pool(3), chain_fails_sometimes), NO_LIMIT)
    assert policy.card.settings["chosen"] == "chain"
    assert [row["failed"] for row in policy.card.trace["candidates"]] == [0, 3]
    with pytest.raises(TaskError, match="every rollout failed"):
        await pair.fit(toy_items(4), Toy(toy_pool(3), lambda item, arrays: None), NO_LIMIT)
    with pytest.raises(TaskError, match="must not see"):
        await pair.fit(toy_items(4, "score"), Toy(toy_pool(3), nothing), NO_LIMIT)


async def test_candidates_that_the_pool_can_t_have_are_left_out() -> None:
    env = Toy(toy_pool(3, "graph"), lambda item, arrays: float(arrays.spatial[0, 1]))
    policy = await BestFixed().fit(toy_items(2), env, NO_LIMIT)
    assert {"direction": "in"} not in [row["options"] for row in policy.card.trace["candidates"]]
    with pytest.raises(GraphError, match="none of the candidates"):
        await BestFixed((Fixed("star", {"direction": "in"}),)).fit(toy_items(2), env, NO_LIMIT)
    with pytest.raises(ConfigError, match="repeats=0"):
        BestFixed(repeats=0)


# -------------------------------------------------------------------------------------- random


async def test_random_teams_have_the_counts_asked_for_and_differ_by_item_and_seed() -> None:
    pool = toy_pool(6)
    policy = await fitted(MatchedRandom(agents=4, edges=5, seed=1), pool)
    items = toy_items(30)
    for item in items:
        assert sizes(pool, policy, item) == ([4], [5], [0])
        levels(pool.arrays(policy(item)).spatial)  # raises for a cycle
    assert len({policy(item) for item in items}) > 25
    again = await fitted(MatchedRandom(agents=4, edges=5, seed=1), pool)
    assert [again(item) for item in reversed(items)] == [policy(item) for item in reversed(items)]
    other = await fitted(MatchedRandom(agents=4, edges=5, seed=2), pool)
    assert [other(item) for item in items] != [policy(item) for item in items]
    alike = Item("another id", items[0].question, metadata={"split": "score"})
    assert policy(alike) == policy(items[0])


async def test_every_agent_and_every_direction_is_drawn_alike() -> None:
    pool = toy_pool(4)
    policy = await fitted(MatchedRandom(agents=2, edges=1), pool)
    drawn = [pool.arrays(policy(item)) for item in toy_items(600)]
    kept, edges = sum(a.keep.astype(int) for a in drawn), sum(a.spatial.astype(int) for a in drawn)
    assert np.abs(kept / 600 - 0.5).max() < 0.08
    assert np.abs(edges[~np.eye(4, dtype=bool)] / 600 - 1 / 12).max() < 0.05


async def test_one_count_alone_is_completed_and_none_are_coin_flips() -> None:
    pool = toy_pool(5)
    assert sizes(pool, await fitted(MatchedRandom(edges=3), pool), ITEM) == ([5], [3], [0])
    assert sizes(pool, await fitted(MatchedRandom(agents=4), pool), ITEM) == ([4], [3], [0])
    flips = await fitted(MatchedRandom(), pool)
    counts = [sizes(pool, flips, item)[0][0] for item in toy_items(200)]
    assert 2.2 < np.mean(counts) < 2.9 and len(set(counts)) > 2


async def test_a_random_team_matches_a_policy_item_by_item() -> None:
    pool = toy_pool(5)
    matched = await fitted(MatchedRandom(agents=4, edges=6), pool)
    card = Card("learned", learned_from=frozenset({"hash"}))
    whole = StaticPolicy(pool, card, EdgeProbabilities.of_topology(pool, Fixed("chain").of(pool)))
    for like in (matched, await fitted(MatchedRandom(), pool), whole):
        policy = await fitted(MatchedRandom(match=like, seed=7), pool)
        for item in toy_items(25):
            assert sizes(pool, policy, item) == sizes(pool, like, item)
        assert policy.card.learned_from == like.card.learned_from
        assert any(policy(item) != like(item) for item in toy_items(25))


async def test_a_random_team_matches_rounds_and_temporal_edges() -> None:
    pool = toy_pool(4, rounds=2, memory=False)
    p = EdgeProbabilities.constant(4, 0.6, 0.4, rounds=2)
    for seed in range(6):
        drawn = realise(p, pool, mode="bernoulli", rng=seed)
        like = StaticPolicy(pool, Card("x"), EdgeProbabilities.of_topology(pool, drawn.topology))
        policy = await fitted(MatchedRandom(match=like), pool)
        for item in toy_items(5):
            assert sizes(pool, policy, item) == sizes(pool, like, item)
            pool.schedule(policy(item))  # runs: rounds together have no cycle


async def test_a_random_team_of_a_graph_with_its_own_decision_edges_keeps_its_size() -> None:
    names = [Agent(f"a{i}") for i in range(5)]
    edges = [(f"a{i}", f"a{j}") for i in range(5) for j in range(i + 1, 5)]
    pool = Pool(AgentGraph([*names, Agent("judge")], [*edges, ("a4", "judge")], "judge"))
    like = await fitted(MatchedRandom(agents=3, edges=2), pool)
    exact = [sizes(pool, like, item) == ([3], [2], [0]) for item in toy_items(40)]
    assert sum(exact) >= 36
    policy = await fitted(MatchedRandom(match=like, seed=3), pool)
    assert sum(sizes(pool, policy, i) == sizes(pool, like, i) for i in toy_items(40)) >= 36


async def test_counts_that_a_pool_can_t_have_are_refused() -> None:
    for settings in ({"agents": 6}, {"agents": 0}, {"agents": 3, "edges": 4}, {"edges": -1}):
        with pytest.raises(ConfigError, match="at most"):
            await fitted(MatchedRandom(**settings), toy_pool(5))
    like = await fitted(NoPruning(), toy_pool(5))
    with pytest.raises(ConfigError, match="one of them"):
        MatchedRandom(agents=2, match=like)
    with pytest.raises(ConfigError, match="another pool"):
        await fitted(MatchedRandom(match=like), toy_pool(4))


async def test_a_random_policy_comes_back_from_its_file_with_what_it_matches(tmp_path: Path) -> None:
    pool = toy_pool(4)
    like = await fitted(Fixed("chain"), pool)
    for k, learner in enumerate(
        (MatchedRandom(agents=3, edges=2, seed=4), MatchedRandom(seed=5), MatchedRandom(match=like, seed=6))
    ):
        policy = await fitted(learner, pool)
        policy.save(tmp_path / str(k))
        again = load(tmp_path / str(k), pool.graph)
        assert isinstance(again, RandomPolicy) and again.spec() == policy.spec()
        assert [again(item) for item in toy_items(10)] == [policy(item) for item in toy_items(10)]


async def test_in_the_planted_world_random_teams_are_as_bad_as_the_specification_measured() -> None:
    world = PlantedWorld(11)
    policy = await MatchedRandom(seed=0).fit(world.items(1), world, NO_LIMIT)
    assert world.assess(policy).regret == pytest.approx(world.random_regret(draws=300), abs=0.06)
