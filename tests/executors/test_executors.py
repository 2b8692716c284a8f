"""What both executors promise: side by side, in order, ended by a fatal failure, cancelled clean."""

from __future__ import annotations

import anyio
import pytest

from agentcomm import topologies
from agentcomm.errors import ConfigError
from agentcomm.executors.base import Executor
from agentcomm.executors.langgraph import LangGraphExecutor
from agentcomm.executors.plain import PlainExecutor
from agentcomm.message import Failure, Message
from agentcomm.schedule import Inbox, Schedule, TurnRecord
from tests.executors.graphs import Recorder

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[PlainExecutor, LangGraphExecutor])
def executor(request: pytest.FixtureRequest) -> Executor:
    made: Executor = request.param()
    return made


def ten(rounds: int = 1) -> Schedule:
    return Schedule.of(topologies.independent([f"a{i}" for i in range(10)], "judge", rounds=rounds))


def said(inbox: Inbox) -> TurnRecord:
    return TurnRecord(inbox.agent, inbox.round, (), Message(inbox.agent, inbox.round, inbox.agent))


async def test_agents_of_a_wave_run_side_by_side(executor: Executor) -> None:
    running = most = 0

    async def act(inbox: Inbox) -> TurnRecord:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.05)
        running -= 1
        return said(inbox)

    await executor.execute(ten(), act)
    assert most == 10


async def test_the_order_of_records_is_that_of_the_waves_not_of_arrival(executor: Executor) -> None:
    async def act(inbox: Inbox) -> TurnRecord:
        await anyio.sleep(0.01 * (ord(inbox.agent[-1]) % 3))
        return said(inbox)

    mailbox = await executor.execute(ten(rounds=2), act)
    names = [f"a{i}" for i in range(10)]
    assert list(mailbox) == [(1, n) for n in names] + [(2, n) for n in names] + [(2, "judge")]


async def test_a_cancelled_run_leaves_nothing_running(executor: Executor) -> None:
    running = 0

    async def act(inbox: Inbox) -> TurnRecord:
        nonlocal running
        running += 1
        try:
            await anyio.sleep(60)
        finally:
            running -= 1
        return said(inbox)

    with anyio.move_on_after(0.2) as scope:
        await executor.execute(ten(), act)
    assert scope.cancelled_caught
    assert running == 0


async def test_what_act_raises_ends_the_episode_as_it_is_and_cancels_its_siblings(executor: Executor) -> None:
    cancelled: list[str] = []

    async def act(inbox: Inbox) -> TurnRecord:
        if inbox.agent == "a3":
            await anyio.sleep(0.05)
            raise ConfigError("no key")
        try:
            await anyio.sleep(60)
        except BaseException:
            cancelled.append(inbox.agent)
            raise
        return said(inbox)

    with pytest.raises(ConfigError, match="no key"):
        await executor.execute(ten(), act)
    assert len(cancelled) == 9


async def test_a_fatal_failure_lets_its_wave_finish_and_schedules_nothing_more(executor: Executor) -> None:
    async def act(inbox: Inbox) -> TurnRecord:
        if (inbox.agent, inbox.round) == ("a3", 2):
            return TurnRecord("a3", 2, (), Failure("a3", 2, "limit", "enough", fatal=True))
        await anyio.sleep(0.01)
        return said(inbox)

    mailbox = await executor.execute(ten(rounds=3), act)
    assert len(mailbox) == 20
    assert isinstance(mailbox[(2, "a3")].outcome, Failure)
    assert (3, "a0") not in mailbox


async def test_an_agent_that_fails_is_absent_from_inboxes_and_the_others_go_on(executor: Executor) -> None:
    schedule = Schedule.of(topologies.chain(["a", "b", "c"], "judge"))
    recorder = Recorder({("b", 1): "fails"})
    await executor.execute(schedule, recorder.act)
    readers = {place: [sender for sender, *_ in read[0]] for place, read in recorder.read.items()}  # type: ignore[index]
    assert readers == {(1, "a"): [], (1, "b"): ["a"], (1, "c"): [], (1, "judge"): ["a", "c"]}


async def test_one_executor_runs_many_schedules_at_once(executor: Executor) -> None:
    schedules = [Schedule.of(topologies.chain([f"x{i}", "b"], rounds=2)) for i in range(20)]
    recorders = [Recorder() for _ in schedules]
    async with anyio.create_task_group() as group:
        for schedule, recorder in zip(schedules, recorders, strict=True):
            group.start_soon(executor.execute, schedule, recorder.act)
    for i, recorder in enumerate(recorders):
        assert recorder.order == [(1, f"x{i}"), (2, f"x{i}"), (2, "b")]


async def test_a_thousand_layered_agents_for_three_rounds(executor: Executor) -> None:
    graph = topologies.layered([f"a{i}" for i in range(1000)], "judge", layers=50, rounds=3)

    async def act(inbox: Inbox) -> TurnRecord:
        return said(inbox)

    mailbox = await executor.execute(Schedule.of(graph), act)
    assert len(mailbox) == 3001
