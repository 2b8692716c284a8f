"""Truncate: the beginning of a message, cut at a word; the plainest way to say less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentcomm.errors import GraphError
from agentcomm.graph import Edge
from agentcomm.message import Delivery, Message


@dataclass(frozen=True)
class Truncate:
    """Delivers at most ``characters`` characters, never half a word if a space is near the end."""

    characters: int

    def __post_init__(self) -> None:
        if self.characters < 1:
            raise GraphError(f"truncate: characters={self.characters}; it must be at least 1")

    @property
    def name(self) -> str:
        return "truncate"

    def spec(self) -> dict[str, Any]:
        return {"name": self.name, "characters": self.characters}

    async def deliver(self, message: Message, edge: Edge, turn: Any) -> Delivery:
        text = message.text
        if len(text) <= self.characters:
            return Delivery(edge.key, message, text, self.name, "short enough")
        cut = text[: self.characters]
        space = cut.rfind(" ")
        if not text[self.characters].isspace() and space > self.characters // 2:
            cut = cut[:space]
        cut = cut.rstrip()
        return Delivery(edge.key, message, cut, self.name, f"{len(text)} to {len(cut)} characters")
