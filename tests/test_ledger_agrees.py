"""A server that counts what it serves agrees with the ledger to the token: under faults, over kills."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentcomm.calls import Retry
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import PENDING, CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_graph, load_task
from agentcomm.task import Task
from tests.command import CALLS_PER_ITEM, SUMS, TEAM, agentcomm, finish, start, wait_until, write
from tests.servers import (
    CountingServer,
    Fault,
    answer,
    broken_json,
    cut,
    hang,
    huge,
    no_choices,
    no_usage,
    not_utf8,
    ok,
    status,
)

ITEMS = 8
PATIENT = Retry(attempts=4, scale=0.0)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return write(tmp_path, "team.py", TEAM)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return write(tmp_path, "sums.py", SUMS)


def is_critic(request: dict[str, Any]) -> bool:
    # With its line breaks, which an echo of the prompt doesn't have.
    return any("\n\nCriticise." in m["content"] for m in request["messages"])


def agree(server: CountingServer, rows: list[CallRow]) -> None:
    """Every request is a row, every reported token is in one, and each row's parts sum to its total."""
    told = server.tokens
    assert len(rows) == told.requests
    assert sum(r.input_tokens or 0 for r in rows) == told.prompt
    assert sum(r.output_tokens or 0 for r in rows) == told.completion
    for row in rows:
        if row.input_tokens is None:
            assert row.parts is None  # unknown, not zero
        else:
            assert row.parts is not None
            assert sum(row.parts.values()) == row.input_tokens
            assert min(row.parts.values()) >= 0


def agree_with_run(server: CountingServer, run: Run, rows: list[CallRow]) -> None:
    agree(server, rows)
    tokens = run.summary()["tokens"]
    told = server.tokens
    assert (run.summary()["calls"], tokens["input"], tokens["output"]) == told
    edges = sum(tokens["by_edge"].values())
    others = sum(n for part, n in tokens["by_part"].items() if part != "messages")
    assert tokens["by_part"]["messages"] == edges
    assert edges + others == tokens["input"]
    assert sum(a["input"] for a in tokens["by_agent"].values()) == tokens["input"]
    assert sum(a["output"] for a in tokens["by_agent"].values()) == tokens["output"]


async def run_on(
    server: CountingServer, graph: AgentGraph, task: Task, out: Path | None = None, **options: Any
) -> tuple[Run, list[CallRow]]:
    given = {"base_url": server.url, "retry": PATIENT, "executor": "plain", "out": out, **options}
    run = await evaluate(graph, task, "openai/test-model", **given)
    return run, list(run.usage.rows)


@pytest.mark.anyio
@pytest.mark.parametrize("executor", ["plain", "langgraph"])
@pytest.mark.parametrize("tokenize", [None, "vllm"])
async def test_without_faults(
    executor: str, tokenize: str | None, team: Path, sums: Path, tmp_path: Path
) -> None:
    with CountingServer(tokenize=tokenize, latency_s=0.002) as server:
        run, rows = await run_on(
            server, load_graph(team), load_task(sums, {"limit": ITEMS}), tmp_path / "run", executor=executor
        )
        assert server.tokens.requests == ITEMS * CALLS_PER_ITEM
        assert server.peak > 1  # items ran side by side
        agree_with_run(server, run, rows)
    assert {r.parts_estimated for r in rows} == {tokenize is None}


AGAIN: dict[str, list[Fault]] = {
    "429": [status(429, retry_after="1"), ok(), status(429)],
    "500": [status(500), status(503), ok(), status(500)],
    "broken JSON": [broken_json(), ok(), broken_json()],
    "cut": [cut(0), ok(), cut(40)],
    "no choices": [no_choices()],
    "all at once": [
        status(429, retry_after="0"),
        cut(10),
        broken_json(),
        not_utf8(),
        no_choices(),
        status(502),
    ],
}
"""Faults that a retry mends."""


@pytest.mark.anyio
@pytest.mark.parametrize("name", AGAIN)
async def test_under_faults_that_a_retry_mends(name: str, team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(*AGAIN[name])
        graph, task = load_graph(team), load_task(sums, {"limit": ITEMS})
        run, rows = await run_on(server, graph, task, retry=Retry(attempts=8, scale=0.0))
        failures = [f for f in AGAIN[name] if "ok" not in f.__qualname__]
        assert run.failed == 0
        assert server.tokens.requests == ITEMS * CALLS_PER_ITEM + len(failures)
        agree_with_run(server, run, rows)
        failed = [r for r in rows if r.error_kind]
        assert len(failed) == len(failures) == run.summary()["failed_calls"]
        # Of a reply without choices the server still said what it cost.
        told = [r for r in failed if r.input_tokens is not None]
        assert len(told) == (name in ("no choices", "all at once"))
        assert all(r.error and "has no choices" in r.error for r in told)
        assert all(r.error for r in failed)


@pytest.mark.anyio
async def test_a_server_that_hangs_is_given_up_after_the_timeout_and_asked_again(
    team: Path, sums: Path
) -> None:
    with CountingServer() as server:
        server.script(hang(), ok(), hang())
        run, rows = await run_on(server, load_graph(team), load_task(sums), timeout_s=0.3)
        agree_with_run(server, run, rows)
    assert run.failed == 0
    assert Counter(r.error_kind for r in rows)["timeout"] == 2


@pytest.mark.anyio
async def test_what_never_succeeds_fails_the_turn_and_the_episode_goes_on(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(status(500), when=is_critic)
        run, rows = await run_on(server, load_graph(team), load_task(sums))
        agree_with_run(server, run, rows)
    assert run.failed == 0  # the judge could still act
    assert [e.failures for e in run.episodes] == [2] * 4
    critics = [r for r in rows if r.agent == "critic"]
    assert Counter(r.attempt for r in critics) == dict.fromkeys(range(1, PATIENT.attempts + 1), 8)
    assert not any("From critic" in str(s.request) for s in server.served)


@pytest.mark.anyio
async def test_usage_that_a_server_leaves_out_is_unknown_and_not_zero(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(no_usage(), when=is_critic)
        run, rows = await run_on(server, load_graph(team), load_task(sums))
        agree_with_run(server, run, rows)
    critics = [r for r in rows if r.agent == "critic"]
    assert all(r.input_tokens is None and r.output_tokens is None and r.error_kind is None for r in critics)
    assert run.summary()["unknown_calls"] == len(critics) == 8
    assert run.failed == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    "said", [answer(""), answer(None), huge(2_000_000), answer("caf\u00e9 \ud83d\ude00 \x00"), answer("\ud800 half")],
    ids=["empty", "nothing", "huge", "odd", "half a pair"],
)  # fmt: skip
async def test_whatever_a_model_says_is_recorded_and_the_episode_goes_on(
    said: Fault, team: Path, sums: Path, tmp_path: Path
) -> None:
    with CountingServer() as server:
        server.script(said, when=is_critic)
        run, rows = await run_on(server, load_graph(team), load_task(sums, {"limit": 1}), tmp_path / "run")
        agree_with_run(server, run, rows)
        asked = len(server.served)
        run, rows = await run_on(server, load_graph(team), load_task(sums, {"limit": 1}), tmp_path / "run")
        assert len(server.served) == asked
    assert (run.failed, len(run.episodes)) == (0, 1)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["summary"]["scored"] == 1
    done = agentcomm("ledger", tmp_path / "run", "--by", "call", "--json")
    assert len(done.json) == CALLS_PER_ITEM


# -- over kills --------------------------------------------------------------------------------


def questions(served: list[Any]) -> set[str]:
    return {f"q{int(str(s.request['messages']).partition('What is ')[2].split()[0]):03d}" for s in served}


def words(server: CountingServer, team: Path, sums: Path, *more: str) -> list[str]:
    return ["eval", str(team), str(sums), "--model", "openai/test-model", "--base-url", server.url,
            "--limit", str(ITEMS), "--concurrency", "3", "--out", "run", "--json", *more]  # fmt: skip


def rows_of(path: Path) -> list[CallRow]:
    with Ledger.open(path / "ledger.sqlite", read_only=True) as ledger:
        return ledger.calls()


def finished(path: Path) -> set[str]:
    with Ledger.open(path / "ledger.sqlite", read_only=True) as ledger:
        return {e.item for e in ledger.episodes() if e.status == "ok"}


@pytest.mark.parametrize(
    "way",
    [["langgraph"], ["plain"], ["langgraph", "--checkpoint", "c.sqlite"]],
    ids=lambda way: " ".join(way),
)
def test_over_kill_9_and_resume(way: list[str], team: Path, sums: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CountingServer(latency_s=0.03) as server:
        command = words(server, team, sums, "--executor", *way)
        process = start(*command, cwd=tmp_path)
        wait_until(lambda: len(server.served) >= 3 * CALLS_PER_ITEM + 1, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_at = len(server.served)
        before, done = rows_of(run), finished(run)
        answered = {(r.item, r.round, r.agent) for r in before if r.error_kind is None}
        pending = [r for r in before if r.error_kind == PENDING]
        assert done
        assert len(done) < ITEMS
        assert all(r.input_tokens is None and r.cost is None for r in pending)

        second = agentcomm(*command)
        assert second.code == 0, second.err
        assert second.json["scored"] == ITEMS
        served = server.served[killed_at:]
        total = server.tokens

    rows = rows_of(run)
    # Finished items were not asked again, nor replies that unfinished ones had already.
    late = [r for r in rows if r.id not in {b.id for b in before}]
    assert not {(r.item, r.round, r.agent) for r in late} & answered
    in_flight = 3  # requests that the server may have noted only after the kill
    assert not questions(served[in_flight:]) & done
    # What was in flight at the kill is pending: its tokens are unknown and in no total.
    lost = total.requests - len([r for r in rows if r.error_kind is None])
    assert 0 <= lost <= len(pending) <= in_flight
    assert second.json["unknown_calls"] == len(pending)
    known = [s for s in server.served if s.reply]
    most = sorted((s.reply["usage"]["prompt_tokens"] for s in known), reverse=True)[:lost]
    assert total.prompt - sum(most) <= second.json["tokens"]["input"] <= total.prompt
    assert sum(r.input_tokens or 0 for r in rows) == second.json["tokens"]["input"]
    if lost == 0:
        assert second.json["tokens"]["output"] == total.completion
    assert len({(r.item, r.round, r.agent) for r in rows if r.error_kind is None}) == ITEMS * CALLS_PER_ITEM


@pytest.mark.parametrize("executor", ["langgraph", "plain"])
def test_ctrl_c_says_how_to_continue_and_the_same_command_does(
    executor: str, team: Path, sums: Path, tmp_path: Path
) -> None:
    with CountingServer(latency_s=0.03) as server:
        command = words(server, team, sums, "--executor", executor)
        process = start(*command, cwd=tmp_path)
        wait_until(lambda: len(server.served) >= 2 * CALLS_PER_ITEM, process)
        process.send_signal(signal.SIGINT)
        first = finish(process)
        assert first.code == 130
        assert first.out == ""
        assert first.err.count("\n") == 1
        assert "--out run" in first.err
        assert "Traceback" not in first.err
        partial = json.loads((tmp_path / "run" / "results.json").read_text())
        assert partial["summary"]["not_run"] > 0
        before = rows_of(tmp_path / "run")
        assert PENDING not in {r.error_kind for r in before}  # interrupted calls are recorded as such
        answered = {(r.item, r.round, r.agent) for r in before if r.error_kind is None}

        second = agentcomm(*command)
        assert second.code == 0, second.err
        assert second.json["scored"] == ITEMS
    rows = rows_of(tmp_path / "run")
    late = [r for r in rows if r.id not in {b.id for b in before}]
    assert not {(r.item, r.round, r.agent) for r in late} & answered
    cancelled = [r for r in rows if r.error_kind == "cancelled"]
    assert len(rows) == ITEMS * CALLS_PER_ITEM + len(cancelled)
    assert all(r.input_tokens is None for r in cancelled)


def test_ctrl_c_before_anything_runs_is_130_without_a_traceback(team: Path, tmp_path: Path) -> None:
    slow = write(tmp_path, "slow.py", "import time\nopen('loading', 'w').close()\ntime.sleep(60)\n")
    process = start("eval", team, slow, "--model", "mock/echo", cwd=tmp_path)
    wait_until((tmp_path / "loading").exists, process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert "Traceback" not in done.err


SMALL_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))"
"""No file may grow beyond ``size``: to a program, a disk that is full."""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_disk_that_fills_up_ends_with_1_and_the_same_command_continues(
    team: Path, sums: Path, tmp_path: Path
) -> None:
    with CountingServer() as server:
        command = words(server, team, sums, "--task-option", "limit=24", "--executor", "plain")
        first = finish(start(*command, cwd=tmp_path, before=SMALL_FILES.format(size=150_000)))
        assert first.code == 1, first
        assert first.out == ""
        assert "space" in first.complaint
        kept = rows_of(tmp_path / "run")
        answered = {(r.item, r.round, r.agent) for r in kept if r.error_kind is None}
        assert answered
        asked = len(server.served)
        assert asked < 24 * CALLS_PER_ITEM

        second = agentcomm(*command)
        assert second.code == 0, second.err
        assert second.json["scored"] == 24
        rows = rows_of(tmp_path / "run")
        late = [r for r in rows if r.id not in {k.id for k in kept}]
        assert not {(r.item, r.round, r.agent) for r in late} & answered
        assert len(server.served) - asked == len(late)


@pytest.mark.parametrize("size", [0, 20_000], ids=["nothing fits", "the ledger does not fit"])
def test_a_disk_that_is_full_from_the_start_is_the_users_to_mend(
    size: int, team: Path, sums: Path, tmp_path: Path
) -> None:
    done = finish(start("eval", team, sums, "--model", "mock/echo", "--out", "run", "--json", "--executor", "plain",
                        cwd=tmp_path, before=SMALL_FILES.format(size=size)))  # fmt: skip
    assert (done.code, done.out) == (2, ""), done
    assert "space" in done.complaint
    assert agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run").code == 0


def test_the_ledger_can_be_read_while_the_run_goes_on(team: Path, sums: Path, tmp_path: Path) -> None:
    with CountingServer(latency_s=0.03) as server:
        process = start(*words(server, team, sums, "--executor", "plain"), cwd=tmp_path)
        try:
            wait_until(lambda: len(server.served) >= 4, process)
            seen = agentcomm("ledger", tmp_path / "run", "--by", "call", "--json")
            assert seen.code == 0, seen.err
            assert len(seen.json) >= 1
        finally:
            process.kill()
            process.communicate()
