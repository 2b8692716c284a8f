"""AQuA: algebraic word problems with five options (Ling et al. 2017).

Rows of the official JSON-lines files: ``question``, ``options`` (``"A)36"``), ``rationale``, ``correct``.
``train`` is learned on, ``dev`` validates, ``test`` is scored.
"""

from __future__ import annotations

import re

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import LEARN, SCORE, VALIDATE
from agentcomm.task import Item, Task

ASK = "Think step by step. Then write the letter of the right option alone on the last line, after Answer:"


def read(row: Row) -> Item:
    options = []
    for n, text in enumerate(row.members("options", str)):
        label = re.match(r"\s*([A-E])\s*\)\s*", text)
        if label is None or label[1] != chr(65 + n):
            row.wrong(f"option {n + 1} must begin with {chr(65 + n)}), but is {text!r}")
        options.append(text[label.end() :].strip() or "(blank)")
    correct = row.text("correct")
    if not ("A" <= correct < chr(65 + len(options)) and len(correct) == 1):
        row.wrong(f"'correct' must be a letter of one of the {len(options)} options, not {correct!r}")
    return BENCHMARK.item(row, row.text("question"), correct, ask=ASK, options=options)


BENCHMARK = Benchmark(
    "aqua",
    formats=[Format("question options correct", read)],
    shares={"train": LEARN, "dev": VALIDATE, "test": SCORE},
    hub=Hub("deepmind/aqua_rat", "raw", {"train": "train", "validation": "dev", "test": "test"}),
)


def task(data: str | None = None, split: str = "score", limit: int | None = None, seed: int = 0) -> Task:
    """AQuA from ``data`` (its folder, or a folder of sets) or the hub."""
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task(
        "aqua", items, scorers.choice, "Algebraic word problems with options.", config, scorers.read_choice
    )
