"""Adherence by edge: what was asked, what came of it, and what it saved net of the channel's own calls."""

from __future__ import annotations

from agentcomm.ledger.adherence import adherence
from tests.ledger.rows import channelled


def test_each_delivery_counts_once_by_what_became_of_it() -> None:
    rows = [
        channelled(original_tokens=100, tokens=20, budget=20),
        channelled(original_tokens=50, tokens=20, budget=20, status="cut", adherent=False, reason="preamble, over_budget"),
        channelled(original_tokens=30, tokens=30, budget=20, status="passed", reason="protected_content: needs 25 tokens"),
        channelled(tokens=None, original_tokens=None, budget=20, status="failed", adherent=False, reason="server: it said no, twice"),
        channelled(sender="solver", tokens=None, original_tokens=None, budget=None, channel="truncate", reason="5 to 3 characters"),
    ]  # fmt: skip
    edges = adherence(rows, {"critic->solver": 60})
    assert list(edges) == ["critic->solver", "solver->solver"]
    edge = edges["critic->solver"]
    assert (edge.deliveries, edge.compressed, edge.cut, edge.passed, edge.failed) == (4, 1, 1, 1, 1)
    assert (edge.adherent, edge.over_budget, edge.budget) == (2, 1, 20)
    assert (edge.original_tokens, edge.tokens, edge.own_tokens, edge.saved) == (180, 70, 60, 50)
    assert dict(edge.reasons) == {"preamble": 1, "over_budget": 1, "protected_content": 1, "server": 1}
    assert str(edge) == (
        "1 compressed, 1 cut, 1 whole, 1 failed (over_budget 1, preamble 1, protected_content 1, server 1)"
    )
    assert (edges["solver->solver"].saved, edges["solver->solver"].uncounted) == (
        None,
        1,
    )  # unknown is not zero


def test_compression_that_costs_more_than_it_saves_is_shown_as_such() -> None:
    edge = adherence([channelled(original_tokens=50, tokens=20)], {"critic->solver": 90})["critic->solver"]
    assert edge.saved == edge.to_dict()["saved"] == -60
