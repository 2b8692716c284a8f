"""G-Designer: edges for each item, every agent kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from agentcomm.errors import ConfigError
from agentcomm.pruning.embeddings import HashEmbedder
from agentcomm.pruning.environment import Budget
from agentcomm.pruning.gdesigner import GDesigner
from agentcomm.pruning.inference import NetworkPolicy
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import load
from agentcomm.pruning.static import nuclear_norm
from tests.pruning.toys import Toy, toy_items, toy_pool

pytestmark = pytest.mark.anyio

NO_LIMIT = Budget()
SMALL = HashEmbedder(16)


async def normalised_regret(seed: int, iterations: int) -> float:
    world = PlantedWorld(seed, domains=1)
    learner = GDesigner(iterations, embedder=world, seed=seed)
    policy = await learner.fit(world.items(160), world, NO_LIMIT)
    found = world.assess(policy, nodes=False)
    assert found.node_f1 == 1.0
    assert policy.card.spent["rollouts"] == iterations * 64
    return found.regret / world.random_regret(nodes=False, draws=300)


async def test_it_learns_edges_and_keeps_every_agent() -> None:
    assert await normalised_regret(0, 80) <= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_it_learns_in_every_seed(seed: int) -> None:
    assert await normalised_regret(seed, 300) <= 0.45


async def test_an_anchor_draws_edges_to_a_base_topology() -> None:
    env = Toy(toy_pool(4), lambda item, arrays: float(arrays.spatial[3, 0]))
    learner = GDesigner(40, 2, 2, lr=0.02, entropy=0.0, anchor=100.0, base="chain", embedder=SMALL)
    policy = await learner.fit(toy_items(6), env, NO_LIMIT)
    for item in toy_items(6):
        assert np.argwhere(policy.realise(item).spatial).tolist() == [[0, 1], [1, 2], [2, 3]]
    own = Toy(toy_pool(3, "graph"), lambda item, arrays: 0.1 * len(own.seen))
    learner = GDesigner(40, 2, 2, lr=0.02, entropy=0.0, anchor=100.0, base="graph", embedder=SMALL)
    assert (await learner.fit(toy_items(6), own, NO_LIMIT)).realise(toy_items(1)[0]).spatial.sum() == 3
    with pytest.raises(ConfigError, match="name a fixed topology"):
        await learner.fit(toy_items(6), env, NO_LIMIT)


async def test_the_rank_term_makes_the_matrix_of_probabilities_smaller() -> None:
    norms = []
    for rank in (0.0, 5.0):
        env = Toy(toy_pool(4), lambda item, arrays: float(arrays.spatial[3, 0]))
        learner = GDesigner(30, 2, 4, rank=rank, embedder=SMALL)
        policy = await learner.fit(toy_items(6), env, NO_LIMIT)
        p = policy.propose(toy_items(1)[0])
        norms.append(nuclear_norm(np.where(p.spatial_mask, p.spatial, 0.0)))
    assert norms[1] < 0.5 * norms[0]


async def test_released_settings_run_and_can_t_be_sure_of_any_edge() -> None:
    env = Toy(toy_pool(4), lambda item, arrays: float(arrays.spatial[3, 0]))
    policy = await GDesigner.as_released(SMALL, seed=1).fit(toy_items(9), env, NO_LIMIT)
    assert policy.card.profile == "as_released" and len(env.seen) == 40
    p = policy.propose(toy_items(1)[0]).spatial
    assert p.min() >= 0.2689 and p.max() <= 0.7311
    np.testing.assert_allclose(p, p.T)


async def test_a_policy_comes_back_from_its_file_and_says_what_its_embedding_is_worth(tmp_path: Path) -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.spatial[0, 1]))
    policy = await GDesigner(2, 2, 2, seed=4).fit(toy_items(5), env, NO_LIMIT)
    assert policy.card.settings["embedder"] == HashEmbedder().id
    assert "no meaning" in policy.card.notes[0] and "2410.11782" in policy.card.paper
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p", env.pool.graph)
    assert isinstance(again, NetworkPolicy) and again.spec() == policy.spec()
    item = toy_items(9)[8]
    np.testing.assert_array_equal(again.propose(item).spatial, policy.propose(item).spatial)
    assert again.propose(item).keep.tolist() == [1.0, 1.0, 1.0]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="anchor=-1"):
        GDesigner(anchor=-1.0)
    with pytest.raises(ConfigError, match="group=0"):
        GDesigner(group=0)
