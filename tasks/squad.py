"""SQuAD: several questions about each paragraph (Rajpurkar et al. 2016); made for compression of contexts.

Rows are articles of the official schema (``data``: ``paragraphs``: ``context``, ``qas``) as in ``train-v1.1``,
``dev-v1.1`` and XQuAD, or the hub's flat questions. All questions about one paragraph share its text as
``Item.context`` and belong to one split. Unanswerable questions (SQuAD 2.0) are refused. ``train`` gives
items to learn and validate on; everything else is split by hash of the paragraph, 70 % to score.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task

ASK = "Answer from the text above. On the last line, write Answer: and then the answer in a few words."


def read_article(row: Row) -> Iterator[Item]:
    for paragraph in row.rows("paragraphs"):
        context = paragraph.text("context")
        for question in paragraph.rows("qas"):
            answers = [answer.text("text") for answer in question.rows("answers")]
            yield _item(question, context, answers)


def read_flat(row: Row) -> Item:
    return _item(row, row.text("context"), row.row("answers").members("text", str))


def _item(row: Row, context: str, answers: list[str]) -> Item:
    return BENCHMARK.item(
        row, row.text("question"), list(dict.fromkeys(answers)),
        ask=ASK, context=context, group=context, id=f"squad-{row.text('id')}",
    )  # fmt: skip


BENCHMARK = Benchmark(
    "squad",
    formats=[Format("paragraphs", read_article), Format("id context question answers", read_flat)],
    shares={"train": TRAIN},
    hub=Hub("rajpurkar/squad", None, {"train": "train", "validation": "dev"}),
)


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    metric: scorers.Metric = "f1",
) -> Task:
    """SQuAD, scored by token F1 (``metric="em"``: exact match) with the official normalisation."""
    scorer = scorers.short_text(metric)
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task(
        "squad",
        items,
        scorer,
        "Questions about a paragraph.",
        {**config, "metric": metric},
        scorers.read_text,
    )
