"""TriviaQA: trivia questions whose answer goes by many names (Joshi et al. 2017); no evidence is shown.

Rows are the official ones (``Question``, ``QuestionId``, ``Answer`` with ``Value`` and ``Aliases``), the hub's
(``question``, ``question_id``, ``answer``), or flat ones (``question``, ``gold_answer``, ``aliases``). ``train``
gives items to learn and validate on; everything else is split by hash, 70 % to score.
"""

from __future__ import annotations

from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task

ASK = "On the last line, write Answer: and then the answer in a few words, without explanation."


def read_official(row: Row) -> Item:
    answer = row.row("Answer")
    aliases = answer.members("Aliases", str, empty=True)
    return _item(row, "Question", "QuestionId", answer.text("Value"), aliases)


def read_hub(row: Row) -> Item:
    answer = row.row("answer")
    return _item(
        row, "question", "question_id", answer.text("value"), answer.members("aliases", str, empty=True)
    )


def read_flat(row: Row) -> Item:
    return _item(row, "question", "qid", row.text("gold_answer"), row.members("aliases", str, empty=True))


def _item(row: Row, question: str, id: str, value: str, aliases: list[str]) -> Item:
    answers = list(dict.fromkeys([value, *(alias for alias in aliases if alias.strip())]))
    return BENCHMARK.item(row, row.text(question), answers, ask=ASK, id=f"triviaqa-{row.text(id)}")


BENCHMARK = Benchmark(
    "triviaqa",
    formats=[
        Format("Question QuestionId Answer", read_official),
        Format("question question_id answer", read_hub),
        Format("question qid gold_answer aliases", read_flat),
    ],
    shares={"train": TRAIN},
    hub=Hub("mandarjoshi/trivia_qa", "rc.nocontext", {"train": "train", "validation": "dev"}),
)


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    metric: scorers.Metric = "em",
) -> Task:
    """TriviaQA, scored by exact match (``metric="f1"``: token F1) against all aliases."""
    scorer = scorers.short_text(metric, punctuation="space")
    items, config = BENCHMARK.load(data, split, limit, seed)
    return Task(
        "triviaqa", items, scorer, "Trivia from memory.", {**config, "metric": metric}, scorers.read_text
    )
