"""Order: planted conversations in which it matters, and ones in which it doesn't."""

from __future__ import annotations

import random

import pytest

from agentcomm.errors import UserError
from agentcomm.information.order import Talk, check_order
from agentcomm.information.scorers import Scorer
from agentcomm.information.scorers.offline import BM25, NGram

BACKGROUND = "plain words that name nothing in particular, of one kind and another. " * 20
SHORT = NGram(background=BACKGROUND)


def word(rng: random.Random) -> str:
    return "".join(rng.choice("bcdfghklmnprst") + rng.choice("aeiou") for _ in range(4))


def planted(seed: int) -> Talk:
    """Somebody names things, others use the names again and again: only in this order is that cheap."""
    rng = random.Random(seed)
    names = [word(rng) for _ in range(4)]
    used = [
        " ".join(f"{rng.choice(names)} goes with {rng.choice(names)}." for _ in range(4)) for _ in range(2)
    ]
    return [("a", f"The parts: {', '.join(names)}."), ("b", used[0]), ("c", used[1])]


def unrelated(seed: int) -> Talk:
    rng = random.Random(seed)
    return [(speaker, " ".join(word(rng) for _ in range(8))) for speaker in "abc"]


def test_a_conversation_whose_messages_build_on_one_another_is_cheaper_in_its_order() -> None:
    found = check_order([planted(i) for i in range(8)], SHORT)
    assert found.before.matters and found.before.gain_bits is not None and found.before.gain_bits > 0.2
    assert found.before.held_bits is not None and found.before.shuffled_bits is not None
    assert found.before.gain_bits == pytest.approx(found.before.shuffled_bits - found.before.held_bits)
    assert found.sentence.startswith("a conversation is easier to predict in its order than shuffled: ")
    assert "offline critic" in found.sentence


def test_messages_that_have_nothing_to_do_with_one_another_gain_nothing_from_their_order() -> None:
    found = check_order([unrelated(i) for i in range(8)], SHORT)
    assert found.before.interval is not None and found.before.interval.low < 0 < found.before.interval.high
    assert not found.before.matters and "is not shown to be" in found.sentence


def test_a_compressor_that_drops_the_names_takes_the_order_away_and_one_that_keeps_them_does_not() -> None:
    talks = [planted(i) for i in range(6)]
    dropped = [[("a", "The parts."), *talk[1:]] for talk in talks]
    kept = [
        [("a", text.removeprefix("The parts: ")) if who == "a" else (who, text) for who, text in t]
        for t in talks
    ]
    lost = check_order(talks, SHORT, after=dropped)
    assert lost.change_bits is not None and lost.change_interval is not None and lost.change_interval.high < 0
    same = check_order(talks, SHORT, after=kept)
    assert same.after is not None and same.after.matters
    assert same.change_bits is not None and same.change_bits > 0 > lost.change_bits
    assert "; as it was read, " in lost.sentence


def test_it_is_deterministic_and_other_seeds_draw_other_orders() -> None:
    talks = [[*planted(i), *planted(i + 50)] for i in range(2)]
    first = check_order(talks, SHORT, permutations=3, seed=1)
    assert first == check_order(talks, SHORT, permutations=3, seed=1)
    assert first.before.gain_bits != check_order(talks, SHORT, permutations=3, seed=2).before.gain_bits


def test_conversations_without_two_different_messages_are_left_out_and_counted() -> None:
    talks: list[Talk] = [
        [],
        [("a", "one")],
        [("a", "same"), ("b", "same")],
        [("a", " "), ("b", "one")],
        planted(0),
    ]
    found = check_order(talks, SHORT).before
    assert (found.conversations, found.too_short, found.failed) == (1, 4, 0)
    assert found.interval is None, "one conversation has no spread"
    nothing = check_order(talks[:4], SHORT)
    assert nothing.before.gain_bits is None and "unknown" in nothing.sentence


def test_conversations_that_are_all_alike_show_no_spread_and_get_no_interval() -> None:
    found = check_order([planted(0)] * 3, SHORT).before
    assert found.conversations == 3 and found.interval is None and not found.matters


class Failing(NGram):
    def value(self, context: str, text: str) -> float:
        return float("nan") if "broken" in text else super().value(context, text)


def test_a_message_that_cannot_be_scored_leaves_its_conversation_out_and_is_no_zero() -> None:
    broken: Talk = [("a", "first"), ("b", "broken"), ("c", "third")]
    found = check_order([planted(0), broken], Failing(background=BACKGROUND)).before
    assert (found.conversations, found.failed) == (1, 1)
    assert found.gain_bits == check_order([planted(0)], SHORT).before.gain_bits


def test_scripts_and_signs_of_every_kind_are_scored() -> None:
    talk: Talk = [("a", "価格は3000円です 👩‍👩‍👧‍👦"), ("b", "שלום עולם"), ("c", "e\u0301 \ud83d half")]
    assert check_order([talk], SHORT).before.conversations == 1


@pytest.mark.parametrize("scorer", [BM25(background=BACKGROUND)])
def test_a_score_without_a_unit_is_refused(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="has no unit"):
        check_order([planted(0)], scorer)
    with pytest.raises(UserError, match="at least 1"):
        check_order([planted(0)], SHORT, permutations=0)
    with pytest.raises(UserError, match="one for one"):
        check_order([planted(0)], SHORT, after=[planted(0)[:2]])
