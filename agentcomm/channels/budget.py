"""Budget: counting a text as its reader will, and making it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentcomm.channels.protect import find
from agentcomm.channels.text import Place, character_cuts, sentence_cuts, word_cuts
from agentcomm.errors import ChannelError, ConfigError
from agentcomm.prompting import Desk

Keep = Literal["head", "tail", "both"]
ESTIMATE = "bytes/3"
GAP = " […] "
"""Stands where the middle of a text was left out."""
_TRIES = 4


@dataclass(frozen=True)
class Meter:
    """Counts tokens of one delivery, always in the same way."""

    desk: Desk | None = None
    by: str = ESTIMATE

    @classmethod
    async def of(cls, desk: Desk | None) -> Meter:
        """The reader's tokenizer where it answers, else the estimate."""
        if desk is None or await desk.count("a") is None:
            return cls()
        return cls(desk, desk.counts_by)

    async def count(self, text: str) -> int:
        """Tokens of ``text``.

        Raises
        ------
        ChannelError
            If the tokenizer that answered before no longer does.
        """
        if self.desk is None:
            return -(-len(text.encode("utf-8", "surrogatepass")) // 3)
        tokens = await self.desk.count(text) if text else 0
        if tokens is None:
            raise ChannelError(f"the tokenizer of {self.by} stopped answering")
        return tokens


async def fit(text: str, limit: int, meter: Meter, keep: Keep = "head") -> str:
    """The most of a text that takes at most ``limit`` tokens, cut through nothing protected.

    Cut between sentences if that leaves at least half of the limit, else between words, else
    between characters. ``keep`` says which end stays; ``"both"`` marks the gap. May be empty.
    """
    text = text.strip()
    if limit <= 0:
        return ""
    if await meter.count(text) <= limit:
        return text
    places = [(s.start, s.end) for s in find(text)]
    if keep == "both":
        left = limit - await meter.count(GAP)
        head = await _end(text, left - left // 2, meter, places, "head")
        tail = await _end(text, left - await meter.count(head), meter, places, "tail")
        for _ in range(_TRIES):
            out = f"{head}{GAP}{tail}"
            over = await meter.count(out) - limit
            if head and tail and over <= 0 and len(out) < len(text):
                return out
            tail = await _end(text, left - await meter.count(head) - max(over, 1), meter, places, "tail")
        keep = "head"
    return await _end(text, limit, meter, places, keep)


async def _end(text: str, limit: int, meter: Meter, places: Sequence[Place], keep: Keep) -> str:
    best = ""
    for cuts in (sentence_cuts, word_cuts, character_cuts):
        found = await _longest(text, cuts(text, places), limit, meter, keep)
        if len(found) > len(best):
            best = found
        if best and (cuts is word_cuts or 2 * await meter.count(best) >= limit):
            break
    return best


async def _longest(text: str, cuts: Sequence[int], limit: int, meter: Meter, keep: Keep) -> str:
    """The longest piece from an end to one of ``cuts`` that fits; tokens grow (nearly) with length."""

    def piece(n: int) -> str:
        if n == 0:
            return ""
        return text[: cuts[n - 1]].rstrip() if keep == "head" else text[cuts[-n] :].lstrip()

    low, high = 0, len(cuts)
    while low < high:
        middle = (low + high + 1) // 2
        if await meter.count(piece(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    while low and await meter.count(piece(low)) > limit:
        low -= 1
    return piece(low)


def whole_number(channel: str, name: str, value: Any) -> int:
    """``value`` as a whole number of at least 1.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{channel}: {name}={value!r}; it must be a whole number of at least 1")
    return value


def one_of(channel: str, name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{channel}: {name}={value!r}; there are: {', '.join(known)}")
