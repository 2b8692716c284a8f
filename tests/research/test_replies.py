"""What models say is read for what it is, and no more."""

from __future__ import annotations

import pytest

from agentcomm.errors import ChannelError
from agentcomm.research.replies import Note, Query, own, read_note, read_own, read_plan


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        ('{"explanation": "It is red.", "relevant": true}', Note(True, "It is red.")),
        ('Sure!\n```json\n{"relevant": false, "explanation": ""}\n```', Note(False, "")),
        ('{"explanation": "It  is\\nred.", "relevant": "Yes"}', Note(True, "It is red.")),
        ('{broken} {"explanation": "x", "relevant": true}', Note(True, "x")),
        ("It is relevant.", None),
        ("", None),
        ("{}", None),
        ('{"explanation": "It is red.", "relevant": tr', None),
        ('{"explanation": "It is red."}', None),
        ('{"explanation": "It is red.", "relevant": 1}', None),
        ('{"explanation": ["red"], "relevant": true}', None),
        ('{"explanation": "  ", "relevant": true}', None),
        ('{"explanation": "...", "relevant": true}', None),
        ("[true]", None),
        ("{" * 100_000, None),
    ],
)
def test_a_note_is_read_or_it_is_none(reply: str, note: Note | None) -> None:
    assert read_note(reply) == note


def test_a_plan_keeps_each_query_once_and_no_more_than_asked() -> None:
    plan = read_plan('{"queries": [{"query": "a b", "task": "t"}, "A  b", {"query": " "}, "c", "d"]}', 2)
    assert plan.queries == (Query("a b", "t"), Query("c", ""))
    assert plan.readable and not plan.enough


@pytest.mark.parametrize(
    "reply",
    ["", "Search for goats.", '{"queries": "goats"}', '{"queries": []}', "[1]", '{"queries": ["..."]}'],
)
def test_what_is_no_plan_is_not_readable(reply: str) -> None:
    assert not read_plan(reply, 3).readable


def test_a_planner_with_nothing_left_to_ask_has_a_plan() -> None:
    for reply in ('{"enough": true, "queries": []}', '{"enough": true}', '{"enough": "yes", "queries": []}'):
        plan = read_plan(reply, 3)
        assert plan.readable and plan.enough and plan.queries == ()


def test_a_message_of_another_kind_is_refused() -> None:
    assert read_own(own("search", pieces=[]), "search")["pieces"] == []
    for text in ("hello", "[]", own("digest")):
        with pytest.raises(ChannelError, match="no 'search'"):
            read_own(text, "search")
