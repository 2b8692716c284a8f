"""Cuts leave characters, words and sentences whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.channels.text import character_cuts, sentence_cuts, sentences, whole_at, word_cuts
from tests.channels.doubles import TEXT, TROUBLE

PIECES = st.sampled_from(
    [
        "a", "é", "e\u0301", "\u200d", "👩", "👩‍👧", "🏽", "🇩", "🇫", "\r", "\n", "각", "ᄀ", "ᅡ", "ᆨ", "क", "\u094d", "ष",
        "\u0600", "\ufe0f", "❤", "ﾞ", "ก", "ำ", "\xad", "\u200b", "漢", "0", "\u20e3", "ি", "ক", "\u09cd", "\u0d4e", "ക",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
def test_no_cut_goes_through_a_character_as_the_regex_package_knows_it(text: str) -> None:
    regex = pytest.importorskip("regex")
    whole = {m.start() for m in regex.finditer(r"\X", text)}
    assert {i for i in range(1, len(text)) if whole_at(text, i)} <= whole


def test_ordinary_text_may_be_cut_anywhere_between_its_characters() -> None:
    for text in ("plain words", "Straße, café", "漢字かな", "привет", "🐐🐈"):
        assert character_cuts(text) == list(range(1, len(text)))


@given(st.sampled_from(TROUBLE) | st.text(max_size=200), st.randoms(use_true_random=False))
def test_sentences_cover_the_text_in_order_and_never_end_in_a_place(text: str, random: object) -> None:
    places = [(2, 9), (20, 40)]
    found = sentences(text, places)
    assert "".join(text[a:b] for a, b in found) == text
    assert all(not a < end < b for _, end in found[:-1] for a, b in places)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (TEXT, 6),
        ("Dr. Who met Mr. Ex. They left, e.g. by car. Pi is 3.14 today.", 3),
        ("一つ。二つ！三つ", 3),
        ('He said "Stop!" and left. Then he came back.', 2),
        ("- one\n- two\n\n- three", 3),
        ("no end", 1),
    ],
)
def test_sentences_end_where_a_reader_would_say_so(text: str, parts: int) -> None:
    assert len(sentences(text)) == parts
    assert len(sentence_cuts(text)) == parts - 1


def test_words_are_cut_at_spaces_and_between_chinese_signs() -> None:
    assert [("ab cd 漢字")[:i] for i in word_cuts("ab cd 漢字")] == ["ab", "ab cd", "ab cd 漢"]
