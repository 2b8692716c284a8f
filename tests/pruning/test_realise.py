"""Edge probabilities become a DAG of the right distribution that the decision agent can hear."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agentcomm import topologies
from agentcomm.errors import GraphError
from agentcomm.graph import Agent, AgentGraph, Edge, Topology
from agentcomm.pruning.pool import Pool, levels
from agentcomm.pruning.realise import (
    CLAMP,
    Closure,
    EdgeProbabilities,
    Realisation,
    log_probability,
    logit_gradient,
    prune_lowest,
    realise,
)


def complete_pool(n: int, **options: Any) -> Pool:
    return Pool(topologies.independent([f"a{i}" for i in range(n)], "judge", **options), "complete")


def random_policy(n: int, rng: np.random.Generator, *, rounds: int | None = None) -> EdgeProbabilities:
    """Probabilities of every kind: certain, likely, equal ones, with pairs masked."""
    lead = () if rounds is None else (rounds,)
    grid = np.array([0.0, 0.2, 0.5, 0.5001, 0.9, 1.0])
    return EdgeProbabilities(
        rng.choice(grid, (*lead, n)),
        rng.choice(grid, (*lead, n, n)),
        rng.choice(grid, (*lead, n, n)),
        rng.random((*lead, n, n)) < 0.8,
        rng.random((*lead, n, n)) < 0.8,
    )


def check(pool: Pool, policy: EdgeProbabilities, r: Realisation) -> None:
    """What holds for every realisation."""
    schedule = pool.schedule(r.topology)
    assert r.keep.any()
    for k, mask in enumerate(r.topology.masks):
        keep, spatial, temporal = (a[k] if policy.rounds else a for a in (r.keep, r.spatial, r.temporal))
        allowed = policy.spatial_mask[k] if policy.rounds else policy.spatial_mask
        assert mask.agents - {pool.decision} == {pool.names[i] for i in keep.nonzero()[0]}
        assert not (spatial & ~allowed).any()
        assert not spatial.diagonal().any()
        assert not (spatial & ~(keep & keep[:, None])).any()
        assert not (temporal & ~pool.temporal_allowed).any()
        heard = {e for e in mask.edges if pool.decision not in e and e.kind == "temporal"}
        heard = {e for e in heard if r.topology.delivers(e, k + 1 if policy.rounds else 2)}
        assert {(e.sender, e.reader) for e in heard} == {
            (pool.names[i], pool.names[j]) for i, j in np.argwhere(temporal)
        }
        assert nx.is_directed_acyclic_graph(nx.from_numpy_array(spatial, create_using=nx.DiGraph))
        waves = [w.agents for w in schedule.waves if w.round == k + 1 and w.agents != (pool.decision,)]
        depth = levels(spatial)
        expected: dict[int, list[str]] = {}
        for i in keep.nonzero()[0]:
            expected.setdefault(depth[i], []).append(pool.names[i])
        assert waves == [tuple(expected[d]) for d in sorted(expected)]
    useful = pool.team(r.topology).useful_agents(r.topology)
    assert {pool.names[i] for i in r.keep.reshape(-1, len(pool)).any(axis=0).nonzero()[0]} <= useful


@pytest.mark.parametrize("mode", ["threshold", "bernoulli"])
def test_a_thousand_random_policies_give_dags_within_the_mask(mode: Any) -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        n = int(rng.integers(1, 13))
        pool = complete_pool(n)
        policy = random_policy(n, rng)
        check(pool, policy, realise(policy, pool, mode=mode, rng=rng))


@pytest.mark.parametrize("mode", ["threshold", "bernoulli"])
@pytest.mark.parametrize("axis", [None, 3])
def test_rounds_with_temporal_edges_run_as_realised(mode: Any, axis: int | None) -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        n = int(rng.integers(1, 6))
        pool = complete_pool(n, rounds=3)
        policy = random_policy(n, rng, rounds=axis)
        r = realise(policy, pool, mode=mode, rng=rng)
        check(pool, policy, r)
        back = pool.arrays(r.topology)
        assert (back.keep == r.keep).all() and (back.spatial == r.spatial).all()


@given(st.integers(0, 2**32), st.sampled_from(["threshold", "bernoulli"]))
def test_of_a_users_graph_only_parts_are_realised_and_each_is_heard(seed: int, mode: Any) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    graph = topologies.random_dag(
        [f"a{i}" for i in range(n)], "judge", seed=seed, p=0.6, decision_scope="sinks", rounds=1
    )
    pool = Pool(graph)
    policy = random_policy(n, rng)
    r = realise(policy, pool, mode=mode, rng=rng)
    assert r.topology <= graph.topology()
    assert pool.team(r.topology) is graph
    check(pool, policy, r)


@pytest.mark.parametrize("scope", ["all", "sinks", "last"])
def test_every_decision_scope_hears_every_kept_agent_at_least_through_others(scope: Any) -> None:
    rng = np.random.default_rng(3)
    pool = Pool(topologies.independent(list("abcd"), "judge"), "complete", scope)
    for _ in range(60):
        policy = random_policy(4, rng)
        r = realise(policy, pool, mode="bernoulli", rng=rng)
        check(pool, policy, r)
        heard = {e.sender for e in r.topology.masks[0].edges if e.reader == "judge"}
        kept = r.topology.masks[0].agents - {"judge"}
        sinks = {pool.names[i] for i in r.keep.nonzero()[0] if not r.spatial[i].any()}
        assert heard == {"all": kept, "sinks": sinks}.get(scope, heard)
        assert len(heard) == 1 or scope != "last"


def test_an_agent_without_edges_still_runs_but_one_that_nobody_can_hear_does_not() -> None:
    isolated = realise(EdgeProbabilities.constant(3, 1.0, 0.0), complete_pool(3))
    assert isolated.keep.all() and not isolated.spatial.any()
    graph = AgentGraph(
        [Agent("a"), Agent("b"), Agent("judge")], [Edge("a", "b"), Edge("b", "judge")], decision="judge"
    )
    cut = realise(EdgeProbabilities.of([1, 1], np.zeros((2, 2))), Pool(graph))
    assert cut.keep.tolist() == [False, True]
    assert cut.raw_keep.tolist() == [True, True]


def test_where_nobody_is_heard_the_likeliest_direct_sender_is_kept() -> None:
    graph = AgentGraph(
        [Agent("a"), Agent("b"), Agent("c"), Agent("judge")],
        [Edge("a", "b"), Edge("b", "judge"), Edge("c", "judge")],
        decision="judge",
    )
    r = realise(EdgeProbabilities.of([0.9, 0.1, 0.2], np.ones((3, 3))), Pool(graph))
    assert r.keep.tolist() == [False, False, True]
    assert not r.spatial.any()


def test_an_empty_draw_keeps_the_likeliest_agent_and_the_log_probability_of_the_draw() -> None:
    q = [0.2, 0.4, 0.4]
    for seed in range(200):
        r = realise(EdgeProbabilities.of(q, np.zeros((3, 3))), complete_pool(3), mode="bernoulli", rng=seed)
        if not r.raw_keep.any():
            break
    assert not r.raw_keep.any()
    assert r.keep.tolist() == [False, True, False]
    assert r.log_prob == pytest.approx(math.log(0.8 * 0.6 * 0.6))
    assert realise(EdgeProbabilities.of(q, np.zeros((3, 3))), complete_pool(3)).keep.tolist() == [
        False,
        True,
        False,
    ]


# --------------------------------------------------------------------------- distribution

Q = np.array([0.7, 0.45, 0.8])
P = np.array([[0, 0.6, 0.3], [0.5, 0, 0.8], [0.35, 0.65, 0]])
ORDER = [(2, 0), (0, 1), (1, 2), (1, 0), (0, 2), (2, 1)]


def outcomes(pool: Pool, policy: EdgeProbabilities) -> dict[tuple[bytes, bytes], tuple[float, Realisation]]:
    """Every (raw keep, edges) that may be drawn in ORDER, with its probability, by walking the tree."""

    def draws(pairs: list[tuple[int, int]], edges: tuple[tuple[int, int], ...], chance: float) -> Any:
        if not pairs:
            yield edges, chance
            return
        (i, j), *rest = pairs
        if nx.has_path(nx.DiGraph([(v, v) for v in range(3)] + list(edges)), j, i):
            yield from draws(rest, edges, chance)
        else:
            p = float(policy.spatial[i, j])
            yield from draws(rest, (*edges, (i, j)), chance * p)
            yield from draws(rest, edges, chance * (1 - p))

    found: dict[tuple[bytes, bytes], tuple[float, Realisation]] = {}
    for bits in itertools.product([False, True], repeat=3):
        raw = np.array(bits)
        kept = raw.copy()
        if not kept.any():
            kept[int(policy.keep.argmax())] = True
        start = float(np.where(raw, policy.keep, 1 - policy.keep).prod())
        for edges, chance in draws([(i, j) for i, j in ORDER if kept[i] and kept[j]], (), start):
            a = np.zeros((3, 3), dtype=bool)
            for i, j in edges:
                a[i, j] = True
            # The realisation that has exactly this outcome, made by certain probabilities; what was
            # considered follows from the order and the edges.
            sure = realise(
                EdgeProbabilities.of(kept.astype(float), np.where(a, 1 - 1e-12, 1e-12)),
                pool,
                mode="bernoulli",
                rng=0,
                order=ORDER,
            )
            assert (sure.raw_spatial == a).all()
            object.__setattr__(sure, "raw_keep", raw)
            object.__setattr__(sure, "sampled", np.ones(3, dtype=bool))
            found[raw.tobytes(), a.tobytes()] = (chance, sure)
    return found


def test_graphs_are_drawn_as_often_as_their_log_probability_says() -> None:
    pool, policy = complete_pool(3), EdgeProbabilities.of(Q, P)
    expected = outcomes(pool, policy)
    assert sum(chance for chance, _ in expected.values()) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    seen: Counter[tuple[bytes, bytes]] = Counter()
    for _ in range(50_000):
        r = realise(policy, pool, mode="bernoulli", rng=rng, order=ORDER)
        key = (r.raw_keep.tobytes(), r.raw_spatial.tobytes())
        if key not in seen:
            assert r.log_prob == pytest.approx(math.log(expected[key][0]))
        seen[key] += 1
    assert set(seen) <= set(expected)
    frequencies = np.array([seen[k] for k in expected])
    chances = np.array([chance for chance, _ in expected.values()])
    assert stats.chisquare(frequencies, 50_000 * chances / chances.sum()).pvalue > 0.001


def test_the_enumerated_policy_gradient_is_that_of_the_expected_utility() -> None:
    pool = complete_pool(3)
    worth = np.random.default_rng(5).normal(size=(3, 3))

    def utility(r: Realisation) -> float:
        return float((worth * r.spatial).sum() - 0.3 * r.keep.sum())

    def policy(logits: np.ndarray[Any, Any]) -> EdgeProbabilities:
        s = 1 / (1 + np.exp(-logits))
        return EdgeProbabilities.of(s[:3], s[3:].reshape(3, 3))

    def expected(logits: np.ndarray[Any, Any]) -> float:
        now = policy(logits)
        return sum(math.exp(log_probability(r, now)) * utility(r) for _, r in tree.values())

    logits = np.log(np.concatenate([Q, np.where(P > 0, P, 0.5).ravel()]))
    logits -= np.log1p(-np.concatenate([Q, np.where(P > 0, P, 0.5).ravel()]))
    tree = outcomes(pool, policy(logits))
    gradient = np.zeros(12)
    for chance, r in tree.values():
        g = logit_gradient(r, policy(logits))
        gradient += chance * utility(r) * np.concatenate([g.keep, g.spatial.ravel()])
    numeric = np.array(
        [(expected(logits + 1e-5 * e) - expected(logits - 1e-5 * e)) / 2e-5 for e in np.eye(12)]
    )
    assert np.abs(gradient).max() > 0.05
    assert gradient == pytest.approx(numeric, abs=1e-4)


@pytest.mark.parametrize("rounds", [None, 2])
def test_the_log_probability_follows_from_order_edges_and_p(rounds: int | None) -> None:
    rng = np.random.default_rng(4)
    temporal = 0
    for _ in range(40):
        n = int(rng.integers(2, 8))
        pool = complete_pool(n, rounds=2)
        lead = () if rounds is None else (rounds,)
        q, p, pt = rng.random((*lead, n)), rng.random((*lead, n, n)), rng.random((*lead, n, n))
        p[..., 0, 1] = 1 - 1e-9  # clamped
        r = realise(EdgeProbabilities.of(q, p, pt), pool, mode="bernoulli", rng=rng)
        total = np.log(np.where(r.raw_keep, q, 1 - q)).sum()
        dag = nx.DiGraph((i, i) for i in range(n))
        for visit in r.order.tolist():
            *_, i, j = visit
            k = visit[:-2]
            if nx.has_path(dag, j, i):
                assert not r.considered[(*k, i, j)] and not r.raw_spatial[(*k, i, j)]
                continue
            assert r.considered[(*k, i, j)]
            chance = min(max(p[(*k, i, j)], CLAMP), 1 - CLAMP)
            total += math.log(chance if r.raw_spatial[(*k, i, j)] else 1 - chance)
            if r.raw_spatial[(*k, i, j)]:
                dag.add_edge(i, j)
        on = r.temporal_considered
        temporal += int(on.sum())
        total += np.log(np.where(r.raw_temporal, pt, 1 - pt))[on].sum()
        assert r.log_prob == pytest.approx(total, abs=1e-9)
        assert len({tuple(v) for v in r.order.tolist()}) == len(r.order)
    assert temporal > 40


def test_a_seed_makes_the_same_realisation_again_in_a_fresh_generator() -> None:
    pool, policy = complete_pool(6), EdgeProbabilities.constant(6, 0.7, 0.5)
    rng = np.random.default_rng(9)
    drawn = [realise(policy, pool, mode="bernoulli", rng=rng) for _ in range(5)]
    assert len({r.spatial.tobytes() for r in drawn}) > 1
    for r in drawn:
        assert r.seed is not None
        again = realise(policy, pool, mode="bernoulli", rng=r.seed)
        assert (again.order == r.order).all() and again.topology == r.topology
        assert again.log_prob == r.log_prob


def test_row_major_favours_low_to_high_and_random_order_does_not() -> None:
    pool, policy = complete_pool(2), EdgeProbabilities.constant(2, 1.0, 0.9)
    rng = np.random.default_rng(0)

    def forward(order: Any) -> int:
        draws = [realise(policy, pool, mode="bernoulli", rng=rng, order=order) for _ in range(400)]
        return sum(bool(r.spatial[0, 1]) for r in draws)

    assert forward("row_major") > 330
    assert 160 < forward("random") < 240


def test_certain_edges_are_obeyed_and_have_no_part_in_the_log_probability() -> None:
    p = np.array([[0, 1.0, 0.5], [1.0, 0, 0.0], [0, 0, 0]])
    r = realise(EdgeProbabilities.of([1, 1, 1], p), complete_pool(3), mode="bernoulli", rng=0)
    assert r.spatial[0, 1] != r.spatial[1, 0]  # both are certain, one would close the cycle
    assert r.considered.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert not r.sampled.any()
    assert r.log_prob == pytest.approx(math.log(0.5))


# ------------------------------------------------------------------------------ threshold


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_edge_threshold_never_adds_a_candidate(seed: int, a: float, b: float) -> None:
    rng = np.random.default_rng(seed)
    pool, policy = complete_pool(5), random_policy(5, rng)
    low, high = sorted((a, b))
    few = realise(policy, pool, edge_threshold=high)
    many = realise(policy, pool, edge_threshold=low)
    assert {tuple(v) for v in few.order.tolist()} <= {tuple(v) for v in many.order.tolist()}


def test_equal_probabilities_give_byte_equal_realisations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy = random_policy(7, rng)
        copy = EdgeProbabilities(
            policy.keep, policy.spatial, policy.temporal, policy.spatial_mask, policy.temporal_mask
        )
        one, two = realise(policy, complete_pool(7)), realise(copy, complete_pool(7))
        for name in ("keep", "spatial", "temporal", "order", "considered"):
            assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
        assert one.topology == two.topology
        assert one.log_prob is None and one.seed is None


def test_likelier_edges_come_first_and_ties_go_by_position() -> None:
    p = np.array([[0, 0.6, 0.6], [0.8, 0, 0.6], [0.6, 0.51, 0]])
    r = realise(EdgeProbabilities.of([1, 1, 1], p), complete_pool(3))
    assert r.order.tolist() == [[1, 0], [0, 1], [0, 2], [1, 2], [2, 0], [2, 1]]
    assert sorted(zip(*r.spatial.nonzero(), strict=True)) == [(0, 2), (1, 0), (1, 2)]


def test_a_fixed_topology_is_realised_as_it_is() -> None:
    graph = topologies.mesh(list("abcd"), "judge", rounds=2)
    pool = Pool(graph)
    for topology in (
        graph.topology(),
        graph.topology(without_agents=["b"], without_edges=[("a", "c")]),
        Topology((graph.topology(without_agents=["d"]).masks[0], graph.topology().masks[0])),
    ):
        fixed = EdgeProbabilities.of_topology(pool, topology)
        assert realise(fixed, pool).spatial.tobytes() == pool.arrays(topology).spatial.tobytes()
        drawn = realise(fixed, pool, mode="bernoulli", rng=1)
        assert drawn.log_prob == 0.0
        if len(topology.masks) == 1:
            assert realise(fixed, pool).topology == drawn.topology == topology


def test_two_hundred_agents_are_realised_by_one_test_a_pair_and_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tests = 0
    ask = Closure.closes_cycle

    def counted(self: Closure, i: int, j: int) -> bool:
        nonlocal tests
        tests += 1
        return ask(self, i, j)

    n = 200
    pool = complete_pool(n)
    monkeypatch.setattr(Closure, "closes_cycle", counted)
    for mode in ("threshold", "bernoulli"):
        tests = 0
        began = time.process_time()
        r = realise(EdgeProbabilities.constant(n, 1.0, 0.999), pool, mode=mode, rng=0)  # type: ignore[arg-type]
        assert time.process_time() - began < 2.0  # the spec's bound; a DFS without memory never ends
        assert tests == n * (n - 1)
        if mode == "threshold":
            assert r.spatial.sum() == n * (n - 1) / 2


def test_the_closure_knows_exactly_the_paths() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        closure, dag = Closure(9), nx.DiGraph((i, i) for i in range(9))
        for _ in range(60):
            i, j = (int(v) for v in rng.choice(9, 2, replace=False))
            assert closure.closes_cycle(i, j) == nx.has_path(dag, j, i)
            if not closure.closes_cycle(i, j):
                closure.add(i, j)
                dag.add_edge(i, j)


# ------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("keep", "spatial", "said"),
    [
        ([0.5, math.nan], np.zeros((2, 2)), "keep probabilities contain nan"),
        ([0.5, 0.5], [[0, 1.2], [0, 0]], "spatial probabilities contain 1.2"),
        ([0.5, 0.5], np.zeros((3, 3)), "shape (3, 3)"),
        ([], np.zeros((0, 0)), "shape (0,)"),
    ],
)
def test_what_are_no_probabilities_is_told(keep: Any, spatial: Any, said: str) -> None:
    with pytest.raises(GraphError) as error:
        EdgeProbabilities.of(keep, spatial)
    assert said in str(error.value)


def test_arguments_that_do_not_fit_are_told() -> None:
    pool, two = complete_pool(3), EdgeProbabilities.constant(2)
    three = EdgeProbabilities.constant(3)
    with pytest.raises(GraphError, match="for 2 agents; the pool has 3"):
        realise(two, pool)
    with pytest.raises(GraphError, match="needs rng="):
        realise(three, pool, mode="bernoulli")
    with pytest.raises(GraphError, match="unknown mode"):
        realise(three, pool, mode="greedy")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="visits 1 of 6 pairs"):
        realise(three, pool, mode="bernoulli", rng=0, order=[(0, 1)])
    with pytest.raises(GraphError, match="for 2 rounds; the graph has 1"):
        realise(EdgeProbabilities.constant(3, rounds=2), pool)
    with pytest.raises(GraphError, match="nobody beside it"):
        Pool(topologies.single("a"))
    with pytest.raises(GraphError, match="already say whom"):
        Pool(topologies.chain(list("abc")), "graph", "sinks")


def test_a_topology_of_another_pool_is_refused() -> None:
    pool = Pool(topologies.chain(list("abc"), "judge"))
    complete = Pool(topologies.independent(list("abc"), "judge"), "complete")
    back = complete.topology(np.ones(3, bool), np.eye(3, k=-1, dtype=bool))
    assert [w.agents for w in complete.schedule(back).waves] == [("c",), ("b",), ("a",), ("judge",)]
    with pytest.raises(GraphError, match="b->a is no edge that this pool may have"):
        pool.arrays(back)
    with pytest.raises(GraphError, match="not in the pool"):
        pool.arrays(topologies.chain(list("abx"), "judge").topology())


def test_a_made_team_keeps_the_users_channels_and_temporal_edges_with_the_decision() -> None:
    from agentcomm.channels import truncate

    short = truncate(10)
    graph = AgentGraph(
        [Agent("a"), Agent("b"), Agent("judge")],
        [Edge("a", "b", channel=short), Edge("b", "judge"), Edge("judge", "a", "temporal")],
        decision="judge",
        rounds=2,
    )
    pool = Pool(graph, "complete")
    r = realise(EdgeProbabilities.of([1, 1], [[0, 0.9], [0.1, 0]]), pool)
    team = pool.team(r.topology)
    assert team.by_key[("a", "b", "spatial")].channel == short  # type: ignore[index]
    assert ("judge", "a", "temporal") in r.topology.masks[0].edges
    assert ("a", "judge", "spatial") in r.topology.masks[0].edges


def test_pools_of_different_agents_or_edges_have_different_ids() -> None:
    chain = topologies.chain(list("abc"), "judge")
    ids = {
        Pool(chain).id,
        Pool(chain, "complete").id,
        Pool(topologies.chain(list("abd"), "judge")).id,
        Pool(topologies.star(list("abc"), "judge")).id,
        Pool(topologies.chain([Agent("a", role="x"), "b", "c"], "judge")).id,
    }
    assert len(ids) == 5
    assert Pool(topologies.chain(list("abc"), "judge")).id in ids


# ------------------------------------------------------------------------------- pruning


def test_a_share_of_the_lowest_edges_is_pruned_and_at_least_one() -> None:
    scores = np.array([[9.0, 1, 2], [3, 4, 5], [6, 7, 8]])
    active = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1]], dtype=bool)
    assert prune_lowest(scores, active, 0.25).sum() == 6
    assert prune_lowest(scores, active, 0.25)[0].tolist() == [False, False, False]
    assert prune_lowest(scores, active, 0.10).sum() == 7
    assert prune_lowest(scores, active, 0.0).sum() == 7
    assert prune_lowest(np.zeros(4), np.ones(4), 0.5).tolist() == [False, False, True, True]
    assert not prune_lowest(np.zeros(4), np.zeros(4), 0.25).any()
    with pytest.raises(GraphError, match="NaN"):
        prune_lowest([math.nan, 1], [1, 1], 0.5)
