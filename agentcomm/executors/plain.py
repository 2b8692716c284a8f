"""PlainExecutor: the schedule on anyio task groups, and nothing else.

The fast path for learners that need thousands of rollouts, and the oracle that the LangGraph
executor is tested against. Deliberately absent: checkpoints (``thread`` is accepted and ignored)
and limits on concurrency, which belong to the endpoint, not to the walk.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from agentcomm.executors.base import Act, first_error, is_fatal
from agentcomm.schedule import Inbox, Mailbox, Schedule, TurnRecord, inbox


class PlainExecutor:
    """Walks the waves of a schedule in this event loop; keeps nothing between episodes."""

    async def execute(self, schedule: Schedule, act: Act, *, thread: str | None = None) -> Mailbox:
        """Run every turn; records are in the order of the waves, then of the agents in the graph.

        What ``act`` raises (a bug, or a mistake only the user can mend) ends the episode: the
        turns beside it are cancelled and the first error, in the agents' order, is raised as it is.
        """
        mailbox: dict[tuple[int, str], TurnRecord] = {}
        for wave in schedule.waves:
            inboxes = [inbox(schedule, agent, wave.round, mailbox) for agent in wave.agents]
            # A task group costs as much as a whole turn; a lone agent doesn't need one.
            records = [await act(inboxes[0])] if len(inboxes) == 1 else await _side_by_side(act, inboxes)
            for agent, record in zip(wave.agents, records, strict=True):
                mailbox[(wave.round, agent)] = record
            if any(map(is_fatal, records)):
                break
        return mailbox


async def _side_by_side(act: Act, inboxes: Sequence[Inbox]) -> list[TurnRecord]:
    records: list[TurnRecord | None] = [None] * len(inboxes)

    async def take(i: int) -> None:
        records[i] = await act(inboxes[i])

    try:
        async with anyio.create_task_group() as group:
            for i in range(len(inboxes)):
                group.start_soon(take, i)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [record for record in records if record is not None]
