"""2WikiMultiHopQA: questions over two to four of ten paragraphs (Ho et al. 2020), held by two agents.

    context=split   Agent(view="first") sees one half of the paragraphs, Agent(view="second") the other
    deal=2          the same for Agent(view="s1"), Agent(view="s2"), as information_exchange has them; deal=3 ...
    distractors=4   with only so many of the paragraphs that don't support the answer
    context=all     everybody sees all
    context=none    nobody sees any

Rows are the official ones, in HotpotQA's schema with ``evidences``; on the hub ``context`` and the like
are objects, or the same as JSON text. ``train`` gives items to learn and validate on; ``dev`` is split
by hash, 70 % to score.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.multihop import Context, Deal, multihop_item, titled_paragraphs
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task


def benchmark(context: Context, deal: Deal) -> Benchmark:
    def read(key: str) -> Callable[[Row], Item]:
        return lambda row: item(unpacked(row), key)

    def item(row: Row, key: str) -> Item:
        paragraphs = titled_paragraphs(row)
        return multihop_item(
            this, row, row.text("question"), row.text("answer"), paragraphs, context, deal,
            id=f"2wiki-{row.text(key)}", kind=row.text("type"),
        )  # fmt: skip

    keys = "question answer context supporting_facts type"
    this = Benchmark(
        "2wikimultihopqa",
        formats=[Format(f"_id {keys}", read("_id")), Format(f"id {keys}", read("id"))],
        shares={"train": TRAIN},
        hub=Hub("framolfese/2WikiMultihopQA", None, {"train": "train", "validation": "dev"}),
    )
    return this


def unpacked(row: Row) -> Row:
    """The row with ``context`` and ``supporting_facts`` read where they are JSON in a text."""
    read = dict(row.values)
    for key in ("context", "supporting_facts"):
        if isinstance(text := read[key], str):
            try:
                read[key] = json.loads(text)
            except ValueError:
                row.wrong(f"{key!r} is a text that is not JSON")
    return dataclasses.replace(row, values=read)


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    context: Context = "split",
    deal: int | None = None,
    distractors: int | None = None,
    metric: scorers.Metric = "f1",
) -> Task:
    """2WikiMultiHopQA, scored by token F1 (``metric="em"``: exact match) with HotpotQA's normalisation."""
    dealing = Deal(deal, distractors)
    dealing.check(context)
    scorer = scorers.short_text(metric)
    items, config = benchmark(context, dealing).load(data, split, limit, seed)
    return Task(
        "2wikimultihopqa",
        items,
        scorer,
        "Multi-hop questions.",
        {**config, "context": context, "metric": metric, **dealing.config()},
        scorers.read_text,
    )
