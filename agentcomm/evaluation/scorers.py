r"""Scorers: reading the final answer out of what a model wrote, and judging it.

Every scorer first decides *which part of the text is the answer*, by one rule:

1. The last marker that something readable follows: ``####``, ``\boxed{...}``, "answer is",
   "answer:". Where several are given, the last counts: models correct themselves.
2. Without a marker it depends on the kind of answer: the last number of the text; a letter that
   stands alone, opens the text or is the only one named; the last line of the text.

What was read is in ``Score.extracted``; ``None`` means that there was nothing to read, as with a
refusal, which scores 0. Nothing is guessed: a text that names two letters as its answer scores 0.

Numbers: ``1,234.00``, ``1{,}234``, ``$18``, ``18 dollars``, ``-5``, ``3/4``, ``\frac{3}{4}``, ``1 1/2``,
``1.5 million``, ``3 \times 10^4``, and number words up to ninety-nine behind a marker. "12.5%" equals both
12.5 and 0.125. A comma before three digits and a
point are English: ``1.234,50`` is read as 1.234, and a plain space separates numbers.

Texts: SQuAD v1.1's normalisation and F1; HotpotQA's rule that yes, no and noanswer match only
themselves; TriviaQA's treatment of punctuation as space on request.
"""

from __future__ import annotations

import re
import string
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from agentcomm.errors import TaskError
from agentcomm.task import Item, Score

Scorer = Callable[[Item, str], Score]

_MARKER = re.compile(
    r"(?P<hash>\#{4,})"
    r"|(?P<box>\\boxed\s*\{|\\fbox\s*\{)"
    r"|\banswer\b(?:(?!\banswer\b)[^.:=\n]){0,60}?(?:\bis\b|\bwas\b|\bequals\b|=|:)(?!\s+not\s+\w)"
    r"|\banswer\s+[-–—](?=\s)",
    re.IGNORECASE,
)
_LINE = re.compile(r"[\s*_:`]*([^\n]{0,1000})")
_LONGEST_BOX = 1000
_MARKERS = 20
"""The last so many markers are looked behind: text that repeats one for ever must not stop a run."""


def marked(text: str) -> Iterator[str]:
    """What follows each marker, to the end of its line (or of the box), the last marker first.

    >>> list(marked("The answer is 5. No: #### 18"))
    ['18', '5. No: #### 18']
    """
    for match in reversed(deque(_MARKER.finditer(text), maxlen=_MARKERS)):
        if match["box"]:
            yield _braced(text, match.end())
        elif line := _LINE.match(text, match.end()):
            yield line[1].strip()


def _braced(text: str, start: int) -> str:
    """The text from ``start`` to the brace that closes the one before it, or to the line's end."""
    depth = 1
    for at in range(start, min(len(text), start + _LONGEST_BOX)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at].strip()
    return text[start : start + _LONGEST_BOX].split("\n", 1)[0].strip()


# ---------------------------------------------------------------------------------- numbers


class Number(NamedTuple):
    """A number as it was written, and its exact value."""

    text: str
    value: Fraction
    percent: bool = False


_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,|[\u00a0\u2009\u202f'’])\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?<![\w.^/}}])(?<!\d,)                                  # not inside a word, a number or an exponent
    (?P<sign>[-−–]\s?(?=[$€£¥\\])|(?<![\d)])[-−–](?=[\d.])|(?:minus|negative)\s+)?
    (?:\\?[$€£¥]|US\$)?\s?(?P<sign2>[-−](?=[\d.]))?
    (?:
        \\[dt]?frac\s*\{{\s*(?P<ftop>-?\d+)\s*\}}\s*\{{\s*(?P<fbottom>\d+)\s*\}}
      | (?P<whole>\d+)\s+(?P<mtop>\d+)\s?/\s?(?P<mbottom>\d+)(?![\d/])
      | (?P<top>{_DIGITS})\s?/\s?(?P<bottom>\d+(?:\.\d+)?)(?![\d/])
      | (?P<vulgar_whole>\d+)?(?P<vulgar>[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])
      | (?P<plain>{_DIGITS})
        (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w)|\s?(?:\\times|×|x|\*)\s?10\s?(?:\^|\*\*)\s?\{{?(?P<ten>-?\d{{1,3}})\}}?)?
    )
    (?!(?:st|nd|rd|th)\b)
    (?:\s?(?P<percent>\\?%|percent\b|per\ cent\b)|\s(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_VULGAR = dict(zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞",
                   map(Fraction, ["1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5", "1/6", "5/6", "1/8", "3/8", "5/8", "7/8"]),
                   strict=True))  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: n for n, word in enumerate(_UNITS)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_WORD = re.compile(rf"\b(?:(?P<tens>{'|'.join(_TENS)})[-\s](?P<unit>{'|'.join(_UNITS[1:10])})|(?P<one>{'|'.join(_WORDS)}))\b"
                   r"(?![-\s]+(?:hundred|thousand|million|billion)\b)", re.I)  # fmt: skip


def numbers(text: str) -> list[Number]:
    """Every number written with digits, in order.

    >>> [n.text for n in numbers("16 - 3 = 13 eggs at $2, so $1,234.00.")]
    ['16', '3', '13', '$2', '$1,234.00']
    """
    return [n for match in _NUMBER.finditer(text) if (n := _number(match)) is not None]


def number_in(text: str) -> Number | None:
    """The number a text gives as its answer, or ``None``.

    Behind a marker: the number after the last ``=`` of the line, else the line's first ("the answer
    is 18 dollars for 2 eggs" is 18); a number word if there are no digits. Without a marker: the
    last number of the text, or a number word that is the whole text.
    """
    for segment in marked(text):
        if found := numbers(segment):
            later = numbers(segment.rpartition("=")[2]) if "=" in segment else []
            return (later or found)[0]
        if (word := _word(segment)) is not None:
            return word
    if found := numbers(text):
        return found[-1]
    bare = text.strip(" \t\r\n.!*$\"'")
    word = _word(bare)
    return (
        word if word is not None and len(bare) <= len(word.text) + 15 and bare.startswith(word.text) else None
    )


def _number(match: re.Match[str]) -> Number | None:
    g = match.groupdict()
    try:
        if g["ftop"]:
            value = Fraction(int(g["ftop"]), int(g["fbottom"]))
        elif g["whole"]:
            value = int(g["whole"]) + Fraction(int(g["mtop"]), int(g["mbottom"]))
        elif g["top"]:
            value = _decimal(g["top"]) / Fraction(g["bottom"])
        elif g["vulgar"]:
            value = int(g["vulgar_whole"] or 0) + _VULGAR[g["vulgar"]]
        else:
            value = _decimal(g["plain"]) * Fraction(10) ** int(g["exponent"] or g["ten"] or 0)
    except (ZeroDivisionError, ValueError):  # a zero below the line; thousands of digits
        return None
    if bool(g["sign"]) != bool(g["sign2"]):
        value = -value
    value *= _SCALES.get((g["scale"] or "").lower(), 1)
    return Number(match[0].strip(), value, bool(g["percent"]))


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[^\d.]", "", text))


def _word(text: str) -> Number | None:
    match = _WORD.search(text)
    if match is None:
        return None
    said = {name: word.lower() for name, word in match.groupdict().items() if word}
    return Number(match[0], Fraction(sum(_WORDS[word] for word in said.values())))


def same_number(said: Number, gold: Number) -> bool:
    """Equal up to rounding in the gold answer's own last place, where it has two or more decimals.

    >>> same_number(number_in("33.3333"), number_in("33.33")), same_number(number_in("33.3"), number_in("33"))
    (True, False)
    """
    values = [said.value, said.value / 100] if said.percent and not gold.percent else [said.value]
    decimals = re.search(r"\.(\d{2,})", gold.text)
    for value in values:
        if value == gold.value or (decimals and round(value, len(decimals[1])) == gold.value):
            return True
    return False


def numeric(item: Item, answer: str) -> Score:
    """1 if the number in the answer equals ``item.answer`` (a number, or a text with one)."""
    gold = number_in(str(item.answer))
    if gold is None:
        raise TaskError(f"the reference answer of item {item.id!r} has no number: {item.answer!r}")
    said = number_in(answer)
    if said is None:
        return Score(0.0, None, "no number in the answer")
    return Score(float(same_number(said, gold)), said.text)


def read_number(item: Item, answer: str) -> str | None:
    """The number as votes count it: its value, so that "$18.00" and "18" are one answer.

    >>> read_number(Item("q", "?"), "That makes $18.00."), read_number(Item("q", "?"), "No idea.")
    ('18', None)
    """
    said = number_in(answer)
    return None if said is None else f"{said.value}{'%' if said.percent else ''}"


# ---------------------------------------------------------------------------------- letters


class Choice(NamedTuple):
    """A letter, or ``None`` and why."""

    letter: str | None
    note: str = ""


def choice_in(text: str, options: int | Sequence[str]) -> Choice:
    """The letter a text chooses among A, B, ... (so many, or one per option text).

    In this order: behind a marker; the whole last line; the only letter that the text opens with
    ("B. Because"), names after a word of choosing ("I choose B"), in brackets or in bold, or calls
    right ("B is correct"); the text of exactly one option. Behind a marker that counts as well.
    A word that begins with a letter never counts, nor does "A" before a word, which is an article.

    >>> choice_in("The answer is **C**", 4).letter, choice_in("Apples are best", 4).letter
    ('C', None)
    """
    texts = [] if isinstance(options, int) else [_bare(option) for option in options]
    count = options if isinstance(options, int) else len(options)
    letters = "".join(chr(65 + i) for i in range(count))
    for segment in marked(text):
        chosen = _leading_letter(segment, letters)
        if chosen.letter or chosen.note:
            return chosen
        if (letter := _by_text(segment, texts)) is not None:
            return Choice(letter)
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or [""]
    if last := re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", lines[-1]):
        return Choice(last[1].upper())
    named = _named(text, letters)
    opening = _leading_letter(lines[0], letters, alone=True)
    if opening.letter:
        named.add(opening.letter)
    if len(named) == 1:
        return Choice(named.pop())
    if named:
        return Choice(None, "names several letters")
    if (letter := _by_text(text, texts)) is not None:
        return Choice(letter)
    return Choice(None, "no letter in the answer")


def choice(item: Item, answer: str) -> Score:
    """1 if the answer chooses the letter ``item.answer``; options in ``item.metadata["options"]``."""
    options = item.metadata.get("options", 26)
    found = choice_in(answer, options)
    return Score(float(found.letter == str(item.answer).strip().upper()), found.letter, found.note)


def read_choice(item: Item, answer: str) -> str | None:
    """The letter as votes count it."""
    return choice_in(answer, item.metadata.get("options", 26)).letter


_OPEN = r"[\s*_(\[{\"'“‘`$<]*(?:\\(?:text|mathrm|textbf|mathbf)\{)?"
_CONNECTIVES = r"(?:because|since|as|and|or|which|for|with|due|is|was|,|-|–|—|:)"


def _leading_letter(segment: str, letters: str, *, alone: bool = False) -> Choice:
    """The letter a segment begins with, if it is a label and not a word.

    ``alone``: without a marker before it, what follows the letter must be punctuation or nothing.
    """
    start = re.match(
        rf"{_OPEN}(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\s*(?:is\s*)?:?\s*{_OPEN})?",
        segment,
        re.I,
    )
    rest = segment[start.end() :] if start else segment
    label = re.match(rf"([{letters}{letters.lower()}])(?![\w'’])", rest)
    if label is None:
        return Choice(None)
    letter, after = label[1].upper(), rest[1:]
    if re.match(r"\W*\s+(?:is|are|can)(?:n['’]t|\s*not|\s+(?:wrong|incorrect|false))\b", after):
        return Choice(None)
    bare = re.match(r"\s+[^\W\d_]", after) is not None  # a word follows, with nothing but space between
    if bare and (
        alone or label[1].islower() or (letter == "A" and not re.match(rf"\s+{_CONNECTIVES}\b", after))
    ):
        return Choice(None)
    another = re.match(
        rf"[\s)\]}}*_.\"'”’]*(?:,|/|&|\bor\b|\band\b)\s*(?:option\s+)?{_OPEN}([{letters}])(?![\w'’]|\s+is\b)",
        after,
    )
    if another and another[1] != letter:
        return Choice(None, "names several letters")
    return Choice(letter)


def _named(text: str, letters: str) -> set[str]:
    """Letters named as labels anywhere: in brackets, in bold, or after a word of choosing."""
    both = letters + letters.lower()
    found = re.findall(
        rf"[(\[]([{both}])[)\]](?!\s+(?:is|are|can)(?:n['’]t|\s*not|\s+(?:wrong|incorrect|false))\b)|\*\*([{letters}])[.)]?\*\*",
        text,
    )
    found += re.findall(
        rf"\b(?:option|choice|letter|answer|choose|pick|select|chose|say|think|with|it'?s|is|be)\s+{_OPEN}([{letters}])(?![\w'’])(?!\s+[^\W\d_])",
        text,
    )
    found += re.findall(
        rf"(?<![\w'’])([{letters}])[)\]*]*\s+is\s+(?:the\s+)?(?:most\s+)?(?:correct|right|answer|best)\b",
        text,
    )
    return {
        letter.upper()
        for groups in found
        for letter in ([groups] if isinstance(groups, str) else groups)
        if letter
    }


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .*\"'`()$")


def _by_text(segment: str, texts: Sequence[str]) -> str | None:
    """The letter of the one option whose text is the segment."""
    if texts.count(said := _bare(segment)) == 1 and said:
        return chr(65 + texts.index(said))
    return None


# ------------------------------------------------------------------------------ short texts

Metric = Literal["f1", "em"]
Punctuation = Literal["drop", "space"]
_CLOSED = ("yes", "no", "noanswer")


def normalise_answer(text: str, punctuation: Punctuation = "drop") -> str:
    """Lower case, without punctuation and articles, spaces collapsed (SQuAD v1.1 ``evaluate-v1.1.py``).

    ``punctuation="space"`` is TriviaQA's: punctuation, also ``‘’´` ``, and underscores become spaces.

    >>> normalise_answer("The  Eiffel-Tower!"), normalise_answer("The  Eiffel-Tower!", "space")
    ('eiffeltower', 'eiffel tower')
    """
    text = text.lower()
    if punctuation == "space":
        text = "".join(" " if c in _TRIVIA_PUNCTUATION else c for c in text)
    else:
        text = "".join(c for c in text if c not in _PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


_PUNCTUATION = frozenset(string.punctuation)
_TRIVIA_PUNCTUATION = _PUNCTUATION | set("‘’´`_")


def exact_match(said: str, golds: Sequence[str], punctuation: Punctuation = "drop") -> float:
    """1.0 if the answer equals one of the gold answers after normalisation.

    Where nothing is left of either ("A", "The The"), they are compared as they stand.
    """
    return float(any(_equal(said, gold, punctuation) for gold in golds))


def _equal(said: str, gold: str, punctuation: Punctuation) -> bool:
    a, b = normalise_answer(said, punctuation), normalise_answer(gold, punctuation)
    return a == b if a or b else said.strip().casefold() == gold.strip().casefold()


def token_f1(said: str, golds: Sequence[str], punctuation: Punctuation = "drop") -> float:
    """The best F1 of the answer's words against one gold answer's, in [0, 1]."""
    return max((_f1(said, gold, punctuation) for gold in golds), default=0.0)


def _f1(said: str, gold: str, punctuation: Punctuation) -> float:
    a, b = normalise_answer(said, punctuation), normalise_answer(gold, punctuation)
    if a == b:
        return float(_equal(said, gold, punctuation))
    if a in _CLOSED or b in _CLOSED:
        return 0.0
    said_words, gold_words = Counter(a.split()), Counter(b.split())
    common = (said_words & gold_words).total()
    return 2 * common / (said_words.total() + gold_words.total()) if common else 0.0


def text_in(text: str) -> str | None:
    """The short answer a text gives: behind the last marker, else its last line; ``None`` if empty.

    Quotes, markdown, a LaTeX ``\\text{}`` and a final full stop around it are taken off.
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    for segment in [*marked(text), *lines[-1:]]:
        bare = re.sub(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", segment)
        bare = bare.strip(" \t*_`\"“”'#$")
        bare = re.sub(r"(?<!\.\w)(?<=[\w)\]\"”'’])[.。]$", "", bare).strip(" \t*_`\"“”'")
        if bare:
            return bare
    return None


def read_text(item: Item, answer: str) -> str | None:
    """The short answer as votes count it: normalised, "Yes, both are." counting as yes."""
    said = text_in(answer)
    if said is None:
        return None
    return normalise_answer(_closed(said)) or said.strip().casefold()


def _closed(said: str) -> str:
    """The bare yes or no if the answer is one, whatever it adds; else the answer as it is."""
    closed = re.match(r"\W*(yes|no)\b(?=\W*$|\s*[,.;:!–—-])", said, re.IGNORECASE)
    return closed[1] if closed else said


def golds_of(item: Item) -> list[str]:
    """The gold answers of an item: one text, or several that all count."""
    return [item.answer] if isinstance(item.answer, str) else [str(gold) for gold in item.answer]


def short_text(metric: Metric = "f1", punctuation: Punctuation = "drop") -> Scorer:
    """A scorer of short answers by token F1 or exact match; the note gives the other one.

    Where the gold answer is yes or no, "Yes, both are." counts as yes.
    """
    if metric not in ("f1", "em"):
        raise TaskError(f"unknown metric {metric!r}; choose f1 or em")

    def score(item: Item, answer: str) -> Score:
        golds = golds_of(item)
        said = text_in(answer)
        if said is None:
            return Score(0.0, None, "empty answer")
        if any(normalise_answer(gold) in _CLOSED[:2] for gold in golds):
            said = _closed(said)
        em, f1 = exact_match(said, golds, punctuation), token_f1(said, golds, punctuation)
        return Score(f1, said, f"em {em:.0f}") if metric == "f1" else Score(em, said, f"f1 {f1:.2f}")

    return score
