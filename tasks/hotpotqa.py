"""HotpotQA: questions over two of ten paragraphs, which two agents hold between them (Yang et al. 2018).

    context=split   Agent(view="first") sees one half of the paragraphs, Agent(view="second") the other
    deal=2          the same for Agent(view="s1"), Agent(view="s2"), as information_exchange has them; deal=3 ...
    distractors=4   with only so many of the paragraphs that don't support the answer
    context=all     everybody sees all
    context=none    nobody sees any; also reads question/answer pairs without paragraphs

Rows are the official ones (distractor setting), the hub's, or IRCoT's (``question_text``, ``contexts``).
``train`` gives items to learn and validate on; ``dev`` is split by hash, 70 % to score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.multihop import (
    Context,
    Deal,
    Paragraph,
    marked_paragraphs,
    multihop_item,
    titled_paragraphs,
)
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task


def benchmark(context: Context, deal: Deal) -> Benchmark:
    def item(row: Row, question: str, answer: Sequence[str], paragraphs: list[Paragraph], key: str) -> Item:
        # Without paragraphs the rows of all files are one kind, and one file has no ids.
        id = f"hotpotqa-{row.text(key)}" if context != "none" else None
        return multihop_item(this, row, question, list(answer), paragraphs, context, deal, id=id)

    def official(key: str) -> Callable[[Row], Item]:
        return lambda row: item(row, row.text("question"), [row.text("answer")], titled_paragraphs(row), key)

    def ircot(row: Row) -> Item:
        answers = [
            span for a in row.rows("answers_objects") for span in a.members("spans", str) if span.strip()
        ]
        if not answers:
            row.wrong("'answers_objects' has no answer")
        return item(
            row, row.text("question_text"), answers, marked_paragraphs(row, "contexts"), "question_id"
        )

    def pair(row: Row) -> Item:
        return item(row, row.text("question"), [row.text("answer")], [], "")

    formats = [
        Format("_id question answer context supporting_facts", official("_id")),
        Format("id question answer context supporting_facts", official("id")),
        Format("question_id question_text answers_objects contexts", ircot),
    ]
    this = Benchmark(
        "hotpotqa",
        formats=[*formats, Format("question answer", pair)] if context == "none" else formats,
        shares={"train": TRAIN},
        hub=Hub("hotpotqa/hotpot_qa", "distractor", {"train": "train", "validation": "dev"}),
        same_question_once=context == "none",
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
    """HotpotQA, scored by token F1 (``metric="em"``: exact match) with the official normalisation."""
    dealing = Deal(deal, distractors)
    dealing.check(context)
    scorer = scorers.short_text(metric)
    items, config = benchmark(context, dealing).load(data, split, limit, seed)
    return Task(
        "hotpotqa",
        items,
        scorer,
        "Two-hop questions.",
        {**config, "context": context, "metric": metric, **dealing.config()},
        scorers.read_text,
    )
