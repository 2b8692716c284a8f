"""What must stay as it is, and how it is told that it did not."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.channels.protect import check_kinds, find, lost, pieces
from agentcomm.errors import ConfigError
from tests.channels.doubles import TROUBLE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It cost $1,000.50 (3.5%) at 10:30 on 2024-05-01.", ["$1,000.50", "3.5%", "10:30", "2024-05-01"]),
        ("x=-3, A380, s1 and v1.2.3", ["-3", "A380", "s1", "v1.2.3"]),
        ("価格は3000円", ["3000"]),
        ("1. first\n2) second, 3 times", ["3"]),
        ("see https://a.b/c?d=1#e, or www.x.org/y. Mail me@x.org!", ["https://a.b/c?d=1#e", "www.x.org/y", "me@x.org"]),
        ('He said "not 7 but 8" twice', ['"not 7 but 8"']),
        ("„Ja“ «oui» 「はい」", ["„Ja“", "«oui»", "「はい」"]),
        ("use `f(1)` and\n```\ny = 2\n```\nnow", ["`f(1)`", "```\ny = 2\n```"]),
        ('say {"a": [1, {"b": "c"}]} and [1, 2]', ['{"a": [1, {"b": "c"}]}', "[1, 2]"]),
        ("```open to the end 5", ["```open to the end 5"]),
        ("nothing here, it's plain", []),
    ],
)  # fmt: skip
def test_protected_pieces_are_found_once_and_whole(text: str, expected: list[str]) -> None:
    assert [piece for piece, _ in pieces(text)] == expected
    spans = find(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    text = 'see "this 5" at https://a.b/5'
    assert [p for p, _ in pieces(text, ("numbers",))] == ["5"]
    assert pieces(text, ()) == []
    with pytest.raises(ConfigError, match="protect=names; there are: code, json"):
        check_kinds("extract", ["names"])


def test_a_number_counts_as_kept_only_where_it_stands_by_itself() -> None:
    kept = pieces("3 of 13, and `a`")
    assert lost("13 `a`", kept) == ["3"]
    assert lost("(3; 13) `a`", kept) == []
    assert lost("a 13.3", kept) == ["3", "13", "`a`"]


@given(st.sampled_from(TROUBLE) | st.text(max_size=200))
def test_json_that_is_found_parses_and_nothing_breaks_the_search(text: str) -> None:
    for span in find(text):
        assert text[span.start : span.end]
        if span.kind == "json":
            json.loads(text[span.start : span.end])
    assert lost(text, pieces(text)) == []


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a" * 100_000, '{"a":' * 20_000, '"' * 50_001, "1," * 40_000, "_" * 90_000]
)
def test_long_hostile_texts_are_searched_in_linear_time(text: str) -> None:
    began = time.monotonic()
    find(text)
    assert time.monotonic() - began < 20  # quadratic would be minutes
