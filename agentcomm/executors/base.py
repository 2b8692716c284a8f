"""Executor: walks a schedule and lets each agent take its turn.

An executor knows nothing about models, prompts or the ledger. It calls ``act`` once for every
(agent, round) of the schedule, in wave order, the agents of a wave side by side, with the inbox
that :func:`agentcomm.schedule.inbox` assembles. ``act`` never raises for what an agent did
wrong: a failure is a record. After a wave with a fatal failure (a limit was reached) nothing
more is scheduled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from agentcomm.message import Failure
from agentcomm.schedule import Inbox, Mailbox, Schedule, TurnRecord

Act = Callable[[Inbox], Awaitable[TurnRecord]]


class Executor(Protocol):
    async def execute(self, schedule: Schedule, act: Act, *, thread: str | None = None) -> Mailbox:
        """Run every turn and return what was said.

        ``thread`` names the episode for executors that checkpoint; with it, a second call
        continues where the first was cut off.
        """
        ...


def is_fatal(record: TurnRecord) -> bool:
    return isinstance(record.outcome, Failure) and record.outcome.fatal


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group, on its own: callers catch errors, not groups of them.

    An interruption (Ctrl-C) goes before ordinary errors.
    """
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return next((e for e in leaves if not isinstance(e, Exception)), leaves[0])
