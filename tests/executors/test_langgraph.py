"""Checkpoints that survive kill -9, nothing sent anywhere, and teams inside a user's application."""

from __future__ import annotations

import contextlib
import json
import os
import pickletools
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

import anyio
import langsmith.utils
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from agentcomm import topologies
from agentcomm.errors import ConfigError, TaskError
from agentcomm.executors.langgraph import LangGraphExecutor, Team, export
from agentcomm.executors.plain import PlainExecutor
from agentcomm.executors.records import decode, encode
from agentcomm.graph import AgentGraph
from agentcomm.message import Delivery, EdgeKey, Failure, Message, Usage
from agentcomm.schedule import Inbox, Schedule, TurnRecord
from agentcomm.task import Item
from tests.executors.graphs import Recorder

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


def team(rounds: int = 3) -> AgentGraph:
    return topologies.debate(["a", "b", "c", "d"], "judge", rounds=rounds)


# -- checkpoints -------------------------------------------------------------------------------

PROGRAM = """
import sys, anyio
from pathlib import Path
from agentcomm import topologies
from agentcomm.executors.langgraph import LangGraphExecutor
from agentcomm.message import Message
from agentcomm.schedule import Schedule, TurnRecord

folder = Path(sys.argv[1])

async def act(inbox):
    slow = inbox.agent == "d"
    await anyio.sleep(0.4 if slow else 0.1)
    with (folder / "turns").open("a") as log:
        log.write(f"{inbox.round} {inbox.agent}\\n")
    return TurnRecord(inbox.agent, inbox.round, (), Message(inbox.agent, inbox.round, "said"))

async def main():
    graph = topologies.debate(["a", "b", "c", "d"], "judge", rounds=3)
    executor = LangGraphExecutor(folder / "checkpoints.sqlite")
    mailbox = await executor.execute(Schedule.of(graph), act, thread="item")
    (folder / "done").write_text(str(len(mailbox)))

anyio.run(main)
"""


def turns(folder: Path) -> list[str]:
    log = folder / "turns"
    return log.read_text().splitlines() if log.exists() else []


def test_a_killed_episode_takes_no_finished_turn_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(turns(tmp_path)) < 7:  # round 1 (4 turns), then a, b and c of round 2, d in flight
            assert process.poll() is None, "the program ended by itself"
            assert time.monotonic() < deadline, "the program made no progress"
            time.sleep(0.02)
        time.sleep(0.15)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(turns(tmp_path)) == 7
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert Counter(turns(tmp_path)) == Counter(
        [f"{r} {a}" for r in (1, 2, 3) for a in "abcd"] + ["3 judge"]
    )  # each turn once, also the finished siblings of the one that was in flight
    assert (tmp_path / "done").read_text() == "13"


async def test_a_write_that_was_cancelled_leaves_the_file_unlocked(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    executor = LangGraphExecutor(file)
    async with executor:
        assert executor._connection is not None and executor._connection._open is not None
        connection = executor._connection._open[1].conn
        insert = "INSERT INTO checkpoints (thread_id, checkpoint_id) VALUES ('t', '1'), ('t', '2')"
        await connection.execute(insert)  # cut off before its commit
        half_read = await connection.execute("SELECT thread_id FROM checkpoints")
        await half_read.fetchone()
    with contextlib.closing(sqlite3.connect(file, timeout=0)) as other, other:
        other.execute(insert)
    assert half_read is not None


async def test_a_finished_thread_is_read_back_without_a_turn(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "new" / "folder" / "checkpoints.sqlite")
    first, second = Recorder({("b", 2): "fails"}), Recorder()
    schedule = Schedule.of(team())
    before = await executor.execute(schedule, first.act, thread="t")
    after = await executor.execute(schedule, second.act, thread="t")
    assert list(after.items()) == list(before.items())
    assert second.order == []


async def test_threads_of_one_file_are_apart_also_side_by_side(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "checkpoints.sqlite")
    recorders = [Recorder() for _ in range(5)]
    async with anyio.create_task_group() as group:
        for i, recorder in enumerate(recorders):

            async def run(act: Any = recorder.act, i: int = i) -> None:
                await executor.execute(Schedule.of(team()), act, thread=f"t{i}")

            group.start_soon(run)
    assert [len(r.order) for r in recorders] == [13] * 5


async def test_turns_that_a_limit_refused_are_tried_again_when_the_thread_goes_on(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "checkpoints.sqlite")
    schedule = Schedule.of(team())
    limited, raised = Recorder({("b", 2): "fatal", ("c", 2): "fatal"}), Recorder()
    cut = await executor.execute(schedule, limited.act, thread="t")
    assert len(cut) == 8
    whole = await executor.execute(schedule, raised.act, thread="t")
    assert raised.order[:2] == [(2, "b"), (2, "c")]
    assert len(raised.order) == 2 + 5
    assert list(whole.items()) == list((await PlainExecutor().execute(schedule, Recorder().act)).items())
    again = Recorder({("b", 2): "fatal"})
    assert await executor.execute(schedule, again.act, thread="t") == whole
    assert again.order == []


async def test_a_lone_agent_that_a_limit_refused_is_tried_again(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "checkpoints.sqlite")
    schedule = Schedule.of(topologies.chain(["a", "b", "c"]))
    for _ in range(2):  # refused twice
        recorder = Recorder({("b", 1): "fatal"})
        assert len(await executor.execute(schedule, recorder.act, thread="t")) == 2
    rest = Recorder()
    assert len(await executor.execute(schedule, rest.act, thread="t")) == 3
    assert rest.order == [(1, "b"), (1, "c")]


async def test_a_thread_of_another_topology_is_refused(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "checkpoints.sqlite")
    graph = team()
    await executor.execute(Schedule.of(graph), Recorder().act, thread="t")
    pruned = Schedule.of(graph, graph.topology(without_agents=["a"]))
    with pytest.raises(ConfigError, match=r"checkpoints\.sqlite holds an episode 't' of another graph"):
        await executor.execute(pruned, Recorder().act, thread="t")


async def test_checkpoints_hold_plain_data_and_grow_with_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    schedule = Schedule.of(topologies.debate([f"a{i}" for i in range(10)], "judge", rounds=10))
    body = 1000

    async def act(inbox: Inbox) -> TurnRecord:
        read = tuple(Delivery(e.key, m, m.text) for e, m in inbox.letters)
        text = f"{inbox.agent}@{inbox.round}".ljust(body, ".")
        return TurnRecord(inbox.agent, inbox.round, read, Message(inbox.agent, inbox.round, text))

    mailbox = await LangGraphExecutor(path).execute(schedule, act, thread="t")
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT type, checkpoint FROM checkpoints UNION ALL SELECT type, value FROM writes")
        stored = rows.fetchall()
    db.close()
    assert {kind for kind, _ in stored} <= {"msgpack", "json", "null", "empty"}
    for _, blob in stored:
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops(blob or b""))
    assert sum(len(blob or b"") for _, blob in stored) < 4 * len(mailbox) * body


async def test_odd_texts_and_names_survive_a_checkpoint(tmp_path: Path) -> None:
    executor = LangGraphExecutor(tmp_path / "checkpoints.sqlite")
    schedule = Schedule.of(topologies.debate(["a:1", 'b|"2', "ü 漢"], "judge"))
    text = "\x00 \ud800 \U0001f600 \r\n"

    async def act(inbox: Inbox) -> TurnRecord:
        return TurnRecord(inbox.agent, inbox.round, (), Message(inbox.agent, inbox.round, text, id="1"))

    before = await executor.execute(schedule, act, thread="t")
    after = await executor.execute(schedule, act, thread="t")
    assert list(after.items()) == list(before.items())
    assert {r.outcome.text for r in after.values() if isinstance(r.outcome, Message)} == {text}


def test_a_record_comes_back_whole_from_its_data() -> None:
    usage = Usage(10, 2, None, 0)
    heard = Message("a", 1, "long text", "item", usage, "stop", "call-1", "odd")
    mailbox = {(1, "a"): TurnRecord("a", 1, (), heard)}
    summary = Delivery(EdgeKey("a", "b", "temporal"), heard, "long", "truncate", "cut")
    whole = Delivery(EdgeKey("a", "b", "spatial"), heard, "long text")  # not what the mailbox says
    for outcome in (Message("b", 2, "x", call_id="call-2"), Failure("b", 2, "limit", "why", fatal=True)):
        record = TurnRecord("b", 2, (summary, whole), outcome)
        back = decode(json.loads(json.dumps(encode(record, mailbox))), mailbox)
        assert back == record
        assert [d.original.call_id for d in back.inbox] == ["call-1", "call-1"]
        assert [d.original.note for d in back.inbox] == ["odd", "odd"]
        assert getattr(back.outcome, "call_id", None) == getattr(outcome, "call_id", None)


# -- on its own, and inside other graphs ---------------------------------------------------------


async def test_nothing_is_traced_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "not-a-key")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:9")
    langsmith.utils.get_env_var.cache_clear()
    try:
        assert langsmith.utils.tracing_is_enabled()
        traced: list[object] = []

        async def act(inbox: Inbox) -> TurnRecord:
            traced.append(langsmith.utils.tracing_is_enabled())
            traced.append(langsmith.get_current_run_tree())
            return TurnRecord(inbox.agent, inbox.round, (), Message(inbox.agent, inbox.round, "x"))

        await LangGraphExecutor().execute(Schedule.of(team(2)), act)
        assert set(traced) == {False, None}
    finally:
        langsmith.utils.get_env_var.cache_clear()


class Asked(TypedDict, total=False):
    topic: str
    question: str
    answer: str | None
    messages: list[dict[str, Any]]
    usage: dict[str, Any]
    failure: dict[str, Any] | None


async def test_an_episode_inside_a_users_node_leaves_their_checkpoints_alone() -> None:
    async def node(state: Asked) -> Asked:
        mailbox = await LangGraphExecutor().execute(Schedule.of(team()), Recorder().act)
        return {"answer": str(len(mailbox))}

    saver = InMemorySaver()
    app = StateGraph(Asked).add_node("node", node).add_edge(START, "node").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 3}
    assert (await app.ainvoke({"topic": "x"}, config))["answer"] == "13"
    assert {c.config["configurable"]["checkpoint_ns"] for c in saver.list(None)} == {""}
    stream = app.astream({"topic": "x"}, config, stream_mode="updates", subgraphs=True)
    assert [where async for where, _ in stream] == [()]


def exported(recorder: Recorder, opened: list[Item] | None = None, rounds: int = 2) -> Any:
    schedule = Schedule.of(topologies.debate(["a", "b"], "judge", rounds=rounds))

    @asynccontextmanager
    async def open_team(item: Item) -> AsyncIterator[Team]:
        if opened is not None:
            opened.append(item)
        yield Team(schedule, recorder.act)

    return export(open_team)


async def test_an_exported_team_answers_a_question() -> None:
    opened: list[Item] = []
    answer = await exported(Recorder({("a", 2): "fails"}), opened).ainvoke({"question": "Why?"})
    assert [i.question for i in opened] == ["Why?"]
    assert answer["answer"].startswith("judge@2")
    assert [(m["agent"], m["round"]) for m in answer["messages"]] == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("judge", 2),
    ]
    assert answer["failure"] is None
    assert set(answer) == {"answer", "messages", "usage", "failure"}


def test_an_exported_team_answers_without_an_event_loop() -> None:
    assert exported(Recorder()).invoke({"question": "Why?"})["answer"].startswith("judge@2")


async def test_an_exported_team_takes_items_with_views() -> None:
    opened: list[Item] = []
    await exported(Recorder(), opened).ainvoke({"item": {"question": "Why?", "views": {"v": "text"}}})
    assert opened[0].views == {"v": "text"}
    assert opened[0].id


@pytest.mark.parametrize(
    "given", [{"question": " "}, {"item": {"views": {}}}, {"item": {"question": "q", "x": 1}}]
)
async def test_an_exported_team_refuses_what_is_no_question(given: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        await exported(Recorder()).ainvoke(given)


@pytest.mark.parametrize("who", ["judge", "a"])
async def test_an_exported_team_says_why_there_is_no_answer(who: str) -> None:
    answer = await exported(Recorder({(who, 2): "fatal"})).ainvoke({"question": "Why?"})
    assert answer["answer"] is None
    assert answer["failure"]["agent"] == who
    assert answer["failure"]["reason"] == f"{who} failed in 2"


async def test_an_exported_team_streams_its_messages_as_they_come() -> None:
    recorder = Recorder({("b", 1): "fails"})
    seen = [e async for e in exported(recorder).astream({"question": "Why?"}, stream_mode="custom")]
    assert [(e["agent"], e["round"], "text" in e) for e in seen] == [
        ("a", 1, True),
        ("b", 1, False),
        ("a", 2, True),
        ("b", 2, True),
        ("judge", 2, True),
    ]


def application(node: Any, saver: Any = None) -> Any:
    app = StateGraph(Asked)
    app.add_node("ask", lambda state: {"question": f"What about {state['topic']}?"})
    app.add_node("team", node)
    app.add_edge(START, "ask")
    app.add_edge("ask", "team")
    app.add_edge("team", END)
    return app.compile(checkpointer=saver)


async def test_a_team_is_a_node_of_a_users_graph() -> None:
    opened: list[Item] = []
    app = application(exported(Recorder(), opened))
    end = await app.ainvoke({"topic": "tea"})
    assert opened[0].question == "What about tea?"
    assert end["answer"].startswith("judge@2")
    stream = app.astream({"topic": "tea"}, stream_mode="custom", subgraphs=True)
    assert [event["agent"] async for _, event in stream] == ["a", "b", "a", "b", "judge"]


async def test_a_users_checkpointer_keeps_the_turns_of_a_team_that_was_cut_off() -> None:
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    first, second = Recorder({("b", 3): "raises"}), Recorder()
    with pytest.raises(RuntimeError, match="crashed"):
        await application(exported(first, rounds=4), saver).ainvoke({"topic": "tea"}, config)
    end = await application(exported(second, rounds=4), saver).ainvoke(None, config)
    assert end["answer"].startswith("judge@4")
    assert len(end["messages"]) == 9
    assert min(second.order) >= (3, "a")


async def test_the_same_thread_asks_the_team_afresh_for_a_new_question() -> None:
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    recorder = Recorder()
    app = application(exported(recorder), saver)
    await app.ainvoke({"topic": "tea"}, config)
    await app.ainvoke({"topic": "coffee"}, config)
    assert len(recorder.order) == 10
