"""GSM8K: grade-school maths in words; the answer is one number.

Rows of the official files: ``{"question": ..., "answer": "reasoning #### 18"}``. ``train`` gives the
items to learn and validate on (80/20 by hash), all of ``test`` is scored.
"""

from __future__ import annotations

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import SCORE, TRAIN
from agentcomm.task import Item, Task

ASK = "Think step by step. Then write the final number alone on the last line, after ####."


def read(row: Row) -> Item:
    reasoning, mark, number = row.text("answer").rpartition("####")
    if not mark or scorers.number_in(number) is None:
        row.wrong("'answer' must end with #### and a number")
    return BENCHMARK.item(row, row.text("question"), number.strip(), ask=ASK, steps=reasoning.count("<<"))


BENCHMARK = Benchmark(
    "gsm8k",
    formats=[Format("question answer", read)],
    shares={"train": TRAIN, "test": SCORE},
    hub=Hub("openai/gsm8k", "main"),
)


def task(data: str | None = None, split: str = "score", limit: int | None = None, seed: int = 0) -> Task:
    """GSM8K from ``data`` (its folder, or a folder of sets) or the hub."""
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task("gsm8k", items, scorers.numeric, "Grade-school maths in words.", config, scorers.read_number)
