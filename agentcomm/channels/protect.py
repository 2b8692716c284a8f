"""Protect: what of a text must stay as it is, and whether it did.

Protected are pieces whose meaning breaks when a character changes: code, JSON, URLs, quotations and
everything with a digit in it. A piece counts as kept when the very same characters stand in the
shorter text; a number, when it stands there as a number of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from agentcomm.channels.text import Place
from agentcomm.errors import ConfigError

Kind = Literal["code", "json", "urls", "quotes", "numbers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TRIES = 200
"""Brackets that turn out to open no JSON before the search for it is given up."""

_CODE = re.compile(r"```.*?(?:```|\Z)|(?<!`)`[^`\n]+`(?!`)", re.DOTALL)
_URL = re.compile(
    r"\b(?:https?|ftp|file)://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]]|\bwww\.[^\s<>\"'`]*\w"
    r"|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
)
_QUOTE = re.compile(
    r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|„[^“”\n]{1,300}[“”]|«[^»\n]{1,300}»|「[^」\n]{1,300}」"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?<!\w)[-−+])?[$€£¥]?[A-Za-z_]*\d[A-Za-z0-9_]*(?:[.,:/'\-–][A-Za-z_]*\d[A-Za-z0-9_]*)*[%‰°]?"
)
_MARKER = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
"""The number of an item in a list: it says nothing."""


class Span(NamedTuple):
    """A protected piece of a text."""

    start: int
    end: int
    kind: Kind


def check_kinds(channel: str, kinds: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds, in the order of :data:`KINDS`.

    Raises
    ------
    ConfigError
        If one is unknown.
    """
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    if strange := sorted(map(str, wanted - set(KINDS))):
        raise ConfigError(f"{channel}: protect={', '.join(strange)}; there are: {', '.join(KINDS)}")
    return tuple(k for k in KINDS if k in wanted)


def find(text: str, kinds: Sequence[Kind] = KINDS) -> list[Span]:
    """The protected pieces of these kinds, in order; where two overlap, the kind listed first.

    >>> [(text, kind) for text, kind in pieces('It took `f(x)` 3.5 s, see https://a.b/c?d=1.')]
    [('`f(x)`', 'code'), ('3.5', 'numbers'), ('https://a.b/c?d=1', 'urls')]
    """
    taken: list[Span] = []
    covered = bytearray(len(text))
    for kind in KINDS:
        if kind not in kinds:
            continue
        for start, end in _places(text, kind):
            if not any(covered[start:end]):
                covered[start:end] = b"\1" * (end - start)
                taken.append(Span(start, end, kind))
    return sorted(taken)


def pieces(text: str, kinds: Sequence[Kind] = KINDS) -> list[tuple[str, Kind]]:
    """What :func:`find` finds, as texts, each once."""
    return list(dict.fromkeys((text[s.start : s.end], s.kind) for s in find(text, kinds)))


def lost(text: str, kept: Sequence[tuple[str, Kind]]) -> list[str]:
    """Which of these pieces do not stand in ``text``, in order.

    >>> lost("It has 13 legs.", [("3", "numbers"), ("13", "numbers")])
    ['3']
    """
    numbers = set(_NUMBER.findall(text)) if any(kind == "numbers" for _, kind in kept) else set()
    return [
        piece for piece, kind in kept if (piece not in numbers if kind == "numbers" else piece not in text)
    ]


def _places(text: str, kind: Kind) -> Iterable[Place]:
    if kind == "json":
        return _json(text)
    if kind == "numbers":
        markers = {m.end() for m in _MARKER.finditer(text)}
        # A marker ends with its dot, the number before it.
        return [m.span() for m in _NUMBER.finditer(text) if m.end() + 1 not in markers]
    pattern = {"code": _CODE, "urls": _URL, "quotes": _QUOTE}[kind]
    return [m.span() for m in pattern.finditer(text)]


def _json(text: str) -> Iterable[Place]:
    decoder = json.JSONDecoder()
    at, tries = 0, 0
    while tries < _TRIES and (match := re.compile(r"[{\[]").search(text, at)):
        start = at = match.start()
        at += 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            tries += 1
            continue
        at = end
        if value:
            yield start, end
