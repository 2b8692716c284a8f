"""MuSiQue: questions over two to four of twenty paragraphs (Trivedi et al. 2022), held by two agents.

    context=split   Agent(view="first") sees one half of the paragraphs, Agent(view="second") the other
    deal=2          the same for Agent(view="s1"), Agent(view="s2"), as information_exchange has them; deal=3 ...
    distractors=4   with only so many of the paragraphs that don't support the answer
    context=all     everybody sees all
    context=none    nobody sees any

Rows are the official ones of MuSiQue-Ans: ``paragraphs``, ``answer``, ``answer_aliases``. Questions that
are marked unanswerable (MuSiQue-Full) are refused. ``train`` gives items to learn and validate on; ``dev``
is split by hash, 70 % to score.
"""

from __future__ import annotations

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.multihop import Context, Deal, marked_paragraphs, multihop_item
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task


def benchmark(context: Context, deal: Deal) -> Benchmark:
    def read(row: Row) -> Item:
        if row.values.get("answerable") is False:
            row.wrong("is marked unanswerable: this is MuSiQue-Full, take the files of MuSiQue-Ans")
        answers = [row.text("answer"), *row.members("answer_aliases", str, empty=True)]
        hops = row.text("id").partition("hop")[0]
        return multihop_item(
            this, row, row.text("question"), answers, marked_paragraphs(row, "paragraphs"), context, deal,
            id=f"musique-{row.text('id')}", hops=int(hops) if hops.isdecimal() else None,
        )  # fmt: skip

    this = Benchmark(
        "musique",
        formats=[Format("id question paragraphs answer answer_aliases", read)],
        shares={"train": TRAIN},
        hub=Hub("dgslibisey/MuSiQue", None, {"train": "train", "validation": "dev"}),
    )
    return this


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
    """MuSiQue, scored by token F1 (``metric="em"``: exact match) against the answer and its aliases."""
    dealing = Deal(deal, distractors)
    dealing.check(context)
    scorer = scorers.short_text(metric)
    items, config = benchmark(context, dealing).load(data, split, limit, seed)
    return Task(
        "musique",
        items,
        scorer,
        "Questions of two to four hops.",
        {**config, "context": context, "metric": metric, **dealing.config()},
        scorers.read_text,
    )
