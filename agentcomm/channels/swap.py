"""Swap: the reader reads something else than was said, from a table made beforehand.

For audits: the same run, but with another item's messages, with none, or with what they were made from.
What was said is on the delivery and in the ledger as ever. It can't be made from words or from a
configuration, since the table is what another run said; its hash is in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentcomm.graph import Edge
from agentcomm.message import Delivery, EdgeKey, Message, content_id
from agentcomm.prompting import Turn

Place = tuple[str, int, EdgeKey]
"""Item, sample and edge."""
Table = Mapping[Place, Mapping[int, str]]
"""What is read at a place, by the round in which the message was said."""


@dataclass(frozen=True)
class Swap:
    """Delivers ``table``'s text in place of what was said; nothing where it has none.

    A round that the table lacks (the other item's talk ended earlier) gets the last one before it, else
    the first one after.
    """

    arm: str
    table: Table = field(default_factory=dict, compare=False, repr=False)
    digest: str = ""

    def __post_init__(self) -> None:
        rows = sorted((*place, sorted(texts.items())) for place, texts in self.table.items())
        object.__setattr__(self, "digest", content_id(rows)[:12])

    @property
    def name(self) -> str:
        return "swap"

    def spec(self) -> dict[str, Any]:
        return {"name": self.name, "arm": self.arm, "table": self.digest}

    async def deliver(self, message: Message, edge: Edge, turn: Turn) -> Delivery:
        by_round = self.table.get((turn.item.id, turn.sample, edge.key), {})
        before = [r for r in by_round if r <= message.round]
        text = by_round[max(before) if before else min(by_round)] if by_round else ""
        return Delivery(edge.key, message, text, self.name, self.arm)
