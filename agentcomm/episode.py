"""Episode: one graph on one item, from the first wave to the decision.

:class:`Turns` is the bridge between an executor, which knows only the schedule, and the models:
its ``act`` delivers the inbox over the channels, builds the prompt, makes the metered call and
answers with a record. It never raises for what an agent, a channel or a server did wrong; the
failure is the record's outcome, and readers don't see it as text.

A channel that fails fails its *delivery*: the reader reads nothing of that message, as if its
sender had failed, and the turn's record and the ledger say why. Only what forbids the reader's own
call too (a limit, nobody listening any more, something only the user can mend) fails the turn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from agentcomm.backends.base import TokenCounter
from agentcomm.calls import Called, Calls, Place, derive_seed
from agentcomm.errors import BackendError, LedgerError, LimitExceeded, RunError, UserError
from agentcomm.executors.base import Executor
from agentcomm.graph import Agent, Edge
from agentcomm.ledger.limits import Limits, Scope
from agentcomm.ledger.rows import CallRow, ChannelRow, DeliveryRow, Phase
from agentcomm.ledger.tokens import count
from agentcomm.ledger.usage import UsageReport
from agentcomm.message import Compression, Delivery, Failure, Message, Outcome, Reply
from agentcomm.prompting import Prompt, Turn, build
from agentcomm.schedule import Inbox, Schedule, TurnRecord, in_order
from agentcomm.task import Item, Score


@dataclass(frozen=True)
class Spoke:
    """A turn has ended: its record, the calls and deliveries it cost (none for function agents)."""

    item: Item
    sample: int
    record: TurnRecord
    calls: tuple[CallRow, ...]
    deliveries: tuple[DeliveryRow, ...]


Listener = Callable[[Spoke], None]


@dataclass(frozen=True)
class Episode:
    """What came of one graph on one item.

    ``answer`` is the decision agent's text, ``None`` when it failed; ``failure`` is then the
    reason. ``records`` are all turns by round and agent, ``usage`` what they cost (replies that a
    resumed run reused included).
    """

    item: Item
    answer: str | None
    failure: Failure | None
    records: tuple[TurnRecord, ...]
    usage: UsageReport
    wall_s: float
    sample: int = 0
    score: Score | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said, by round and agent."""
        return tuple(r.outcome for r in self.records if isinstance(r.outcome, Message))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Turns that failed, by round and agent."""
        return tuple(r.outcome for r in self.records if isinstance(r.outcome, Failure))

    @property
    def failed_deliveries(self) -> tuple[Delivery, ...]:
        """Messages that a channel could not deliver, by round and reader; nobody read them."""
        return tuple(d for r in self.records for d in r.inbox if d.failed)

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass
class Turns:
    """Takes the turns of one episode; ``act`` is what executors call."""

    calls: Calls
    schedule: Schedule
    item: Item
    sample: int = 0
    phase: Phase = "evaluate"
    draw: int | None = None
    """What the seeds of its turns derive from; the sample by default. Episodes of one draw ask an
    agent that reads the same the very same request."""
    scope: Scope = field(default_factory=lambda: Scope("item", Limits()))
    agent_limits: Limits = field(default_factory=Limits)
    listen: Listener | None = None
    rows: list[CallRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    user_error: UserError | None = None
    """What only the user can mend; ``run_episode`` raises it once no call is in flight."""
    _agent_scopes: dict[str, Scope] = field(default_factory=dict)

    @property
    def drawn(self) -> int:
        return self.sample if self.draw is None else self.draw

    async def act(self, inbox: Inbox) -> TurnRecord:
        agent = self.schedule.graph.by_name[inbox.agent]
        turn = Turn(
            item=self.item,
            agent=agent,
            round=inbox.round,
            past=inbox.past,
            seed=derive_seed(self.calls.sampling.seed, self.item.id, self.drawn, inbox.agent, inbox.round),
            sample=self.sample,
        )
        delivered: tuple[Delivery, ...] = ()
        called: Called | None = None
        spent: list[CallRow] = []
        outcome: Outcome
        try:
            delivered, error = await self._deliver_all(inbox.letters, turn, spent)
            if error is not None:
                raise error
            turn = replace(turn, inbox=tuple([d for d in delivered if not d.failed]))
            if agent.act is not None:
                outcome = self._said(agent, inbox.round, await agent.act(turn))
            else:
                prompt = build(self.schedule.graph, turn)
                called = await self.call(agent, inbox.round, prompt, turn.seed)
                reply = called.reply
                outcome = Message(
                    sender=agent.name,
                    round=inbox.round,
                    text=reply.text,
                    item=self.item.id,
                    usage=reply.usage,
                    finish_reason=reply.finish_reason,
                    call_id=called.row.id,
                    note=_schema_note(agent, reply.text),
                )
        except Exception as error:
            if isinstance(error, UserError) and self.user_error is None:
                self.user_error = error
            outcome = _failure(agent.name, inbox.round, error)
        record = TurnRecord(agent.name, inbox.round, delivered, outcome)
        if self.listen:
            if called:
                spent.append(called.row)
            read = called.deliveries if called else ()
            self.listen(Spoke(self.item, self.sample, record, tuple(spent), read))
        return record

    async def call(
        self, agent: Agent, round: int, prompt: Prompt, seed: int, *, edge: Edge | None = None
    ) -> Called:
        """A metered call in this episode; a channel's names its ``edge``, which then pays."""
        place = Place(
            item=self.item.id,
            agent=agent.name,
            round=round,
            sample=self.sample,
            phase="compress" if edge is not None and self.phase == "evaluate" else self.phase,
            edge=str(edge.key) if edge is not None else None,
        )
        scope = self._agent_scope(agent.name)
        called = await self.calls.call(place, agent, prompt, scope, seed=seed, heard=self.rows.append)
        self.deliveries.extend(called.deliveries)
        return called

    def _agent_scope(self, name: str) -> Scope:
        if name not in self._agent_scopes:
            self._agent_scopes[name] = Scope(f"agent {name}", self.agent_limits, self.scope)
        return self._agent_scopes[name]

    async def _deliver_all(
        self, letters: Sequence[tuple[Edge, Message]], turn: Turn, spent: list[CallRow]
    ) -> tuple[tuple[Delivery, ...], Exception | None]:
        """The letters after their channels, in reading order, and what forbids the turn, if anything does.

        Channels work side by side, those that need what was delivered before them after the rest.
        """
        if all(edge.channel is None for edge, _ in letters):
            return tuple([Delivery(edge.key, message, message.text) for edge, message in letters]), None
        made: dict[int, Delivery] = {}
        errors: dict[int, Exception] = {}

        async def work(i: int) -> None:
            before = tuple([made[k] for k in sorted(made) if k < i and not made[k].failed])
            made[i], error = await self._deliver(*letters[i], replace(turn, inbox=before), spent)
            if error is not None:
                errors[i] = error

        beside: list[int] = []
        in_order: list[int] = []
        for i, (edge, message) in enumerate(letters):
            if edge.channel is None:
                made[i] = Delivery(edge.key, message, message.text)
            else:
                (in_order if getattr(edge.channel, "in_order", False) else beside).append(i)
        if len(beside) == 1:
            await work(beside[0])
        elif beside:
            async with anyio.create_task_group() as group:
                for i in beside:
                    group.start_soon(work, i)
        for i in in_order:
            await work(i)
        return tuple([made[i] for i in range(len(letters))]), errors[min(errors)] if errors else None

    async def _deliver(
        self, edge: Edge, message: Message, turn: Turn, spent: list[CallRow]
    ) -> tuple[Delivery, Exception | None]:
        """One letter after its channel. What only stops this delivery is in it; what stops the turn comes beside."""
        channel = edge.channel
        assert channel is not None
        stops: Exception | None = None
        desk = _Desk(self, edge, turn, spent)
        try:
            delivery: Delivery = await channel.deliver(message, edge, replace(turn, desk=desk))
        except Exception as error:
            failure = _failure(edge.reader, turn.round, error)
            if failure.fatal or failure.kind == "limit":
                stops = error
            made = Compression("failed", adherent=False, reason=f"{failure.kind}: {failure.reason}")
            delivery = Delivery(edge.key, message, "", channel.name, str(made), made)
        made = delivery.compression or Compression(
            "compressed" if delivery.changed else "passed", reason=delivery.note
        )
        row = ChannelRow(
            item=self.item.id,
            sample=self.sample,
            round=turn.round,
            sender=edge.sender,
            reader=edge.reader,
            kind=edge.kind,
            message_id=message.id,
            channel=delivery.channel,
            status=made.status,
            original_text=message.text,
            text=delivery.text,
            reason=made.reason,
            adherent=made.adherent,
            budget=made.budget,
            tokens=made.tokens,
            original_tokens=made.original_tokens,
            counted_by=made.counted_by,
        )
        try:
            await self.calls.ledger.record_channel(row, desk.counted)
        except LedgerError as error:
            stops = stops or error
        return delivery, stops

    def _said(self, agent: Agent, round: int, said: Any) -> Message:
        if isinstance(said, Message):
            said = said.text
        if not isinstance(said, str):
            raise TypeError(f"act returned {type(said).__name__}; return the text it says")
        return Message(sender=agent.name, round=round, text=said, item=self.item.id)


@dataclass(frozen=True)
class _Desk:
    """What a channel may ask for while it works on one edge: see :class:`agentcomm.prompting.Desk`."""

    turns: Turns
    edge: Edge
    turn: Turn
    spent: list[CallRow]
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    """Tokens by (model, text) that the channel was told."""

    @property
    def counts_by(self) -> str:
        agent = self.turn.agent
        return "" if agent.act is not None else self.turns.calls.backend(agent.model).name

    async def count(self, text: str) -> int | None:
        if self.turn.agent.act is not None:
            return None
        backend = self.turns.calls.backend(self.turn.agent.model)
        tokens = await count(text, backend if isinstance(backend, TokenCounter) else None)
        if tokens is not None:
            self.counted[(backend.name, text)] = tokens
        return tokens

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
        turns = self.turns
        said = [m.as_dict() for m in prompt.chat()]
        seed = derive_seed(
            turns.calls.sampling.seed, turns.item.id, turns.drawn, self.edge.sender, said, attempt
        )
        # The reader pays, so the call is made in its name; what it says of itself plays no part.
        asked = Agent(
            self.edge.reader, model=model, max_tokens=max_tokens, temperature=temperature, schema=schema
        )
        called = await turns.call(asked, self.turn.round, prompt, seed, edge=self.edge)
        self.spent.append(called.row)
        return called.reply


async def run_episode(executor: Executor, turns: Turns, *, thread: str | None = None) -> Episode:
    """Run a whole episode and gather what came of it.

    Raises
    ------
    UserError
        For what only the user can mend (a missing view, a missing key): it would fail every item.
    """
    began = time.perf_counter()
    mailbox = await executor.execute(turns.schedule, turns.act, thread=thread)
    if turns.user_error is not None:
        raise turns.user_error
    graph = turns.schedule.graph
    records = in_order(graph, mailbox.values())
    final = mailbox.get((graph.rounds, graph.decision))
    answer: str | None = None
    failure: Failure | None = None
    if final is not None and isinstance(final.outcome, Message):
        answer = final.outcome.text
    elif final is not None and isinstance(final.outcome, Failure):
        failure = final.outcome
    else:
        failures = [r.outcome for r in records if isinstance(r.outcome, Failure) and r.outcome.fatal]
        failure = failures[0] if failures else Failure(graph.decision, graph.rounds, "agent", "never spoke")
    return Episode(
        item=turns.item,
        answer=answer,
        failure=failure,
        records=records,
        usage=UsageReport.of(turns.rows, turns.deliveries),
        wall_s=time.perf_counter() - began,
        sample=turns.sample,
    )


def _failure(agent: str, round: int, error: Exception) -> Failure:
    if isinstance(error, LimitExceeded):
        # One agent's limit silences that agent; the item's or the run's ends the episode.
        whole = not error.scope.startswith("agent ")
        return Failure(agent, round, "limit", str(error), fatal=whole, scope=error.scope)
    if isinstance(error, BackendError):
        return Failure(agent, round, error.kind, str(error), fatal=error.fatal)
    if isinstance(error, LedgerError):
        # What can't be recorded must not be paid for.
        return Failure(agent, round, "ledger", str(error), fatal=True)
    if isinstance(error, RunError):
        return Failure(agent, round, type(error).__name__, str(error))
    if isinstance(error, UserError):
        return Failure(agent, round, "config", str(error), fatal=True)
    return Failure(agent, round, "agent", f"{type(error).__name__}: {error}")


def _schema_note(agent: Agent, text: str) -> str:
    if agent.schema is None:
        return ""
    try:
        json.loads(text)
    except ValueError as error:
        return f"not the JSON asked for: {error}"
    return ""
