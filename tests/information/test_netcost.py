"""Net cost: hand-computed sums, unknown prices, and savings that are negative."""

from __future__ import annotations

import math

import pytest

from agentcomm.errors import UserError
from agentcomm.information.netcost import CacheCall, CachePrice, Economy, Latency, cost, net_saving

PRICE = CachePrice(input=3.0, output=15.0, read=0.3, write=3.75)


def test_the_specifications_example_to_the_token() -> None:
    economy = Economy(reads=10, write=1.25, read=0.1, input=1, output=5)
    assert (economy.uncompressed(10_000), economy.compressed(10_000, 1_000)) == (21_500, 17_150)
    assert economy.compressed(10_000, 1_000, broken=20_000) == 17_150 + 23_000


def test_what_writing_the_cache_costs_is_in_the_sum_of_a_hand_computed_ledger() -> None:
    first, later = CacheCall(100, 40, written=10_000), CacheCall(100, 40, read=10_000)
    by_hand = (10 * 100 * 3.0 + 10_000 * 3.75 + 9 * 10_000 * 0.3 + 10 * 40 * 15.0) / 1e6
    assert cost([(first, PRICE)] + [(later, PRICE)] * 9) == pytest.approx(by_hand, rel=1e-12)
    # In input tokens this is the break-even formula: n (w + ρ (k − 1)).
    read = cost([(CacheCall(0, 0, written=10_000), PRICE)] + [(CacheCall(0, 0, read=10_000), PRICE)] * 9)
    assert read is not None and read * 1e6 / 3.0 == pytest.approx(21_500)


def test_an_unknown_price_makes_an_unknown_cost_and_not_a_free_one() -> None:
    call = CacheCall(100, 40, written=10)
    assert cost([(call, CachePrice(3.0, 15.0, read=0.3))]) is None
    assert cost([(CacheCall(100, 40), CachePrice(3.0, 15.0))]) is not None, (
        "a bucket without tokens needs no price"
    )
    assert cost([(call, PRICE)], fees=None) is None
    assert cost([], gpu_seconds=60) is None and cost([], gpu_seconds=60, gpu_rate=0.001) == pytest.approx(
        0.06
    )


def test_a_saving_that_is_negative_is_shown_and_paired() -> None:
    found = net_saving([10.0, 20.0, 30.0, None, 5.0], [12.0, 22.5, 33.0, 1.0, math.nan])
    assert found.mean == pytest.approx(-2.5) and found.items == 3 and found.left_out == 2
    assert found.interval is not None and found.interval.high < 0
    assert found.share == pytest.approx(-7.5 / 60)
    nothing = net_saving([None], [1.0])
    assert nothing.mean is None and nothing.interval is None and nothing.left_out == 1
    with pytest.raises(UserError, match="item by item"):
        net_saving([1.0], [])


def test_a_slow_compressor_costs_time_even_where_it_saves_tokens() -> None:
    reader = Latency(prefill=4_000, decode=50)
    assert reader.saving(2.0, 9_000) == pytest.approx(0.25) and reader.saving(3.0, 9_000) < 0
    assert reader.break_even(9_000, 10) == pytest.approx(2.45)
