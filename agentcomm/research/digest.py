"""Digest: the channel that compresses what a search found, chunk by chunk, and keeps what is relevant.

One request a chunk, side by side; a model says in JSON what the chunk tells and whether it is relevant,
and only relevant ones go on. A reply that can't be read is asked for once more and then dropped and
counted: it is not taken for relevant. So is a chunk whose call failed, unless a limit or the user's own
mistake is the reason: that fails the delivery. What goes on is a message for the agent
:class:`~agentcomm.research.agents.Notes`; both messages stand in the ledger's channel rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import anyio

from agentcomm import channels
from agentcomm.channels.budget import Meter
from agentcomm.errors import AgentCommError, BackendError, ConfigError, LimitExceeded, RunError
from agentcomm.graph import Channel, Edge
from agentcomm.message import Compression, Delivery, EdgeKey, Message
from agentcomm.prompting import Desk, Prompt, PromptMessage, Segment, Turn
from agentcomm.research.replies import own, read_note, read_own

SYSTEM = "You read one text at a time for a colleague who writes a report and sees only your notes."
ASKED = "The report answers this question:\n{question}\n\n"
TASKS = "Look above all for:\n{tasks}\n\n"
INSTRUCTION = (
    "Does the text help? Reply with one JSON object and nothing else: "
    '{{"explanation": "...", "relevant": true}}. '
    'In "explanation", write in at most {words} words the facts of the text that help, with their names, '
    'numbers and dates, and nothing that the text does not say. If the text does not help, set "relevant" to '
    'false and leave "explanation" empty.'
)
AGAIN = "\nWrite nothing before or after the JSON object, and close it."
WORDS_PER_TOKEN = 0.5
"""JSON and its keys take their share."""
SCHEMA: Mapping[str, Any] = {
    "title": "note",
    "type": "object",
    "properties": {"explanation": {"type": "string"}, "relevant": {"type": "boolean"}},
    "required": ["explanation", "relevant"],
    "additionalProperties": False,
}

Outcome = Literal["relevant", "irrelevant", "unreadable", "failed"]


def from_spec(spec: Mapping[str, Any]) -> Channel:
    """The channel that ``spec()`` described: a digest, or one of :mod:`agentcomm.channels`, which raises."""
    return channels.from_spec(spec, {Digest.name: Digest})


class Read(NamedTuple):
    """What came of one chunk."""

    outcome: Outcome
    explanation: str = ""
    retried: bool = False
    why: str = ""


@dataclass(frozen=True)
class Digest:
    """Compresses each chunk of a search's message and keeps the relevant ones.

    Parameters
    ----------
    model:
        The compressor's model string; ``None`` is the run's default.
    tokens:
        Longest reply for one chunk.
    structured:
        Whether to ask the backend for the JSON schema, too (a few servers refuse one).
    """

    model: str | None = None
    tokens: int = 300
    structured: bool = True

    name: ClassVar[str] = "digest"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"digest: tokens={self.tokens}; it must be at least 1")

    @property
    def models(self) -> tuple[str | None, ...]:
        return (self.model,)

    def spec(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.model,
            "tokens": self.tokens,
            "structured": self.structured,
        }

    async def deliver(self, message: Message, edge: Edge, turn: Turn) -> Delivery:
        pieces = read_own(message.text, "search")["pieces"]
        if turn.desk is None:
            raise ConfigError("digest: it calls a model, so it works only on an edge of a running graph")
        read = await self._read_all(pieces, edge.key, turn, turn.desk)
        text = own(
            "digest",
            relevant=[
                {**{k: piece[k] for k in ("source", "title", "at")}, "explanation": note.explanation}
                for piece, note in zip(pieces, read, strict=True)
                if note.outcome == "relevant"
            ],
            chunks=len(pieces),
            irrelevant=_count(read, "irrelevant"),
            unreadable=_count(read, "unreadable"),
            failed=_count(read, "failed"),
            retried=sum(note.retried for note in read),
            why=next((note.why for note in read if note.why), ""),
        )
        meter = await Meter.of(turn.desk)
        reasons = [name for name in ("unreadable", "failed") if _count(read, name)]
        if pieces and not _count(read, "relevant"):
            reasons.append("nothing_relevant")
        made = Compression(
            "compressed",
            None,
            await meter.count(text),
            await meter.count(message.text),
            meter.by,
            adherent=not any(note.outcome == "unreadable" for note in read),
            reason=", ".join(reasons),
        )
        return Delivery(edge.key, message, text, self.name, str(made), made)

    async def _read_all(
        self, pieces: Sequence[Mapping[str, Any]], edge: EdgeKey, turn: Turn, desk: Desk
    ) -> list[Read]:
        """Every chunk side by side; the endpoint's limiter says how many are in flight.

        Raises
        ------
        AgentCommError
            What forbids every call (a limit, a mistake of the user's, nobody listening), once those in
            flight have ended; or why each single one failed.
        """
        read: dict[int, Read] = {}
        stops: dict[int, AgentCommError] = {}
        failures: dict[int, RunError] = {}

        async def one(i: int) -> None:
            if stops:
                return
            try:
                read[i] = await self._read(pieces[i], edge, turn, desk)
            except AgentCommError as error:
                # Only this call's own failure leaves the others a chance.
                if not isinstance(error, BackendError) or error.fatal:
                    stops[i] = error
                else:
                    failures[i] = error
                    read[i] = Read("failed", why=f"{error.kind}: {error}")

        async with anyio.create_task_group() as group:
            for i in range(len(pieces)):
                group.start_soon(one, i)
        if stops:
            # A limit goes first: it says what to raise, others are often its consequence.
            raise min(stops.items(), key=lambda e: (not isinstance(e[1], LimitExceeded), e[0]))[1]
        if pieces and len(failures) == len(pieces):
            raise failures[0]
        return [read[i] for i in range(len(pieces))]

    async def _read(self, piece: Mapping[str, Any], edge: EdgeKey, turn: Turn, desk: Desk) -> Read:
        for attempt in (0, 1):
            reply = await desk.ask(
                self.prompt(piece, edge, turn.item.question, attempt),
                model=self.model,
                max_tokens=self.tokens,
                temperature=None,
                attempt=attempt,
                schema=SCHEMA if self.structured else None,
            )
            note = read_note(reply.text)
            if note is not None:
                outcome: Outcome = "relevant" if note.relevant else "irrelevant"
                return Read(outcome, note.explanation, retried=attempt > 0)
        return Read("unreadable", retried=True)

    def prompt(self, piece: Mapping[str, Any], edge: EdgeKey, question: str, attempt: int) -> Prompt:
        """What the compressor is told of one chunk: what all chunks share first."""
        user = [
            Segment("task", ASKED.format(question=question)),
            Segment(edge, f"Text from {piece['source']}:\n{piece['text']}\n\n"),
        ]
        if tasks := [task for task in piece["tasks"] if task]:
            user.append(Segment("task", TASKS.format(tasks="\n".join(f"- {task}" for task in tasks))))
        told = INSTRUCTION.format(words=max(10, int(self.tokens * WORDS_PER_TOKEN)))
        user.append(Segment("system", told + (AGAIN if attempt else "")))
        return Prompt(
            (PromptMessage("system", (Segment("system", SYSTEM),)), PromptMessage("user", tuple(user)))
        )


def _count(read: Sequence[Read], outcome: str) -> int:
    return sum(note.outcome == outcome for note in read)
