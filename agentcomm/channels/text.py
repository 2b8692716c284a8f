"""Where a text may be cut: between sentences, between words, between the characters a reader sees.

Characters are Unicode's extended grapheme clusters (UAX 29): a letter with its accents, a flag, an
emoji of several code points. :func:`whole_at` may call a few places inside that the standard
allows (around code points that this Python doesn't know yet, too), never the other way round; a test
compares it with the ``regex`` package.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

_WORD_ENDS = re.compile(r"\S(?=\s)|[\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
_ZWJ = "\u200d"
_ENDS = re.compile(
    r"(?P<wide>[。！？｡]+[\"'”’」』）)\]]*)"
    r"|(?P<stop>[.!?…]+[\"'”’»)\]]*(?=\s))"
    r"|(?P<line>\n+)"
)
_SHORT = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|cf|No|Fig|Eq|approx|[A-Z])\.$")
_PREPEND = frozenset(
    "\u0d4e\u1cf5\u1cf6\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011d46\U00011f02"
) | {chr(c) for c in range(0x11A84, 0x11A8A)}

Place = tuple[int, int]
"""Start and end of a piece of a text, in code points."""


def whole_at(text: str, i: int) -> bool:
    """Whether a cut before ``text[i]`` leaves every character whole.

    >>> [i for i in range(1, 5) if whole_at("e\u0301a🇩🇪", i)]
    [2, 3]
    """
    if not 0 < i < len(text):
        return True
    a, b = text[i - 1], text[i]
    if a < "\u0300" and b < "\u0300":
        # Latin: only a line break of two signs (and the soft hyphen) needs care.
        return not (a == "\r" and b == "\n") and "\xad" not in (a, b)
    if a == _ZWJ or a in _PREPEND or unicodedata.category(a) in ("Cf", "Cn"):
        return False
    if unicodedata.category(b) in ("Mn", "Me", "Mc", "Cf", "Cn") or 0x1F3FB <= ord(b) <= 0x1F3FF:
        return False
    if b in "\u0e33\u0eb3\uff9e\uff9f" or (_high(a) and 0xDC00 <= ord(b) <= 0xDFFF):
        return False
    if _flag(a) and _flag(b):
        run = 0
        while run < i and _flag(text[i - 1 - run]):
            run += 1
        return run % 2 == 0
    if _jamo(b) or ((0x1100 <= ord(a) <= 0x115F or 0xA960 <= ord(a) <= 0xA97F) and _hangul(b)):
        return False
    return not _conjunct(text, i)


def _high(c: str) -> bool:
    return 0xD800 <= ord(c) <= 0xDBFF


def _flag(c: str) -> bool:
    return 0x1F1E6 <= ord(c) <= 0x1F1FF


def _jamo(c: str) -> bool:
    """A vowel or final of a Korean syllable: it never stands alone."""
    return 0x1160 <= ord(c) <= 0x11FF or 0xD7B0 <= ord(c) <= 0xD7FF


def _hangul(c: str) -> bool:
    return 0x1100 <= ord(c) <= 0x11FF or 0xA960 <= ord(c) <= 0xA97F or 0xAC00 <= ord(c) <= 0xD7FF


def _conjunct(text: str, i: int) -> bool:
    """Whether ``text[i]`` is joined to what is before it by a virama."""
    if unicodedata.category(text[i]) != "Lo":
        return False
    while i > 0 and unicodedata.category(text[i - 1]) in ("Mn", "Mc", "Me", "Cf"):
        i -= 1
        if unicodedata.combining(text[i]) == 9:
            return True
    return False


class Uncut:
    """Pieces that no cut may go through."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = sorted(places)
        self._starts = [start for start, _ in self._places]

    def __contains__(self, i: int) -> bool:
        at = bisect_left(self._starts, i) - 1
        return at >= 0 and i < self._places[at][1]


def sentences(text: str, places: Sequence[Place] = ()) -> list[Place]:
    """The text's sentences and lines, in order, each with the white space after it.

    They cover the text; none ends inside one of ``places``.

    >>> text = "Dr. Ada has 3.5 cats. Ben? None!"
    >>> [text[a:b] for a, b in sentences(text)]
    ['Dr. Ada has 3.5 cats. ', 'Ben? ', 'None!']
    """
    found: list[Place] = []
    uncut = Uncut(places)
    start = 0
    for match in _ENDS.finditer(text):
        end = match.end()
        while end < len(text) and text[end].isspace():
            end += 1
        if end <= start or end in uncut or match.end() in uncut or not whole_at(text, end):
            continue
        if match["stop"] is not None and (
            _SHORT.search(text, max(0, match.end() - 10), match.end()) or text[end : end + 1].islower()
        ):
            continue
        if not text[start:end].strip():  # blank lines belong to what is before them
            if found:
                found[-1] = (found[-1][0], end)
                start = end
            continue
        found.append((start, end))
        start = end
    if start < len(text):
        if text[start:].strip() or not found:
            found.append((start, len(text)))
        else:
            found[-1] = (found[-1][0], len(text))
    return found


def sentence_cuts(text: str, places: Sequence[Place] = ()) -> list[int]:
    """Where the text may be cut between sentences, its ends not counted."""
    return [end for _, end in sentences(text, places)[:-1]]


def word_cuts(text: str, places: Sequence[Place] = ()) -> list[int]:
    """Where it may be cut between words; Chinese and Japanese signs count as words."""
    uncut = Uncut(places)
    found = (m.end() for m in _WORD_ENDS.finditer(text))
    return [i for i in found if 0 < i < len(text) and whole_at(text, i) and i not in uncut]


def character_cuts(text: str, places: Sequence[Place] = ()) -> list[int]:
    """Where it may be cut between the characters a reader sees."""
    uncut = Uncut(places)
    return [i for i in range(1, len(text)) if whole_at(text, i) and i not in uncut]
