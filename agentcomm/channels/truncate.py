"""Truncate: the beginning, the end or both ends of a message; the plainest way to say less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from agentcomm.channels.budget import Keep, Meter, fit, one_of, whole_number
from agentcomm.channels.text import whole_at
from agentcomm.errors import ConfigError, GraphError
from agentcomm.graph import Edge
from agentcomm.message import Compression, Delivery, Message
from agentcomm.prompting import Turn


@dataclass(frozen=True)
class Truncate:
    """At most ``tokens`` tokens of the reader's tokenizer, or ``characters`` characters.

    With ``tokens`` the cut is between sentences where that leaves at least half of the budget,
    else between words, and never through code, JSON, a URL, a quotation or a number. ``keep``:
    ``"head"``, ``"tail"`` or ``"both"``.
    """

    characters: int | None = None
    tokens: int | None = None
    keep: Keep = "head"

    def __post_init__(self) -> None:
        if (self.characters is None) == (self.tokens is None):
            raise ConfigError("truncate: give either characters= or tokens=")
        if self.tokens is not None:
            whole_number("truncate", "tokens", self.tokens)
        elif not isinstance(self.characters, int) or self.characters < 1:
            raise GraphError(f"truncate: characters={self.characters}; it must be at least 1")
        one_of("truncate", "keep", self.keep, get_args(Keep))
        if self.characters is not None and self.keep != "head":
            raise ConfigError(f"truncate: keep={self.keep!r} needs tokens=")

    @property
    def name(self) -> str:
        return "truncate"

    def spec(self) -> dict[str, Any]:
        if self.characters is not None:
            return {"name": self.name, "characters": self.characters}
        keep = {} if self.keep == "head" else {"keep": self.keep}
        return {"name": self.name, "tokens": self.tokens, **keep}

    async def deliver(self, message: Message, edge: Edge, turn: Turn | None) -> Delivery:
        text = message.text
        if self.characters is not None:
            cut, note = _first(text, self.characters)
            return Delivery(edge.key, message, cut, self.name, note)
        assert self.tokens is not None
        meter = await Meter.of(turn.desk if turn is not None else None)
        size = await meter.count(text)
        if size <= self.tokens:
            made = Compression("passed", self.tokens, size, size, meter.by, reason="too_short")
            return Delivery(edge.key, message, text, self.name, str(made), made)
        out = await fit(text, self.tokens, meter, self.keep)
        got = await meter.count(out)
        reason = "" if out else "nothing_fits"
        made = Compression("compressed", self.tokens, got, size, meter.by, reason=reason)
        return Delivery(edge.key, message, out, self.name, str(made), made)


def _first(text: str, characters: int) -> tuple[str, str]:
    """Never half a character, and never half a word if a space is near the end."""
    if len(text) <= characters:
        return text, "short enough"
    at = characters
    while at and not whole_at(text, at):
        at -= 1
    cut = text[:at]
    space = cut.rfind(" ")
    if not text[at].isspace() and space > characters // 2:
        cut = cut[:space]
    cut = cut.rstrip()
    return cut, f"{len(text)} to {len(cut)} characters"
