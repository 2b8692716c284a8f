"""Judging against a reference: weights, both orders, and judges that can't be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import ChannelError, TaskError
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.loading import load_graph, load_task
from agentcomm.research.race import DIMENSIONS, GENERIC, overall, read_criteria, read_scores, weighted
from tests.research.teams import prompt_of

pytestmark = pytest.mark.anyio
REPORT = "Seals eat sand eel; one twentieth is cod. Reports fell from 212 to 97, as 31 of the 44 boats changed nets."


def criteria(weights: Mapping[str, float] | None = None, inner: tuple[float, ...] = (1.0,)) -> str:
    given = weights or dict.fromkeys(DIMENSIONS, 0.25)
    return json.dumps(
        {d: {"weight": w, "criteria": [{"criterion": f"{d} {i}", "weight": v} for i, v in enumerate(inner)]}
         for d, w in given.items()}
    )  # fmt: skip


def scores(a: list[float], b: list[float]) -> str:
    return json.dumps(
        {"scores": [{"criterion": i, "A": x, "B": y} for i, (x, y) in enumerate(zip(a, b, strict=True), 1)]}
    )


@given(
    st.lists(st.floats(0, 100), min_size=4, max_size=4).filter(lambda w: sum(w) > 1e-6),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
)
def test_weights_sum_to_one_whatever_the_judge_gave(weights: list[float], inner: list[float]) -> None:
    made = read_criteria(criteria(dict(zip(DIMENSIONS, weights, strict=True)), tuple(inner)))
    assert sum(c.weight for c in made) == pytest.approx(1.0)
    assert len(made) == 4 * len(inner)


def test_the_score_is_the_weighted_sum_by_hand() -> None:
    made = read_criteria(criteria({"comprehensiveness": 0.4, "insight": 0.3, "instruction_following": 0.2,
                                   "readability": 0.1}, (0.75, 0.25)))  # fmt: skip
    values = [8, 4, 6, 2, 10, 0, 5, 5]
    by_hand = 0.4 * (0.75 * 8 + 0.25 * 4) + 0.3 * (0.75 * 6 + 0.25 * 2) + 0.2 * 7.5 + 0.1 * 5
    assert weighted(made, values) == pytest.approx(by_hand)
    assert overall(by_hand, by_hand) == 0.5
    assert overall(6, 2) == 0.75
    assert overall(0, 0) == 0.5
    assert sum(c.weight for c in GENERIC) == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        "I like insight most.",
        criteria(dict.fromkeys(DIMENSIONS[:3], 1.0)),
        criteria(dict.fromkeys(DIMENSIONS, 0.0)),
        criteria(dict.fromkeys(DIMENSIONS, -1.0)),
        criteria(inner=()),
        criteria(inner=(0.0,)),
        criteria().replace('"weight": 0.25', '"weight": "high"'),
        criteria().replace('"insight 0"', '""'),
    ],
)
def test_criteria_that_cannot_be_read_are_a_failure(reply: str) -> None:
    with pytest.raises(ChannelError, match="can't be read"):
        read_criteria(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "A is better.",
        scores([5], [5]),
        scores([5, 5, 5], [5, 5, 5]),
        scores([5, 11], [5, 5]),
        scores([5, -1], [5, 5]),
        scores([5, 5], [5, 5]).replace('"B": 5}]', '"B": "good"}]'),
        scores([5, 5], [5, 5]).replace('"criterion": 2', '"criterion": 1'),
        scores([5, 5], [5, 5]).replace('"criterion": 2', '"criterion": true'),
    ],
)
def test_a_judgement_that_cannot_be_read_is_a_failure_and_no_score(reply: str) -> None:
    with pytest.raises(ChannelError, match="can't be read"):
        read_scores(reply, 2)


async def written(out: Path, report: str = REPORT, limit: int = 2) -> Run:
    """A run of the task by a single agent that says ``report``."""
    return await evaluate(
        load_graph("single"), load_task("research", {"limit": limit}), Scripted(lambda r: report), out=out,
        executor="plain",
    )  # fmt: skip


def judges(first: list[float], second: list[float], made: str | None = None) -> Scripted:
    """A judge who gives A ``first`` and B ``second`` whoever wrote them, and criteria."""

    def say(request: ChatRequest) -> str:
        if "You compare two reports" in prompt_of(request):
            return scores(first, second)
        return made if made is not None else criteria()

    return Scripted(say)


async def judged(run: Path, model: Scripted, graph: dict[str, Any] | None = None, **task: Any) -> Run:
    work = load_task("race", {"run": str(run), **task})
    return await evaluate(load_graph("race_judge", graph or {}), work, model, executor="plain")


async def test_a_judge_who_prefers_what_stands_first_gives_parity(tmp_path: Path) -> None:
    await written(tmp_path / "run")
    model = judges([9, 9, 9, 9], [1, 1, 1, 1])
    run = await judged(tmp_path / "run", model)
    assert [e.score for e in run.episodes] == [0.5, 0.5]
    verdict = json.loads(run.episodes[0].answer or "")
    assert (verdict["target_first"], verdict["reference_first"]) == (0.9, pytest.approx(0.1))
    assert run.usage.calls == 2 * 3
    seen = [prompt_of(r) for r in model.requests if "You compare two reports" in prompt_of(r)]
    assert (
        sum(f"Report A:\n{REPORT}" in p for p in seen) == sum(f"Report B:\n{REPORT}" in p for p in seen) == 2
    )
    assert not any("0.25" in p for p in seen), "weights are no judge's business"


async def test_a_better_report_wins_in_both_orders_and_the_interval_is_over_tasks(tmp_path: Path) -> None:
    await written(tmp_path / "run")

    def say(request: ChatRequest) -> str:
        prompt = prompt_of(request)
        if "You compare two reports" not in prompt:
            return criteria()
        good, bad = [8.0] * 4, [4.0] * 4
        return scores(good, bad) if f"Report A:\n{REPORT}" in prompt else scores(bad, good)

    work = load_task("race", {"run": str(tmp_path / "run")})
    run = await evaluate(load_graph("race_judge"), work, Scripted(say), samples=2, executor="plain")
    assert [e.score for e in run.episodes] == [pytest.approx(2 / 3)] * 4
    score = run.summary()["score"]
    assert score["mean"] == pytest.approx(2 / 3) and score["low"] <= 2 / 3 <= score["high"]


@pytest.mark.parametrize("broken", ["criteria", "judge"])
async def test_an_unreadable_judge_is_a_failed_item_and_no_wrong_answer(tmp_path: Path, broken: str) -> None:
    await written(tmp_path / "run")
    model = judges([5] * 4, [5] * 4, "no") if broken == "criteria" else judges([99] * 4, [5] * 4)
    run = await judged(tmp_path / "run", model)
    assert run.failed == 2
    assert run.summary()["score"]["mean"] is None
    assert "can't be read" in str(run.episodes[0].failure) or "no verdict" in str(run.episodes[0].failure)


async def test_the_same_command_reads_an_unreadable_judge_again_and_pays_nothing_another_seed_judges_anew(
    tmp_path: Path,
) -> None:
    await written(tmp_path / "run", limit=1)
    work = load_task("race", {"run": str(tmp_path / "run")})
    bad = judges([99] * 4, [5] * 4)
    first = await evaluate(load_graph("race_judge"), work, bad, out=tmp_path / "j", executor="plain")
    assert first.failed == 1 and len(bad.requests) == 3
    good = judges([5] * 4, [5] * 4)
    again = await evaluate(load_graph("race_judge"), work, good, out=tmp_path / "j", executor="plain")
    assert again.failed == 1 and good.requests == []
    anew = await evaluate(load_graph("race_judge"), work, good, out=tmp_path / "k", seed=1, executor="plain")
    assert anew.failed == 0 and len(good.requests) == 3


async def test_judges_are_asked_for_json_by_a_schema_unless_told_otherwise(tmp_path: Path) -> None:
    await written(tmp_path / "run", limit=1)
    model = judges([5] * 4, [5] * 4)
    await judged(tmp_path / "run", model)
    asked = [r.schema for r in model.requests]
    assert [s["required"] for s in asked if s is not None] == [list(DIMENSIONS), ["scores"], ["scores"]]
    plain = judges([5] * 4, [5] * 4)
    await judged(tmp_path / "run", plain, {"structured": False})
    assert [r.schema for r in plain.requests] == [None] * 3


async def test_generic_criteria_need_no_maker(tmp_path: Path) -> None:
    await written(tmp_path / "run", limit=1)
    run = await judged(tmp_path / "run", judges([6] * 4, [6] * 4), {"own_criteria": False})
    assert run.usage.calls == 2
    assert run.episodes[0].score == 0.5


async def test_reports_of_another_run_can_be_the_reference_and_gaps_are_counted(tmp_path: Path) -> None:
    await written(tmp_path / "run")
    await written(tmp_path / "other", "Another report.", limit=1)
    work = load_task("race", {"run": str(tmp_path / "run"), "reference": str(tmp_path / "other")})
    assert [i.id for i in work.items] == ["diesel"]
    assert work.config["left_out"] == ["tide"]
    assert "Report B:\nAnother report." in work.items[0].views["target_first"]
    with pytest.raises(TaskError, match="-T run=DIR"):
        load_task("race")


def test_the_task_counts_the_planted_facts_a_report_names() -> None:
    work = load_task("research")
    assert len(work.items) == 6
    for item in work.items:
        assert work.score(item, item.answer["report"]).value == 1.0, item.id  # type: ignore[union-attr]
        assert work.score(item, "Nothing is known.").value == 0.0  # type: ignore[union-attr]
        texts = " ".join(item.views.values())
        assert all(any(words in texts for words in fact) for fact in item.answer["facts"][:1])
    seals = next(i for i in work.items if i.id == "seals")
    assert work.score(seals, REPORT).value == 1.0  # type: ignore[union-attr]
    assert work.score(seals, "2,120 and 1973").value == 0.0  # type: ignore[union-attr]


async def test_the_shipped_graph_reads_the_shipped_task(tmp_path: Path) -> None:
    def say(request: ChatRequest) -> str:
        prompt = prompt_of(request)
        if "sees only your notes" in prompt:
            return json.dumps({"explanation": "sand eel, one twentieth", "relevant": "sand eel" in prompt})
        return "Sand eel [1]." if "Write the report" in prompt else "no plan"

    work = load_task("research")
    only = type(work)(work.name, [i for i in work.items if i.id == "seals"], work.score)
    run = await evaluate(
        load_graph("deep_research"), only, Scripted(say), out=tmp_path / "r", executor="plain"
    )
    assert run.episodes[0].score == 0.2
