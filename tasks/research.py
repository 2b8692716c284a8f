"""Reports on an island that doesn't exist: six questions over a dozen short texts, some beside the point.

    agentcomm eval deep_research research --model openai/NAME -G compressor=local/smollm2
    agentcomm research "How was Merrow cut off in winter?" --corpus tasks/research_corpus --predictor openai/NAME

Each text is a view of every item, so any graph can be tried on it (``view="*"`` shows them all). The score is
the share of a question's known facts that the report names; it says nothing of how well it is written: for
that, ``graphs/race_judge.py`` compares it with the reference report (``item.answer["report"]``).

The texts (``research_corpus/``), questions and reports are made up by agentcomm's authors, under its licence:
nobody can have read them before, and no place, person or figure in them exists.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from agentcomm.errors import TaskError
from agentcomm.task import Item, Score, Task

HERE = Path(__file__).parent


def task(limit: int | None = None, corpus: str | None = None, questions: str | None = None) -> Task:
    """The questions of a JSON file (id, question, facts, report) over the .md texts of a folder; by default ours."""
    folder = Path(corpus) if corpus is not None else HERE / "research_corpus"
    asked = Path(questions) if questions is not None else HERE / "research_questions.json"
    try:
        rows = json.loads(asked.read_text(encoding="utf-8"))
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
        items = [
            Item(
                str(row["id"]),
                str(row["question"]),
                {"report": str(row["report"]), "facts": [list(map(str, fact)) for fact in row["facts"]]},
                views=texts,
            )
            for row in rows[:limit]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(
            f"research: {asked} is no list of questions with id, question, facts and report: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not texts:
        raise TaskError(f"research: {folder} holds no .md texts; name another folder with -T corpus=DIR")
    return Task("research", items, score, "Reports from texts about a made-up island.")


def score(item: Item, answer: str) -> Score:
    """The share of the facts that the report names, in any of their wordings."""
    facts: list[list[str]] = item.answer["facts"]
    named = [next((words for words in fact if _names(answer, words)), None) for fact in facts]
    found = [words for words in named if words is not None]
    return Score(len(found) / len(facts), ", ".join(found) or None)


def _names(answer: str, words: str) -> bool:
    said = r"\s+".join(map(re.escape, words.split()))
    return re.search(rf"(?i)(?<![\w.,]){said}(?![\w]|[.,]\d)", answer) is not None
