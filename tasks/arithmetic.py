"""Sums with an attempt in which one step is wrong: something for a critic to find.

    Start with 17. Add 25. Multiply by 3. Subtract 40. What is the result?
    A first attempt: 1) 17 + 25 = 42. 2) 42 * 3 = 136. 3) 136 - 40 = 96. So the answer is 96.

Everybody sees everything. The attempt is wrong in exactly one step (``item.metadata["wrong"]``, from 1)
and goes on correctly from there, so its answer is never right: who believes it scores 0, who finds the
step and computes on scores 1. Made up, as many as you like, the same on every machine.
"""

from __future__ import annotations

import dataclasses
import operator
import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from agentcomm.errors import TaskError
from agentcomm.evaluation import scorers
from agentcomm.task import Item, Task

Split = Literal["learn", "validate", "score"]
SPLITS: tuple[Split, ...] = ("learn", "validate", "score")


class Operation(NamedTuple):
    """How a step is told and computed, and the numbers it takes."""

    words: str
    sign: str
    compute: Callable[[int, int], int]
    numbers: range


OPERATIONS = (
    Operation("Add {n}.", "+", operator.add, range(11, 90)),
    Operation("Subtract {n}.", "-", operator.sub, range(11, 90)),
    Operation("Multiply by {n}.", "*", operator.mul, range(2, 6)),
)


def task(
    limit: int | None = None, seed: int = 0, split: Split = "score", *, steps: int = 3, attempt: bool = True
) -> Task:
    """``limit`` items (100 if not given) of ``steps`` steps; ``attempt=False`` leaves the wrong attempt out."""
    if split not in SPLITS:
        raise TaskError(f"arithmetic: split {split!r}; there are {', '.join(SPLITS)}")
    if not 1 <= steps <= 8:
        raise TaskError(f"arithmetic: {steps} steps; use 1 to 8")
    config = {"seed": seed, "split": split, "steps": steps, "attempt": attempt}
    items = tuple(
        _item(seed, split, number, steps, attempt) for number in range(100 if limit is None else limit)
    )
    return Task(
        "arithmetic",
        items,
        scorers.numeric,
        "Sums with an attempt that has one wrong step.",
        config,
        scorers.read_number,
    )


def _item(seed: int, split: Split, number: int, steps: int, attempt: bool) -> Item:
    """Item ``number`` of a split: drawn again until its own hash falls into that split."""
    for draw in range(1000):
        rng = random.Random(f"arithmetic/{seed}/{split}/{number}/{draw}")  # strings are hashed with SHA-512
        start = rng.randrange(11, 90)
        plan = [(o, rng.choice(o.numbers)) for o in (rng.choice(OPERATIONS) for _ in range(steps))]
        wrong = rng.randrange(steps)
        slip = rng.choice((-10, -2, -1, 1, 2, 10))
        right, said, lines = start, start, []
        for k, (operation, n) in enumerate(plan):
            right = operation.compute(right, n)
            result = operation.compute(said, n) + (slip if k == wrong else 0)
            lines.append(f"{k + 1}) {said} {operation.sign} {n} = {result}.")
            said = result
        question = " ".join(
            [f"Start with {start}.", *(o.words.format(n=n) for o, n in plan), "What is the result?"]
        )
        if attempt:
            question += f"\nA first attempt: {' '.join(lines)} So the answer is {said}."
        item = Item(
            id="", question=question, answer=str(right), metadata={"wrong": wrong + 1, "split": split}
        )
        if said != right and SPLITS[int(item.content_hash, 16) % len(SPLITS)] == split:
            return dataclasses.replace(item, id=f"arithmetic-{item.content_hash[:12]}")
    raise AssertionError("unreachable: a third of all draws falls into each split")
