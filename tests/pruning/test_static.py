"""GPTSwarm and AgentPrune: they find the one best graph, and learn from what succeeded alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.message import Usage
from agentcomm.pruning.batches import Comparison, Passes, plan, stream
from agentcomm.pruning.environment import Budget, Metered, Outcome
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import StaticPolicy, load
from agentcomm.pruning.pool import Arrays, FloatArray
from agentcomm.pruning.static import (
    Adam,
    AgentPrune,
    GPTSwarm,
    Logits,
    Sparse,
    _entropy,
    hinge,
    hinge_gradient,
    nuclear_gradient,
    nuclear_norm,
    prune_edges,
)
from agentcomm.task import Item
from tests.pruning.toys import Toy, toy_items, toy_pool

pytestmark = pytest.mark.anyio

NO_LIMIT = Budget()


def edge(i: int, j: int) -> Any:
    """Worth 1 with the edge i -> j, else 0."""
    return lambda item, arrays: float(arrays.spatial[i, j])


def same(a: Any, b: Any) -> bool:
    """Whether two static policies propose the same, to the last bit."""
    p, q = a.probabilities, b.probabilities
    names = [f.name for f in dataclasses.fields(p)]
    return all(getattr(p, n).tobytes() == getattr(q, n).tobytes() for n in names)


def slope(value: Any, at: FloatArray, step: float = 1e-6) -> FloatArray:
    """The gradient by central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            found[place] += sign * value(moved) / (2 * step)
    return found


# --------------------------------------------------------------------------- recovering a plant


async def test_the_planted_team_of_one_domain_is_recovered() -> None:
    world = PlantedWorld(0, domains=1)
    learner = GPTSwarm(300, 16, learn_nodes=True, seed=0)
    policy = await learner.fit(world.items(160), world, Budget(rollouts=4800))
    found = world.assess(policy)
    assert found.regret <= 0.03
    assert policy.card.spent["rollouts"] == 4800


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_every_seed_recovers_the_planted_team(seed: int) -> None:
    world = PlantedWorld(seed, domains=1)
    learner = GPTSwarm(300, 16, learn_nodes=True, seed=seed)
    found = world.assess(await learner.fit(world.items(160), world, NO_LIMIT))
    assert found.regret <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_edges_alone_come_near_the_best_that_edges_can_do(seed: int) -> None:
    world = PlantedWorld(seed, domains=1)
    policy = await GPTSwarm(600, 16, seed=seed).fit(world.items(160), world, NO_LIMIT)
    found = world.assess(policy, nodes=False)
    assert found.node_f1 == 1.0
    assert found.regret / world.random_regret(nodes=False) <= 0.35


async def test_agentprune_learns_with_few_batches_and_keeps_every_agent() -> None:
    world = PlantedWorld(0, domains=1)
    policy = await AgentPrune(100, seed=0).fit(world.items(160), world, NO_LIMIT)
    found = world.assess(policy, nodes=False)
    assert found.node_f1 == 1.0
    assert found.regret / world.random_regret(nodes=False, draws=300) <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_agentprune_learns_in_every_seed(seed: int) -> None:
    world = PlantedWorld(seed, domains=1)
    policy = await AgentPrune(200, 16, seed=seed).fit(world.items(160), world, NO_LIMIT)
    assert world.assess(policy, nodes=False).regret / world.random_regret(nodes=False) <= 0.35


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_no_static_team_is_good_where_items_need_different_ones(seed: int) -> None:
    world = PlantedWorld(seed)
    policy = await GPTSwarm(300, 16, learn_nodes=True, seed=seed).fit(world.items(160), world, NO_LIMIT)
    assert world.assess(policy).regret >= 0.3


@pytest.mark.parametrize(
    "learner",
    [
        GPTSwarm(40, 8, baseline="group"),
        GPTSwarm(40, 8, baseline="none"),
        GPTSwarm(40, 8, entropy=0.01),
        GPTSwarm(40, 8, temperature=2.0, lr=0.2),
        GPTSwarm(40, 8, order="row_major"),
        AgentPrune(40, 8, zeta=0.01),
        AgentPrune(40, 8, zeta=0.01, reg_on="logits"),
    ],
    ids=lambda learner: f"{learner.name}-{learner.baseline}",
)
async def test_every_option_learns_a_single_edge(learner: Any) -> None:
    env = Toy(toy_pool(3), edge(2, 0))
    policy = await learner.fit(toy_items(10), env, NO_LIMIT)
    assert policy.probabilities.spatial[2, 0] > 0.8
    assert policy.probabilities.spatial[0, 2] < 0.5


async def test_temporal_edges_are_learned_where_there_is_a_second_round() -> None:
    env = Toy(
        toy_pool(3, rounds=2), lambda item, arrays: float(arrays.temporal[0, 1] and not arrays.temporal[1, 0])
    )
    for learner in (GPTSwarm(80, 8), AgentPrune(80, 8, zeta=0.01)):
        policy = await learner.fit(toy_items(10), env, NO_LIMIT)
        done = policy.realise(toy_items(1)[0])
        assert done.temporal[0, 1] and not done.temporal[1, 0]


@pytest.mark.parametrize("made", [GPTSwarm.as_released(seed=3), AgentPrune.as_released(seed=3)])
async def test_released_settings_run_and_say_so(made: Any) -> None:
    env = Toy(toy_pool(4), edge(0, 1))
    policy = await made.fit(toy_items(13), env, NO_LIMIT)
    assert policy.card.profile == "as_released" and policy.card.seed == 3
    assert len(env.seen) == made.iterations * 4
    if made.name == "agentprune":  # a quarter of 12 edges after batch 5, of the 9 left after batch 10
        assert int(policy.probabilities.spatial_mask.sum()) == 7


# --------------------------------------------------------------------------------- regularisers


def test_the_nuclear_norm_is_the_sum_of_singular_values() -> None:
    assert nuclear_norm(np.diag([3.0, 4.0])) == pytest.approx(7.0)
    assert nuclear_norm(np.stack([np.diag([3.0, 4.0]), np.eye(2)])) == pytest.approx(9.0)
    assert nuclear_norm(np.zeros((2, 2))) == 0.0
    at = np.random.default_rng(0).normal(size=(4, 4))
    np.testing.assert_allclose(nuclear_gradient(at), slope(nuclear_norm, at), atol=1e-6)
    np.testing.assert_allclose(nuclear_gradient(np.diag([3.0, 0.0])), np.diag([1.0, 0.0]), atol=1e-12)
    assert not nuclear_gradient(np.zeros((3, 3))).any()


def test_the_hinge_is_silent_within_delta() -> None:
    candidates = np.ones((3, 3))
    near = candidates - 0.1 / 3 * 0.99
    assert hinge(candidates, near) == 0.0 and not hinge_gradient(candidates, near).any()
    far = np.random.default_rng(1).random((2, 3, 3))
    assert hinge(candidates, far) > 0
    np.testing.assert_allclose(
        hinge_gradient(candidates, far), slope(lambda p: hinge(candidates, p), far), atol=1e-6
    )


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_the_regulariser_s_gradient_is_that_of_its_value(on: Any) -> None:
    rng = np.random.default_rng(2)
    mask = ~np.eye(4, dtype=bool)
    logits = Logits.even(mask, mask, temperature=2.0)
    logits.spatial[...] = rng.normal(size=(4, 4))
    logits.temporal[...] = rng.normal(size=(4, 4))
    sparse = Sparse(0.7, on=on)
    _, gradients = sparse(logits)
    for name in ("spatial", "temporal"):
        expected = slope(
            lambda x, n=name: sparse(dataclasses.replace(logits, **{n: x}))[0], getattr(logits, name)
        )
        np.testing.assert_allclose(gradients[name], expected, atol=1e-6)


def test_the_entropy_s_gradient_is_that_of_its_value() -> None:
    mask = ~np.eye(3, dtype=bool)
    logits = Logits.even(mask, mask, learn_nodes=True, temperature=1.5)
    assert logits.keep is not None
    assert _entropy(logits)[0] == pytest.approx(15 * math.log(2))
    rng = np.random.default_rng(3)
    for name in ("keep", "spatial", "temporal"):
        getattr(logits, name)[...] = rng.normal(size=getattr(logits, name).shape)
    for name, gradient in _entropy(logits)[1].items():
        expected = slope(
            lambda x, n=name: _entropy(dataclasses.replace(logits, **{n: x}))[0], getattr(logits, name)
        )
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize(("share", "left"), [(0.25, 6), (0.10, 7)])
def test_pruning_removes_a_share_of_the_edges_and_at_least_one(share: float, left: int) -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask.flat[[1, 2, 3, 4, 6, 7, 8, 9]] = True
    none = np.zeros_like(mask)
    logits = Logits.even(mask, none)
    logits.spatial[...] = np.arange(16).reshape(4, 4)
    prune_edges(logits, share)
    assert int(logits.spatial_mask.sum()) == left and not logits.temporal_mask.any()
    assert logits.spatial_mask.flat[9] and not logits.spatial_mask.flat[1]


async def test_a_pruned_edge_stays_away_whatever_its_probability() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: 0.1 * float(arrays.spatial.sum()))
    policy = await AgentPrune(30, 8, zeta=0.0, prune=1.0).fit(toy_items(10), env, NO_LIMIT)
    assert policy.probabilities.spatial.max() > 0.5
    assert not policy.realise(toy_items(1)[0]).spatial.any()


def test_adam_is_torch_s() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    ours, adam = {"x": np.zeros(5)}, Adam(0.1)
    theirs = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(20):
        gradient = rng.normal(size=5)
        adam.ascend(ours, {"x": gradient})
        theirs.grad = torch.from_numpy(-gradient)
        optimiser.step()
    np.testing.assert_allclose(ours["x"], theirs.detach().numpy(), atol=1e-9)


# ------------------------------------------------------------------------ what is learned from


def outcomes(*utilities: float | None) -> list[Outcome]:
    return [Outcome(u, u, Usage(), status="ok" if u is not None else "failed") for u in utilities]


def test_a_group_that_is_worth_the_same_says_nothing_at_all() -> None:
    for baseline in ("group", "normalised"):
        for u in (0.1, 0.7, 1 / 3):
            assert not Comparison(baseline).advantages(outcomes(*[u] * 7), 7).any()  # type: ignore[arg-type]
    found = Comparison("group").advantages(outcomes(1.0, 0.0, 0.5, 0.5), 2)
    assert found.tolist() == [0.5, -0.5, 0.0, 0.0]
    assert Comparison("normalised").advantages(outcomes(0.9, 0.7), 2) == pytest.approx([1.0, -1.0])


def test_failures_have_no_advantage_and_don_t_move_the_baseline() -> None:
    assert Comparison("group").advantages(outcomes(1.0, None, 0.0, None), 4).tolist() == [0.5, 0.0, -0.5, 0.0]
    assert Comparison("group").advantages(outcomes(1.0, None), 2).tolist() == [0.0, 0.0]
    moving = Comparison("moving_average")
    assert not moving.advantages(outcomes(None, None)).any() and moving.value is None
    assert moving.advantages(outcomes(1.0, None)).tolist() == [0.0, 0.0] and moving.value == 1.0


def test_the_moving_average_is_used_before_it_is_moved() -> None:
    moving = Comparison("moving_average")
    assert moving.advantages(outcomes(1.0, 0.0)).tolist() == [0.5, -0.5]
    assert moving.advantages(outcomes(1.0, 1.0)).tolist() == [0.5, 0.5]
    assert moving.value == pytest.approx(0.9 * 0.5 + 0.1 * 1.0)
    assert Comparison("none").advantages(outcomes(1.0, 0.0)).tolist() == [1.0, 0.0]


async def test_graphs_that_failed_are_never_learned_from() -> None:
    # In a graph pool every pair is drawn every time, so that without advantage it stays at 0.5.
    def worth(item: Item, arrays: Arrays) -> float | None:
        return None if arrays.spatial[0, 1] else float(arrays.spatial[2, 3])

    env = Toy(toy_pool(4, "graph"), worth)
    policy = await GPTSwarm(60, 16, baseline="group", group=8).fit(toy_items(10), env, NO_LIMIT)
    assert isinstance(policy, StaticPolicy)
    assert policy.probabilities.spatial[0, 1] == pytest.approx(0.5, abs=1e-6)
    assert policy.probabilities.spatial[2, 3] > 0.9
    assert sum(policy.card.trace["failed"]) > 0


async def test_a_batch_of_failures_moves_nothing() -> None:
    calls = iter(range(10_000))
    env = Toy(toy_pool(3), lambda item, arrays: None if next(calls) >= 8 else float(arrays.spatial[0, 1]))
    once = await AgentPrune(1, 8, prune=0.0).fit(toy_items(8), Toy(env.pool, edge(0, 1)), NO_LIMIT)
    thrice = await AgentPrune(3, 8, prune=0.0).fit(toy_items(8), env, NO_LIMIT)
    np.testing.assert_array_equal(once.probabilities.spatial, thrice.probabilities.spatial)  # type: ignore[attr-defined]
    assert thrice.card.trace["utility"][1:] == [None, None]


async def test_every_batch_is_logged_and_the_last_part_of_the_items_is_not_dropped() -> None:
    env = Toy(toy_pool(3), edge(0, 1))
    policy = await GPTSwarm(100, 4).fit(toy_items(13), env, Budget(rollouts=13))
    assert policy.card.trace["rollouts"] == [4, 4, 4, 1]
    assert policy.card.trace["iteration"] == [0, 1, 2, 3]
    assert sorted(i for i, *_ in env.seen) == sorted(item.id for item in toy_items(13))
    assert policy.card.learned_from == frozenset(map(hash_of, toy_items(13)))


async def test_only_items_that_were_tried_count_as_learned_from() -> None:
    env = Toy(toy_pool(3), edge(0, 1))
    policy = await GPTSwarm(2, 4).fit(toy_items(13), env, NO_LIMIT)
    tried = {i for i, *_ in env.seen}
    assert policy.card.learned_from == {hash_of(i) for i in toy_items(13) if i.id in tried}


def test_items_come_in_passes_each_once_before_any_again() -> None:
    passes = Passes(toy_items(5), stream(0, 1))
    taken = [item.id for item in passes.take(3) + passes.take(4) + passes.take(3)]
    assert len(set(taken[:5])) == len(set(taken[5:])) == 5
    assert taken[:5] != taken[5:]


# ------------------------------------------------------------------------------ seeds and budgets


@pytest.mark.parametrize("learner", [GPTSwarm(20, 8), AgentPrune(20, 8)], ids=lambda x: x.name)
async def test_the_same_seed_gives_the_same_rollouts_and_policy_in_a_used_process(learner: Any) -> None:
    runs = []
    for seed in (1, 1, 2):
        env = Toy(toy_pool(4), edge(3, 0))
        policy = await dataclasses.replace(learner, seed=seed).fit(toy_items(9), env, NO_LIMIT)
        runs.append((env.seen, policy))
        np.random.default_rng().random()
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0] and not same(runs[0][1], runs[2][1])
    seeds = [seed for *_, seed in runs[0][0]]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)


async def test_the_plan_shrinks_to_the_budget_before_anything_is_run() -> None:
    env = Toy(toy_pool(3), edge(0, 1))
    policy = await GPTSwarm(300, 16, entropy=0.1).fit(toy_items(20), env, Budget(rollouts=50))
    assert len(env.seen) == 50 and policy.card.trace["rollouts"] == [16, 16, 16, 2]
    assert policy.card.spent["rollouts"] == 50 and policy.card.spent["tokens"] == 550
    with pytest.raises(LimitExceeded, match="raise it") as error:
        await GPTSwarm().fit(toy_items(20), env, Budget(rollouts=0))
    assert (error.value.scope, error.value.limit) == ("learn", "rollouts")
    assert len(env.seen) == 50
    with pytest.raises(LimitExceeded, match="needs 4"):
        await GPTSwarm(baseline="group").fit(toy_items(20), env, Budget(rollouts=3))
    assert plan(3, 8, Metered(env, Budget(rollouts=23)), unit=4) == [8, 8, 4]


async def test_a_metered_environment_keeps_its_own_budget_and_the_card_says_what_this_learner_spent() -> None:
    metered = Metered(Toy(toy_pool(3), edge(0, 1)), Budget(rollouts=40))
    first = await GPTSwarm(2, 16).fit(toy_items(20), metered, NO_LIMIT)
    second = await GPTSwarm(300, 16).fit(toy_items(20), metered, NO_LIMIT)
    assert (first.card.spent["rollouts"], second.card.spent["rollouts"]) == (32, 8)


async def test_a_limit_on_tokens_ends_learning_in_the_middle() -> None:
    env = Toy(toy_pool(3), edge(0, 1))
    with pytest.raises(LimitExceeded, match="tokens=100"):
        await GPTSwarm().fit(toy_items(20), env, Budget(tokens=100))
    assert len(env.seen) == 10


async def test_nothing_to_learn_from_is_said_and_not_paid_for_to_the_end() -> None:
    failing = Toy(toy_pool(3), lambda item, arrays: None)
    with pytest.raises(TaskError, match=r"all 12 rollouts failed \(toy failure\)"):
        await GPTSwarm(300, 4).fit(toy_items(9), failing, NO_LIMIT)
    assert len(failing.seen) == 12
    flat = Toy(toy_pool(3), lambda item, arrays: 0.25)
    with pytest.raises(TaskError, match=r"worth 0.25"):
        await AgentPrune(3, 4).fit(toy_items(9), flat, NO_LIMIT)
    with pytest.raises(TaskError, match="no items"):
        await GPTSwarm().fit((), flat, NO_LIMIT)


async def test_items_of_other_splits_are_refused() -> None:
    env = Toy(toy_pool(3), edge(0, 1))
    for split in ("validate", "score"):
        with pytest.raises(TaskError, match="must not see"):
            await GPTSwarm().fit(toy_items(3, split), env, NO_LIMIT)
    assert not env.seen


async def test_a_utility_that_is_no_number_is_an_error_that_names_the_iteration() -> None:
    calls = iter(range(10_000))
    env = Toy(toy_pool(3), lambda item, arrays: math.nan if next(calls) == 9 else float(arrays.spatial[0, 1]))
    with pytest.raises(ConfigError, match="iteration 2"):
        await GPTSwarm(10, 4).fit(toy_items(9), env, NO_LIMIT)


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (GPTSwarm, {"iterations": 0}, "iterations=0"),
        (GPTSwarm, {"lr": math.nan}, "lr=nan"),
        (GPTSwarm, {"initial": 1.0}, "initial=1.0"),
        (GPTSwarm, {"baseline": "median"}, "'median'"),
        (GPTSwarm, {"baseline": "group", "group": 5}, "whole groups"),
        (AgentPrune, {"zeta": -1.0}, "zeta=-1.0"),
        (AgentPrune, {"prune": 1.5}, "prune=1.5"),
        (AgentPrune, {"reg_on": "edges"}, "reg_on='edges'"),
        (AgentPrune, {"prune_every": 0}, "prune_every=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**settings)


async def test_a_policy_says_where_it_comes_from_and_comes_back_from_its_file(tmp_path: Path) -> None:
    env = Toy(toy_pool(4), edge(3, 0))
    policy = await AgentPrune(20, 8, seed=5).fit(toy_items(9), env, NO_LIMIT)
    card = policy.card
    assert (card.method, card.seed, card.settings["zeta"]) == ("agentprune", 5, 0.1)
    assert "2410.02506" in card.paper
    assert len(card.trace["utility"]) == len(card.trace["gradient"]) == 20
    policy.save(tmp_path / "policy")
    again = load(tmp_path / "policy", env.pool.graph)
    assert same(again, policy) and again.spec() == policy.spec()
    assert again(toy_items(1)[0]) == policy(toy_items(1)[0])
