"""The network: its size, its direction, what is trained, and that numpy decides as torch does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from agentcomm import topologies  # noqa: E402
from agentcomm.errors import ConfigError  # noqa: E402
from agentcomm.graph import Agent  # noqa: E402
from agentcomm.pruning import imitation  # noqa: E402
from agentcomm.pruning.embeddings import HashEmbedder  # noqa: E402
from agentcomm.pruning.imitation import Targets, Training  # noqa: E402
from agentcomm.pruning.inference import Architecture, Forward, NetworkPolicy  # noqa: E402
from agentcomm.pruning.network import TopologyNetwork  # noqa: E402
from agentcomm.pruning.policy import Card, load  # noqa: E402
from agentcomm.pruning.pool import FloatArray, Pool  # noqa: E402
from agentcomm.task import Item  # noqa: E402

PRIOR = np.triu(np.ones((5, 5)), 1)
"""A message graph in which agents hear different others."""


def unit(rows: int, dimensions: int = 384, seed: int = 0) -> FloatArray:
    found = np.random.default_rng(seed).normal(size=(rows, dimensions))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def tensor(array: FloatArray) -> Any:
    return torch.tensor(array, dtype=torch.float32)


def counts(network: TopologyNetwork) -> tuple[int, int]:
    return sum(p.numel() for p in network.parameters()), sum(p.numel() for p in network.trained())


def targets(keep: Any, spatial: Any, queries: FloatArray) -> Targets:
    n = len(queries)
    keep = np.broadcast_to(np.array(keep, bool), (n, len(keep)))
    spatial = np.broadcast_to(np.array(spatial, bool), (n, *np.shape(spatial)))
    allowed = ~np.eye(keep.shape[1], dtype=bool)
    return Targets(queries, keep, spatial, np.zeros_like(spatial), np.ones(n), allowed, ~allowed & False)


class Counting:
    """An embedder that counts what it is asked for."""

    id, dimensions = "counting", 16

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.asked += texts
        return HashEmbedder(16).embed(texts)


def policy(pool: Pool, embedder: Any = None, **more: Any) -> NetworkPolicy:
    embedder = embedder or HashEmbedder(16)
    architecture = Architecture(len(pool), embedder.dimensions)
    arrays = TopologyNetwork(architecture, 3).arrays()
    return NetworkPolicy(pool, Card("test"), architecture, arrays, embedder, **more)


def team(n: int = 4, rounds: int = 1) -> Pool:
    agents = [Agent(f"a{i}", role=f"You are agent number {i}, a {w}.") for i, w in enumerate("wxyz"[:n])]
    return Pool(topologies.complete(agents, Agent("judge", role="You decide."), rounds=rounds), "complete")


# ------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("agents", [4, 9])
def test_the_corrected_network_has_the_specified_parameters_and_trains_them_all(agents: int) -> None:
    network = TopologyNetwork(Architecture(agents, 384))
    assert counts(network) == (117_122 + 16 * agents, 117_122 + 16 * agents)


def test_the_released_network_trains_19985_parameters_and_leaves_6432_at_random() -> None:
    assert counts(TopologyNetwork(Architecture(9, 384, profile="as_released"))) == (19_985 + 6_432, 19_985)


def test_one_step_changes_every_parameter() -> None:
    queries = unit(6)
    network = TopologyNetwork(Architecture(5, 384), message_graph=PRIOR)
    before = network.arrays()
    some = targets([1, 1, 0, 1, 0], np.triu(np.ones((5, 5)), 1), queries)
    imitation.train(network, unit(5, seed=1), some, None, Training(epochs=1), np.random.default_rng(0))
    after = network.arrays()
    assert [k for k in before if k != "weights" and (before[k] == after[k]).all()] == []


def test_as_released_every_p_stays_near_a_half_and_the_projection_is_never_trained() -> None:
    network = TopologyNetwork(Architecture(5, 384, profile="as_released"), message_graph=PRIOR)
    before = network.arrays()
    queries = unit(40)
    some = targets([1, 1, 0, 1, 0], np.triu(np.ones((5, 5)), 1), queries)
    training = Training.released()
    imitation.train(network, unit(5, seed=1), some, None, training, np.random.default_rng(0))
    after = network.arrays()
    same = {k for k in before if (before[k] == after[k]).all()} - {"weights"}
    assert same == {f"projection_{k}.{p}" for k in (1, 2) for p in ("weight", "bias")}
    _, edge = network(tensor(unit(5, seed=1)), tensor(queries))
    p = torch.sigmoid(edge).detach()
    assert 0.2689 < float(p.min()) < float(p.max()) < 0.7311
    assert torch.allclose(p, p.transpose(1, 2), atol=1e-6)


# -------------------------------------------------------------------------------- direction


def fit_reversed_edge(**more: Any) -> FloatArray:
    """p after a single edge, from the higher to the lower index, was imitated."""
    spatial = np.zeros((3, 3))
    spatial[2, 0] = 1
    network = TopologyNetwork(Architecture(3, 16, **more))
    some = targets([1, 0, 1], spatial, unit(4, 16))
    training = Training(epochs=200, weight_decay=0.0)
    imitation.train(network, unit(3, 16, seed=1), some, None, training, np.random.default_rng(0))
    _, edge = network(tensor(unit(3, 16, seed=1)), tensor(unit(1, 16)))
    return np.asarray(torch.sigmoid(edge[0]).detach().numpy())


def test_a_single_reversed_edge_can_be_learned() -> None:
    p = fit_reversed_edge()
    assert p[2, 0] > 0.95 and p[0, 2] < 0.05


def test_with_a_symmetric_head_it_cannot() -> None:
    p = fit_reversed_edge(head="symmetric")
    assert p[2, 0] == pytest.approx(p[0, 2], abs=1e-6)


def test_agents_have_different_vectors_though_everyone_hears_everyone() -> None:
    roles = unit(4, 16)
    for same in (roles, np.repeat(roles[:1], 4, axis=0)):  # equal roles are told apart by anchors
        z = TopologyNetwork(Architecture(4, 16)).vectors(tensor(same), tensor(unit(1, 16, seed=1)))[0]
        assert float(torch.pdist(z.detach()).min()) > 1e-3


def test_a_convolution_over_a_complete_graph_makes_all_agents_equal() -> None:
    network = TopologyNetwork(Architecture(4, 16, layers="gcn"))
    z = network.vectors(tensor(unit(4, 16)), tensor(unit(1, 16, seed=1)))[0]
    assert float(torch.pdist(z.detach()).max()) < 1e-5


def test_initial_weights_follow_from_the_seed_and_leave_torchs_own_generator_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = (TopologyNetwork(Architecture(3, 16), seed).arrays() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all((a[k] == b[k]).all() for k in a)
    assert not any((a[k] == c[k]).all() for k in a if k != "weights")


@pytest.mark.parametrize(
    "bad",
    [{"profile": "paper"}, {"head": "both"}, {"layers": "gat"}, {"temperature": 0.5}, {"agents": 0}],
)
def test_networks_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Architecture(**{"agents": 3, "dimensions": 8, **bad})


def test_a_message_graph_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[5, 5\]"):
        TopologyNetwork(Architecture(5, 8), message_graph=np.ones((4, 4)))


# -------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("graph", [None, PRIOR, np.zeros((5, 5))])
@pytest.mark.parametrize(
    "more",
    [{}, {"temperature": 2.0}, {"head": "symmetric"}, {"layers": "gcn"}, {"profile": "as_released"}],
)
def test_numpy_and_torch_agree(more: dict[str, Any], graph: Any) -> None:
    network = TopologyNetwork(Architecture(5, 384, **more), 7, graph)
    roles, queries = unit(5, seed=1), unit(3, seed=2)
    with torch.no_grad():
        node, edge = (torch.sigmoid(x).numpy() for x in network(tensor(roles), tensor(queries)))
    forward = Forward(network.architecture, network.arrays(), roles)
    near = 1e-3 if more.get("profile") else 1e-5
    for k, query in enumerate(queries):
        keep, p = forward(query)
        assert np.abs(keep - node[k]).max() < 1e-5
        assert np.abs(p - edge[k]).max() < near


def test_a_decision_for_nine_agents_takes_less_than_two_milliseconds() -> None:
    agents = [Agent(f"a{i}", role=f"Role {i}.") for i in range(9)]
    pool = Pool(topologies.independent(agents, Agent("judge", role="You decide.")), "complete")
    decide = policy(pool, HashEmbedder())
    item = Item(id="i", question="What is 2 + 2?")
    decide(item)
    took = []
    for _ in range(50):
        start = time.perf_counter()
        decide(item)
        took.append(time.perf_counter() - start)
    assert min(took) < 2e-3


def test_roles_are_embedded_once_and_each_question_once() -> None:
    embedder = Counting()
    decide = policy(team(), embedder)
    for _ in range(5):
        for k in range(10):
            decide.propose(Item(id=str(k), question=f"Question {k}?"))
    assert len(embedder.asked) == 4 + 10


def test_two_runs_decide_alike_and_questions_make_a_difference() -> None:
    items = [Item(id=str(k), question=f"Question {k} about {w}?") for k, w in enumerate(("cats", "tax"))]
    a, b = policy(team()), policy(team())
    assert [a(item) for item in items] == [b(item) for item in items]
    assert not np.array_equal(a.propose(items[0]).spatial, a.propose(items[1]).spatial)


def test_pairs_that_the_graph_lacks_are_never_edges() -> None:
    agents = [Agent(f"a{i}", role=f"Role {i}.") for i in range(4)]
    pool = Pool(topologies.chain(agents, Agent("judge", role="You decide.")))
    decide = policy(pool, edge_threshold=0.0, node_threshold=0.0)
    assert np.array_equal(decide.realise(Item(id="i", question="?")).spatial, pool.spatial_allowed)


def test_spatial_and_temporal_edges_of_a_pair_share_their_probability() -> None:
    pool = team(3, rounds=2)
    proposal = policy(pool).propose(Item(id="i", question="?"))
    assert np.array_equal(proposal.spatial, proposal.temporal)
    assert np.array_equal(proposal.temporal_mask, pool.temporal_allowed)


def test_without_node_pruning_all_agents_are_kept() -> None:
    decide = policy(team(), learn_nodes=False, node_threshold=0.9)
    assert decide.realise(Item(id="i", question="?")).keep.all()


# ------------------------------------------------------------------------------------ files


def test_a_stored_policy_decides_as_the_one_that_was_saved(tmp_path: Path) -> None:
    pool = team()
    ours = policy(pool, edge_threshold=0.48)
    ours.save(tmp_path)
    theirs = load(tmp_path, pool.graph)
    assert theirs.spec() == ours.spec()
    for k in range(5):
        item = Item(id=str(k), question=f"Question {k}?")
        assert theirs(item) == ours(item)
        assert np.array_equal(theirs.propose(item).spatial, ours.propose(item).spatial)


def test_a_stored_policy_refuses_another_embedding(tmp_path: Path) -> None:
    pool = team()
    policy(pool, Counting()).save(tmp_path)
    with pytest.raises(ConfigError, match="counting"):
        load(tmp_path, pool.graph)
    with pytest.raises(ConfigError, match="counting"):
        load(tmp_path, pool.graph, HashEmbedder(16))


def test_weights_that_are_not_numbers_or_of_another_size_are_refused() -> None:
    architecture, roles = Architecture(3, 16), unit(3, 16)
    arrays = TopologyNetwork(architecture).arrays()
    with pytest.raises(ConfigError, match="NaN"):
        Forward(architecture, {**arrays, "anchors": np.full((3, 16), np.nan)}, roles)
    with pytest.raises(ConfigError, match="anchors"):
        Forward(architecture, {**arrays, "anchors": np.zeros((4, 16))}, roles)
    with pytest.raises(ConfigError, match="role embeddings"):
        Forward(architecture, arrays, unit(3, 8))
    with pytest.raises(ConfigError, match="another network"):
        TopologyNetwork(Architecture(4, 16)).load(arrays)


def test_using_a_policy_needs_no_torch(tmp_path: Path) -> None:
    pool = team()
    ours = policy(pool)
    ours.save(tmp_path / "policy")
    (tmp_path / "graph.json").write_text(json.dumps(pool.graph.to_dict()))
    program = """
import json, sys
sys.modules["torch"] = None
from agentcomm.graph import AgentGraph
from agentcomm.pruning.policy import load
from agentcomm.task import Item
graph = AgentGraph.from_dict(json.load(open("graph.json")))
print(len(load("policy", graph)(Item(id="i", question="Question 1?")).masks[0].agents))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    expected = ours(Item(id="i", question="Question 1?")).masks[0].agents
    assert int(done.stdout) == len(expected)
