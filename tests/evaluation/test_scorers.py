"""What a model wrote is read as its answer, and only that."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import TaskError
from agentcomm.evaluation import scorers
from agentcomm.evaluation.scorers import (
    choice_in,
    exact_match,
    normalise_answer,
    number_in,
    text_in,
    token_f1,
)
from agentcomm.task import Item

# ---------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("$1,234.00", 1234),
        ("18 dollars.", 18),
        ("18.", 18),
        ("-5", -5),
        ("−5", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("(-3)", -3),
        ("minus 7", -7),
        ("x = -5", -5),
        ("**18**", 18),
        ("\\$18", 18),
        ("US$5", 5),
        ("1,234,567 people", 1234567),
        ("1{,}234", 1234),
        ("1\\,234", 1234),
        ("10\u00a0000", 10000),
        ("1'234", 1234),
        ("3/4", Fraction(3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        ("6½ sacks", Fraction(13, 2)),
        (".5", Fraction(1, 2)),
        ("1.5 million", 1_500_000),
        ("1e3", 1000),
        ("3 \\times 10^4", 30000),
        ("eighteen", 18),
        ("Twenty-one.", 21),
        ("18 m^2", 18),
        ("18 km/h", 18),
    ],
)
def test_a_number_is_read_with_its_unit_sign_and_separators(text: str, value: Fraction | int) -> None:
    number = number_in(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16 - 3 = 13 eggs, 13 * 2 = $26 a day.", 26),
        ("She has 5 eggs and pays 3.\n#### 18", 18),
        ("#### 18\n\nLet me know if the answer is helpful!", 18),
        ("The answer is 18 dollars for 2 eggs.", 18),
        ("The answer is 5. Wait, no: the final answer is \\boxed{18}", 18),
        ("\\boxed{18}. So the answer is 20.", 20),
        ("#### 7 + 8 = 15", 15),
        ("18\n\n#### ", 18),
        ("#### The final number is $18.", 18),
        ("#### \\( 18 \\)", 18),
        ("The answer is: $\\boxed{1,200}$ dollars for 2", 1200),
        ("**Answer:** $18", 18),
        ("Answer:\n\n18", 18),
        ("Final Answer: The final answer is $70,000$", 70000),
        ("\\boxed{18\\text{ dollars}}", 18),
        ("\\boxed{x = \\frac{1}{2}}", Fraction(1, 2)),
        ("The answer is not 5 but 6", 6),
        ("The answer to part 2 is: 9", 9),
        ("The total was 18 eggs.\nAnswer: none of your business", 18),
        ("The answer is eighteen, as 3 people said.", 3),
        ("So the answer is five", 5),
        ("1. add 2\n2. add 3\nTotal: 27 apples", 27),
        ("- 5 apples", 5),
        ("10-5", 5),
    ],
)
def test_of_several_numbers_the_rule_names_one(text: str, value: Fraction | int) -> None:
    number = number_in(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text", ["", "I'm sorry, I can't help with that.", "no one", "CO2", "x^2", "1st", "one hundred"]
)
def test_without_a_number_nothing_is_read(text: str) -> None:
    assert number_in(text) is None
    assert scorers.numeric(Item("i", "q", "18"), text) == scorers.Score(0.0, None, "no number in the answer")


@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("18.0", "18", True),
        ("18.5", "18", False),
        ("25%", "25", True),
        ("25%", "0.25", True),
        ("25", "0.25", False),
        ("0.75", "3/4", True),
        ("33.3333", "33.33", True),
        ("33.3", "33", False),
        ("1234", "1,234", True),
        ("-5", "5", False),
        ("9007199254740993", "9007199254740992", False),  # equal as floats
    ],
)
def test_numbers_are_compared_exactly_or_at_the_gold_answers_own_rounding(
    said: str, gold: str, right: bool
) -> None:
    assert scorers.numeric(Item("i", "q", gold), f"The answer is {said}.").value == right


def test_a_reference_without_a_number_is_the_tasks_fault() -> None:
    with pytest.raises(TaskError, match="item 'i' has no number"):
        scorers.numeric(Item("i", "q", "many"), "18")


@given(st.integers(-(10**12), 10**12))
def test_every_integer_is_read_back_however_it_is_phrased(number: int) -> None:
    for text in (
        f"{number}",
        f"{number:,}",
        f"so it is {number:,} dollars.",
        f"7 * 3 is 21.\n#### {number}",
        f"\\boxed{{{number}}}",
    ):
        read = number_in(text)
        assert read is not None
        assert read.value == number


@given(st.text())
def test_no_text_breaks_a_scorer(text: str) -> None:
    scorers.numeric(Item("i", "q", "1"), text)
    scorers.choice(Item("i", "q", "A", metadata={"options": ("x", "y")}), text)
    assert 0 <= scorers.short_text()(Item("i", "q", ["yes", "x"]), text).value <= 1


@pytest.mark.parametrize(
    "piece",
    [
        "9",
        "answer is ",
        "\\boxed{",
        "1,234,",
        "#### ",
        "(A) ",
        "- ",
        "\n",
        "1 1/",
        " ",
        "#",
        "answer ",
        "A is ",
    ],
)
def test_a_long_answer_is_read_in_reasonable_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.monotonic()
    number_in(text)
    choice_in(text, 4)
    text_in(text)
    assert time.monotonic() - began < 10


# ---------------------------------------------------------------------------------- letters

CITIES = ("Rome", "Paris", "Berlin", "Madrid")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("b", "B"),
        ("answer: b", "B"),
        ("Answer: B", "B"),
        ("The answer is **C**", "C"),
        ("The answer is (C).", "C"),
        ("The correct answer is:\n\nB) Paris", "B"),
        ("Answer: **B) Paris**", "B"),
        ("\\boxed{D}", "D"),
        ("$\\boxed{\\text{D}}$", "D"),
        ("#### C", "C"),
        ("B. Paris", "B"),
        ("Option D", "D"),
        ("The correct option is D) Madrid", "D"),
        ("I choose (C).", "C"),
        ("I think B", "B"),
        ("D is correct", "D"),
        ("A is wrong, C is the right answer", "C"),
        ("(A) is wrong since it is in Italy. (C) is right.", "C"),
        ("The answer is A because it is warm", "A"),
        ("The answer is C, not B", "C"),
        ("The answer is C, B is wrong", "C"),
        ("Answer - C", "C"),
        ("Answer: the letter of the right option is C.", "C"),
        ("Answer: The answer is C.", "C"),
        ("$\\boxed{\\text{(C)}}$", "C"),
        ("\\boxed{\\mathrm{(C)}\\ 5}", "C"),
        ("So I would go with C.", "C"),
        ("First A, then C.\nAnswer: D", "D"),
        ("The answer is B. Wait: the answer is C", "C"),
        ("It has a tower, so\nB", "B"),
        ("Paris", "B"),
        ("Answer: Paris.", "B"),
    ],
)
def test_a_letter_is_read_in_all_its_dresses(text: str, letter: str) -> None:
    assert choice_in(text, CITIES).letter == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Apples are best",
        "Because it is so",
        "A cat sat on the mat.",
        "The answer is a cat",
        "The answer is A city",
        "it's vitamin C.",
        "I'm sorry, I can't answer that.",
        "answer: E",
        "None of these",
        "A. Rome\nB. Paris\nC. Berlin (A) or (B)?",
    ],
)
def test_words_articles_and_refusals_are_no_letters(text: str) -> None:
    assert choice_in(text, CITIES).letter is None
    assert scorers.choice(Item("i", "q", "A", metadata={"options": CITIES}), text).value == 0


@pytest.mark.parametrize(
    "text", ["The answer is B or C", "Answer: A, B", "Answer: (A) and (C)", "B) Paris\nbecause (C) fails"]
)
def test_several_letters_are_no_answer(text: str) -> None:
    score = scorers.choice(Item("i", "q", "B", metadata={"options": CITIES}), text)
    assert (score.value, score.extracted, score.note) == (0.0, None, "names several letters")


def test_an_options_text_counts_only_where_it_is_unique() -> None:
    assert choice_in("Answer: same", ("same", "same", "other")).letter is None


# ------------------------------------------------------------------------------ short texts


def test_the_official_normalisation_drops_case_punctuation_articles_and_space() -> None:
    assert normalise_answer("The  Quick, brown-fox: a test!") == "quick brownfox test"
    assert normalise_answer("an (Apple)") == "apple"
    assert normalise_answer("Theatre") == "theatre"
    assert normalise_answer("Rock_’n’-Roll", "space") == "rock n roll"


@pytest.mark.parametrize(
    ("said", "golds", "em", "f1"),
    [
        ("the Eiffel Tower", ["Eiffel Tower"], 1, 1),
        ("Eiffel Tower in Paris", ["Eiffel Tower"], 0, 2 / 3),
        ("Paris", ["Eiffel Tower", "paris."], 1, 1),
        ("yes", ["yes"], 1, 1),
        ("yes it is", ["yes"], 0, 0.5),
        ("yes", ["yes it is"], 0, 0),  # HotpotQA: a closed answer matches itself only
        ("no", ["no one"], 0, 0),
        ("London", ["Eiffel Tower"], 0, 0),
        ("the", ["a"], 0, 0),  # nothing is left of either
        ("the the", ["The The"], 1, 1),
        ("to be or not to be", ["to be"], 0, 0.5),
    ],
)
def test_exact_match_and_f1_are_the_official_ones(said: str, golds: list[str], em: float, f1: float) -> None:
    assert exact_match(said, golds) == em
    if said != "yes it is":
        assert token_f1(said, golds) == pytest.approx(f1)


def test_a_longer_text_is_no_closed_answer() -> None:
    assert token_f1("yes it is", ["yes"]) == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Answer: The Eiffel Tower.", "The Eiffel Tower"),
        ('He thinks.\nThe answer is "Chief of Protocol".', "Chief of Protocol"),
        ("**Answer:** Rush", "Rush"),
        ("\\boxed{\\text{Rush}}", "Rush"),
        ("Reasoning here.\n\nRush", "Rush"),
        ("Answer: U.S.", "U.S."),
        ("Answer: 3,677 seated", "3,677 seated"),
        ("Answer:\nRush", "Rush"),
        ("   ", None),
    ],
)
def test_a_short_answer_is_read_behind_the_marker_or_from_the_last_line(text: str, read: str | None) -> None:
    assert text_in(text) == read


def test_yes_with_an_explanation_counts_where_the_answer_is_yes() -> None:
    score = scorers.short_text("em")
    assert score(Item("i", "q", "yes"), "Answer: Yes, both are American.").value == 1
    assert score(Item("i", "q", "yes"), "Answer: No, they are not.").value == 0
    assert score(Item("i", "q", "yes"), "Answer: Yesterday").value == 0


def test_every_alias_counts_and_the_note_gives_the_other_metric() -> None:
    item = Item("i", "q", ["Tequila", "Mezcal"])
    assert scorers.short_text("em")(item, "Answer: mezcal!").value == 1
    assert scorers.short_text("f1")(item, "Answer: white mezcal") == scorers.Score(
        pytest.approx(2 / 3), "white mezcal", "em 0"
    )


def test_an_empty_answer_scores_zero_and_reads_nothing() -> None:
    assert scorers.short_text()(Item("i", "q", "x"), "") == scorers.Score(0.0, None, "empty answer")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(TaskError, match="choose f1 or em"):
        scorers.short_text("bleu")  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from(["red", "green", "blue", "sky", "the", "a"]), max_size=6),
    st.lists(st.sampled_from(["red", "green", "blue", "sky"]), min_size=1, max_size=6),
)
def test_f1_is_symmetric_and_bounded_and_one_exactly_where_the_words_agree(
    said: list[str], gold: list[str]
) -> None:
    a, b = " ".join(said), " ".join(gold)
    assert token_f1(a, [b]) == token_f1(b, [a])
    same_words = sorted(normalise_answer(a).split()) == sorted(gold)
    assert (token_f1(a, [b]) == 1) == same_words
    assert exact_match(a, [b]) <= token_f1(a, [b]) <= 1
