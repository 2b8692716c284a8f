"""A run played back: nothing is paid, also for agents that have a model of their own."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agentcomm.backends.replay import Replay
from agentcomm.backends.scripted import Echo
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.graph import Agent, AgentGraph
from agentcomm.task import Item, Score, Task

GRAPH = AgentGraph([Agent("own", model="mock/echo"), Agent("last")], [("own", "last")], decision="last")


def task(n: int) -> Task:
    return Task("t", [Item(f"q{i}", f"Question {i}?") for i in range(n)], lambda item, answer: Score(1.0))


def play(model: object, n: int, out: Path | None = None) -> Run:
    async def go() -> Run:
        return await evaluate(GRAPH, task(n), model, out=out, executor="plain")  # type: ignore[arg-type]

    return anyio.run(go)


@pytest.mark.parametrize("as_object", [True, False])
def test_a_replay_answers_for_every_agent_and_costs_nothing(tmp_path: Path, as_object: bool) -> None:
    first = play(Echo(), 2, tmp_path / "run")
    model = Replay.of_run(tmp_path / "run") if as_object else f"replay/{tmp_path / 'run'}"
    again = play(model, 2)
    assert [e.answer for e in again.episodes] == [e.answer for e in first.episodes]
    assert (again.usage.calls, again.usage.cache_hits) == (0, first.usage.calls)


def test_a_request_that_was_not_recorded_fails_its_item_and_is_no_call(tmp_path: Path) -> None:
    play(Echo(), 1, tmp_path / "run")
    again = play(f"replay/{tmp_path / 'run'}", 2)
    assert [e.status for e in again.episodes] == ["ok", "failed"]
    assert again.usage.calls == again.usage.unknown_calls == 0
