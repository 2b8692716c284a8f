"""Turn to prompt: what an agent has before it, as chat messages laid out for the prefix cache.

The order is ``[team's system text] [task: context, question] [role, view] [messages, oldest
first]``: what all agents share comes first, so that a team pays for a long context once. From
one round to the next bytes are only appended: an agent with a memory finds its earlier rounds
exactly as they were, its own replies as assistant messages; one without finds the same
beginning and only this round's messages.

Every piece of text is tagged with the *part* that pays for it: ``system`` (the team's text and
the agent's role), ``task`` (context, question, view), ``memory`` (its own earlier replies), or
an edge (the message, re-read for as long as it is remembered). What the chat template adds is
the part ``template``, known only from the server's total.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentcomm.graph import Agent, AgentGraph
from agentcomm.message import ChatMessage, Delivery, EdgeKey, Message, Reply
from agentcomm.schedule import TurnRecord
from agentcomm.task import Item

Part = Literal["system", "task", "memory"] | EdgeKey

NOTHING_NEW = "Nobody wrote to you. Give your answer again, improved if you can."


class Desk(Protocol):
    """What a channel may ask of the episode it works in, for one edge; made by the episode."""

    async def ask(
        self,
        prompt: Prompt,
        *,
        model: str | None,
        max_tokens: int,
        temperature: float | None,
        attempt: int,
        schema: Mapping[str, Any] | None = None,
    ) -> Reply:
        """One model call that the edge pays for, in phase ``compress``, within the reader's limits.

        ``schema`` is a JSON schema that the reply should follow, where the backend offers it.

        Its seed derives from the run's, the item, the sample, the sender, the prompt and ``attempt``:
        readers of the same message get the same text.

        Raises
        ------
        RunError
            A limit, or what the last attempt failed with.
        """
        ...

    async def count(self, text: str) -> int | None:
        """Tokens of ``text`` by the reader's model; ``None`` where it can't count."""
        ...

    @property
    def counts_by(self) -> str:
        """The reader's model string; empty for a function agent."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent has before it when it speaks; function agents get it as it is.

    ``inbox`` are this round's messages as delivered, ``past`` the agent's own earlier turns
    (empty without a memory), ``seed`` a seed of this turn's own, ``sample`` which run of the item it is. Channels get the turn of the
    agent that is going to read: its inbox is then what lies before the message, and ``desk`` is
    how they call a model.
    """

    item: Item
    agent: Agent
    round: int
    inbox: tuple[Delivery, ...] = ()
    past: tuple[TurnRecord, ...] = ()
    seed: int = 0
    sample: int = 0
    desk: Desk | None = field(default=None, compare=False, repr=False)

    @property
    def view(self) -> str:
        """The text of the item that this agent sees beside the question."""
        return self.item.view(self.agent.view)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of prompt text and the part that pays for it.

    ``delivery`` is the message it shows, if it shows one; ``again`` marks one from an earlier
    round, read again from memory.
    """

    part: Part
    text: str
    delivery: Delivery | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class PromptMessage:
    role: Literal["system", "user", "assistant"]
    segments: tuple[Segment, ...]

    @property
    def content(self) -> str:
        return "".join(s.text for s in self.segments)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Chat messages whose every piece is tagged with the part that pays for it."""

    messages: tuple[PromptMessage, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(s for m in self.messages for s in m.segments)

    def chat(self) -> tuple[ChatMessage, ...]:
        return tuple(ChatMessage(m.role, m.content) for m in self.messages)


def build(graph: AgentGraph, turn: Turn) -> Prompt:
    """The prompt of a turn. Pure: equal turns give equal bytes."""
    messages: list[PromptMessage] = []
    if graph.system:
        messages.append(PromptMessage("system", (Segment("system", graph.system),)))
    opening = _opening(turn)
    # A turn that failed left no reply to answer to: its messages are joined with the next
    # round's, since many chat templates refuse two user messages in a row.
    pending: list[Segment] = opening
    for record in turn.past:
        pending += _inbox(record.inbox, nonempty=bool(pending), again=True)
        pending = pending or [Segment("system", NOTHING_NEW)]
        if isinstance(record.outcome, Message):
            messages.append(PromptMessage("user", tuple(pending)))
            messages.append(PromptMessage("assistant", (Segment("memory", record.outcome.text),)))
            pending = []
    pending += _inbox(turn.inbox, nonempty=bool(pending), again=False)
    messages.append(PromptMessage("user", tuple(pending or [Segment("system", NOTHING_NEW)])))
    return Prompt(tuple(messages))


def _opening(turn: Turn) -> list[Segment]:
    pieces: list[tuple[Part, str]] = [
        ("task", turn.item.context if turn.agent.context else ""),
        ("task", turn.item.question),
        ("system", turn.agent.role),
        ("task", turn.view),
    ]
    segments: list[Segment] = []
    for part, text in pieces:
        if text:
            segments.append(Segment(part, f"\n\n{text}" if segments else text))
    return segments


def _inbox(inbox: tuple[Delivery, ...], *, nonempty: bool, again: bool) -> list[Segment]:
    segments: list[Segment] = []
    for delivery in inbox:
        if not delivery.text.strip():  # nothing said: nothing to read, nothing to pay
            continue
        gap = "\n\n" if nonempty or segments else ""
        text = f"{gap}From {delivery.edge.sender}:\n{delivery.text}"
        segments.append(Segment(delivery.edge, text, delivery, again))
    return segments
