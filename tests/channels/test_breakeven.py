"""Break-even: the worked example, and channels that weigh what they cost before they pay."""

from __future__ import annotations

import pytest

from agentcomm import channels
from agentcomm.channels.breakeven import Economy
from agentcomm.errors import ConfigError
from tests.channels.doubles import TEXT, Desk, compress, turn

pytestmark = pytest.mark.anyio

DEAR = Economy(reads=10, write=1.25, read=0.1, input=1, output=5)


def test_the_worked_example_comes_out_to_the_token() -> None:
    assert DEAR.uncompressed(10_000) == 21_500
    assert DEAR.compressed(10_000, 1_000) == 17_150
    assert DEAR.saving(10_000, 1_000) / DEAR.uncompressed(10_000) == pytest.approx(0.2, abs=0.003)
    assert DEAR.compressed(10_000, 1_000, broken=20_000) - DEAR.compressed(10_000, 1_000) == 23_000
    assert DEAR.saving(10_000, 1_000, broken=20_000) < 0, "a loss"


def test_why_not_to_shorten_tells_the_broken_prefix_from_the_price() -> None:
    assert DEAR.objection(10_000, 1_000) == ""
    assert DEAR.objection(10_000, 9_000) == "net_cost_negative"
    breaking = Economy(reads=10, write=1.25, read=0.1, input=1, output=5, broken=20_000)
    assert breaking.objection(10_000, 1_000) == "would_break_prefix"
    assert breaking.objection(10_000, 9_000) == "net_cost_negative"
    assert Economy().objection(10, 5) == "", "by default shortening is free"


async def test_a_summary_that_costs_more_than_it_saves_is_not_paid_for() -> None:
    desk = Desk([])  # a call would find no reply
    channel = channels.summarise(budget=20, economy={"reads": 1, "input": 1, "output": 5})
    made = await channel.compress(TEXT, turn=turn(desk))
    assert made.text == TEXT and made.compression.reason == "net_cost_negative" and not desk.asked
    assert made.compression.status == "passed" and made.compression.adherent


async def test_a_summary_that_pays_is_made() -> None:
    channel = channels.summarise(budget=20, economy={"reads": 20, "input": 1, "output": 5}, protect=())
    made = await compress(channel, TEXT, "Ben has a goat.")
    assert made.text == "Ben has a goat." and made.compression.status == "compressed"


async def test_a_summary_that_would_break_a_cached_prefix_is_not_made() -> None:
    economy = {"reads": 20, "write": 1.25, "read": 0.1, "input": 1, "output": 5, "broken": 100_000}
    made = await channels.summarise(budget=5, economy={**economy, "output": 0}).compress(TEXT, turn=turn())
    assert (made.text, made.compression.reason) == (TEXT, "would_break_prefix")
    # Free rules are weighed too, by what they made.
    rules = channels.rules(economy={"write": 1.25, "read": 0.1, "broken": 1_000})
    made = await rules.compress("a  line\n\n\n\na  line\n\n\n\na line of its own", turn=turn())
    assert made.text.startswith("a  line") and made.compression.reason in (
        "would_break_prefix",
        "not_smaller",
    )


async def test_prices_are_not_weighed_unless_they_are_given() -> None:
    assert channels.summarise(budget=20).economy is None
    made = await compress(channels.summarise(budget=20, protect=()), TEXT, "Ben has a goat.")
    assert made.text == "Ben has a goat."


def test_prices_go_through_a_configuration_and_the_command_line() -> None:
    channel = channels.summarise(budget=64, economy=DEAR)
    assert channels.from_spec(channel.spec()) == channel
    assert channel.spec()["economy"] == {"reads": 10, "write": 1.25, "read": 0.1, "input": 1, "output": 5}
    words = "summarise:budget=64,economy=reads:10+write:1.25+read:0.1+input:1+output:5"
    assert channels.from_words(words) == channel
    assert "economy" not in channels.summarise(budget=64).spec()


@pytest.mark.parametrize(
    ("economy", "said"),
    [
        ({"reads": 0}, "at least once"),
        ({"write": -1}, "0 or more"),
        ({"read": float("nan")}, "0 or more"),
        ({"cache": 1}, "its fields are reads"),
        ("cheap", "can't be 'cheap'"),
    ],
)
def test_prices_that_make_no_sense_are_refused_with_what_they_are(economy: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        channels.summarise(budget=8, economy=economy)
    with pytest.raises(ConfigError, match="write reads:10"):
        channels.from_words("summarise:budget=8,economy=much")
