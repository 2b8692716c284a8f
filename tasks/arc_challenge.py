"""ARC-Challenge: school science questions with three to five options (Clark et al. 2018).

Rows are AI2's (``question`` with ``stem`` and ``choices``, ``answerKey``), the hub's (``choices`` with
``text`` and ``label``), or LLM-Adapters' (``instruction`` with "Answer1: ... Answer2: ...", ``answer``).
Labels 1 to 5 and A to E are both shown as letters. ``test`` is scored; ``train`` is learned on, ``dev``
validates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import LEARN, SCORE, VALIDATE
from agentcomm.task import Item, Task

ASK = "Choose the right option. Write its letter alone on the last line, after Answer:"
INSTRUCTION = re.compile(r"Please choose the correct answer to the question: (.*?)\s*(Answer1: .*?)\s*Answer format: \S+", re.S)  # fmt: skip


def read_original(row: Row) -> Item:
    question = row.row("question")
    choices = question.rows("choices")
    options = {choice.text("label"): choice.text("text") for choice in choices}
    return _item(row, question.text("stem"), options, row.text("answerKey"), row.text("id"))


def read_hub(row: Row) -> Item:
    choices = row.row("choices")
    labels, texts = choices.members("label", str), choices.members("text", str)
    if len(labels) != len(texts):
        row.wrong(f"'choices' has {len(labels)} labels for {len(texts)} texts")
    options = dict(zip(labels, texts, strict=True))
    return _item(row, row.text("question"), options, row.text("answerKey"), row.text("id"))


def read_adapters(row: Row) -> Item:
    parts = INSTRUCTION.fullmatch(row.text("instruction"))
    if parts is None:
        row.wrong("'instruction' must be a question followed by Answer1: ... and Answer format: ...")
    question, listed = parts.groups()
    numbered = re.split(r"\s*\bAnswer(\d): ", " " + listed)[1:]
    options = {f"answer{n}": text.strip() for n, text in zip(numbered[::2], numbered[1::2], strict=True)}
    return _item(row, question, options, row.text("answer"))


def _item(row: Row, question: str, options: dict[str, str], key: str, id: str | None = None) -> Item:
    labels: Sequence[str] = list(options)
    if key not in labels or not all(options.values()):
        row.wrong(f"the answer {key!r} must be one of the options {', '.join(labels)}, none of them empty")
    letter = chr(65 + labels.index(key))
    return BENCHMARK.item(row, question, letter, ask=ASK, options=list(options.values()), id=id)


BENCHMARK = Benchmark(
    "arc_challenge",
    formats=[
        Format("instruction answer output", read_adapters),
        Format("id question choices answerKey", read_hub),
        Format("id question answerKey", read_original),
    ],
    shares={"train": LEARN, "dev": VALIDATE, "test": SCORE},
    hub=Hub("allenai/ai2_arc", "ARC-Challenge", {"train": "train", "validation": "dev", "test": "test"}),
)


def task(data: str | None = None, split: str = "score", limit: int | None = None, seed: int = 0) -> Task:
    """ARC-Challenge from ``data`` (its folder, or a folder of sets) or the hub."""
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task(
        "arc_challenge", items, scorers.choice, "School science with options.", config, scorers.read_choice
    )
