"""An answer is what a message marks last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.dialogue.marks import last_mark, marks, same_answer, without_marks
from agentcomm.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<A>Oslo</A>", "Oslo"),
        ("<a> Oslo </a>", "Oslo"),
        ("<A>Rome</A> no: <A>Oslo</A>", "Oslo"),
        (r"\boxed{\frac{1}{2}} and \boxed{x^{2}}", "x^{2}"),
        (r"\boxed{\text{a\}b}}", r"\text{a\}b}"),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{1 <A>Oslo</A>", "Oslo"),
        ("<A>Oslo", None),
        ("<A>  </A>", None),
        ("Oslo", None),
        ("<A>two\nlines</A>", "two\nlines"),
        ("", None),
    ],
)
def test_the_last_mark_counts(text: str, answer: str | None) -> None:
    assert last_mark(text) == answer


def test_an_empty_mark_is_none_whatever_follows() -> None:
    assert last_mark("<A></A> so {x} it is") is None and last_mark("<A></A> so x} it is") is None
    assert last_mark("Answer:\nand }") is None


def test_what_is_said_beside_the_marks_is_kept() -> None:
    assert without_marks(r"Ada: Oslo. <A>Oslo</A> I think \boxed{4}") == "Ada: Oslo.  I think"
    assert without_marks("<A>x</A>") == ""


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = list(marks(text))
    assert all(text[m.start : m.end] for m in found)
    assert (last_mark(text) is None) == (not found)


@given(st.text(alphabet=st.characters(exclude_characters="<>\\{}"), min_size=1).filter(str.strip))
def test_what_is_marked_is_read_back(answer: str) -> None:
    assert last_mark(f"so <A>{answer}</A> it is") == answer.strip()
    assert last_mark(rf"so \boxed{{{answer}}} it is") == answer.strip()


@pytest.mark.parametrize(
    ("kind", "a", "b", "same"),
    [
        ("text", "The Cat.", "cat", True),
        ("text", "cat", "dog", False),
        ("number", "1,200", "1200 dollars", True),
        ("number", "0.5", "1/2", True),
        ("number", "12", "13", False),
        ("number", "unknown", "Unknown", True),
        ("number", "unknown", "12", False),
    ],
)
def test_answers_are_compared_by_their_kind(kind: str, a: str, b: str, same: bool) -> None:
    assert same_answer(kind)(a, b) is same  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="use text or number"):
        same_answer("formula")  # type: ignore[arg-type]


def test_the_long_tag_that_small_models_write_is_a_mark_and_a_mixed_one_is_none() -> None:
    assert [m.answer for m in marks("<answer>grapes</answer> or <A>figs</A>, <ANSWER> nuts </ANSWER>")] == [
        "grapes",
        "figs",
        "nuts",
    ]
    assert not list(marks("<answer>grapes</A>, <grapes>"))
