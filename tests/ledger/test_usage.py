"""Totals: they agree with each other, include what they say, and unknown is not zero."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.usage import UsageReport
from tests.ledger.rows import answered, call, delivery

AGENTS = ("a", "b", "c")
KEYS = ("system", "task", "memory", "template", "a->b", "b->c", "c->a")


@st.composite
def call_rows(draw: st.DrawFn) -> CallRow:
    agent = draw(st.sampled_from(AGENTS))
    changes: dict[str, Any] = {
        "item": draw(st.sampled_from(["q1", "q2"])),
        "round": draw(st.integers(1, 3)),
        "agent": agent,
        "attempt": draw(st.integers(1, 3)),
        "phase": draw(st.sampled_from(["evaluate", "compress", "judge"])),
        "edge": draw(st.none() | st.just(f"a->{agent}")),
        "cache_hit": draw(st.booleans()),
        "output_tokens": draw(st.none() | st.integers(0, 50)),
        "cached_tokens": draw(st.none() | st.integers(0, 5)),
        "cost": draw(st.none() | st.floats(0, 1)),
        "error_kind": draw(st.none() | st.sampled_from(["timeout", "pending"])),
    }
    match draw(st.sampled_from(["split", "total only", "unknown"])):
        case "split":
            parts = draw(st.dictionaries(st.sampled_from(KEYS), st.integers(0, 50)))
            changes |= {"parts": parts, "input_tokens": sum(parts.values())}
        case "total only":
            changes |= {"parts": None, "input_tokens": draw(st.integers(0, 50))}
        case _:
            changes |= {"parts": None, "input_tokens": None}
    return call(draw(st.uuids()).hex, **changes)


@given(st.lists(call_rows(), max_size=12))
def test_every_way_to_group_adds_up_to_the_same_totals(rows: list[CallRow]) -> None:
    usage = UsageReport.of(rows)
    assert sum(usage.by_part().values()) == usage.input_tokens
    for groups in (usage.by_agent(), usage.by_phase(), usage.by_model(), usage.by_item(), usage.by_round()):
        values = list(groups.values())
        assert sum(g.calls for g in values) == usage.calls
        assert sum(g.input for g in values) == usage.input_tokens
        assert sum(g.output for g in values) == usage.output_tokens
        known = [g.cached for g in values if g.cached is not None]
        assert (sum(known) if known else None) == usage.cached_tokens
        assert list(groups) == sorted(groups)
    listed = [c for c in usage.by_call() if not c["cache_hit"]]
    assert len(listed) == usage.calls
    assert sum(c["input_tokens"] or 0 for c in listed) == usage.input_tokens
    channels = UsageReport.of(r for r in rows if r.edge is not None)
    channel_messages = channels.by_part()["messages"]
    assert sum(usage.by_edge().values()) + channel_messages == usage.by_part()["messages"]
    assert sum(usage.channel_tokens_by_edge().values()) == channels.input_tokens + channels.output_tokens


@given(st.lists(call_rows(), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(rows: list[CallRow], rng: random.Random) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert UsageReport.of(shuffled) == UsageReport.of(rows)
    assert UsageReport.of(shuffled).to_dict() == UsageReport.of(rows).to_dict()


@given(st.lists(call_rows(), max_size=6), st.lists(call_rows(), max_size=6))
def test_the_sum_of_two_reports_is_the_report_of_both(left: list[CallRow], right: list[CallRow]) -> None:
    assert UsageReport.of(left) + UsageReport.of(right) == UsageReport.of([*left, *right])


def test_failed_and_pending_attempts_are_calls_of_unknown_size() -> None:
    usage = UsageReport.of(
        [
            answered("1", cost=0.5),
            call("2", attempt=2, error_kind="timeout", error="5 s"),
            call("3", attempt=3, error_kind="pending"),
            call("4", error_kind="broken_reply", input_tokens=7, output_tokens=1, cost=0.25),
        ]
    )
    assert (usage.calls, usage.failed_calls, usage.unknown_calls) == (4, 3, 2)
    assert (usage.input_tokens, usage.output_tokens) == (17, 5)
    assert (usage.cost, usage.known_cost) == (0.75, 0.75)


def test_cache_hits_stand_apart_from_every_total() -> None:
    usage = UsageReport.of([answered("1", cost=0.5), answered("2", cache_hit=True, cost=0.0)])
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cost) == (1, 10, 4, 0.5)
    assert (usage.cache_hits, usage.hit_input_tokens, usage.hit_output_tokens) == (1, 10, 4)
    assert usage.by_edge() == {"critic->solver": 3}
    assert [c["cache_hit"] for c in usage.by_call()] == [False, True]


def test_an_unknown_price_makes_the_cost_unknown_and_leaves_the_known_part() -> None:
    usage = UsageReport.of([answered("1", cost=0.5), answered("2", cost=None)])
    assert usage.cost is None
    assert usage.known_cost == 0.5
    assert UsageReport.of([]).cost == 0


def test_a_run_of_failures_that_nobody_priced_has_no_cost() -> None:
    failed = call("1", error_kind="server", error="500")
    assert UsageReport.of([failed]).cost is None
    assert UsageReport.of([failed, answered("2", cache_hit=True, cost=0.0)]).cost is None
    assert UsageReport.of([failed, answered("2", cost=0.5)]).cost == 0.5


def test_cached_tokens_are_none_if_no_server_told_and_a_sum_of_those_that_did() -> None:
    assert UsageReport.of([answered("1", cached_tokens=None)]).cached_tokens is None
    assert (
        UsageReport.of([answered("1", cached_tokens=None), answered("2", cached_tokens=0)]).cached_tokens == 0
    )


def test_a_total_without_parts_is_unattributed_and_otherwise_the_part_is_absent() -> None:
    assert UsageReport.of([answered("1", parts=None)]).by_part()["unattributed"] == 10
    parts = UsageReport.of([answered("1")]).by_part()
    assert parts == {"system": 0, "task": 5, "messages": 3, "memory": 0, "template": 2}


def test_a_channels_own_calls_are_charged_to_their_edge() -> None:
    summary = answered(
        "2", edge="critic->solver", phase="compress", parts={"critic->solver": 9, "template": 1}
    )
    usage = UsageReport.of([answered("1"), summary])
    assert usage.by_edge() == {"critic->solver": 3}
    assert usage.channel_tokens_by_edge() == {"critic->solver": 14}
    assert usage.by_part()["messages"] == 12


def test_messages_are_counted_by_edge_spatial_and_temporal_together() -> None:
    usage = UsageReport.of([answered()], [delivery(), delivery(kind="temporal"), delivery(sender="judge")])
    assert usage.messages_by_edge() == {"critic->solver": 2, "judge->solver": 1}


def test_agents_usage_reads_like_a_mapping() -> None:
    usage = UsageReport.of([answered()]).by_agent()["solver"]
    assert dict(usage) == {"calls": 1, "input": 10, "output": 4, "cached": 2}
    assert usage["input"] == usage.input == 10


def test_each_call_is_listed_with_what_the_command_line_promises() -> None:
    (listed,) = UsageReport.of([call(error_kind="timeout", error="no reply")]).by_call()
    promised = {
        "item": "q1",
        "round": 1,
        "agent": "solver",
        "attempt": 1,
        "input_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
        "parts": None,
        "error": "timeout: no reply",
    }
    assert promised.items() <= listed.items()
    (fine,) = UsageReport.of([answered()]).by_call()
    assert fine["error"] is None
    json.dumps(UsageReport.of([answered()]).to_dict())


def test_a_report_shows_its_totals() -> None:
    rows = [answered("1"), call("2", error_kind="timeout"), answered("3", cache_hit=True)]
    shown = "<UsageReport 2 calls, 1 of unknown size, 1 cache hits: 10 input + 4 output tokens, cost unknown>"
    assert repr(UsageReport.of(rows)) == shown
