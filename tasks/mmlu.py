"""MMLU: questions of 57 subjects with four options (Hendrycks et al. 2021).

Rows of CSV files named ``<subject>_<part>.csv``: the authors' without a header (question, four
options, a letter), or with the header ``question,choice0..choice3,answer`` and an index 0 to 3; on
the hub ``question, subject, choices, answer``. ``dev`` is learned on, ``val`` validates, ``test`` is
split by hash: 20 % learn, 10 % validate, 70 % score.

A limited sample holds every subject in proportion, and so do all the samples within it.
"""

from __future__ import annotations

import re
from pathlib import Path

from agentcomm.errors import TaskError
from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import HASHED, LEARN, VALIDATE
from agentcomm.task import Item, Task

ASK = "Choose the right option. Write its letter alone on the last line, after Answer:"

PASSAGE = 200
"""Characters from which the lines before a question's last are a passage."""


def read_lettered(row: Row) -> Item:
    letter = row.text("answer").upper()
    if letter not in ("A", "B", "C", "D"):
        row.wrong(f"'answer' must be A, B, C or D, not {letter!r}")
    return _item(row, [row.text(key) for key in "ABCD"], letter)


def read_numbered(row: Row) -> Item:
    return _item(row, [row.text(f"choice{n}") for n in range(4)], _letter(row))


def read_hub(row: Row) -> Item:
    choices = row.members("choices", str)
    if len(choices) != 4:
        row.wrong(f"'choices' must hold four options, not {len(choices)}")
    return _item(row, choices, _letter(row), row.text("subject"))


def _letter(row: Row) -> str:
    index = row.number("answer")
    if index not in (0, 1, 2, 3):
        row.wrong(f"'answer' must be the index 0, 1, 2 or 3 of an option, not {index:g}")
    return "ABCD"[int(index)]


def _item(row: Row, options: list[str], letter: str, subject: str | None = None) -> Item:
    if subject is None:
        name = Path(row.file).name.split(".")[0]
        subject = re.sub(r"_(dev|val|validation|test)$", "", name)
    question = row.text("question")
    passage = question.rpartition("\n")[0]  # some questions share a long text: they share a split too
    return BENCHMARK.item(
        row, question, letter, ask=ASK, options=options,
        group=passage if len(passage) > PASSAGE else None, stratum=subject, subject=subject,
    )  # fmt: skip


BENCHMARK = Benchmark(
    "mmlu",
    formats=[
        Format("question choice0 choice1 choice2 choice3 answer", read_numbered),
        Format("question A B C D answer", read_lettered),
        Format("question subject choices answer", read_hub),
    ],
    shares={"dev": LEARN, "val": VALIDATE, "test": HASHED},
    hub=Hub("cais/mmlu", "all", {"dev": "dev", "validation": "val", "test": "test"}),
    columns=("question", "A", "B", "C", "D", "answer"),
)


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    subject: str | None = None,
) -> Task:
    """MMLU, all subjects or one (``"high_school_physics"``; several separated by commas)."""
    names = {name.strip().lower().replace(" ", "_") for name in (subject or "").split(",")} - {""}
    seen: set[str] = set()

    def wanted(item: Item) -> bool:
        seen.add(item.metadata["subject"])
        return not names or item.metadata["subject"] in names

    items, config = BENCHMARK.load(data, split, limit, seed, only=wanted)
    if strange := names - seen:
        raise TaskError(
            f"mmlu has no subject {', '.join(sorted(strange))} here; it has {', '.join(sorted(seen))}"
        )
    return Task(
        "mmlu",
        items,
        scorers.choice,
        "Questions of 57 subjects.",
        {**config, "subject": subject},
        scorers.read_choice,
    )
