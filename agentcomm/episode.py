"""Episode: one graph on one item, from the first wave to the decision.

:class:`Turns` is the bridge between an executor, which knows only the schedule, and the models:
its ``act`` delivers the inbox over the channels, builds the prompt, makes the metered call and
answers with a record. It never raises for what an agent, a channel or a server did wrong; the
failure is the record's outcome, and readers don't see it as text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from agentcomm.calls import Called, Calls, Place, derive_seed
from agentcomm.errors import BackendError, LedgerError, LimitExceeded, RunError, UserError
from agentcomm.executors.base import Executor
from agentcomm.graph import Agent, Edge
from agentcomm.ledger.limits import Limits, Scope
from agentcomm.ledger.rows import CallRow, DeliveryRow, Phase
from agentcomm.ledger.usage import UsageReport
from agentcomm.message import Delivery, Failure, Message, Outcome
from agentcomm.prompting import Turn, build
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
    scope: Scope = field(default_factory=lambda: Scope("item", Limits()))
    agent_limits: Limits = field(default_factory=Limits)
    listen: Listener | None = None
    rows: list[CallRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    user_error: UserError | None = None
    """What only the user can mend; ``run_episode`` raises it once no call is in flight."""
    _agent_scopes: dict[str, Scope] = field(default_factory=dict)

    async def act(self, inbox: Inbox) -> TurnRecord:
        agent = self.schedule.graph.by_name[inbox.agent]
        turn = Turn(
            item=self.item,
            agent=agent,
            round=inbox.round,
            past=inbox.past,
            seed=derive_seed(self.calls.sampling.seed, self.item.id, self.sample, inbox.agent, inbox.round),
        )
        delivered: tuple[Delivery, ...] = ()
        called: Called | None = None
        outcome: Outcome
        try:
            delivered = tuple([await self._deliver(edge, message, turn) for edge, message in inbox.letters])
            turn = replace(turn, inbox=delivered)
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
            rows = (called.row,) if called else ()
            self.listen(Spoke(self.item, self.sample, record, rows, called.deliveries if called else ()))
        return record

    async def call(
        self, agent: Agent, round: int, prompt: Any, seed: int, *, edge: Edge | None = None
    ) -> Called:
        """A metered call in this episode; channels use it with their ``edge``, which then pays."""
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

    async def _deliver(self, edge: Edge, message: Message, turn: Turn) -> Delivery:
        if edge.channel is None:
            return Delivery(edge.key, message, message.text)
        try:
            return await edge.channel.deliver(message, edge, turn)
        except (LimitExceeded, UserError):
            raise
        except Exception as error:
            # The message was already paid for; reading it whole loses nothing but tokens.
            note = f"channel failed, delivered whole: {type(error).__name__}: {error}"
            return Delivery(edge.key, message, message.text, edge.channel.name, note)

    def _said(self, agent: Agent, round: int, said: Any) -> Message:
        if isinstance(said, Message):
            said = said.text
        if not isinstance(said, str):
            raise TypeError(f"act returned {type(said).__name__}; return the text it says")
        return Message(sender=agent.name, round=round, text=said, item=self.item.id)


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
