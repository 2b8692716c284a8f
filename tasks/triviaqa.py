"""TriviaQA: trivia questions whose answer goes by many names (Joshi et al. 2017); no evidence is shown.

    deal=2         two agents hold the search results between them, shuffled and dealt: Agent(view="s1"),
                   Agent(view="s2"), as information_exchange has them; deal=3 ...
    results=4      only the first so many results, in the engine's order; characters=600 of each

Rows are the official ones (``Question``, ``QuestionId``, ``Answer`` with ``Value`` and ``Aliases``), the hub's
(``question``, ``question_id``, ``answer``), or flat ones (``question``, ``gold_answer``, ``aliases``; they have no
search results). Of a result its description is shown, or the beginning of its page where there is none.
``train`` gives items to learn and validate on; everything else is split by hash, 70 % to score.
"""

from __future__ import annotations

from collections.abc import Callable

from agentcomm.errors import TaskError
from agentcomm.evaluation import scorers
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.multihop import Deal, Paragraph, dealt
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import TRAIN
from agentcomm.task import Item, Task

ASK = "On the last line, write Answer: and then the answer in a few words, without explanation."


def benchmark(deal: Deal, results: int | None = None, characters: int = 600) -> Benchmark:
    def official(row: Row) -> Item:
        answer = row.row("Answer")
        aliases = answer.members("Aliases", str, empty=True)
        return item(row, "Question", "QuestionId", answer.text("Value"), aliases, official_results)

    def hub(row: Row) -> Item:
        answer = row.row("answer")
        aliases = answer.members("aliases", str, empty=True)
        return item(row, "question", "question_id", answer.text("value"), aliases, hub_results)

    def flat(row: Row) -> Item:
        aliases = row.members("aliases", str, empty=True)
        return item(row, "question", "qid", row.text("gold_answer"), aliases, lambda row: [])

    def item(
        row: Row,
        question: str,
        id: str,
        value: str,
        aliases: list[str],
        found: Callable[[Row], list[tuple[str, str]]],
    ) -> Item:
        answers = list(dict.fromkeys([value, *(alias for alias in aliases if alias.strip())]))
        asked = row.text(question)
        views: dict[str, str] | None = None
        if deal.agents is not None:
            pages = [
                Paragraph(t, " ".join(text.split())[:characters], False) for t, text in found(row) if text
            ]
            if len(pages) < deal.agents:
                row.wrong(
                    f"has {len(pages)} search results with a text, too few to deal to {deal.agents} agents"
                )
            names, held = dealt(asked, pages[:results], deal)
            views = {n: "\n\n".join(map(str, part)) for n, part in zip(names, held, strict=True)}
        # What is shown is an option of the task: the split must not depend on it.
        return this.item(
            row, asked, answers, ask=ASK if views is None else "", hashed="", views=views,
            id=f"triviaqa-{row.text(id)}",
        )  # fmt: skip

    this = Benchmark(
        "triviaqa",
        formats=[
            Format("Question QuestionId Answer", official),
            Format("question question_id answer", hub),
            Format("question qid gold_answer aliases", flat),
        ],
        shares={"train": TRAIN},
        hub=Hub(
            "mandarjoshi/trivia_qa",
            "rc.nocontext" if deal.agents is None else "rc",
            {"train": "train", "validation": "dev"},
        ),
    )
    return this


def official_results(row: Row) -> list[tuple[str, str]]:
    """Titles and descriptions, in the engine's order."""
    if "SearchResults" not in row.values:
        return []
    return [(r.text("Title"), str(r.get("Description") or "")) for r in row.rows("SearchResults")]


def hub_results(row: Row) -> list[tuple[str, str]]:
    """The same of the hub's columns; the page's text where there is no description."""
    if not isinstance(row.get("search_results"), dict):
        return []
    found = row.row("search_results")
    titles = found.members("title", str, empty=True)
    described = [str(d or "") for d in found.get("description") or [""] * len(titles)]
    pages = [str(p or "") for p in found.get("search_context") or [""] * len(titles)]
    return [(t, d.strip() or p) for t, d, p in zip(titles, described, pages, strict=False)]


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    deal: int | None = None,
    results: int | None = None,
    characters: int = 600,
    metric: scorers.Metric = "em",
) -> Task:
    """TriviaQA, scored by exact match (``metric="f1"``: token F1) against all aliases."""
    dealing = Deal(deal)
    dealing.check("split")
    if deal is None and results is not None:
        raise TaskError("results= says how many search results are dealt; it goes with deal=N")
    if characters < 1 or (deal is not None and results is not None and results < deal):
        raise TaskError(
            f"results={results}, characters={characters}; a result for each agent, and some text of it"
        )
    scorer = scorers.short_text(metric, punctuation="space")
    items, config = benchmark(dealing, results, characters).load(data, split, limit, seed)
    if deal is not None:
        config |= {"results": results, "characters": characters}
    return Task(
        "triviaqa",
        items,
        scorer,
        "Trivia from memory." if deal is None else "Trivia with search results.",
        {**config, **dealing.config(), "metric": metric},
        scorers.read_text,
    )
