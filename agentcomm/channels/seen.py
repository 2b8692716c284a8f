"""Dedup and reference: what the reader has before it already isn't sent again.

Seen is what stands in the reader's prompt ahead of this message, byte for byte as it was sent: the
task (question, context, its view), its earlier rounds if it has a memory, and this round's messages
in reading order. Nothing that was sent is ever changed: a handle points back, by who said it and
its first words, at a text that stays where it is. A reader without a memory has seen less, so more
is sent to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from agentcomm.channels.base import Compressor, Made
from agentcomm.channels.protect import Kind
from agentcomm.channels.relevance import Job
from agentcomm.channels.text import sentences
from agentcomm.message import Message
from agentcomm.prompting import Turn

GAP = "[…]"
FIRST_WORDS = 3
_MIN = 24
"""Characters below which a sentence may well be said twice for a reason."""


@dataclass(frozen=True, kw_only=True)
class _Seen(Compressor):
    """Replaces sentences that stand before the reader already, or twice in the message."""

    protect: tuple[Kind, ...] = ()
    """What is left out stands before the reader already."""

    needs_budget: ClassVar[bool] = False
    always: ClassVar[bool] = True
    in_order: ClassVar[bool] = True

    async def shorten(self, job: Job) -> Made:
        before = _before(job.turn) if job.turn is not None else {}
        own: dict[str, str] = {}
        out: list[str] = []
        gap: list[tuple[str, str]] = []
        left_out = 0

        async def close() -> None:
            """End a run of sentences that were seen: by a handle if that is shorter."""
            nonlocal left_out
            if not gap:
                return
            whole = "".join(text for text, _ in gap)
            tail = whole[len(whole.rstrip()) :]
            handle = self.handle(gap[0][1], gap[0][0])
            if await job.meter.count(handle) < await job.meter.count(whole.strip()):
                out.append(handle + tail)
                left_out += len(gap)
            else:
                out.append(whole)
            gap.clear()

        for start, end in sentences(job.text, job.places):
            piece = job.text[start:end]
            key = _key(piece)
            where = before.get(key) or own.get(key) if len(key) >= _MIN else None
            if where is None:
                await close()
                out.append(piece)
                own.setdefault(key, "above")
                continue
            if gap and gap[0][1] != where:
                await close()
            gap.append((piece, where))
        await close()
        if not left_out:
            return Made(None, reason="nothing_seen_before") if job.budget is None else Made(job.text)
        return Made("".join(out).strip(), reason=f"{left_out} sentences seen before")

    def handle(self, where: str, text: str) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Dedup(_Seen):
    """Leaves out what the reader has seen; a mark shows that something was left out."""

    name: ClassVar[str] = "dedup"

    def handle(self, where: str, text: str) -> str:
        return GAP


@dataclass(frozen=True, kw_only=True)
class Reference(_Seen):
    """Sends a handle for what the reader has seen: ``[critic: "The first step…"]``."""

    name: ClassVar[str] = "reference"

    def handle(self, where: str, text: str) -> str:
        words = text.split()
        first = " ".join(words[:FIRST_WORDS])
        return f'[{where}: "{first}…"]' if len(words) > 1 else f"[{where}]"


def _key(text: str) -> str:
    """A sentence up to white space."""
    return re.sub(r"\s+", " ", text).strip()


def _before(turn: Turn) -> dict[str, str]:
    """Sentences in the reader's prompt ahead of the message, and where each stands first."""
    found: dict[str, str] = {}
    item = turn.item
    shown = [("task", item.context if turn.agent.context else ""), ("task", item.question)]
    shown.append(("task", turn.view))
    for record in turn.past:
        shown += [(d.edge.sender, d.text) for d in record.inbox]
        if isinstance(record.outcome, Message):
            shown.append(("you", record.outcome.text))
    shown += [(d.edge.sender, d.text) for d in turn.inbox]
    for where, text in shown:
        for start, end in sentences(text):
            found.setdefault(_key(text[start:end]), where)
    return found
