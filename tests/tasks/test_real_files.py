"""The real benchmark files, where they are: every row is read, every reference answer scores 1."""

from __future__ import annotations

import functools
import os
from collections import Counter
from pathlib import Path

import pytest

from agentcomm.evaluation.splits import SplitGuard
from agentcomm.loading import load_task
from agentcomm.task import Score, Task

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = Path(os.environ.get("AGENTCOMM_DATA") or SHARED)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="no folder of benchmark files"),
]

ROWS = {
    "gsm8k": 1319 + 7473,
    "multiarith": 600,
    "mmlu": 14042 + 285,
    "arc_challenge": 1172,
    "humaneval": 164,
    "hotpotqa": 500 + 200 - 15,
    "squad": 1190,
}
SAMPLES = {"svamp": 20, "aqua": 20, "2wikimultihopqa": 8, "musique": 8, "triviaqa": 10}


@functools.cache
def load(name: str, split: str = "all", **options: object) -> Task:
    return load_task(name, {"data": str(DATA), "split": split, **options})


@pytest.mark.parametrize(("name", "rows"), ROWS.items())
async def test_every_row_of_a_full_set_is_an_item(name: str, rows: int) -> None:
    assert len(load(name).items) == rows


@pytest.mark.parametrize(("name", "rows"), SAMPLES.items())
async def test_every_row_of_a_sample_is_an_item(name: str, rows: int) -> None:
    assert len(load(name).items) >= rows  # more, where the full set is at hand


@pytest.mark.parametrize("name", sorted({*ROWS, *SAMPLES} - {"humaneval"}))
async def test_each_reference_answer_phrased_as_an_answer_scores_one(name: str) -> None:
    task = load(name)
    for item in task.items:
        gold = item.answer if isinstance(item.answer, str) else item.answer[0]
        score = task.score(item, f"There are 3 ways, (A) or 7.\nAnswer: **{gold}**")
        assert isinstance(score, Score)
        assert score.value == 1, (item.id, gold, score)


@pytest.mark.parametrize("name", sorted({*ROWS, *SAMPLES}))
async def test_no_reference_answer_is_shown_outside_the_text_to_answer_from(name: str) -> None:
    for item in load(name, limit=50).items:
        assert not any(key in item.question for key in ("canonical_solution", "####  ", "rationale"))
        assert item.metadata["asked"] in item.question


async def test_gsm8k_scores_the_whole_official_test_file() -> None:
    items = load("gsm8k", "score").items
    assert len(items) == 1319
    assert all(i.metadata["source"].startswith("test.jsonl") for i in items)


@pytest.mark.parametrize("name", ["gsm8k", "multiarith", "mmlu", "hotpotqa", "squad"])
async def test_learn_validate_and_score_do_not_share_a_question(name: str) -> None:
    items = [item for split in ("learn", "validate", "score") for item in load(name, split).items]
    SplitGuard.of(items)
    assert len({i.id for i in items}) == len(items)


async def test_mmlu_samples_every_subject_in_proportion() -> None:
    sample = Counter(i.metadata["subject"] for i in load("mmlu", "score", limit=400).items)
    whole = Counter(i.metadata["subject"] for i in load("mmlu", "score").items)
    assert len(whole) == 57
    for subject, count in whole.items():
        assert abs(sample[subject] - 400 * count / whole.total()) < 2


async def test_humaneval_canonical_solutions_pass_and_empty_functions_fail() -> None:
    task = load("humaneval", limit=4)
    for item in task.items:
        solved = await task.score(item, f"```python\n{item.answer['prompt']}{item.answer['solution']}\n```")  # type: ignore[misc]
        assert solved.value == 1, (item.id, solved.note)
    failed = await task.score(item, f"```python\n{item.answer['prompt']}    pass\n```")  # type: ignore[misc]
    assert failed.value == 0
