"""``evaluate``: limits, agents of every kind, samples, topologies by item, progress, and what stays in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import agentcomm as ac
from agentcomm.backends import Echo, Scripted
from agentcomm.backends.base import ChatRequest
from agentcomm.calls import Retry
from agentcomm.errors import ConfigError, GraphError, TaskError, UserError
from agentcomm.evaluation.run import Progress, Run, evaluate
from agentcomm.ledger.limits import Limits
from agentcomm.message import Reply, Usage
from tests.servers import CountingServer, answer, cut, status

pytestmark = pytest.mark.anyio
EXECUTORS = pytest.mark.parametrize("executor", ["plain", "langgraph"])


def team(**changes: Any) -> ac.AgentGraph:
    agents = [
        ac.Agent("a", role="Be A."),
        ac.Agent("b", role="Be B."),
        ac.Agent("judge", role="Be the judge."),
    ]
    edges = [ac.Edge("a", "b"), ac.Edge("b", "a", "temporal"), ac.Edge("a", "judge"), ac.Edge("b", "judge")]
    return ac.AgentGraph(agents, edges, **{"decision": "judge", "rounds": 2, **changes})


CALLS = 5
"""Model calls that ``team()`` makes an item."""


def task(n: int = 4, score: Any = None) -> ac.Task:
    items = [ac.Item(f"q{i}", f"Question {i}?", str(i)) for i in range(n)]
    return ac.Task("numbers", items, score or (lambda item, text: ac.Score(float(item.answer in text))))


async def run(graph: ac.AgentGraph, work: ac.Task, model: Any = None, **options: Any) -> Run:
    return await evaluate(
        graph, work, model or Echo(), **{"executor": "plain", "retry": Retry(scale=0.0), **options}
    )


# -- limits ------------------------------------------------------------------------------------


@EXECUTORS
async def test_a_run_limit_of_calls_is_exact_and_raising_it_continues(executor: str, tmp_path: Path) -> None:
    with CountingServer(latency_s=0.002) as server:
        given = {
            "model": f"openai/{server.model}",
            "base_url": server.url,
            "out": tmp_path / "run",
            "executor": executor,
        }
        first = await run(team(), task(6), **given, limits=Limits(calls=12))
        assert server.tokens.requests == 12
        assert first.stopped is not None
        assert "the run has reached its limit of calls" in first.stopped
        assert first.summary()["not_run"] + first.failed + first.summary()["scored"] == 6
        again = await run(team(), task(6), **given, limits=Limits(calls=12))
        assert again.stopped
        assert server.tokens.requests == 12
        last = await run(team(), task(6), **given, limits=Limits(calls=30))
        assert last.stopped is None
        assert server.tokens.requests == 6 * CALLS == last.usage.calls
    assert (last.failed, last.summary()["scored"]) == (0, 6)


async def test_a_run_limit_of_tokens_is_overshot_by_calls_in_flight_only() -> None:
    model = Echo(latency_s=0.001, max_concurrency=2)
    done = await run(team(), task(50), model, limits=Limits(tokens=1000))
    used = done.usage.input_tokens + done.usage.output_tokens
    assert 1000 <= used < 1000 + 2 * 100
    assert done.stopped
    assert done.summary()["not_run"] > 40


async def test_a_run_limit_of_seconds_stops_the_run() -> None:
    done = await run(team(), task(500), Echo(latency_s=0.01, max_concurrency=1), limits=Limits(seconds=0.2))
    assert done.stopped
    assert "seconds" in done.stopped
    assert 0 < done.usage.calls < 500


async def test_a_run_limit_of_cost_needs_a_price_and_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="price of 'mock/echo'"):
        await run(team(), task(), limits=Limits(cost=1.0))
    prices = tmp_path / "prices.toml"
    prices.write_text('["mock/echo"]\ninput = 1000.0\noutput = 1000.0\n')
    done = await run(team(), task(), Echo(max_concurrency=1), limits=Limits(cost=0.1), prices=prices)
    assert done.stopped
    assert "cost" in done.stopped
    cost = done.summary()["cost"]
    assert cost is not None
    assert 0.1 <= cost < 0.2
    assert cost == pytest.approx((done.usage.input_tokens + done.usage.output_tokens) / 1000)


@EXECUTORS
async def test_an_item_limit_ends_that_item_and_the_run_goes_on(executor: str) -> None:
    model = Scripted(lambda r: "long " * 300 if "Question 2?" in r.messages[1].content else "short")
    done = await run(team(), task(), model, item_limits=Limits(tokens=900), executor=executor)
    assert done.stopped is None
    assert {e.item: e.status for e in done.episodes} == {"q0": "ok", "q1": "ok", "q2": "failed", "q3": "ok"}
    failed = next(e for e in done.episodes if e.item == "q2")
    assert failed.failure is not None
    assert "the item has reached its limit of tokens" in failed.failure


async def test_an_item_limit_holds_over_a_repeated_command(tmp_path: Path) -> None:
    model = Echo()
    for _ in range(3):
        done = await run(team(), task(1), model, out=tmp_path / "run", item_limits=Limits(calls=3))
        assert (done.failed, done.usage.calls) == (1, 3)
    done = await run(team(), task(1), model, out=tmp_path / "run", item_limits=Limits(calls=5))
    assert (done.failed, done.usage.calls, len(model.requests)) == (0, 5, 5)


@EXECUTORS
async def test_an_agent_limit_silences_that_agent_and_the_episode_goes_on(executor: str) -> None:
    model = Echo()
    done = await run(team(), task(2), model, agent_limits=Limits(calls=1), executor=executor)
    assert (done.failed, done.stopped) == (0, None)
    assert {name: u["calls"] for name, u in done.usage.by_agent().items()} == {"a": 2, "b": 2, "judge": 2}
    assert [e.failures for e in done.episodes] == [2, 2]


# -- agents of every kind ----------------------------------------------------------------------


async def _shout(turn: ac.Turn) -> str:
    return " ".join(d.text.upper() for d in turn.inbox) or turn.item.question


class _Vote:
    async def __call__(self, turn: ac.Turn) -> ac.Message:
        return ac.Message("somebody else", 99, Counter(d.text for d in turn.inbox).most_common(1)[0][0])


@EXECUTORS
async def test_function_agents_read_and_speak_and_pay_nothing(executor: str) -> None:
    graph = ac.AgentGraph(
        [ac.Agent("a"), ac.Agent("b", act=_shout), ac.Agent("vote", act=_Vote())],
        [("a", "b"), ("b", "vote")],
        decision="vote",
    )
    done = await run(graph, task(3), Scripted(default="quiet words"), executor=executor)
    assert [e.answer for e in done.episodes] == ["QUIET WORDS"] * 3
    assert done.usage.calls == 3
    assert set(done.usage.by_agent()) == {"a"}


@pytest.mark.parametrize("bad", ["raises", "returns a number", "not async", "raises a group"])
@EXECUTORS
async def test_a_function_agent_that_fails_is_a_failure_that_nobody_reads(bad: str, executor: str) -> None:
    async def raises(turn: ac.Turn) -> str:
        raise KeyError("lost")

    async def number(turn: ac.Turn) -> Any:
        return 5

    async def group(turn: ac.Turn) -> str:
        raise ExceptionGroup("several", [ValueError("one")])

    act: Any = {
        "raises": raises,
        "returns a number": number,
        "not async": lambda turn: "text",
        "raises a group": group,
    }[bad]
    graph = ac.AgentGraph([ac.Agent("f", act=act), ac.Agent("judge")], [("f", "judge")], decision="judge")
    model = Echo()
    done = await run(graph, task(1), model, executor=executor)
    assert (done.failed, done.episodes[0].failures) == (0, 1)
    assert "From f" not in str(model.requests)


async def test_function_agents_alone_need_no_model(tmp_path: Path) -> None:
    graph = ac.AgentGraph([ac.Agent("a", act=_shout)], [], decision="a")
    done = await evaluate(graph, task(2), out=tmp_path / "run")
    assert [e.answer for e in done.episodes] == ["Question 0?", "Question 1?"]
    assert done.summary()["cost"] == 0


async def test_an_agent_without_memory_sees_only_this_rounds_messages() -> None:
    said = iter([f"said {n}" for n in range(1, 8)])
    model = Scripted(lambda r: next(said))
    graph = ac.AgentGraph(
        [
            ac.Agent("a", role="Be A.", memory=False),
            ac.Agent("b", role="Be B."),
            ac.Agent("judge", role="Decide."),
        ],
        [ac.Edge("a", "b"), ac.Edge("b", "a", "temporal"), ac.Edge("b", "judge")],
        decision="judge",
        rounds=3,
    )
    await run(graph, task(1), model)
    a = ["".join(m.content for m in r.messages) for r in model.requests if "Be A." in str(r.messages)]
    assert "said 2" in a[1]
    assert "said 1" not in a[1]
    assert "said 4" in a[2]
    assert "said 2" not in a[2]
    b = [[m.role for m in r.messages] for r in model.requests if "Be B." in str(r.messages)]
    assert b[2].count("assistant") == 2


async def test_an_agent_sees_its_view_and_no_other() -> None:
    item = ac.Item("q", "Who?", "x", context="Shared.", views={"left": "LEFT FACT", "right": "RIGHT FACT"})
    graph = ac.AgentGraph(
        [
            ac.Agent("l", role="Be L.", view="left"),
            ac.Agent("all", role="Be all.", view="*"),
            ac.Agent("none", role="Be none."),
        ],
        [("l", "none"), ("all", "none")],
        decision="none",
    )
    model = Scripted(default="ok")
    await run(graph, ac.Task("t", [item], lambda i, t: ac.Score(1.0)), model)
    prompts = {
        name: str(r.messages)
        for r in model.requests
        for name in ("L", "all", "none")
        if f"Be {name}." in str(r.messages)
    }
    sees = {name: ("LEFT" in p, "RIGHT" in p, "Shared." in p) for name, p in prompts.items()}
    assert sees == {"L": (True, False, True), "all": (True, True, True), "none": (False, False, True)}


@pytest.mark.parametrize(
    ("said", "odd"), [("", True), ("not json", True), ('{"x": 1', True), ('{"x": 1}', False)]
)
async def test_what_is_not_the_json_asked_for_is_noted_and_read_as_it_is(said: str, odd: bool) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    graph = ac.AgentGraph(
        [ac.Agent("a", schema=schema), ac.Agent("judge")], [("a", "judge")], decision="judge"
    )
    with CountingServer() as server:
        server.script(answer(said), when=lambda r: "response_format" in r)
        notes: list[str] = []
        done = await run(graph, task(1), f"openai/{server.model}", base_url=server.url,
                         listen=lambda spoke: notes.append(getattr(spoke.record.outcome, "note", "")))  # fmt: skip
        assert server.served[0].request["response_format"]["json_schema"]["schema"] == schema
        assert "response_format" not in server.served[1].request
        assert (said in str(server.served[1].request["messages"][-1]["content"])) or not said
    assert (done.failed, bool(notes[0]), notes[1]) == (0, odd, "")


# -- samples and topologies --------------------------------------------------------------------


@EXECUTORS
async def test_samples_have_seeds_of_their_own_and_are_resumed_one_by_one(
    executor: str, tmp_path: Path
) -> None:
    model = Echo()
    given = {"samples": 3, "out": tmp_path / "run", "executor": executor}
    stopped = await run(team(), task(2), model, **given, limits=Limits(calls=12))
    assert stopped.stopped
    done = await run(team(), task(2), model, **given)
    assert [(e.item, e.sample) for e in done.episodes] == [(i, s) for i in ("q0", "q1") for s in range(3)]
    assert len(model.requests) == 6 * CALLS == done.usage.calls
    assert len({r.seed for r in model.requests}) == 6 * CALLS
    assert done.summary()["items"] == 6


async def test_a_topology_by_item_is_obeyed_recorded_and_a_pruned_agent_appears_in_no_request(
    tmp_path: Path,
) -> None:
    graph = team()

    def cut(item: ac.Item) -> ac.Topology:
        return graph.topology(without_agents=["b"]) if item.id in ("q1", "q3") else graph.topology()

    with CountingServer() as server:
        done = await run(
            graph, task(), f"openai/{server.model}", base_url=server.url, topology=cut, out=tmp_path / "r"
        )
        assert done.failed == 0
        for served in server.served:
            text = str(served.request["messages"])
            if "Question 1?" in text or "Question 3?" in text:
                assert "Be B." not in text
                assert "From b" not in text
        assert server.tokens.requests == 2 * CALLS + 2 * 3
    assert [e.topology is not None and '"b"' in e.topology for e in done.episodes] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("gives", ["nonsense", "an error", "another graph's"])
async def test_a_topology_that_can_not_be_made_is_the_users_to_mend(gives: str) -> None:
    def cut(item: ac.Item) -> Any:
        if gives == "an error":
            raise RuntimeError("boom")
        other = ac.AgentGraph([ac.Agent("x")], [], decision="x")
        return other.topology() if gives == "another graph's" else "everything"

    with pytest.raises(GraphError):
        await run(team(), task(), topology=cut)


# -- what ends a run ---------------------------------------------------------------------------


@EXECUTORS
async def test_a_user_error_of_the_scorer_comes_as_itself_and_paid_replies_are_kept(
    executor: str, tmp_path: Path
) -> None:
    def score(item: ac.Item, text: str) -> ac.Score:
        raise TaskError("the key of item q0 is torn")

    model = Echo()
    with pytest.raises(TaskError, match="torn"):
        await run(team(), task(1, score), model, out=tmp_path / "run", executor=executor)
    done = await run(team(), task(1), model, out=tmp_path / "run", executor=executor)
    assert len(model.requests) == CALLS == done.usage.calls


@EXECUTORS
async def test_an_async_scorer_is_awaited(executor: str) -> None:
    async def score(item: ac.Item, text: str) -> ac.Score:
        await anyio.lowlevel.checkpoint()
        return ac.Score(0.5)

    done = await run(team(), task(2, score), executor=executor)
    assert done.summary()["score"]["mean"] == 0.5


@EXECUTORS
async def test_what_a_backend_raises_never_comes_as_a_group(executor: str) -> None:
    class Bad(Echo):
        async def chat(self, request: ChatRequest) -> Reply:
            raise RuntimeError("a bug of the backend's")

    done = await run(team(), task(2), Bad(), executor=executor)
    assert done.failed == 2
    assert {r.error_kind for r in done.usage.rows} == {"bug"}


@EXECUTORS
async def test_cancelling_a_run_leaves_a_directory_that_continues(executor: str, tmp_path: Path) -> None:
    model = Echo(latency_s=0.01)
    with anyio.move_on_after(0.15) as scope:
        await run(team(), task(100), model, out=tmp_path / "run", executor=executor)
    assert scope.cancelled_caught
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["summary"]["not_run"] > 0
    fast = Echo()
    done = await run(team(), task(100), fast, out=tmp_path / "run", executor=executor)
    assert done.summary()["scored"] == 100
    answered = [r for r in done.usage.rows if r.error_kind is None]
    assert len(answered) == 100 * CALLS
    assert len({(r.item, r.round, r.agent) for r in answered}) == 100 * CALLS
    assert len(done.usage.rows) == len(model.requests) + len(fast.requests)


@EXECUTORS
async def test_a_reply_that_came_is_recorded_even_if_the_run_is_cancelled_while_its_tokens_are_counted(
    executor: str, tmp_path: Path
) -> None:
    counting = anyio.Event()

    class Slow(Echo):
        async def count_tokens(self, text: str) -> int | None:
            counting.set()
            await anyio.sleep(0.3)
            return await super().count_tokens(text)

    async with anyio.create_task_group() as group:

        async def go() -> None:
            await run(team(), task(1), Slow(), out=tmp_path / "run", executor=executor)

        group.start_soon(go)
        await counting.wait()
        group.cancel_scope.cancel()
    with ac.Ledger.open(tmp_path / "run" / "ledger.sqlite") as ledger:
        rows = ledger.calls()
    assert [(r.agent, r.error_kind, r.input_tokens is not None) for r in rows] == [("a", None, True)]


@pytest.mark.parametrize("after_s", [0.01, 0.03, 0.05, 0.08, 0.11, 0.15, 0.2])
async def test_a_run_with_checkpoints_continues_wherever_it_was_cut_off(
    after_s: float, tmp_path: Path
) -> None:
    given = {"out": tmp_path / "run", "checkpoint": tmp_path / "c.sqlite", "executor": "langgraph"}
    with anyio.move_on_after(after_s):
        await run(team(), task(4), Echo(latency_s=0.01), **given)
    done = await run(team(), task(4), **given)
    assert (done.failed, done.summary()["scored"]) == (0, 4)
    answered = [(r.item, r.round, r.agent) for r in done.usage.rows if r.error_kind is None]
    assert len(answered) == len(set(answered)) == 4 * CALLS


async def test_a_checkpoint_of_one_model_or_seed_never_answers_for_another(tmp_path: Path) -> None:
    given = {"checkpoint": tmp_path / "c.sqlite", "executor": "langgraph"}
    one = Scripted(default="one", name="one")
    assert (await ac.run(team(), "Hm?", one, **given)).answer == "one"
    assert (await ac.run(team(), "Hm?", Scripted(default="two", name="two"), **given)).answer == "two"
    assert (await ac.run(team(), "Hm?", one, **given)).usage.calls == 0  # it was finished
    assert (await ac.run(team(), "Hm?", one, **given, seed=1)).usage.calls == CALLS


async def test_a_server_that_cuts_connections_is_there_and_the_run_goes_on() -> None:
    with CountingServer() as server:
        server.script(cut(), when=lambda r: "Question 5?" not in str(r["messages"]))
        done = await run(team(), task(6), f"openai/{server.model}", base_url=server.url, max_concurrency=1,
                         retry=Retry(attempts=2, scale=0.0))  # fmt: skip
    assert (done.stopped, done.failed, done.summary()["scored"]) == (None, 5, 1)
    assert {r.error_kind for r in done.usage.rows} == {"cut", None}


# -- several runs at once ----------------------------------------------------------------------


@EXECUTORS
async def test_two_runs_in_one_process_keep_separate_ledgers(executor: str, tmp_path: Path) -> None:
    done: dict[str, Run] = {}
    with CountingServer(latency_s=0.002) as server:

        async def go(name: str, n: int) -> None:
            done[name] = await run(team(), task(n), f"openai/{server.model}", base_url=server.url,
                                   out=tmp_path / name, executor=executor)  # fmt: skip

        async with anyio.create_task_group() as group:
            group.start_soon(go, "one", 3)
            group.start_soon(go, "two", 5)
        total = server.tokens
    assert (done["one"].usage.calls, done["two"].usage.calls) == (3 * CALLS, 5 * CALLS)
    assert sum(d.usage.input_tokens for d in done.values()) == total.prompt


async def test_a_backend_that_is_passed_in_stays_its_owners_and_one_that_a_run_opened_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Counted(Echo):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    given, opened = Counted(), Counted()
    monkeypatch.setattr("agentcomm.backends.resolve", lambda model, options: opened)
    await run(team(), task(2), given)
    assert given.closed == 0
    mixed = ac.AgentGraph(
        [ac.Agent("a", model="mock/echo"), ac.Agent("b", model="mock/echo"), ac.Agent("judge")],
        [("a", "judge"), ("b", "judge")],
        "judge",
    )
    await run(mixed, task(2), given)
    assert (given.closed, opened.closed) == (0, 1)
    await ac.run(mixed, "Question?", given)
    assert (given.closed, opened.closed) == (0, 2)


async def test_a_cache_stands_before_models_named_by_strings_and_before_no_object(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Replay"):
        await run(team(), task(1), Echo(), cache=tmp_path / "cache")


@pytest.mark.parametrize("model", [42, len])
async def test_a_model_that_is_none_is_the_users_to_mend(model: Any) -> None:
    with pytest.raises(ConfigError, match="model string"):
        await run(team(), task(1), model)
    with pytest.raises(ConfigError, match="model string"):
        await ac.run(team(), "Question?", model)


async def test_a_topology_that_is_none_is_the_users_to_mend() -> None:
    with pytest.raises(GraphError, match="not a topology"):
        await run(team(), task(1), topology="a->b")
    with pytest.raises(GraphError, match="not a topology"):
        await ac.run(team(), "Question?", "mock/echo", topology="a->b")  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [{"temperature": float("nan")}, {"temperature": -1.0}, {"top_p": 0.0}])
async def test_sampling_that_makes_no_sense_is_the_users_to_mend(sampling: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(sampling))):
        await run(team(), task(1), **sampling)
    with pytest.raises(GraphError, match=next(iter(sampling))):
        ac.Agent("a", **sampling)  # type: ignore[arg-type]


async def test_limits_are_limits_and_files_may_be_named_by_strings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"item_limits=.*Limits\(calls=10\)"):
        await ac.run(team(), "Question?", "mock/echo", item_limits={"calls": 3})
    prices = tmp_path / "prices.toml"
    prices.write_text('["mock/echo"]\ninput = 1.0\noutput = 2.0\n')
    files = {
        "prices": str(prices),
        "cache": str(tmp_path / "cache"),
        "checkpoint": str(tmp_path / "c.sqlite"),
    }
    assert (await ac.run(team(), "Question?", "mock/echo", **files)).usage.cost


async def test_two_runs_in_one_directory_at_once_are_refused(tmp_path: Path) -> None:
    errors: list[UserError] = []

    async def go() -> None:
        try:
            await run(team(), task(3), Echo(latency_s=0.01), out=tmp_path / "run")
        except UserError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(go)
        group.start_soon(go)
    assert len(errors) == 1
    assert "another process" in str(errors[0])


# -- progress and memory -----------------------------------------------------------------------


async def test_progress_ends_where_the_summary_is_also_after_a_resume(tmp_path: Path) -> None:
    def figures(progress: Progress, done: Run) -> None:
        summary = done.summary()
        assert (progress.done, progress.total) == (8, 8)
        assert (progress.failed, progress.scored) == (summary["failed"], summary["scored"])
        assert progress.score == pytest.approx(summary["score"]["mean"])
        assert (progress.calls, progress.input_tokens, progress.output_tokens) == (
            summary["calls"], summary["tokens"]["input"], summary["tokens"]["output"],
        )  # fmt: skip

    last: list[Progress] = []
    with CountingServer() as server:
        server.script(status(400), when=lambda r: "Question 2?" in str(r["messages"]))
        server.script(status(500))
        given = {"model": f"openai/{server.model}", "base_url": server.url, "out": tmp_path / "run"}
        with anyio.move_on_after(0.05):
            await run(team(), task(8), **given, on_progress=last.append)
        done = await run(team(), task(8), **given, on_progress=last.append)
        assert done.failed == 1
        figures(last[-1], done)
        server.forgive()
        done = await run(team(), task(8), **given, on_progress=last.append)
        assert done.failed == 0
        figures(last[-1], done)


async def test_cache_hits_are_in_no_total_of_progress_or_summary(tmp_path: Path) -> None:
    last: list[Progress] = []
    with CountingServer() as server:
        for out in ("one", "two"):
            done = await run(team(), task(2), f"openai/{server.model}", base_url=server.url, out=tmp_path / out,
                             cache=tmp_path / "cache.sqlite", on_progress=last.append)  # fmt: skip
        assert server.tokens.requests == 2 * CALLS
    assert (done.summary()["calls"], done.summary()["cache_hits"]) == (0, 2 * CALLS)
    assert (last[-1].calls, last[-1].input_tokens) == (0, 0)


async def test_usage_that_is_unknown_is_counted_as_unknown() -> None:
    model = Scripted(lambda r: Reply("ok", Usage(input_tokens=10, output_tokens=None)))
    done = await run(team(), task(1), model)
    summary = done.summary()
    assert (summary["unknown_calls"], summary["tokens"]["input"], summary["tokens"]["output"]) == (
        CALLS,
        50,
        0,
    )


MANY = """
import resource, sys, anyio
import agentcomm as ac
from agentcomm.message import Reply, Usage

class Silent:
    name, endpoint, max_concurrency = "silent", "silent", 64
    async def chat(self, request):
        await anyio.lowlevel.checkpoint()
        return Reply("fine", Usage(2000, 1), "stop")
    async def aclose(self):
        pass

graph = ac.AgentGraph([ac.Agent("a"), ac.Agent("b")], [("a", "b")], decision="b")
items = [ac.Item(f"q{i}", f"Question {i}? " + "word " * 1600, str(i)) for i in range(int(sys.argv[2]))]
task = ac.Task("t", items, lambda item, text: ac.Score(1.0))
peaks = {}

def on(progress):
    tenth = progress.done * 10 // progress.total
    peaks.setdefault(tenth, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

async def main():
    await ac.evaluate(graph, task, Silent(), out=sys.argv[1], executor="plain", on_progress=on)
    print(peaks[2], peaks[9])

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in kilobytes there")
async def test_memory_does_not_grow_with_finished_episodes(tmp_path: Path) -> None:
    n = 5_000
    done = subprocess.run(  # noqa: ASYNC221 -- nothing else runs here
        [sys.executable, "-c", MANY, str(tmp_path / "run"), str(n)],
        capture_output=True,
        text=True,
        check=True,
    )
    early, late = map(int, done.stdout.split())
    # An episode's row stays, its answer in it. Its two prompts of 8 KB would be 56 MB here.
    assert late - early < 16_000, f"{late - early} KB more after {0.7 * n:.0f} episodes"
