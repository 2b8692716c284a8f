"""LangGraphExecutor: the schedule as a LangGraph graph of two nodes, the "Send clock".

::

    START -dispatch-> agent x wave -> tick -dispatch-> agent x next wave -> tick -> ... -> END

* ``dispatch`` is a conditional edge: it sends the turns of the current wave that have not been
  taken, in the graph's order. ``tick``, which runs once when they have, moves to the next wave.
  The lone agent of a wave does what ``tick`` and ``dispatch`` would do.
* The *state* is what a checkpoint holds: which wave, and the turns taken as plain data (see
  :mod:`agentcomm.executors.records`). The mailbox is a ``DeltaChannel``: each checkpoint stores
  what was added, so checkpoints grow with what was said and not with its square.
* The *context* of an invocation (:class:`Session`) is what a checkpoint can't hold: schedule,
  ``act``, and the turns as objects. One compiled graph serves every schedule and mask.

An agent's failure is data, because a node that raises cancels siblings that are already paid
for. Deliberately absent: LangGraph's retries, caches and ``max_concurrency`` (they belong to the
model call and its endpoint) and its drawing, which would show two nodes.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypedDict

import anyio
import langsmith
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Durability, Send

from agentcomm.errors import ConfigError, LedgerError, TaskError
from agentcomm.executors.base import Act, is_fatal
from agentcomm.executors.records import decode, encode
from agentcomm.message import Failure, Message, content_id
from agentcomm.schedule import Mailbox, Schedule, TurnRecord, in_order, inbox
from agentcomm.task import Item, as_item

# -- the clock ---------------------------------------------------------------------------------


@dataclass
class Session:
    """What one walk needs beside its state: how to take a turn, and the turns as objects."""

    schedule: Schedule
    act: Act
    mailbox: dict[tuple[int, str], TurnRecord] = field(default_factory=dict)
    heard: Callable[[TurnRecord], None] | None = None
    """Hears of every turn as it ends."""

    def catch_up(self, taken: Mapping[str, Mapping[str, Any]]) -> None:
        """Turn the state's data into records, oldest wave first: later ones refer to earlier ones."""
        if len(taken) == len(self.mailbox):
            return
        order = self.schedule.order
        new = [data for key, data in taken.items() if _place(key) not in self.mailbox]
        for data in sorted(new, key=lambda data: order[(data["round"], data["agent"])]):
            record = decode(data, self.mailbox)
            self.mailbox[(record.round, record.agent)] = record

    def in_wave_order(self) -> Mailbox:
        return {place: self.mailbox[place] for place in self.schedule.order if place in self.mailbox}

    def after(self, wave: int) -> dict[str, Any]:
        """What the state becomes when every turn of a wave has been taken."""
        round, agents = self.schedule.waves[wave]
        over = any(is_fatal(self.mailbox[(round, agent)]) for agent in agents)
        return {"over": True} if over else {"wave": self.schedule.following(wave, self.mailbox)}

    def what_next(self, state: Mapping[str, Any]) -> list[Send] | str:
        """Where to go: the turns of the wave that are left to take, or the end."""
        index, waves = state["wave"], self.schedule.waves
        if state.get("over") or index >= len(waves):
            return END
        round, agents = waves[index]
        sends = []
        for agent in agents:
            record = self.mailbox.get((round, agent))
            if record is None or is_fatal(record):
                sends.append(Send("agent", _Turn(wave=index, agent=agent)))
        return sends or "tick"  # an empty list would end the graph quietly


def _key(round: int, agent: str) -> str:
    return f"{round}:{agent}"


def _place(key: str) -> tuple[int, str]:
    round, _, agent = key.partition(":")
    return int(round), agent


def _merge(taken: dict[str, Any], updates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: data for part in (taken, *updates) for key, data in part.items()}


class _State(TypedDict, total=False):
    wave: int
    over: bool
    taken: Annotated[dict[str, Any], DeltaChannel(_merge)]
    schedule: str


class _Turn(TypedDict):
    wave: int
    agent: str


async def _dispatch(state: _State, runtime: Runtime[Session]) -> list[Send] | str:
    runtime.context.catch_up(state["taken"])
    return runtime.context.what_next(state)


async def _agent(state: _Turn, runtime: Runtime[Session]) -> Command[Literal["agent", "tick", "__end__"]]:
    session, wave, agent = runtime.context, state["wave"], state["agent"]
    round, agents = session.schedule.waves[wave]
    record = await session.act(inbox(session.schedule, agent, round, session.mailbox))
    if session.heard is not None:
        session.heard(record)
    update: dict[str, Any] = {"taken": {_key(round, agent): encode(record, session.mailbox)}}
    if len(agents) > 1:
        return Command(update=update, goto="tick")
    # Nobody to wait for: the lone agent of a wave ticks by itself, which saves a superstep.
    session.mailbox[(round, agent)] = record
    moved = session.after(wave)
    return Command(update={**update, **moved}, goto=session.what_next({"wave": wave, **moved}))  # type: ignore[arg-type]


async def _tick(state: _State, runtime: Runtime[Session]) -> dict[str, Any]:
    session, wave = runtime.context, state["wave"]
    round, agents = session.schedule.waves[wave]
    for agent in agents:  # a turn taken again replaces the fatal one
        session.mailbox.pop((round, agent), None)
    session.catch_up(state["taken"])
    return session.after(wave)


_Clock = CompiledStateGraph[_State, Session, _State, _State]


def _builder() -> StateGraph[_State, Session, _State, _State]:
    builder = StateGraph(_State, context_schema=Session)
    builder.add_node("agent", _agent, input_schema=_Turn)
    builder.add_node("tick", _tick)
    path_map = ["agent", "tick", END]
    builder.add_conditional_edges(START, _dispatch, path_map)
    builder.add_conditional_edges("tick", _dispatch, path_map)
    return builder


@cache
def _clock(checkpointer: Literal[False] | None) -> _Clock:
    """The compiled clock: ``False`` never checkpoints, ``None`` does where a parent graph does."""
    return _builder().compile(checkpointer=checkpointer, name="agentcomm")


def _config(schedule: Schedule, thread: str | None = None) -> RunnableConfig:
    # Two supersteps a wave, the one that starts it, and room to spare: a bug in dispatch must not
    # run LangGraph's default of ten thousand.
    config = RunnableConfig(recursion_limit=2 * len(schedule.waves) + 8)
    if thread is not None:
        config["configurable"] = {"thread_id": thread}
    return config


# -- the executor ------------------------------------------------------------------------------


class LangGraphExecutor:
    """Runs schedules on LangGraph; with ``checkpoint``, so that they survive ``kill -9``.

    Parameters
    ----------
    checkpoint:
        A SQLite file (made with its folders when it is missing) that keeps every finished
        superstep. An episode with a ``thread`` continues from it: no turn that reached it is
        taken again, except one that ended in a fatal failure (a limit), which is tried again.
        The connection is open while episodes run; ``async with`` the executor to keep it open
        between them.
    durability:
        LangGraph's: ``"async"`` writes while the next superstep runs, ``"sync"`` before it,
        ``"exit"`` only at the end (nothing survives a crash).

    Nothing is sent to LangSmith from here, whatever the environment says: the prompts and data of
    a run are its user's. Trace an application of yours with :func:`export` inside it.
    """

    def __init__(self, checkpoint: Path | str | None = None, *, durability: Durability = "async") -> None:
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.durability = durability
        self._connection = _Connection(self.checkpoint) if self.checkpoint is not None else None

    async def __aenter__(self) -> LangGraphExecutor:
        if self._connection is not None:
            await self._connection.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.release()

    async def execute(self, schedule: Schedule, act: Act, *, thread: str | None = None) -> Mailbox:
        """Run every turn, or with a known ``thread`` those that are left.

        Raises
        ------
        ConfigError
            If the thread belongs to an episode of another graph or topology.
        """
        session = Session(schedule, act)
        # Inside somebody's LangGraph node, their config would reach in here: checkpoints in their
        # namespace, their callbacks. An episode is on its own.
        token = var_child_runnable_config.set(None)
        try:
            with langsmith.tracing_context(enabled=False):
                if self._connection is None or thread is None:
                    start: _State = {"wave": 0, "over": False, "taken": {}}
                    await _cancelled_once(_clock(False).ainvoke(start, _config(schedule), context=session))
                else:
                    async with self._connection as clock:
                        try:
                            await self._resume(clock, session, thread)
                        except sqlite3.Error as error:  # a full disk
                            raise LedgerError(
                                f"the checkpoint file {self.checkpoint} failed ({error}); free space and repeat "
                                "the command, what was recorded stays"
                            ) from error
        finally:
            var_child_runnable_config.reset(token)
        return session.in_wave_order()

    async def _resume(self, clock: _Clock, session: Session, thread: str) -> None:
        config = _config(session.schedule, thread)
        known = await clock.aget_state(config)
        fingerprint = _fingerprint(session.schedule)
        start: _State | None
        if "schedule" not in known.values:  # nothing, or cut off before the first turn
            start = {"wave": 0, "over": False, "taken": {}, "schedule": fingerprint}
        elif known.values["schedule"] != fingerprint:
            raise ConfigError(
                f"{self.checkpoint} holds an episode {thread!r} of another graph or topology; "
                f"delete the file or use another thread"
            )
        elif known.tasks:
            # Cut off: go on. Not known.next, which leaves out turns that ended but were not passed on.
            start = None
        elif known.values["over"]:
            start = {"over": False}  # a limit ended it: try that wave's failed turns again
        else:
            session.catch_up(known.values["taken"])
            return
        session.catch_up(known.values.get("taken", {}))
        await _cancelled_once(clock.ainvoke(start, config, context=session, durability=self.durability))


async def _cancelled_once(walk: Coroutine[Any, Any, Any]) -> None:
    """Await a LangGraph run in a task of its own; when cancelled, until its turns have ended too.

    anyio cancels whatever a cancelled scope awaits, again and again. LangGraph cancels its tasks
    and waits for them; cut off in that wait, it would leave them running behind our back.
    """
    task = asyncio.create_task(walk)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen; the cancellation goes first
        raise


def _fingerprint(schedule: Schedule) -> str:
    return content_id(schedule.graph.to_dict(), schedule.topology.to_dict())


class _Connection:
    """The checkpoint file, open while somebody uses it: one thread and one writer a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        self.lock = anyio.Lock()
        self._open: tuple[AbstractAsyncContextManager[AsyncSqliteSaver], AsyncSqliteSaver] | None = None
        self._clock: _Clock | None = None

    async def acquire(self) -> _Clock:
        async with self.lock:
            if self._clock is None:
                # Cut off half-way, a connection with its thread would stay behind.
                with anyio.CancelScope(shield=True):
                    opened, saver = await self._connect()
                    self._open = opened, saver
                self._clock = _builder().compile(checkpointer=saver, name="agentcomm")
            self.users += 1
            return self._clock

    async def _connect(self) -> tuple[AbstractAsyncContextManager[AsyncSqliteSaver], AsyncSqliteSaver]:
        opened = AsyncSqliteSaver.from_conn_string(str(self.path))
        try:
            await anyio.Path(self.path.parent).mkdir(parents=True, exist_ok=True)
            saver = await opened.__aenter__()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            await saver.setup()
        except sqlite3.Error as error:
            await opened.__aexit__(None, None, None)
            raise self._unusable(error) from error
        return opened, saver

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path} can't be used for checkpoints ({error}); name a new file in a folder that can be written"
        )

    async def release(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self.lock:
                self.users -= 1
                if self.users == 0 and self._open is not None:
                    (opened, saver), self._open, self._clock = self._open, None, None
                    # A write that was cancelled before its commit holds the file's lock for as long
                    # as a half-read cursor keeps the closed connection alive. LangGraph may still be
                    # writing behind a cancelled run: the saver's lock keeps it out from here on.
                    async with saver.lock:
                        with suppress(sqlite3.Error):
                            await saver.conn.rollback()
                        await opened.__aexit__(None, None, None)

    async def __aenter__(self) -> _Clock:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()


# -- inside a user's own application -----------------------------------------------------------


@dataclass(frozen=True)
class Team:
    """How an exported graph takes the turns of one item.

    ``usage`` says what they cost, from the turns taken; by default, the tokens of the replies.
    """

    schedule: Schedule
    act: Act
    usage: Callable[[Sequence[TurnRecord]], dict[str, Any]] | None = None


OpenTeam = Callable[[Item], AbstractAsyncContextManager[Team]]


class Question(TypedDict, total=False):
    """What an exported graph is given: a ``question``, or an ``item`` with the fields of Item."""

    question: str
    item: dict[str, Any]


class Answer(TypedDict, total=False):
    """What it answers: ``answer`` is None when ``failure`` says why; ``messages`` are all turns
    that spoke, by round and agent."""

    answer: str | None
    messages: list[dict[str, Any]]
    usage: dict[str, Any]
    failure: dict[str, Any] | None


class _Exported(Question, Answer):
    """The state of an exported graph."""


def export(open_team: OpenTeam, *, name: str = "team") -> CompiledStateGraph[Any, None, Any, Any]:
    """A compiled LangGraph graph that answers questions: :class:`Question` in, :class:`Answer` out.

    Use it with ``invoke``, ``ainvoke`` or ``astream``, or as a node of another graph. It has no checkpointer
    of its own: with ``ainvoke`` below a graph compiled with one, turns that were checkpointed are not taken again
    when the outer run resumes. ``stream_mode="custom"`` yields every turn as it ends, as
    ``{"agent", "round", "text"}`` or ``{"agent", "round", "failure"}`` (below a user's graph, with
    ``subgraphs=True``). ``open_team`` is entered once an invocation.
    """

    async def walk(state: _Exported, clock: _Clock) -> Answer:
        item = _item(state)
        write = get_stream_writer()

        def heard(record: TurnRecord) -> None:
            write(_event(record))

        async with open_team(item) as opened:
            session = Session(opened.schedule, opened.act, heard=heard)
            start: _State = {"wave": 0, "over": False, "taken": {}}
            end = await clock.ainvoke(start, _config(opened.schedule), context=session)
            session.catch_up(end["taken"])
            return _answer(opened, session.mailbox)

    async def team(state: _Exported) -> Answer:
        return await walk(state, _clock(None))

    def team_sync(state: _Exported) -> Answer:
        # The caller's checkpointer is a synchronous one: the team is a single step to it.
        return anyio.run(walk, state, _clock(False))

    builder = StateGraph(_Exported, input_schema=Question, output_schema=Answer)
    builder.add_node("team", RunnableLambda(team_sync, team))
    builder.add_edge(START, "team")
    builder.add_edge("team", END)
    return builder.compile(name=name)


def _item(state: _Exported) -> Item:
    data = state.get("item")
    if not data:
        return as_item(state.get("question") or "")
    if not isinstance(data.get("question"), str):
        raise TaskError("the item has no question; pass {'item': {'question': ..., 'views': {...}}}")
    try:
        return Item(**{"id": content_id(data)[:12], **data})
    except TypeError as error:
        raise TaskError(f"the item doesn't fit: {error}; it takes the fields of agentcomm.Item") from error


def _event(record: TurnRecord) -> dict[str, Any]:
    said = record.outcome
    event: dict[str, Any] = {"agent": record.agent, "round": record.round}
    return {**event, "text": said.text} if isinstance(said, Message) else {**event, "failure": said.reason}


def _answer(team: Team, mailbox: Mailbox) -> Answer:
    graph = team.schedule.graph
    records = in_order(graph, mailbox.values())
    final = mailbox.get((graph.rounds, graph.decision))
    failures = [r.outcome for r in records if isinstance(r.outcome, Failure)]
    failure: Failure | None = None
    if final is None:
        failure = next(f for f in failures if f.fatal)
    elif isinstance(final.outcome, Failure):
        failure = final.outcome
    return Answer(
        answer=final.outcome.text if final is not None and isinstance(final.outcome, Message) else None,
        messages=[_message(r.outcome) for r in records if isinstance(r.outcome, Message)],
        usage=(team.usage or tokens_of_replies)(records),
        failure=None
        if failure is None
        else {
            "agent": failure.sender,
            "round": failure.round,
            "kind": failure.kind,
            "reason": failure.reason,
        },
    )


def _message(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"agent": message.sender, "round": message.round, "text": message.text}
    if message.usage is not None:
        data["input_tokens"] = message.usage.input_tokens
        data["output_tokens"] = message.usage.output_tokens
    return data


def tokens_of_replies(records: Sequence[TurnRecord]) -> dict[str, Any]:
    """Tokens that the replies reported; ``None`` where one of them reported nothing."""
    usages = [r.outcome.usage for r in records if isinstance(r.outcome, Message) and r.outcome.usage]

    def total(name: str) -> int | None:
        values = [getattr(u, name) for u in usages]
        return None if None in values else sum(values)

    return {
        "calls": len(usages),
        "input_tokens": total("input_tokens"),
        "output_tokens": total("output_tokens"),
        "cached_tokens": total("cached_tokens"),
    }
