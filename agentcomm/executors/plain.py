"""PlainExecutor: the schedule on anyio task groups, and nothing else.

The fast path for learners that need thousands of rollouts, and the oracle that the LangGraph
executor is tested against. Deliberately absent: checkpoints (``thread`` is accepted and ignored)
and limits on concurrency, which belong to the endpoint, not to the walk.
"""

from __future__ import annotations

import anyio

from agentcomm.executors.base import Act, first_error, is_fatal
from agentcomm.schedule import Mailbox, Schedule, TurnRecord, Wave, inbox


class PlainExecutor:
    """Walks the waves of a schedule in this event loop; keeps nothing between episodes."""

    async def execute(self, schedule: Schedule, act: Act, *, thread: str | None = None) -> Mailbox:
        """Run every turn; records are in the order of the waves, then of the agents in the graph.

        What ``act`` raises (a bug, or a mistake only the user can mend) ends the episode: the
        turns beside it are cancelled and the first error, in the agents' order, is raised as it is.
        """
        mailbox: dict[tuple[int, str], TurnRecord] = {}
        at = 0
        while at < len(schedule.waves):
            wave = schedule.waves[at]
            if len(wave.agents) == 1:  # a task group costs as much as a whole turn
                (agent,) = wave.agents
                records = {agent: await act(inbox(schedule, agent, wave.round, mailbox))}
            else:
                records = await _side_by_side(schedule, act, wave, mailbox)
            for agent in wave.agents:
                mailbox[(wave.round, agent)] = records[agent]
            if any(map(is_fatal, records.values())):
                break
            at = schedule.following(at, mailbox)
        return mailbox


async def _side_by_side(schedule: Schedule, act: Act, wave: Wave, mailbox: Mailbox) -> dict[str, TurnRecord]:
    records: dict[str, TurnRecord] = {}

    async def take(agent: str) -> None:
        records[agent] = await act(inbox(schedule, agent, wave.round, mailbox))

    try:
        async with anyio.create_task_group() as group:
            for agent in wave.agents:
                group.start_soon(take, agent)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return records
