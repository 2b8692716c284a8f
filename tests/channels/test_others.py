"""Extract, truncate and rules: what they keep and what they let go."""

from __future__ import annotations

from typing import Any

import pytest

from agentcomm import channels
from agentcomm.channels.relevance import bm25, terms
from agentcomm.graph import Edge
from agentcomm.message import Message
from agentcomm.task import Item
from tests.channels.doubles import TEXT, compress, turn

pytestmark = pytest.mark.anyio


# -- extract


async def test_the_sentences_that_answer_the_question_are_chosen_in_their_order() -> None:
    made = await compress(channels.extract(22), TEXT)
    assert made.text == "Ben lives in a house by the river. Ben has a pet goat that he likes very much."
    assert (made.compression.status, made.compression.adherent) == ("compressed", True)


async def test_without_the_question_the_sentences_most_like_the_whole_are_chosen() -> None:
    violin = Item("q", "What does Cara play?")
    for query, other in (
        (True, "Cara plays the violin every evening."),
        (False, "Ben has a pet goat that he likes very much."),
    ):
        channel = channels.extract(12, query=query)
        assert (await compress(channel, TEXT)).text == "Ben has a pet goat that he likes very much."
        assert (await compress(channel, TEXT, item=violin)).text == other


async def test_what_is_said_already_is_worth_less_than_what_is_new() -> None:
    text = "Ben has a pet goat. Ben has a pet goat! Ben has a pet goat too. Ben has bees and a pet shop. The end is near now."
    made = await compress(channels.extract(14), text)
    assert made.text == "Ben has a pet goat. Ben has bees and a pet shop."


async def test_a_sentence_longer_than_the_budget_is_cut_at_a_word_and_flagged() -> None:
    made = await compress(channels.extract(5), "Ben has a pet goat that he likes very much indeed, says Ada")
    assert made.text == "Ben has a pet goat"
    assert made.compression.status == "compressed"


async def test_lines_stay_lines() -> None:
    text = "Pets:\n- Ada has a cat\n- Ben has a goat\n- Cara has none of them at all and never will"
    made = await compress(channels.extract(12), text)
    assert "- Ben has a goat" in made.text.splitlines()


def test_bm25_by_hand_and_chinese_signs_are_terms() -> None:
    assert bm25(["x"], []) == []
    assert bm25([], [["a"]]) == [0.0]
    rare, common = bm25(["goat", "ben"], [["goat", "a"], ["ben", "a"], ["ben", "b"]])[:2]
    assert rare > common > 0
    assert terms("東京に Goats_2") == ["東", "京", "に", "goats", "2"]


# -- truncate


async def deliver(channel: Any, text: str) -> Any:
    return await channel.deliver(Message("a", 1, text), Edge("a", "b", channel=channel), turn())


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("head", "Ada lives in Oslo and works as a nurse at the old hospital."),
        ("tail", "Nobody knows why the bridge was closed. Cara plays the violin every evening."),
        ("both", "Ada lives in Oslo and works as […] Cara plays the violin every evening."),
    ],
)
async def test_the_head_the_tail_or_both_ends_are_kept_within_tokens(keep: Any, expected: str) -> None:
    made = await deliver(channels.truncate(tokens=17, keep=keep), TEXT)
    assert made.text == expected
    assert made.compression.tokens <= 17
    assert (made.compression.budget, made.compression.original_tokens) == (17, 57)


async def test_short_messages_are_not_truncated_and_budgets_too_small_leave_nothing() -> None:
    made = await deliver(channels.truncate(tokens=17), "Short.")
    assert (made.text, made.compression.status) == ("Short.", "passed")
    gone = await deliver(channels.truncate(tokens=1), "https://example.org/a/b/c and more")
    assert (gone.text, gone.compression.reason) == ("", "nothing_fits")


async def test_characters_are_cut_at_a_word_and_never_in_half() -> None:
    made = await deliver(channels.truncate(12), "a message of words")
    assert (made.text, made.note) == ("a message of", "18 to 12 characters")
    assert (await deliver(channels.truncate(11), "a message of words")).text == "a message"
    family = "👩‍👩‍👧‍👦"
    assert (await deliver(channels.truncate(8), f"ab{family}cd")).text == "ab"
    assert (await deliver(channels.truncate(80), "short")).text == "short"


# -- rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b\t\tc   \n\n\n\nd  ", "a b c\n\nd"),
        ("Sure! The pet is a goat. I hope this helps!", "The pet is a goat."),
        ("It is important to note that goats climb. In conclusion, they do.", "Goats climb. They do."),
        ("As an AI language model, I like goats. Let me know if you need more.", "I like goats."),
        ("## Pets\n**Ben** has a *goat*.\n---\nEnd.", "Pets\nBen has a *goat*.\nEnd."),
        ("the same line\nthe same line\nthe same line\nother", "the same line (×3)\nother"),
        ("2**3**4 and __init__ and a  =  1", "2**3**4 and __init__ and a = 1"),
        ("keep `a  **b**  c` and \"x  y\" here   please", "keep `a  **b**  c` and \"x  y\" here please"),
        ("```\nx  =  1\nx  =  1\n## no\n```\nso   done", "```\nx  =  1\nx  =  1\n## no\n```\nso done"),
        ('{"a":   1,\n\n\n\n"b": 2} so   done', '{"a":   1,\n\n\n\n"b": 2} so done'),
        ("    indented  code stays\n}\n}\n}", "indented code stays\n}\n}\n}"),
    ],
)  # fmt: skip
def test_noise_goes_and_protected_pieces_stay_byte_for_byte(text: str, expected: str) -> None:
    assert channels.rules().tidy(text) == expected


async def test_each_rule_can_be_left_out_and_what_saves_nothing_is_passed() -> None:
    text = "Sure! **Bold**  move.\nmore and more\nmore and more"
    assert channels.rules(filler=False).tidy(text).startswith("Sure!")
    assert "**Bold**" in channels.rules(markdown=False).tidy(text)
    assert "  move" in channels.rules(whitespace=False).tidy(text)
    assert channels.rules(repeats=False).tidy(text).count("more and more") == 2
    same = await compress(channels.rules(), "Nothing to tidy here.")
    assert (same.text, same.compression.reason) == ("Nothing to tidy here.", "not_smaller")


async def test_a_number_that_a_rule_would_take_along_is_put_back() -> None:
    made = await compress(channels.rules(), "Goats climb. Let me know if you need 3 more of them.")
    assert made.text == "Goats climb. (3)"


async def test_tidied_text_over_the_budget_is_cut() -> None:
    made = await compress(channels.rules(11), f"Sure!  {TEXT}")
    assert made.text == "Ada lives in Oslo and works as a nurse at the"
    assert (made.compression.status, made.compression.reason) == ("cut", "over_budget")
