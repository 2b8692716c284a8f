"""A network learns from rollouts: by the gradient it should, from what succeeded, each item on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from agentcomm.errors import ConfigError, LimitExceeded, TaskError  # noqa: E402
from agentcomm.pruning.embeddings import HashEmbedder  # noqa: E402
from agentcomm.pruning.environment import Budget, Metered, Outcome, Trial  # noqa: E402
from agentcomm.pruning.inference import Architecture, NetworkPolicy  # noqa: E402
from agentcomm.pruning.network import TopologyNetwork  # noqa: E402
from agentcomm.pruning.planted import PlantedWorld  # noqa: E402
from agentcomm.pruning.policy import Card  # noqa: E402
from agentcomm.pruning.pool import Arrays, FloatArray  # noqa: E402
from agentcomm.pruning.realise import EdgeProbabilities, Realisation  # noqa: E402
from agentcomm.pruning.reinforce import train_network  # noqa: E402
from agentcomm.task import Item  # noqa: E402
from tests.pruning.toys import Toy, toy_items, toy_pool  # noqa: E402

pytestmark = pytest.mark.anyio

SMALL = HashEmbedder(16)


def network_for(agents: int, dimensions: int = 16, seed: int = 0) -> TopologyNetwork:
    return TopologyNetwork(Architecture(agents, dimensions), seed)


async def on_planted(world: PlantedWorld, seed: int = 0, **settings: Any) -> NetworkPolicy:
    network = network_for(world.agents, world.dimensions, seed)
    nodes = settings.get("learn_nodes", True)
    await train_network(network, world.items(160), Metered(world), world, seed=seed, **settings)
    return NetworkPolicy(
        world.pool, Card("reinforce"), network.architecture, network.arrays(), world, learn_nodes=nodes
    )


# ------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("seed", range(2))
async def test_items_that_need_different_teams_get_them(seed: int) -> None:
    def worth(item: Item, arrays: Arrays) -> float:
        wanted, idle = (0, 1) if "numbers" in item.question else (1, 0)
        return float(arrays.spatial[wanted, 2]) - 0.5 * float(arrays.keep[idle])

    asked = ("Add these numbers", "Write a poem")
    items = tuple(Item(q, q, metadata={"split": "learn"}) for q in asked)
    env = Toy(toy_pool(3), worth)
    network = network_for(3, seed=seed)
    settings: dict[str, Any] = {"queries": 4, "group": 8, "lr": 0.01, "entropy": 0.1}
    await train_network(network, items, Metered(env), SMALL, iterations=60, seed=seed, **settings)
    policy = NetworkPolicy(env.pool, Card("x"), network.architecture, network.arrays(), SMALL)
    assert [worth(item, env.pool.arrays(policy(item))) for item in items] == [1.0, 1.0]


@pytest.mark.slow
async def test_standard_worlds_are_learned_in_every_seed_and_better_than_without_a_baseline() -> None:
    regrets: dict[str, list[float]] = {"group": [], "none": []}
    for seed in range(5):
        world = PlantedWorld(seed)
        for baseline, found in regrets.items():
            policy = await on_planted(world, seed, iterations=600, baseline=baseline)
            found.append(world.assess(policy).regret)
    assert max(regrets["group"]) <= 0.05
    assert np.mean(regrets["group"]) < np.mean(regrets["none"])


# ------------------------------------------------------------------------------------ gradients


@dataclass
class Watched(Toy):
    """Also remembers how topologies were drawn, and what they were worth."""

    records: list[Trial] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    async def rollout(
        self,
        item: Item,
        topology: Any,
        seed: int,
        realisation: Realisation | None = None,
        probabilities: EdgeProbabilities | None = None,
    ) -> Outcome:
        outcome = await super().rollout(item, topology, seed)
        self.records.append(Trial(item, topology, seed, realisation, probabilities))
        self.outcomes.append(outcome)
        return outcome


@pytest.mark.parametrize(("learn_nodes", "eta"), [(True, 0.0), (False, 0.0), (True, 0.07)])
async def test_the_gradient_is_that_of_the_loss_with_failures_left_out(learn_nodes: bool, eta: float) -> None:
    calls = iter(range(10_000))

    def worth(item: Item, arrays: Arrays) -> float | None:
        return None if next(calls) % 5 == 0 else float(arrays.keep[1]) + 0.5 * float(arrays.spatial[1, 0])

    pool = toy_pool(3, rounds=2, memory=False)
    env = Watched(pool, worth)
    network = network_for(3)
    await train_network(
        network, toy_items(4), Metered(env), SMALL, iterations=1, queries=4, group=6, lr=1e-12,
        entropy=eta, learn_nodes=learn_nodes,
    )  # fmt: skip
    theirs = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    failed = [o.utility is None for o in env.outcomes]
    assert any(failed) and not all(failed)

    network.zero_grad()
    roles = torch.from_numpy(SMALL.embed([a.role for a in pool.agents])).float()
    items = [env.records[k].item for k in range(0, 24, 6)]
    queries = torch.from_numpy(SMALL.embed([i.question for i in items])).float()
    nodes, edges = network(roles, queries)
    q, p = torch.sigmoid(nodes), torch.sigmoid(edges)
    total = torch.zeros(())
    for g in range(4):
        group = range(6 * g, 6 * g + 6)
        known = [u for k in group if (u := env.outcomes[k].utility) is not None]
        for k in group:
            utility, r = env.outcomes[k].utility, env.records[k].realisation
            if utility is None or r is None:
                continue
            log_prob = torch.zeros(())
            for here, prob, drawn in (
                (r.considered, p[g], r.raw_spatial),
                (r.temporal_considered, p[g], r.raw_temporal),
                (r.sampled if learn_nodes else np.zeros(3, bool), q[g], r.raw_keep),
            ):
                happened = torch.from_numpy(drawn.copy())
                terms = torch.where(happened, prob.log(), (1 - prob).log())
                log_prob = log_prob + terms[torch.from_numpy(here.copy())].sum()
            total = total - (utility - float(np.mean(known))) * log_prob / (24 - sum(failed))
    decisions = torch.from_numpy(pool.spatial_allowed.astype(float) + pool.temporal_allowed).float()
    for prob, count in ((p, decisions), (q, torch.ones(3) * learn_nodes)):
        entropy = -(prob * prob.log() + (1 - prob) * (1 - prob).log())
        total = total - eta * (entropy * count).sum() / 4
    total.backward()
    for name, parameter in network.named_parameters():
        ours = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        torch.testing.assert_close(theirs.get(name, torch.zeros_like(parameter)), ours, atol=1e-5, rtol=1e-3)


async def test_groups_that_are_worth_the_same_move_nothing() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(item.metadata["k"] % 2))
    network = network_for(3)
    before = network.arrays()
    batches = await train_network(
        network, toy_items(6), Metered(env), SMALL, iterations=4, queries=3, group=4, entropy=0.0
    )
    for name, array in network.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert [b.gradient for b in batches] == [0.0] * 4 and [b.rollouts for b in batches] == [12] * 4
    assert {b.failed for b in batches} == {0} and all(b.utility is not None for b in batches)


async def test_a_batch_of_failures_moves_nothing_not_even_by_entropy() -> None:
    calls = iter(range(10_000))
    env = Toy(toy_pool(3), lambda item, arrays: None if next(calls) >= 8 else float(arrays.keep[0]))
    networks = network_for(3), network_for(3)
    settings: dict[str, Any] = {"queries": 2, "group": 4}
    await train_network(networks[0], toy_items(4), Metered(env), SMALL, iterations=2, **settings)
    calls = iter(range(10_000))
    await train_network(
        networks[1], toy_items(4), Metered(env, Budget(rollouts=8)), SMALL, iterations=1, **settings
    )
    first, second = (n.arrays() for n in networks)
    assert all(np.array_equal(first[name], second[name]) for name in first)


async def test_a_penalty_is_part_of_the_loss() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.keep[0]))
    network = network_for(3)
    await train_network(
        network, toy_items(4), Metered(env), SMALL, iterations=40, queries=2, group=2, lr=0.02, entropy=0.0,
        penalty=lambda nodes, edges: 10 * torch.sigmoid(edges).mean(),
    )  # fmt: skip
    policy = NetworkPolicy(env.pool, Card("x"), network.architecture, network.arrays(), SMALL)
    assert all(policy.propose(i).spatial.max() < 0.2 for i in toy_items(4))


async def test_without_learned_nodes_everybody_is_kept_and_the_node_head_is_left_alone() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.spatial[0, 1]))
    network = network_for(3)
    before = network.arrays()
    await train_network(
        network, toy_items(4), Metered(env), SMALL, iterations=5, queries=2, group=4, learn_nodes=False
    )
    assert all(len(t.masks[0].agents) == 4 for _, t, _ in env.seen)
    after = network.arrays()
    assert {n for n in after if not np.array_equal(after[n], before[n])} == {
        n for n in after if n != "weights" and not n.startswith("node")
    }


# -------------------------------------------------------------------------- seeds, budgets, faults


async def test_the_same_seed_gives_the_same_weights_and_rollouts() -> None:
    found = []
    for seed in (3, 3, 4):
        env = Toy(toy_pool(3), lambda item, arrays: float(arrays.spatial[0, 1]))
        network = network_for(3)
        torch.rand(3)  # the global generator plays no part
        await train_network(
            network, toy_items(5), Metered(env), SMALL, iterations=4, queries=3, group=4, seed=seed
        )
        found.append((env.seen, {n: a.tobytes() for n, a in network.arrays().items()}))
    assert found[0] == found[1] and found[0][0] != found[2][0] and found[0][1] != found[2][1]


async def test_the_plan_is_cut_to_whole_groups_before_anything_is_run() -> None:
    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.keep[0]))
    metered = Metered(env, Budget(rollouts=47))
    batches = await train_network(
        network_for(3), toy_items(13), metered, SMALL, iterations=600, queries=4, group=4
    )
    assert [b.rollouts for b in batches] == [16, 16, 12] and metered.rollouts == 44
    assert len({i for i, *_ in env.seen}) == 11  # one pass isn't over yet: every group is another item
    with pytest.raises(LimitExceeded, match="needs 4"):
        await train_network(network_for(3), toy_items(13), metered, SMALL, group=4)
    assert len(env.seen) == 44


async def test_what_can_t_be_learned_is_said() -> None:
    settings: dict[str, Any] = {"iterations": 9, "queries": 2, "group": 2}
    failing = Toy(toy_pool(3), lambda item, arrays: None)
    with pytest.raises(TaskError, match="all 12 rollouts failed"):
        await train_network(network_for(3), toy_items(4), Metered(failing), SMALL, **settings)
    flat = Toy(toy_pool(3), lambda item, arrays: 0.5)
    with pytest.raises(TaskError, match="worth 0.5"):
        await train_network(network_for(3), toy_items(4), Metered(flat), SMALL, **settings)
    with pytest.raises(TaskError, match="must not see"):
        await train_network(network_for(3), toy_items(4, "score"), Metered(flat), SMALL, **settings)
    with pytest.raises(ConfigError, match="nothing to compare"):
        await train_network(network_for(3), toy_items(4), Metered(flat), SMALL, group=1)
    with pytest.raises(ConfigError, match="lr=0"):
        await train_network(network_for(3), toy_items(4), Metered(flat), SMALL, lr=0)


async def test_divergence_is_an_error_that_names_the_iteration() -> None:
    calls = iter(range(100))
    env = Toy(toy_pool(3), lambda item, arrays: math.nan if next(calls) == 5 else float(arrays.keep[0]))
    with pytest.raises(ConfigError, match="iteration 1"):
        await train_network(network_for(3), toy_items(4), Metered(env), SMALL, queries=2, group=2)
    broken = network_for(3)
    with torch.no_grad():
        broken.node_2.bias.fill_(math.nan)
    with pytest.raises(ConfigError, match="iteration 0"):
        await train_network(broken, toy_items(4), Metered(env), SMALL)


async def test_each_text_is_embedded_once() -> None:
    class Counting:
        id, dimensions = SMALL.id, SMALL.dimensions
        texts: list[str] = []  # noqa: RUF012

        def embed(self, texts: Sequence[str]) -> FloatArray:
            self.texts += texts
            return SMALL.embed(texts)

    env = Toy(toy_pool(3), lambda item, arrays: float(arrays.keep[0]))
    embedder = Counting()
    await train_network(
        network_for(3), toy_items(4), Metered(env), embedder, iterations=9, queries=3, group=2
    )
    assert len(embedder.texts) == len(set(embedder.texts)) == 3 + 4
