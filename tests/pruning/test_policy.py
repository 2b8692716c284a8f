"""A policy on disk is data, for one graph, one embedding and one format."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.graph import Agent, AgentGraph, Edge, Topology
from agentcomm.pruning.embeddings import Cached, HashEmbedder, cached
from agentcomm.pruning.environment import Budget, Metered, Outcome, Trial, run_trials
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import Card, StaticPolicy, check_embedder, finite, load
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.task import Item

PICKLED = b"\x80\x04K\x01."
"""What ``pickle.dumps(1)`` makes."""

WORLD = PlantedWorld(agents=4, domains=1, misleaders=1)
ITEM = Item("1", "What?")


def team(names: str = "abc", decision: str = "j", role: str = "r") -> AgentGraph:
    agents = [Agent(n, role=role) for n in (*names, decision)]
    edges = [Edge(x, y) for i, x in enumerate(names) for y in names[i + 1 :]]
    return AgentGraph(agents, [*edges, *(Edge(n, decision) for n in names)], decision)


def policy(graph: AgentGraph | None = None, edges: str = "complete") -> StaticPolicy:
    pool = Pool(graph or team(), edges)  # type: ignore[arg-type]
    p = np.zeros((3, 3))
    p[0, 2] = 0.9
    p[0, 1] = 0.2
    card = Card("test", learned_from=frozenset(["x"]), spent={"rollouts": 3, "tokens": None}, notes=("n",))
    return StaticPolicy(pool, card, EdgeProbabilities.of([0.9, 0.1, 0.8], p), edge_threshold=0.6)


def test_a_policy_decides_the_same_after_a_round_trip(tmp_path: Path) -> None:
    before = policy()
    before.save(tmp_path)
    after = load(tmp_path, team())
    assert after(ITEM) == before(ITEM) and after.spec() == before.spec()
    assert after.card == before.card and after.card.spent["tokens"] is None
    assert sorted(m for m in after(ITEM).masks[0].agents) == ["a", "c", "j"]


def test_saving_again_replaces_the_policy(tmp_path: Path) -> None:
    policy().save(tmp_path)
    policy(edges="graph").save(tmp_path)
    assert load(tmp_path, team()).pool.edges == "graph"


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (team("abd"), "without 'c', with 'd'"),
        (team("ab"), "without 'c'"),
        (team("abcd"), "with 'd'"),
        (team("acb"), "another order"),
        (team(decision="k"), "decided by 'k'"),
        (team(role="other"), "other roles"),
    ],
    ids=["renamed", "removed", "added", "reordered", "decision", "roles"],
)
def test_a_policy_refuses_another_graph_and_says_what_differs(
    tmp_path: Path, graph: AgentGraph, says: str
) -> None:
    policy().save(tmp_path)
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, graph)


def test_a_policy_refuses_a_graph_whose_decision_agent_reads_others(tmp_path: Path) -> None:
    fewer = team()
    fewer = AgentGraph(fewer.agents, [e for e in fewer.edges if (e.sender, e.reader) != ("a", "j")], "j")
    policy(edges="graph").save(tmp_path)
    with pytest.raises(ConfigError, match="other roles, models or edges"):
        load(tmp_path, fewer)
    policy(fewer, edges="graph").save(tmp_path)
    assert load(tmp_path, fewer).pool.graph is fewer


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    policy().save(tmp_path)
    file = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**file, "version": 99}))
    with pytest.raises(ConfigError, match="format version 99"):
        load(tmp_path, team())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"format": "else"}', PICKLED])
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy.json").write_bytes(content)
    with pytest.raises(ConfigError, match="agentcomm prune"):
        load(tmp_path, team())


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no policy in"):
        load(tmp_path, team())


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    policy().save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(PICKLED)
    with pytest.raises(ConfigError, match="no safetensors file"):
        load(tmp_path, team())


def test_weights_of_another_policy_are_refused(tmp_path: Path) -> None:
    policy().save(tmp_path)
    file = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**file, "arrays": ["w"]}))
    with pytest.raises(ConfigError, match="different policies"):
        load(tmp_path, team())


def test_an_unknown_kind_and_a_missing_field_are_refused(tmp_path: Path) -> None:
    policy().save(tmp_path)
    file = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**file, "kind": "os.system"}))
    with pytest.raises(ConfigError, match="unknown kind"):
        load(tmp_path, team())
    del file["card"]
    (tmp_path / "policy.json").write_text(json.dumps(file))
    with pytest.raises(ConfigError, match="damaged"):
        load(tmp_path, team())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="choose another folder"):
        policy().save(tmp_path / "file" / "policy")


def test_another_embedding_is_refused() -> None:
    check_embedder(HashEmbedder(), "hash-v1-384")
    with pytest.raises(ConfigError, match="hash-v1-384"):
        check_embedder(HashEmbedder(32), "hash-v1-384")


def test_diverged_learning_is_an_error() -> None:
    assert finite(1.5, "the loss") == 1.5
    with pytest.raises(ConfigError, match="the loss of step 3 is nan"):
        finite(float("nan"), "the loss of step 3")


def test_thresholds_outside_0_and_1_are_refused() -> None:
    with pytest.raises(ConfigError, match="node threshold"):
        StaticPolicy(WORLD.pool, Card("x"), EdgeProbabilities.constant(4), node_threshold=1.5)


@given(st.lists(st.text(), max_size=6))
def test_hashed_texts_have_length_one_or_zero_and_equal_texts_equal_vectors(texts: list[str]) -> None:
    embedder = HashEmbedder(64)
    vectors = embedder.embed([*texts, *texts])
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (2 * len(texts), 64)
    assert np.all((np.abs(lengths - 1) < 1e-9) | (lengths == 0))
    assert np.array_equal(vectors[: len(texts)], vectors[len(texts) :])


def test_texts_that_share_words_are_nearer_than_strangers() -> None:
    a, b, c = HashEmbedder().embed(
        ["How many apples are left?", "How many pears are left?", "Name the capital of France."]
    )
    assert a @ b > 0.3 > abs(a @ c)


def test_a_cached_embedder_is_asked_about_each_text_once() -> None:
    class Counting:
        id, dimensions = "c", 2
        asked: list[str] = []  # noqa: RUF012

        def embed(self, texts: list[str]) -> np.ndarray:
            self.asked.extend(texts)
            return np.array([[len(t), 1.0] for t in texts])

    inner = Counting()
    twice = cached(cached(inner))  # type: ignore[arg-type]
    assert isinstance(twice, Cached) and twice.id == "c"
    for _ in range(50):
        assert twice.embed(["aa", "b", "aa"]).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert inner.asked == ["aa", "b"]


# -------------------------------------------------------------------------------- trials


class Slow:
    """An environment that answers out of order and counts how many it has in hand."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency, self.pool, self.most, self.now = concurrency, WORLD.pool, 0, 0

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        import anyio

        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(0.001 * (5 - seed % 5))
        self.now -= 1
        return Outcome(float(seed), None, WORLD.outcome(WORLD.items(1)[0], topology, 0).tokens)


@pytest.mark.anyio
async def test_trials_run_side_by_side_and_come_back_in_their_order() -> None:
    slow, oracle = Slow(3), WORLD.oracle(0)
    outcomes = await run_trials(slow, [Trial(ITEM, oracle, s) for s in range(10)])
    assert [o.correct for o in outcomes] == list(range(10)) and slow.most == 3


@pytest.mark.anyio
async def test_a_spent_budget_ends_trials_after_those_in_flight_are_recorded() -> None:
    metered = Metered(Slow(3), Budget(rollouts=4))
    with pytest.raises(LimitExceeded):
        await run_trials(metered, [Trial(ITEM, WORLD.oracle(0), s) for s in range(10)])
    assert metered.rollouts == 4 and metered.rollouts_left == 0 and metered.tokens > 0
