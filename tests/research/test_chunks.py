"""Chunks cover a text, overlap, and cut through no character."""

from __future__ import annotations

import itertools

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.channels.text import whole_at
from agentcomm.errors import ConfigError
from agentcomm.research.chunks import OVERLAP, SIZE, SMALLEST, chunks
from tests.channels.doubles import TROUBLE

TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(st.sampled_from([*TROUBLE, "👩‍👩‍👧‍👦", "e\u0301", "🇩🇪", "\r\n", "a"]), max_size=12).map("".join),
)


@given(TEXTS, st.integers(1, 60), st.data())
def test_chunks_cover_the_text_overlap_and_are_no_longer_than_asked(
    text: str, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    places = chunks(text, size, overlap, 0)
    if not text.strip():
        assert places == []
        return
    assert places[0][0] == 0
    assert places[-1][1] == len(text)
    simple = all(whole_at(text, i) for i in range(len(text)))
    for (before, end), (start, later) in itertools.pairwise(places):
        assert before < start <= end < later, "nothing is left out and it goes forward"
        assert end - start >= overlap or start == end, "only a character too long for it ends an overlap"
        if simple:
            assert end - start == overlap
    if simple:
        assert all(b - a <= size for a, b in places)


@given(TEXTS, st.integers(1, 40))
def test_no_chunk_cuts_through_a_character(text: str, size: int) -> None:
    places = chunks(text, size, size // 3, 0)
    inside = {i for a, b in (m.span() for m in regex.finditer(r"\X", text)) for i in range(a + 1, b)}
    # What the package calls whole may be a little coarser than the standard, never finer.
    assert not inside & {at for place in places for at in place}


def test_the_defaults_are_those_of_the_specification() -> None:
    assert (SIZE, OVERLAP, SMALLEST) == (6000, 200, 100)
    places = chunks("x" * 12_000)
    assert places == [(0, 6000), (5800, 11_800), (11_600, 12_000)]


def test_a_text_under_a_hundred_characters_has_no_chunk() -> None:
    assert chunks("x" * 99) == []
    assert chunks("  " + "x" * 99 + "\n" * 50) == [], "white space says nothing"
    assert chunks("x" * 100) == [(0, 100)]
    assert chunks("") == []


def test_a_chunk_with_nothing_to_read_is_dropped() -> None:
    assert chunks("x" * 150 + "\n" * 300 + "y" * 150, 150, 0, 100) == [(0, 150), (450, 600)]
    assert chunks("x" * 200 + "y" * 99, 200, 0) == [(0, 200)]


def test_one_character_longer_than_a_chunk_stays_whole() -> None:
    long = "a" + "\u0301" * 50
    assert chunks(long + "b", 10, 3, 0) == [(0, 51), (51, 52)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (5, 5), (5, 6), (5, -1)])
def test_an_overlap_that_leaves_no_way_forward_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        chunks("text", size, overlap)
