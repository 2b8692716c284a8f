"""Every builder has exactly the edges that its docstring (and the published definition) says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm import topologies as t
from agentcomm.errors import GraphError
from agentcomm.graph import Agent, AgentGraph

Pairs = set[tuple[int, int]]
sizes = st.integers(1, 12)


def pool(n: int) -> list[str]:
    return [f"a{i}" for i in range(n)]


def inside(graph: AgentGraph, kind: str = "spatial") -> Pairs:
    """Edges among the pool by position; every one of them once."""
    pairs = [
        (int(e.sender[1:]), int(e.reader[1:])) for e in graph.edges if e.kind == kind and "judge" not in e.key
    ]
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def read_by_judge(graph: AgentGraph) -> set[str]:
    return {e.sender for e in graph.edges if e.reader == "judge"}


def below(n: int) -> Pairs:
    return {(i, j) for j in range(n) for i in range(j)}


def flip(pairs: Pairs) -> Pairs:
    return {(j, i) for i, j in pairs}


@given(sizes)
def test_chain_star_complete_and_independent(n: int) -> None:
    assert inside(t.chain(pool(n), "judge")) == {(i, j) for i, j in below(n) if j - i == 1}
    hub = {(i, j) for i, j in below(n) if i == 0}
    assert inside(t.star(pool(n), "judge")) == hub
    assert inside(t.star(pool(n), "judge", direction="in")) == flip(hub)
    assert inside(t.complete(pool(n), "judge")) == below(n)
    assert len(inside(t.complete(pool(n), "judge"))) == n * (n - 1) // 2
    assert inside(t.independent(pool(n), "judge")) == set()


@given(sizes, st.integers(1, 4))
def test_every_agent_of_a_tree_but_the_root_hangs_below_its_parent(n: int, b: int) -> None:
    queue, edges = [0], set()  # breadth first: the next b agents are the children
    for i in range(1, n):
        while sum(1 for p, _ in edges if p == queue[0]) == b:
            queue.pop(0)
        edges.add((queue[0], i))
        queue.append(i)
    assert inside(t.tree(pool(n), "judge", b=b)) == edges
    assert inside(t.tree(pool(n), "judge", b=b, direction="in")) == flip(edges)


@given(st.data())
def test_layers_are_even_and_read_the_layer_before(data: st.DataObject) -> None:
    n = data.draw(sizes)
    layers = data.draw(st.integers(1, n))
    graph = t.layered(pool(n), "judge", layers=layers)
    members = [[i for i in range(n) if k * n <= i * layers < (k + 1) * n] for k in range(layers)]
    assert sum(map(len, members)) == n
    assert max(map(len, members)) - min(map(len, members)) <= 1
    assert inside(graph) == {(i, j) for k in range(1, layers) for i in members[k - 1] for j in members[k]}


@given(sizes)
def test_mesh_is_complete_and_everybody_reads_everybody_else_a_round_later(n: int) -> None:
    graph = t.mesh(pool(n), "judge")
    assert inside(graph) == below(n)
    assert inside(graph, "temporal") == below(n) | flip(below(n))
    assert t.mesh(pool(n), "judge", rounds=1) == t.complete(pool(n), "judge")


@given(sizes, st.integers(2, 4))
def test_debaters_read_each_other_only_a_round_later(n: int, rounds: int) -> None:
    graph = t.debate([Agent(name, memory=name != "a0") for name in pool(n)], "judge", rounds=rounds)
    assert inside(graph) == set()
    assert inside(graph, "temporal") == below(n) | flip(below(n)) | {(0, 0)}  # a0 has no memory
    assert graph.rounds == rounds
    assert read_by_judge(graph) == set(pool(n))


@given(st.data())
def test_a_random_dag_has_the_edges_asked_for_and_equal_seeds_give_equal_graphs(data: st.DataObject) -> None:
    n = data.draw(sizes)
    m = data.draw(st.integers(0, n * (n - 1) // 2))
    seed = data.draw(st.integers(0, 2**32))
    graph = t.random_dag(pool(n), "judge", edges=m, seed=seed)
    pairs = inside(graph)
    assert len(pairs) == m
    assert nx.is_directed_acyclic_graph(nx.DiGraph(pairs))
    assert graph == t.random_dag(pool(n), "judge", edges=m, seed=seed)
    assert inside(t.random_dag(pool(n), "judge", p=0.0, seed=seed)) == set()
    assert len(inside(t.random_dag(pool(n), "judge", p=1.0, seed=seed))) == n * (n - 1) // 2


def test_random_dags_draw_all_pairs_alike() -> None:
    n, draws = 4, 6000
    count: Counter[tuple[int, int]] = Counter()
    graphs: Counter[frozenset[tuple[int, int]]] = Counter()
    for seed in range(draws):
        pairs = inside(t.random_dag(pool(n), "judge", edges=2, seed=seed))
        count.update(pairs)
        graphs[frozenset(pairs)] += 1
    expected = draws * 2 / (n * (n - 1))  # 1000 a directed pair
    assert len(count) == n * (n - 1)
    assert all(abs(c - expected) < 5 * expected**0.5 for c in count.values())
    assert len(graphs) == 12 * 11 // 2 - 6  # every pair of edges but those there and back

    by_p = [len(inside(t.random_dag(pool(n), "judge", p=0.3, seed=seed))) for seed in range(2000)]
    assert abs(sum(by_p) / len(by_p) - 0.3 * 6) < 0.15


BUILD: dict[str, Any] = {**t.BUILDERS, "random_dag": lambda *a, **k: t.random_dag(*a, edges=3, seed=1, **k)}


@pytest.mark.parametrize("name", sorted(set(BUILD) - {"independent"}))
def test_the_decision_agent_reads_whom_the_scope_says(name: str) -> None:
    build = BUILD[name]
    assert read_by_judge(build(pool(5), "judge")) == set(pool(5))
    if name in ("chain", "complete", "mesh"):
        assert read_by_judge(build(pool(5), "judge", decision_scope="sinks")) == {"a4"}
        assert read_by_judge(build(pool(5), "judge", decision_scope="last")) == {"a4"}
    graph = build(pool(5), Agent("judge", role="r"), rounds=2, system="s")
    assert (graph.names[-1], graph.decision, graph.rounds, graph.system) == ("judge", "judge", 2, "s")
    assert graph.agents[-1].role == "r"


def test_sinks_are_the_agents_that_nobody_of_the_pool_reads() -> None:
    assert read_by_judge(t.tree(pool(5), "judge", decision_scope="sinks")) == {"a2", "a3", "a4"}
    assert read_by_judge(t.star(pool(4), "judge", direction="in", decision_scope="sinks")) == {"a0"}


def test_without_a_decision_agent_the_pool_agent_in_which_it_ends_decides() -> None:
    assert t.chain(pool(3)).decision == "a2"
    assert t.complete(pool(3)).decision == "a2"
    assert t.mesh(pool(3)).decision == "a2"
    assert t.star(pool(3), direction="in").decision == "a0"
    assert t.tree(pool(3), direction="in").decision == "a0"
    assert t.layered(pool(3), layers=3).decision == "a2"
    assert t.single("a0").decision == "a0"
    assert t.star(pool(3), "a0", direction="in") == t.star(pool(3), direction="in")
    assert all(graph.names == ("a0", "a1", "a2") for graph in (t.chain(pool(3)), t.mesh(pool(3), "a2")))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: t.star(pool(3)), "star doesn't end in one agent; pass decision="),
        (lambda: t.tree(pool(3)), "tree doesn't end in one agent"),
        (lambda: t.layered(pool(4)), "layered doesn't end in one agent"),
        (lambda: t.independent(pool(2)), "independent doesn't end in one agent"),
        (lambda: t.debate(pool(2)), "debate doesn't end in one agent"),
        (lambda: t.random_dag(pool(2), edges=1, seed=0), "random DAG doesn't end in one agent"),
        (lambda: t.random_dag(pool(3), "judge", edges=4, seed=0), "3 agents can't have 4 edges; .* 0 and 3"),
        (lambda: t.random_dag(pool(3), "judge", edges=-1, seed=0), "can't have -1 edges"),
        (lambda: t.random_dag(pool(3), "judge", p=1.5, seed=0), "p=1.5; a probability"),
        (lambda: t.random_dag(pool(3), "judge", seed=0), "either edges= .* or p="),
        (lambda: t.random_dag(pool(3), "judge", edges=1, p=0.1, seed=0), "either edges= .* or p="),
        (lambda: t.layered(pool(3), "judge", layers=4), "4 layers for 3 agents"),
        (lambda: t.layered(pool(3), "judge", layers=0), "0 layers for 3 agents"),
        (lambda: t.tree(pool(3), "judge", b=0), "b=0"),
        (lambda: t.star(pool(3), "judge", direction="up"), "direction='up'"),  # type: ignore[arg-type]
        (lambda: t.chain(pool(3), "judge", decision_scope="some"), "decision_scope='some'"),  # type: ignore[arg-type]
        (lambda: t.chain(pool(3), "judge", rounds=0), "rounds=0"),
        (lambda: t.debate(pool(3), "judge", rounds=1), "needs at least 2"),
        (lambda: t.chain([], "judge"), "chain of no agents"),
        (lambda: t.layered([], "judge", layers=1), "layered of no agents"),
        (lambda: t.chain("abc", "judge"), "one string"),
        (lambda: t.chain(["a", "a"], "judge"), "2 agents are named 'a'"),
        (lambda: t.star(pool(3), "judge", decision_scope="last"), "'a1' can't reach the decision"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(build: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        build()
