"""What a model is told, what is made of what it says, and how it is told from doing its work."""

from __future__ import annotations

import pytest

from agentcomm import channels
from agentcomm.channels.summarise import cleaned
from agentcomm.errors import ConfigError
from agentcomm.message import EdgeKey, Reply
from agentcomm.task import Item
from tests.channels.doubles import QUESTION, TEXT, Desk, compress, turn

pytestmark = pytest.mark.anyio


async def test_the_model_gets_the_text_first_then_how_many_words_and_no_question() -> None:
    desk = Desk(["Ben has a goat."])
    made = await channels.summarise(20, "small").compress(TEXT, turn=turn(desk), edge=EdgeKey("a", "b"))
    ((prompt, how),) = desk.asked
    assert made.text == "Ben has a goat."
    assert (made.compression.status, made.compression.adherent, made.compression.reason) == (
        "compressed",
        True,
        "",
    )
    assert how == {"model": "small", "max_tokens": 20, "temperature": 0.0, "attempt": 0}
    _, user = prompt.messages
    assert user.content.startswith(f"Text:\n{TEXT}\n\nSay the text above in at most 14 words.")
    assert QUESTION not in user.content
    assert [str(s.part) for s in prompt.segments] == ["system", "a->b", "system"]


async def test_with_query_it_is_shown_the_question_without_advice_on_the_answer() -> None:
    desk = Desk(["Ben has a goat."])
    item = Item("q", f"{QUESTION}\n\nWrite Answer: last.", metadata={"asked": QUESTION})
    await channels.summarise(20, query=True).compress(TEXT, turn=turn(desk, item=item))
    prompt = desk.asked[0][0]
    assert prompt.messages[1].content.index(TEXT) < prompt.messages[1].content.index(QUESTION)
    assert "Answer: last" not in prompt.messages[1].content
    assert ("task", QUESTION) in [(s.part, s.text) for s in prompt.segments]


@pytest.mark.parametrize(
    ("reply", "text", "problem"),
    [
        ("Ben has a goat.", "Ben has a goat.", ""),
        ("Sure! Here is the shortened text: Ben has a goat.", "Ben has a goat.", "preamble"),
        ("Certainly, I can help with that. Here's a concise version of the text:\n\nBen has a goat.", "Ben has a goat.", "preamble"),
        ("**Summary:** Ben has a goat.", "Ben has a goat.", "preamble"),
        ("The shortened text: Ben has a goat.", "Ben has a goat.", "preamble"),
        ("Ben has a goat.\n\nLet me know if you need anything else!", "Ben has a goat.", "preamble"),
        ('"Ben has a goat."', "Ben has a goat.", ""),
        ("OK, so 3 + 4 = 7.", "so 3 + 4 = 7.", "preamble"),
        ("The answer: a goat.", "The answer: a goat.", ""),
        ("This is a house.", "This is a house.", ""),
        ("", None, "empty"),
        ("Here is the summary:", None, "preamble"),
        ("I'm sorry, I can't do that.", None, "refusal"),
        ("As an AI I have no pets.", None, "refusal"),
        (f" {TEXT}\n", None, "identical"),
        ("Write only the shortened text.", None, "echo"),
    ],
)  # fmt: skip
def test_talk_is_told_from_a_compression(reply: str, text: str | None, problem: str) -> None:
    assert cleaned(reply, TEXT) == (text, problem)


def test_what_the_original_itself_begins_with_is_no_preamble() -> None:
    said = "Summary: the goat is Ben's."
    assert cleaned(said, "Summary: the goat is Ben's and it is old.") == (said, "")
    assert cleaned("I'm sorry I lost it.", "I'm sorry I lost your goat by the river.") == (
        "I'm sorry I lost it.",
        "",
    )


async def test_talk_counts_as_not_adherent_though_the_rest_is_used() -> None:
    made = await compress(channels.summarise(20), TEXT, "Sure! Here is the summary: Ben has a goat.")
    assert made.text == "Ben has a goat."
    assert (made.compression.status, made.compression.adherent, made.compression.reason) == (
        "compressed",
        False,
        "preamble",
    )


async def test_a_reply_of_no_use_is_asked_for_once_more_with_fewer_words_then_replaced_by_sentences() -> None:
    desk = Desk(["", "Ben has a goat."])
    made = await channels.summarise(20).compress(TEXT, turn=turn(desk))
    assert made.text == "Ben has a goat."
    assert (made.compression.adherent, made.compression.reason) == (False, "empty")
    first, second = [p.messages[1].content for p, _ in desk.asked]
    assert "at most 14 words" in first and "at most 8 words" in second
    assert [how["attempt"] for _, how in desk.asked] == [0, 1]
    gone = await compress(channels.summarise(12), TEXT, "", TEXT)
    assert gone.text == "Ben has a pet goat that he likes very much."
    assert (gone.compression.status, gone.compression.adherent) == ("cut", False)
    assert gone.compression.reason == "empty, identical"
    once = Desk(["", "never asked"])
    await channels.summarise(12, retries=0).compress(TEXT, turn=turn(once))
    assert len(once.asked) == 1


async def test_a_model_that_ignores_the_budget_is_cut_at_a_sentence_and_flagged() -> None:
    long = "Ben has a pet goat. He likes it a lot. " + "And then it goes on. " * 20
    made = await compress(channels.summarise(12), TEXT, long)
    assert made.text == "Ben has a pet goat. He likes it a lot."
    assert (made.compression.status, made.compression.reason) == ("cut", "over_budget")
    assert (made.compression.adherent, made.compression.tokens) == (False, 12)


async def test_a_reply_that_ran_on_until_it_was_cut_off_loses_its_unfinished_sentence() -> None:
    ran = Reply("Ben has a pet goat that he likes. It is an", finish_reason="length")
    made = await compress(channels.summarise(20), TEXT, ran)
    assert made.text == "Ben has a pet goat that he likes."
    assert (made.compression.status, made.compression.reason, made.compression.adherent) == (
        "cut",
        "ran_on",
        False,
    )
    only = await compress(
        channels.summarise(20), TEXT, Reply("Ben has a pet goat that", finish_reason="length")
    )
    assert only.text == "Ben has a pet goat that"


async def test_where_only_what_must_be_kept_fits_no_model_is_asked() -> None:
    text = "The secret code that everyone in this town was looking for is 12."
    desk = Desk()
    made = await channels.summarise(1).compress(text, turn=turn(desk))
    assert (made.text, made.compression.tokens, desk.asked) == ("12", 1, [])


async def test_off_an_edge_it_says_that_it_needs_a_running_graph() -> None:
    with pytest.raises(ConfigError, match="only on an edge of a running graph"):
        await channels.summarise(5).compress(TEXT)
    with pytest.raises(ConfigError, match="write a model string"):
        channels.summarise(5, model=3)  # type: ignore[arg-type]
