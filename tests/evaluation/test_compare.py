"""Runs side by side: what is paired, what is refused, what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.cli.compare import sentence
from agentcomm.errors import BackendError, ConfigError
from agentcomm.evaluation.compare import compare
from agentcomm.evaluation.run import evaluate
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.task import Item, Score, Task

SINGLE = AgentGraph([Agent("solo")], decision="solo")
PAIR = AgentGraph([Agent("first"), Agent("last")], [Edge("first", "last")], decision="last")


def task(n: int = 20, name: str = "numbers") -> Task:
    items = [Item(f"q{i}", f"Say {i}.", answer=str(i)) for i in range(n)]
    return Task(name, items, lambda item, answer: Score(float(answer.strip() == item.answer)))


def answering(right: Callable[[int], bool], fail: Callable[[int], bool] = lambda i: False) -> Scripted:
    """A model that says the number it is asked for where ``right``, and fails where ``fail``."""

    def reply(request: ChatRequest) -> str | Exception:
        asked = next(m.content for m in request.messages if "Say " in m.content)
        number = int(asked.split("Say ")[1].split(".")[0])
        if fail(number):
            return BackendError("refused", kind="refused")
        return str(number) if right(number) else "no idea"

    return Scripted(reply)


def make(path: Path, graph: AgentGraph, work: Task, model: Scripted) -> Path:
    async def go() -> None:
        await evaluate(graph, work, model, out=path, executor="plain")

    anyio.run(go)
    return path


def test_the_difference_is_paired_and_tokens_saved_are_against_the_first_run(tmp_path: Path) -> None:
    team = make(tmp_path / "team", PAIR, task(), answering(lambda i: i < 10))
    solo = make(tmp_path / "solo", SINGLE, task(), answering(lambda i: i < 15))
    comparison = compare([team, solo])
    (against,) = comparison.against
    assert comparison.items == 20
    assert against.difference.mean == pytest.approx(0.25)
    assert against.p_value == pytest.approx(0.0625)  # five items only the second run solved
    assert against.tokens_saved is not None and 0.4 < against.tokens_saved < 0.8
    first, second = comparison.rows
    assert first["calls"] == 40 and second["calls"] == 20
    assert first["score"]["mean"] == 0.5 and second["score"]["mean"] == 0.75
    assert second["on_front"] and not first["on_front"]


def test_equal_runs_of_few_items_are_not_declared_safe(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(), answering(lambda i: True))
    b = make(tmp_path / "b", PAIR, task(), answering(lambda i: True))
    (against,) = compare([a, b]).against
    assert against.verdict.verdict == "not enough items"
    assert "can't be said from 20 items" in sentence(against, "a")


def test_equal_runs_of_many_items_are_declared_safe(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(200), answering(lambda i: i % 2 == 0))
    b = make(tmp_path / "b", PAIR, task(200), answering(lambda i: i % 2 == 0))
    (against,) = compare([a, b], margin=0.05).against
    assert against.verdict.verdict == "yes"
    assert "not worse by 5 points" in sentence(against, "a")


def test_failed_items_leave_the_pairs_and_are_also_counted_as_wrong(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(), answering(lambda i: True))
    b = make(tmp_path / "b", PAIR, task(), answering(lambda i: True, fail=lambda i: i < 4))
    (against,) = compare([a, b]).against
    assert against.left_out == 4 and against.difference.mean == 0.0
    assert against.failures_as_wrong is not None
    assert against.failures_as_wrong.mean == pytest.approx(-0.2)
    assert "4 pairs with a failure left out" in sentence(against, "a")


def test_runs_on_different_items_are_refused_unless_common_is_asked_for(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(20), answering(lambda i: True))
    b = make(tmp_path / "b", SINGLE, task(12), answering(lambda i: True))
    with pytest.raises(ConfigError, match="20 items and b 12, of which 12 are the same.*--common"):
        compare([a, b])
    assert compare([a, b], common=True).items == 12


def test_an_item_whose_text_changed_is_not_common(tmp_path: Path) -> None:
    changed = [Item(f"q{i}", f"Say {i}." + " Now!" * (i == 3), answer=str(i)) for i in range(5)]
    a = make(tmp_path / "a", SINGLE, task(5), answering(lambda i: True))
    b = make(tmp_path / "b", SINGLE, Task("numbers", changed, task(5).score), answering(lambda i: True))
    assert compare([a, b], common=True).items == 4


def test_runs_of_different_tasks_are_refused_even_with_common(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(5), answering(lambda i: True))
    b = make(tmp_path / "b", SINGLE, task(5, "other"), answering(lambda i: True))
    with pytest.raises(ConfigError, match="different tasks"):
        compare([a, b], common=True)


def test_one_run_alone_and_a_folder_that_is_no_run_are_refused(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(5), answering(lambda i: True))
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([a])
    with pytest.raises(ConfigError, match="no run at"):
        compare([a, tmp_path])


def test_with_three_runs_p_values_are_corrected(tmp_path: Path) -> None:
    a = make(tmp_path / "a", SINGLE, task(), answering(lambda i: i < 8))
    b = make(tmp_path / "b", SINGLE, task(), answering(lambda i: i < 16))
    c = make(tmp_path / "c", PAIR, task(), answering(lambda i: i < 10))
    first, second = compare([a, b, c]).against
    assert first.p_value is not None and first.p_holm == pytest.approx(2 * first.p_value)
    assert second.p_holm is not None and second.p_value is not None and second.p_holm >= second.p_value
