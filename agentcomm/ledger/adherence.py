"""Adherence: did channels keep to what they were asked, edge by edge, and what did it save?

A delivery is ``compressed``, ``cut`` (its channel's own way did not fit), ``passed`` whole or
``failed``; each counts once, however often it is read again. Tokens are the reader's, as the channel
counted them; those of the channel's own model calls stand beside, and ``saved`` is net of them: it
may be negative. A message that is read again from memory is paid for again, which ``saved`` does not
count; the edge's tokens in a :class:`~agentcomm.ledger.usage.UsageReport` do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentcomm.ledger.rows import ChannelRow
from agentcomm.ledger.usage import ARROW

_CODE = re.compile(r"[a-z]+(?:_[a-z]+)*")
"""A reason that can be counted; others are sentences."""


@dataclass
class EdgeAdherence:
    """What a channel did on one edge."""

    channel: str
    deliveries: int = 0
    compressed: int = 0
    cut: int = 0
    passed: int = 0
    failed: int = 0
    adherent: int = 0
    """Deliveries on which the channel's model or method did as it was told."""
    over_budget: int = 0
    """Deliveries read at more tokens than the budget: passed whole for a reason, never cut ones."""
    budget: int | None = None
    """Tokens asked for, the most of any delivery."""
    original_tokens: int = 0
    tokens: int = 0
    """Sums over the deliveries whose tokens were counted."""
    uncounted: int = 0
    """Deliveries whose tokens were not counted (``truncate(characters)``, channels of a user's own)."""
    own_tokens: int = 0
    """Input and output tokens of the channel's own model calls."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def saved(self) -> int | None:
        """Tokens that were not read, less the channel's own; ``None`` if some weren't counted."""
        if self.uncounted:
            return None
        return self.original_tokens - self.tokens - self.own_tokens

    def add(self, row: ChannelRow) -> None:
        """Count one more delivery."""
        self.deliveries += 1
        self.compressed += row.status == "compressed"
        self.cut += row.status == "cut"
        self.passed += row.status == "passed"
        self.failed += row.status == "failed"
        self.adherent += row.adherent
        if row.budget is not None:
            self.budget = max(self.budget or 0, row.budget)
            self.over_budget += row.tokens is not None and row.tokens > row.budget
        for reason in row.reason.split(", "):
            code, colon, _ = reason.partition(":")
            if _CODE.fullmatch(code):
                self.reasons[code] += 1
            if colon:
                break  # what follows is somebody's words
        if row.status == "failed":
            return  # nothing was read, so nothing was saved
        if row.tokens is None or row.original_tokens is None:
            self.uncounted += 1
        else:
            self.tokens += row.tokens
            self.original_tokens += row.original_tokens

    def __str__(self) -> str:
        done = f"{self.compressed} compressed, {self.cut} cut, {self.passed} whole, {self.failed} failed"
        why = ", ".join(f"{reason} {n}" for reason, n in sorted(self.reasons.items()))
        return f"{done} ({why})" if why else done

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "channel": self.channel,
            "deliveries": self.deliveries,
            "compressed": self.compressed,
            "cut": self.cut,
            "passed": self.passed,
            "failed": self.failed,
            "adherent": self.adherent,
            "over_budget": self.over_budget,
            "budget": self.budget,
            "original_tokens": self.original_tokens,
            "tokens": self.tokens,
            "uncounted": self.uncounted,
            "own_tokens": self.own_tokens,
            "saved": self.saved,
            "reasons": dict(sorted(self.reasons.items())),
            "text": str(self),
        }


def adherence(rows: Iterable[ChannelRow], own_tokens: Mapping[str, int]) -> dict[str, EdgeAdherence]:
    """By ``"sender->reader"``, sorted; ``own_tokens`` are ``UsageReport.channel_tokens_by_edge()``."""
    edges: dict[str, EdgeAdherence] = {}
    for row in rows:
        name = f"{row.sender}{ARROW}{row.reader}"
        edges.setdefault(name, EdgeAdherence(row.channel, own_tokens=own_tokens.get(name, 0))).add(row)
    return dict(sorted(edges.items()))
