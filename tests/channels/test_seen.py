"""Dedup and reference: what the reader has before it isn't sent again, and nothing sent is changed."""

from __future__ import annotations

from typing import Any

import pytest

from agentcomm import channels
from agentcomm.graph import Agent
from agentcomm.message import Delivery, EdgeKey, Message
from agentcomm.schedule import TurnRecord
from agentcomm.task import Item
from tests.channels.doubles import compress

pytestmark = pytest.mark.anyio

FIRST = (
    "The bridge was built by the king himself a very long time ago. "
    "It was closed after the great flood that came down the valley."
)
AGAIN = (
    "I agree with you. It was closed after  the great flood that came down the valley. "
    "Nobody repaired it since then."
)


def delivered(sender: str, text: str) -> Delivery:
    return Delivery(EdgeKey(sender, "reader"), Message(sender, 1, text), text)


async def test_a_sentence_that_lies_before_the_reader_becomes_a_handle_or_a_gap() -> None:
    made = await compress(channels.reference(), AGAIN, inbox=(delivered("alice", FIRST),))
    assert made.text == 'I agree with you. [alice: "It was closed…"] Nobody repaired it since then.'
    assert made.compression.reason == "1 sentences seen before"
    gap = await compress(channels.dedup(), AGAIN, inbox=(delivered("alice", FIRST),))
    assert gap.text == "I agree with you. […] Nobody repaired it since then."


async def test_a_run_of_sentences_is_one_handle_and_a_handle_that_saves_nothing_is_not_used() -> None:
    made = await compress(channels.reference(), f"{FIRST} Yes indeed.", inbox=(delivered("alice", FIRST),))
    assert made.text == '[alice: "The bridge was…"] Yes indeed.'
    short = "Supercalifragilisticexpialidocious."
    same = await compress(channels.reference(), short, inbox=(delivered("alice", short),))
    assert (same.text, same.compression.status) == (short, "passed")


@pytest.mark.parametrize(
    ("before", "who"),
    [
        ({"item": Item("q", "Why?", context=FIRST)}, "task"),
        ({"item": Item("q", "Why?", views={"v": FIRST}), "agent": Agent("reader", view="v")}, "task"),
        ({"past": (TurnRecord("reader", 1, (delivered("bob", FIRST),), Message("reader", 1, "ok")),)}, "bob"),
        ({"past": (TurnRecord("reader", 1, (), Message("reader", 1, FIRST)),)}, "you"),
    ],
)
async def test_seen_is_the_task_the_readers_memory_and_its_own_words(
    before: dict[str, Any], who: str
) -> None:
    made = await compress(channels.reference(), AGAIN, **before)
    assert f'[{who}: "It was closed…"]' in made.text


async def test_what_the_reader_cannot_see_is_never_referred_to() -> None:
    hidden = Item("q", "Why?", context=FIRST, views={"v": FIRST})
    for reader in (Agent("reader", context=False), Agent("reader", context=False, memory=False)):
        made = await compress(channels.reference(), AGAIN, item=hidden, agent=reader)
        assert made.text == AGAIN
        assert (made.compression.status, made.compression.reason) == ("passed", "nothing_seen_before")


async def test_a_sentence_twice_in_one_message_is_said_once() -> None:
    twice = f"{FIRST} So, once more. {FIRST}"
    made = await compress(channels.dedup(), twice)
    assert made.text == f"{FIRST} So, once more. […]"


async def test_short_sentences_may_be_said_twice() -> None:
    made = await compress(channels.dedup(), "Yes. No. Yes. No.", inbox=(delivered("alice", "Yes."),))
    assert made.text == "Yes. No. Yes. No."


async def test_with_a_budget_what_is_new_and_too_long_is_cut() -> None:
    made = await compress(channels.reference(12), AGAIN, inbox=(delivered("alice", FIRST),))
    assert (made.compression.status, made.compression.reason) == (
        "cut",
        "1 sentences seen before, over_budget",
    )
    assert made.compression.tokens is not None and made.compression.tokens <= 12
