"""SVAMP: elementary arithmetic word problems, varied so that pattern matching fails (Patel et al. 2021).

Rows of the authors' ``SVAMP.json``: ``Body``, ``Question``, ``Answer``. Its 1000 problems are one
challenge set; the hub's train and test are parts of it, so everything is split by hash.
"""

from __future__ import annotations

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.task import Item, Task

ASK = "Think step by step. Then write the final number alone on the last line, after ####."


def read(row: Row) -> Item:
    body = row.text("Body")
    question = f"{body if body[-1] in '.?!' else body + '.'} {row.text('Question')}"
    return BENCHMARK.item(
        row, question, f"{row.number('Answer'):g}", ask=ASK, id=row.text("ID"), kind=row.text("Type")
    )


BENCHMARK = Benchmark(
    "svamp",
    formats=[Format("ID Body Question Answer Type", read)],
    hub=Hub("ChilleD/SVAMP"),
)


def task(data: str | None = None, split: str = "score", limit: int | None = None, seed: int = 0) -> Task:
    """SVAMP from ``data`` (its folder, or a folder of sets) or the hub."""
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task("svamp", items, scorers.numeric, "Varied elementary arithmetic.", config, scorers.read_number)
