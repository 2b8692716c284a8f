"""AgentDropout: agents, then edges, round by round; who is absent says nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from agentcomm.api import run
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.pruning.dropout import AgentDropout, _draw_without_one, candidates, survivors
from agentcomm.pruning.environment import Budget
from agentcomm.pruning.fixed import NoPruning
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import StaticPolicy
from agentcomm.pruning.pool import Arrays, EdgeChoice
from agentcomm.pruning.realise import log_probability
from agentcomm.pruning.static import Logits
from agentcomm.task import Item
from tests.pruning.toys import Toy, toy_items, toy_pool

pytestmark = pytest.mark.anyio

NO_LIMIT = Budget()


async def recovers(seed: int, iterations: int) -> None:
    """Regret within 0.4 of the complete DAG's, one domain, K = 1."""
    world = PlantedWorld(seed, domains=1)
    items = world.items(160)
    policy = await AgentDropout(iterations, iterations, seed=seed).fit(items, world, NO_LIMIT)
    whole = await NoPruning().fit(items, world, NO_LIMIT)
    assert policy.card.spent["rollouts"] == 2 * iterations * 16
    assert world.assess(policy).regret <= 0.4 * world.assess(whole).regret


async def test_it_learns_which_agents_and_edges_one_domain_needs() -> None:
    await recovers(0, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_it_learns_in_every_seed(seed: int) -> None:
    await recovers(seed, 150)


async def test_an_agent_may_be_absent_in_one_round_and_speak_in_another() -> None:
    def worth(item: Item, arrays: Arrays) -> float:
        return 1.0 - 0.5 * float(arrays.keep[0, 0]) - 0.5 * float(arrays.keep[1, 1])

    env = Toy(toy_pool(3, rounds=2), worth)
    policy = await AgentDropout(60, 10, 8, drop=1 / 3, zeta=0.0).fit(toy_items(10), env, NO_LIMIT)
    assert policy.propose(toy_items(1)[0]).keep.tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("edges", ["complete", "graph"])
@pytest.mark.parametrize(("n", "rounds"), [(3, 1), (3, 2), (7, 1), (7, 2), (1, 1), (2, 2)])
async def test_any_number_of_agents_and_rounds_runs_and_absent_agents_send_nothing(
    n: int, rounds: int, edges: EdgeChoice
) -> None:
    pool = toy_pool(n, edges, rounds, memory=False)
    env = Toy(
        pool, lambda item, arrays: 1.0 / (1 + arrays.keep.sum() + arrays.spatial.sum() + len(env.seen) % 2)
    )
    learner = AgentDropout(3, 3, 6, drop=0.4, prune=0.3)
    policy = await learner.fit(toy_items(7), env, NO_LIMIT)
    (item,) = toy_items(1)
    topology = policy(item)
    keep = pool.arrays(topology).keep.reshape(-1, n)
    gone = n - max(1, n - int(0.4 * n + 0.5))
    assert (keep.sum(axis=1) <= n - gone).all() and (keep.sum(axis=1) >= 1).all()

    model = Scripted(lambda request: f"{len(str(request))} letters read")
    episode = await run(pool.team(topology), item, model, topology=topology)
    spoke = {(m.sender, m.round) for m in episode.messages if m.sender != "judge"}
    assert spoke == {
        (pool.names[i], r + 1) for r in range(rounds) for i in range(n) if keep[r if len(keep) > 1 else 0, i]
    }
    assert len(model.requests) == len(spoke) + 1
    assert not any("None" in message.content for request in model.requests for message in request.messages)
    for deliveries in (record.inbox for record in episode.records):
        assert all((d.edge.sender, d.original.round) in spoke for d in deliveries)


async def test_survivors_are_those_with_the_strongest_edges_and_never_nobody() -> None:
    pool = toy_pool(4)
    logits = Logits.even(*candidates(pool, np.ones((1, 4), bool)), present=np.ones((1, 4), bool))
    logits.spatial[0] = [[0, 1, 1, -1], [1, 0, 1, -1], [1, 1, 0, 5], [-1, -1, -1, 0]]
    # Means: 4/6, 4/6, 8/6 (its own 5 included), -1/6... the last two share the 5.
    assert survivors(logits, 0.2).tolist() == [[True, True, True, False]]
    assert survivors(logits, 0.0).all()
    for share in (0.76, 1.0):
        assert survivors(logits, share).tolist() == [[False, False, True, False]]


def test_the_first_round_reads_nothing_from_before_and_the_absent_are_no_candidates() -> None:
    pool = toy_pool(3, rounds=2, memory=False)
    present = np.array([[True, True, False], [True, False, True]])
    spatial, temporal = candidates(pool, present)
    assert not temporal[0].any()
    assert np.argwhere(spatial).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 2], [1, 2, 0]]
    assert np.argwhere(temporal[1]).tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]


@pytest.mark.parametrize("others", ["drawn", "likely"])
def test_the_gradient_of_a_draw_is_that_of_its_log_probability(others: Any) -> None:
    pool = toy_pool(3, rounds=2, memory=False)
    everyone = np.ones((2, 3), bool)
    rng = np.random.default_rng(5)
    learner = AgentDropout(incident=2.0, others=others)
    logits = Logits.even(*candidates(pool, everyone), present=everyone)
    logits.spatial[...] = rng.normal(size=(2, 3, 3))
    logits.temporal[...] = rng.normal(size=(2, 3, 3))
    drawn = _draw_without_one(learner, pool)(logits, rng)
    present = drawn.realisation.keep
    assert present.sum(axis=1).tolist() == [2, 2]
    here, here_t = candidates(pool, present)

    def value(given: Logits) -> float:
        now = given.probabilities(present)
        total = 0.0
        for p, mask, alive in (
            (now.spatial, given.spatial_mask, here),
            (now.temporal, given.temporal_mask, here_t),
        ):
            total += 2.0 * float(np.log(1 - p[mask & ~alive]).sum())
            if others == "likely":
                total += float(np.log(p[alive]).sum())
        return total + (log_probability(drawn.realisation, now) if others == "drawn" else 0.0)

    assert value(logits) == pytest.approx(drawn.log_prob)
    for name in ("spatial", "temporal"):
        at = getattr(logits, name)
        for place in np.ndindex(at.shape):
            up, down = at.copy(), at.copy()
            up[place] += 1e-6
            down[place] -= 1e-6
            slope = value(dataclasses.replace(logits, **{name: up})) - value(
                dataclasses.replace(logits, **{name: down})
            )
            assert getattr(drawn.gradient, name)[place] == pytest.approx(slope / 2e-6, abs=1e-6)


async def test_a_budget_shrinks_both_stages_and_must_allow_each_of_them_a_batch() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.spatial[0, 1]))
    policy = await AgentDropout(100, 50, 8).fit(toy_items(9), env, Budget(rollouts=70))
    assert len(env.seen) == 70 and policy.card.trace["rollouts"] == [8] * 8 + [6]
    agents_left = [len(t.masks[0].agents) - 1 for _, t, _ in env.seen]
    assert agents_left == [2] * 48 + [2] * 22  # one dropped in each draw, then for good
    with pytest.raises(LimitExceeded, match="two batches of 8"):
        await AgentDropout(100, 50, 8).fit(toy_items(9), env, Budget(rollouts=8))
    assert len(env.seen) == 70


async def test_the_same_seed_gives_the_same_policy() -> None:
    policies, seen = [], []
    for seed in (4, 4, 5):
        env = Toy(toy_pool(4, rounds=2), lambda item, arrays: float(arrays.temporal[1, 0, 1]))
        policies.append(await AgentDropout(5, 5, 8, seed=seed).fit(toy_items(9), env, NO_LIMIT))
        seen.append(env.seen)
    assert seen[0] == seen[1] != seen[2]
    a, b = (p.probabilities for p in policies[:2] if isinstance(p, StaticPolicy))
    np.testing.assert_array_equal(a.spatial, b.spatial)
    np.testing.assert_array_equal(a.temporal, b.temporal)


async def test_released_settings_run_and_say_so() -> None:
    env = Toy(toy_pool(5, rounds=2), lambda item, arrays: float(arrays.spatial[0, 0, 1]))
    policy = await AgentDropout.as_released(seed=2).fit(toy_items(9), env, NO_LIMIT)
    assert (policy.card.method, policy.card.profile) == ("agentdropout", "as_released")
    assert policy.realise(toy_items(1)[0]).keep.sum(axis=1).tolist() == [4, 4]


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings, words in (
        ({"drop": 1.2}, "drop=1.2"),
        ({"incident": 0.0}, "incident=0.0"),
        ({"chosen": "first"}, "chosen='first'"),
        ({"node_iterations": 0}, "node_iterations=0"),
    ):
        with pytest.raises(ConfigError, match=words):
            AgentDropout(**settings)  # type: ignore[arg-type]
