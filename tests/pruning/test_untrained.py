"""The untrained control: initial weights, the same pool and embedding, thresholds at quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from agentcomm import topologies
from agentcomm.errors import ConfigError
from agentcomm.graph import Agent
from agentcomm.pruning.embeddings import HashEmbedder
from agentcomm.pruning.inference import Architecture, NetworkPolicy
from agentcomm.pruning.policy import Card, load
from agentcomm.pruning.pool import Pool
from agentcomm.task import Item

pytest.importorskip("torch")

from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.untrained import SHARES, untrained

GRAPH = topologies.complete([Agent(f"a{i}", role=f"Role {i} of many.") for i in range(6)], "judge")
ITEMS = [Item(f"q{i}", f"What is {i} plus {i + 1}?") for i in range(20)]


def trained(**more: bool) -> NetworkPolicy:
    """Weights as training might leave them, and a prior over whom agents hear."""
    pool, look = Pool(GRAPH, "complete"), HashEmbedder(32)
    hears = np.tri(6, k=-1, dtype=int)
    network = TopologyNetwork(Architecture(6, 32), 3, hears)
    card = Card("agp", seed=5, learned_from=frozenset({"abc"}), spent={"rollouts": 9})
    moved = {k: v + (0.3 if k != "weights" else 0) for k, v in network.arrays().items()}
    return NetworkPolicy(pool, card, network.architecture, moved, look, **more)


def test_its_weights_are_initial_ones_and_everything_else_is_the_policys() -> None:
    policy = trained()
    (fresh,) = untrained(policy).values()
    (_, before), (_, after) = policy.state(), fresh.state()
    assert set(before) == set(after)
    assert [name for name in before if np.array_equal(before[name], after[name])] == ["weights"]
    assert (fresh.pool, fresh.architecture, fresh.embedder) == (
        policy.pool, policy.architecture, policy.embedder,
    )  # fmt: skip
    assert fresh.card.learned_from == policy.card.learned_from
    assert (fresh.card.method, fresh.card.spent["rollouts"]) == ("untrained", 0)
    assert (fresh.node_threshold, fresh.edge_threshold) == (0.5, 0.5)
    (again,) = trained().untrained().values()
    assert again.spec() == fresh.spec()


def test_each_candidate_keeps_about_its_share_of_agents_and_edges() -> None:
    made = untrained(trained(), ITEMS)
    assert list(made) == ["10%", "30%", "50%", "70%", "90%"]
    for share, policy in zip(SHARES, made.values(), strict=True):
        kept = np.concatenate([policy.propose(item).keep > policy.node_threshold for item in ITEMS])
        pairs = policy.pool.spatial_allowed
        edges = [(policy.propose(item).spatial > policy.edge_threshold)[pairs] for item in ITEMS]
        assert kept.mean() == pytest.approx(share, abs=0.02)
        assert np.concatenate(edges).mean() == pytest.approx(share, abs=0.02)
        for item in ITEMS:
            assert policy(item).masks[0].agents - {"judge"}  # never a team of nobody


def test_a_policy_that_keeps_every_agent_keeps_them_untrained_too() -> None:
    for policy in untrained(trained(learn_nodes=False), ITEMS).values():
        assert policy(ITEMS[0]).masks[0].agents == set(GRAPH.names)


def test_it_is_saved_and_loaded_like_any_policy(tmp_path: object) -> None:
    policy = untrained(trained(), ITEMS)["50%"]
    policy.save(f"{tmp_path}/p")
    assert load(f"{tmp_path}/p", GRAPH).spec() == policy.spec()


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "agentcomm.pruning.untrained", None)
    with pytest.raises(ConfigError, match=r"pip install 'agentcomm\[learn\]'"):
        trained().untrained()
