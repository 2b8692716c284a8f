"""The words of the request, and compressors without a model."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import ConfigError
from agentcomm.information.compressing import (
    GENERAL,
    QUESTION,
    extract,
    pieces,
    prompt_for,
    randomly,
    truncate,
)

TEXT = "Ada has a cat. Ben has a dog. Cara has no pet at all, she says. Dan's 3 goats are old."


def test_the_text_comes_first_so_that_questions_share_it() -> None:
    a, b = QUESTION.user(TEXT, "Who has a cat?"), QUESTION.user(TEXT, "Who has a dog?")
    assert a.startswith(QUESTION.head(TEXT))
    assert b.startswith(QUESTION.head(TEXT))
    assert a.index(TEXT) < a.index("Who has a cat?")
    assert "Do not answer" in a
    assert GENERAL.tail("") == ""


def test_any_change_of_words_is_another_prompt() -> None:
    ids = {QUESTION.id, GENERAL.id, QUESTION.within(64).id, QUESTION.within(32).id}
    assert len(ids) == 4
    assert QUESTION.within(64).within(None).id == QUESTION.id
    assert "48 words" in QUESTION.within(64).head(TEXT)
    assert prompt_for(["", ""]) is GENERAL
    assert prompt_for(["", "what?"]) is QUESTION


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_nothing_is_refused(budget: int) -> None:
    for call in (
        lambda: QUESTION.within(budget),
        lambda: truncate(TEXT, budget),
        lambda: extract(TEXT, "q", budget),
        lambda: randomly([TEXT], budget, "s"),
    ):
        with pytest.raises(ConfigError, match="holds no message"):
            call()


@given(st.text(), st.integers(1, 40))
def test_a_cut_text_is_a_beginning_within_its_budget(text: str, budget: int) -> None:
    cut = truncate(text, budget)
    assert text.startswith(cut)
    assert pieces(cut) <= budget
    after = text[len(cut) : len(cut) + 1]
    if cut and after and not after.isspace():
        assert unicodedata.category(after) not in ("Mn", "Me")


@given(st.text(), st.text(), st.integers(1, 40))
def test_extracted_sentences_keep_the_budget_and_are_never_longer(text: str, query: str, budget: int) -> None:
    found = extract(text, query, budget)
    assert pieces(found) <= budget
    assert len(found) <= len(text)


def test_joined_characters_stay_whole() -> None:
    family = "👩‍👩‍👧"
    assert truncate(f"a {family} b", 2) in ("a", f"a {family}")
    assert truncate("cafe\u0301s are open", 1) == "caf", "no e without its accent"
    assert truncate(f"{family}", 1) in ("", family)


def test_sentences_about_the_question_are_kept_in_their_order() -> None:
    kept = extract(TEXT, "What does Ben's dog think of Dan?", 14)
    assert kept == "Ben has a dog. Dan's 3 goats are old."
    assert extract("", "q", 5) == ""


def test_random_words_are_the_same_for_the_same_seed_and_no_message_about_a_context() -> None:
    contexts = [TEXT, "Oslo and Rome are towns."]
    assert randomly(contexts, 10, "1") == randomly(contexts[::-1], 10, "1")
    assert randomly(contexts, 10, "1") != randomly(contexts, 10, "2")
    assert pieces(randomly(contexts, 10, "1")) == 10
    assert randomly(["", " "], 10, "1") == ""
