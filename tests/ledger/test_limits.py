"""Limits: charged to the leaf and all around it, checked from the root, exact for calls."""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.ledger.limits import Limits, Scope
from agentcomm.ledger.prices import Price, PriceBook
from agentcomm.message import Usage
from tests.ledger.rows import answered, call

pytestmark = pytest.mark.anyio


def nest(run: Limits | None = None, item: Limits | None = None, agent: Limits | None = None) -> list[Scope]:
    root = Scope("run", run or Limits())
    middle = Scope("item", item or Limits(), root)
    return [root, middle, Scope("agent solver", agent or Limits(), middle)]


def test_a_charge_reaches_every_scope_around() -> None:
    scopes = nest()
    scopes[2].charge(Usage(10, 5, 2), 0.25, calls=1)
    scopes[1].charge(Usage(1, 1), None, calls=1)
    assert [(s.tokens, s.calls, s.cost) for s in scopes] == [(17, 2, 0.25), (17, 2, 0.25), (15, 1, 0.25)]


@pytest.mark.parametrize(
    ("limits", "limit", "says"),
    [
        (Limits(tokens=15), "tokens", "15 of 15 tokens used"),
        (Limits(calls=1), "calls", "1 of 1 calls made"),
        (Limits(cost=0.25), "cost", r"\$0.2500 of \$0.2500 spent"),
    ],
)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_limit_that_is_reached_names_its_scope_what_was_used_and_what_was_allowed(
    limits: Limits, limit: str, says: str, level: int
) -> None:
    scopes = nest(*[limits if i == level else Limits() for i in range(3)])
    leaf = scopes[2]
    leaf.admit()
    leaf.charge(Usage(10, 4), 0.2)
    if limit != "calls":
        leaf.check()
    leaf.charge(Usage(1, 0), 0.05)
    with pytest.raises(
        LimitExceeded, match=f"the {scopes[level].name} has reached its limit of {limit}: {says}"
    ) as e:
        leaf.check()
    assert (e.value.scope, e.value.limit) == (scopes[level].name, limit)


def test_the_widest_scope_that_is_full_is_the_one_named() -> None:
    leaf = nest(Limits(calls=0), Limits(calls=0), Limits(calls=0))[2]
    with pytest.raises(LimitExceeded) as e:
        leaf.admit()
    assert e.value.scope == "run"


def test_a_refused_call_is_counted_nowhere() -> None:
    scopes = nest(agent=Limits(calls=1))
    scopes[2].admit()
    with pytest.raises(LimitExceeded):
        scopes[2].admit()
    assert [s.calls for s in scopes] == [1, 1, 1]


@given(allowed=st.integers(0, 8), wanted=st.integers(0, 20))
def test_the_limit_of_calls_is_exact_with_any_number_in_flight(allowed: int, wanted: int) -> None:
    async def go() -> int:
        root = Scope("run", Limits(calls=allowed))
        made = 0

        async def one(name: str) -> None:
            nonlocal made
            leaf = Scope(f"agent {name}", Limits(), root)
            try:
                leaf.admit()
            except LimitExceeded:
                return
            made += 1
            await anyio.lowlevel.checkpoint()
            leaf.charge(Usage(1, 1), None)

        async with anyio.create_task_group() as group:
            for n in range(wanted):
                group.start_soon(one, str(n))
        assert root.calls == made
        return made

    assert anyio.run(go) == min(allowed, wanted)


def test_tokens_overshoot_by_the_calls_in_flight_and_no_more() -> None:
    scope = Scope("run", Limits(tokens=10))
    for _ in range(3):
        scope.admit()  # three in flight: nothing is known of them yet
    for _ in range(3):
        scope.charge(Usage(8, 2), None)
    with pytest.raises(LimitExceeded):
        scope.admit()
    assert (scope.tokens, scope.calls) == (30, 3)


def test_calls_of_unknown_size_are_counted_and_named() -> None:
    scopes = nest(Limits(tokens=10))
    scopes[2].charge(None, None, calls=1)
    scopes[2].charge(Usage(10, None), None, calls=1)
    assert [s.unknown_calls for s in scopes] == [2, 2, 2]
    with pytest.raises(LimitExceeded, match=r"10 of 10 tokens used \(2 more calls of unknown size\)"):
        scopes[2].check()


def test_a_call_that_a_cache_answered_can_be_given_back() -> None:
    scopes = nest(Limits(calls=1))
    scopes[2].admit()
    scopes[2].release()
    scopes[2].admit()
    assert [s.calls for s in scopes] == [1, 1, 1]


def test_what_was_paid_before_a_run_was_resumed_counts() -> None:
    scope = Scope("run", Limits(calls=3))
    scope.charge_past(answered(cost=0.5))
    scope.charge_past(call(error_kind="pending"))
    scope.charge_past(answered(cache_hit=True))
    assert (scope.calls, scope.tokens, scope.cost, scope.unknown_calls) == (2, 14, 0.5, 1)


def test_time_is_counted_from_the_scopes_start() -> None:
    now = [100.0]
    scope = Scope("run", Limits(seconds=5), clock=lambda: now[0])
    now[0] = 104.9
    scope.admit()
    now[0] = 105.0
    with pytest.raises(LimitExceeded, match=r"5\.0 of 5 seconds passed"):
        scope.admit()


def test_a_cost_limit_needs_a_known_price() -> None:
    prices = PriceBook({"local/priced": Price(1, 1)})
    for level in range(3):
        leaf = nest(*[Limits(cost=1.5) if i == level else Limits() for i in range(3)])[2]
        leaf.require_price("local/priced", prices)
        with pytest.raises(
            ConfigError, match=r"cost limit of \$1\.5, but the price of 'local/other' is unknown"
        ):
            leaf.require_price("local/other", prices)
        with pytest.raises(ConfigError):
            leaf.require_price("local/priced", None)
    nest(Limits(tokens=5))[2].require_price("local/other", prices)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_a_limit_must_be_a_number_of_zero_or_more(value: float) -> None:
    with pytest.raises(ConfigError, match="limit cost="):
        Limits(cost=value)
