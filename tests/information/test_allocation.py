"""Allocation: exact against every combination, never worse than an even spread, and put on a graph."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentcomm as ac
from agentcomm.errors import GraphError, UserError
from agentcomm.information.allocation import (
    EdgeOptions,
    Option,
    allocate,
    allocate_for_loss,
    evenly,
    frontier,
)

numbers = st.tuples(st.integers(0, 30), st.integers(-8, 20))
"""Tokens and loss in 64ths: sums are exact."""
teams = st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=5)


def edges_of(team: list[list[tuple[int, int]]]) -> list[EdgeOptions]:
    return [
        EdgeOptions(
            f"a{i}->b", tuple(Option(k + 1, float(t), loss / 64) for k, (t, loss) in enumerate(options))
        )
        for i, options in enumerate(team)
    ]


@settings(max_examples=60, deadline=None)
@given(team=teams, total=st.integers(0, 100))
def test_it_is_as_good_as_trying_every_combination(team: list[list[tuple[int, int]]], total: int) -> None:
    edges = edges_of(team)
    every = [
        (sum(o.tokens for o in options), sum(o.loss for o in options))
        for options in itertools.product(*(e.options for e in edges))
    ]
    within = [(loss, tokens) for tokens, loss in every if tokens <= total]
    if not within:
        with pytest.raises(UserError, match="too few"):
            allocate(edges, total)
        return
    made = allocate(edges, total)
    assert (made.chosen.loss, made.chosen.tokens) == min(within)
    if made.even.tokens <= total:
        assert made.chosen.loss <= made.even.loss
    # The whole frontier: nothing beats any of it, and nothing beside it is unbeaten.
    kept = [(c.tokens, c.loss) for c in frontier(edges)]
    unbeaten = {
        (t, loss)
        for t, loss in every
        if not any((u <= t and k <= loss) and (u, k) != (t, loss) for u, k in every)
    }
    assert set(kept) == unbeaten
    assert kept == sorted(kept)


def test_the_fewest_tokens_for_a_loss_lie_on_the_same_frontier() -> None:
    edges = edges_of([[(5, 30), (20, 10), (40, 0)], [(5, 3), (40, 0)]])
    assert allocate_for_loss(edges, 13 / 64).budgets == {"a0->b": 2, "a1->b": 1}
    assert allocate_for_loss(edges, 0).chosen.tokens == 80
    with pytest.raises(UserError, match="the least is 0"):
        allocate_for_loss(edges, -0.1)


def test_even_is_an_equal_share_each_and_says_when_that_is_not_enough() -> None:
    edges = edges_of([[(10, 9), (40, 0)], [(30, 1)]])
    even = evenly(edges, 40)
    assert [o.tokens for o in even.options] == [10, 30]
    assert even.tokens == 40
    assert evenly(edges, 20).tokens == 40, "the second edge has nothing smaller"


def test_it_puts_each_budget_on_its_edge_and_leaves_verbatim_ones_alone() -> None:
    graph = ac.AgentGraph(
        [ac.Agent("a"), ac.Agent("b"), ac.Agent("c")],
        [ac.Edge("a", "b"), ac.Edge("b", "a", kind="temporal"), ac.Edge("a", "c"), ac.Edge("b", "c")],
        decision="c",
        rounds=2,
    )
    whole = Option(None, 100, 0.0)
    edges = [
        EdgeOptions("a->b", (Option(16, 16, 0.0), whole)),
        EdgeOptions("a->c", (Option(16, 16, 0.5), whole)),
        EdgeOptions("b->c", (Option(16, 16, 0.1), Option(32, 32, 0.0), whole)),
    ]
    made = allocate(edges, 150, compressor="truncate")
    assert made.budgets == {"a->b": 16, "a->c": None, "b->c": 32}
    applied = made.apply(graph)
    specs = {str(e.key): e.channel.spec() if e.channel else None for e in applied.edges}
    assert specs == {
        "a->b": {"name": "truncate", "tokens": 16},
        "b->a": None,
        "a->c": None,
        "b->c": {"name": "truncate", "tokens": 32},
    }
    assert graph.edges[0].channel is None, "the graph that was given is as it was"
    by_model = allocate(edges, 150, compressor="mock/echo").apply(graph)
    assert by_model.edges[0].channel is not None
    assert by_model.edges[0].channel.spec()["model"] == "mock/echo"
    even = made.apply(graph, even=True)
    assert sum(e.channel is not None for e in even.edges) == 3
    with pytest.raises(GraphError, match="no edge x->c"):
        allocate([EdgeOptions("x->c", (Option(1, 1, 0),))], 5).apply(graph)


def test_what_is_no_edge_or_no_number_is_refused() -> None:
    fine = EdgeOptions("a->b", (Option(1, 1, 0),))
    with pytest.raises(UserError, match="no edges"):
        allocate([], 10)
    with pytest.raises(UserError, match="twice"):
        allocate([fine, fine], 10)
    with pytest.raises(UserError, match="SENDER->READER"):
        EdgeOptions("a", (Option(1, 1, 0),))
    with pytest.raises(UserError, match="no options"):
        EdgeOptions("a->b", ())
    with pytest.raises(UserError, match="unknown number"):
        EdgeOptions("a->b", (Option(1, math.nan, 0),))
    with pytest.raises(UserError, match="take 1.0 together"):
        allocate([fine], 0)
