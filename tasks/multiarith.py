"""MultiArith: 600 arithmetic word problems of two or more steps (Roy and Roth 2015).

Rows are ``{"input": ..., "target": 39}`` (math-evaluation-harness), the authors' ``sQuestion`` with
``lSolutions``, or the hub's ``question`` with ``final_ans``. There is no official split: by hash.
"""

from __future__ import annotations

from collections.abc import Callable

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import HASHED
from agentcomm.task import Item, Task

ASK = "Think step by step. Then write the final number alone on the last line, after ####."


def reader(question: str, answer: str) -> Callable[[Row], Item]:
    def read(row: Row) -> Item:
        return BENCHMARK.item(row, row.text(question), f"{row.number(answer):g}", ask=ASK)

    return read


def read_original(row: Row) -> Item:
    solutions = row.members("lSolutions")
    if len(solutions) != 1 or isinstance(solutions[0], bool) or not isinstance(solutions[0], int | float):
        row.wrong(f"'lSolutions' must hold one number, not {solutions}")
    return BENCHMARK.item(row, row.text("sQuestion"), f"{solutions[0]:g}", ask=ASK)


BENCHMARK = Benchmark(
    "multiarith",
    formats=[
        Format("input target", reader("input", "target")),
        Format("sQuestion lSolutions", read_original),
        Format("question final_ans", reader("question", "final_ans")),
    ],
    shares={"train": HASHED, "test": HASHED},
    hub=Hub("ChilleD/MultiArith"),
)


def task(data: str | None = None, split: str = "score", limit: int | None = None, seed: int = 0) -> Task:
    """MultiArith from ``data`` (its folder, or a folder of sets) or the hub."""
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task(
        "multiarith",
        items,
        scorers.numeric,
        "Arithmetic word problems of several steps.",
        config,
        scorers.read_number,
    )
