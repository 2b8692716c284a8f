r"""Marks: how an answer stands in a message: ``<A>...</A>``, or ``\boxed{...}`` for mathematics.

``<answer>...</answer>`` and a line that begins with ``Answer:`` are as good: they are what small models
write when they are asked for the first (eval/LOG.md, message formats on HotpotQA). The last mark of a
message counts. Two marks are the same answer when they are equal after the normalisation of their kind
(``dialogue.md`` section 1).

Deliberately absent: what the right answer is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from agentcomm.errors import ConfigError
from agentcomm.evaluation.scorers import normalise_answer, number_in

Kind = Literal["text", "number"]

_OPEN = re.compile(
    r"<(?P<tag>A|answer)>(?P<a>.*?)</(?P=tag)>"
    r"|\\boxed\s*\{"
    r"|^[ \t]*\**(?:final[ \t]+)?answer\**[ \t]*:(?![^\n]*(?:<A>|<answer>|\\boxed))(?P<line>[^\n]*)",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)


class Mark(NamedTuple):
    """An answer in a message: its text and where it stands there, mark included."""

    answer: str
    start: int
    end: int


def marks(text: str) -> Iterator[Mark]:
    r"""All marks of a message, first to last; an empty one, or one that isn't closed, is none.

    >>> [m.answer for m in marks(r"<A>5</A> no, \boxed{\frac{1}{2}}")]
    ['5', '\\frac{1}{2}']
    >>> [m.answer for m in marks("So it is.\n**Answer:** a red box\nAnswer: <A>red</A>")]
    ['a red box', 'red']
    """
    at = 0
    while match := _OPEN.search(text, at):
        if match["a"] is not None:
            answer, end = match["a"], match.end()
        elif match["line"] is not None:
            answer, end = match["line"].strip(" *"), match.end()
        elif (closed := _closing(text, match.end())) is not None:
            answer, end = text[match.end() : closed], closed + 1
        else:
            at = match.end()
            continue
        if answer.strip():
            yield Mark(answer.strip(), match.start(), end)
        at = end


def _closing(text: str, at: int) -> int | None:
    """Where the brace that was open before ``at`` closes."""
    depth = 1
    for place in range(at, len(text)):
        if text[place] in "{}" and text[place - 1 : place] != "\\":
            depth += 1 if text[place] == "{" else -1
            if not depth:
                return place
    return None


def last_mark(text: str) -> str | None:
    """The answer that a message ends up with, ``None`` if it marks none."""
    answer = None
    for mark in marks(text):
        answer = mark.answer
    return answer


def without_marks(text: str) -> str:
    """What a message says beside its answers.

    >>> without_marks("So <A>12</A>")
    'So'
    """
    kept, at = [], 0
    for mark in marks(text):
        kept.append(text[at : mark.start])
        at = mark.end
    return "".join([*kept, text[at:]]).strip()


def same_answer(kind: Kind = "text") -> Callable[[str, str], bool]:
    """Whether two marked answers are the same.

    ``"text"``: equal in lower case without articles, punctuation and extra space. ``"number"``:
    equal as numbers, as texts where one of them is none.

    Raises
    ------
    ConfigError
        For an unknown kind.

    >>> same_answer("number")("1,200", "1200.0 dollars"), same_answer()("The Cat!", "cat")
    (True, True)
    """
    if kind not in ("text", "number"):
        raise ConfigError(f"unknown kind of answer {kind!r}; use text or number")

    def same(a: str, b: str) -> bool:
        if kind == "number":
            x, y = number_in(a), number_in(b)
            if x is not None and y is not None:
                return x.value == y.value
        return normalise_answer(a) == normalise_answer(b)

    return same
