"""The reports of a finished run against their references: what graphs/race_judge.py judges.

    agentcomm eval deep_research research --model openai/NAME --out runs/mine
    agentcomm eval race_judge race -T run=runs/mine --model openai/JUDGE --samples 5

``reference`` names another run whose reports to compare with, instead of the task's own. Items without a
report on either side (a failed episode is no bad report) are left out and counted in the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentcomm.errors import TaskError
from agentcomm.evaluation.rundir import RunDir
from agentcomm.research.race import FIRST, SECOND
from agentcomm.task import Item, Score, Task


def task(run: str = "", reference: str | None = None, sample: int = 0, limit: int | None = None) -> Task:
    """The reports of the run directory ``run`` (of its ``sample``), each with its reference."""
    if not run:
        raise TaskError("race: which reports? name the run that wrote them: -T run=DIR")
    targets, questions, own = _reports(Path(run), sample)
    if reference is not None:
        own = _reports(Path(reference), sample)[0]
    items: list[Item] = []
    left_out: list[str] = []
    for name, question in questions.items():
        target, other = targets.get(name), own.get(name)
        if not target or not other:
            left_out.append(name)
            continue
        first, second = (
            f"Report A:\n{target}\n\nReport B:\n{other}",
            f"Report A:\n{other}\n\nReport B:\n{target}",
        )
        items.append(Item(name, question, views={FIRST: first, SECOND: second}))
    if not items:
        raise TaskError(f"race: no item of {run} has both a report and a reference")
    config = {"run": run, "reference": reference or "the task's", "sample": sample, "left_out": left_out}
    return Task("race", items[:limit], score, "Reports against their references.", config)


def score(item: Item, answer: str) -> Score:
    """What the verdict says."""
    value = float(json.loads(answer)["overall"])
    return Score(value, f"{value:.3f}")


def _reports(path: Path, sample: int) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """By item: the report, the question, and the reference that the item came with."""
    run = RunDir.open(path)
    questions: dict[str, str] = {}
    references: dict[str, str] = {}
    for row in run.questions():
        questions[row["id"]] = row["question"]
        answer = row["answer"].get("report") if isinstance(row["answer"], dict) else row["answer"]
        if isinstance(answer, str):
            references[row["id"]] = answer
    with run.ledger() as ledger:
        episodes = ledger.episodes()
    reports = {e.item: e.answer for e in episodes if e.sample == sample and e.answer and e.status == "ok"}
    return reports, questions, references
