"""Sums with a planted wrong step: exactly one, and the answer that follows from it is never right."""

import re

import pytest

from agentcomm.errors import TaskError
from agentcomm.evaluation.splits import SplitGuard
from agentcomm.loading import load_task

STEP = re.compile(r"(\d+)\) (-?\d+) ([-+*]) (\d+) = (-?\d+)\.")


def test_exactly_the_planted_step_is_wrong_and_the_attempt_goes_on_from_it() -> None:
    for item in load_task("arithmetic", {"limit": 60}).items:
        steps = STEP.findall(item.question)
        assert len(steps) == 3
        wrong = [int(k) for k, a, sign, b, c in steps if eval(f"{a}{sign}{b}") != int(c)]
        assert wrong == [item.metadata["wrong"]]
        assert [s[1] for s in steps[1:]] == [s[4] for s in steps[:-1]]
        assert steps[-1][4] != item.answer


def test_who_believes_the_attempt_scores_0_and_who_computes_scores_1() -> None:
    task = load_task("arithmetic", {"limit": 60})
    for item in task.items:
        believed = STEP.findall(item.question)[-1][4]
        assert task.score(item, f"Answer: {believed}").value == 0  # type: ignore[union-attr]
        value = int(re.findall(r"Start with (\d+)", item.question)[0])
        for word, n in re.findall(r"(Add|Subtract|Multiply by) (\d+)\.", item.question):
            value = {"Add": value + int(n), "Subtract": value - int(n), "Multiply by": value * int(n)}[word]
        assert task.score(item, f"Answer: {value}").value == 1  # type: ignore[union-attr]
        assert task.extract is not None and task.extract(item, f"Answer: {value}") is not None


def test_items_are_the_same_everywhere_and_of_one_split_only() -> None:
    some = [load_task("arithmetic", {"limit": 30, "split": s}) for s in ("learn", "validate", "score")]
    guard = SplitGuard.of([i for t in some for i in t.items])
    assert [len(x) for x in (guard.learn, guard.validate, guard.score)] == [30, 30, 30]
    assert load_task("arithmetic", {"limit": 10}).items == load_task("arithmetic", {"limit": 30}).items[:10]
    assert load_task("arithmetic", {"limit": 1}).items[0].id == "arithmetic-9b915c72c62e"


@pytest.mark.parametrize("options", [{"split": "test"}, {"steps": 0}])
def test_what_it_does_not_have_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(TaskError, match="arithmetic"):
        load_task("arithmetic", options)
