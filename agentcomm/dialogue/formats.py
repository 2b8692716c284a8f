"""Formats: ways to write a message, as instructions that a team can be given.

Each has an instruction of at most 60 tokens and one example, about a pump station, which no task
of ours is about. ``natural`` prescribes nothing: it is the control, it is part of every pool, every
round of a search and every final comparison, and "keep natural language" is a valid result
(``dialogue.md`` section 3). The texts are our own.

What a format costs depends on the tokeniser: arrows and brackets can cost more than words.

Deliberately absent: which of them is best (:mod:`agentcomm.dialogue.search`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentcomm.errors import ConfigError

NATURAL = "natural"


@dataclass(frozen=True)
class Format:
    """A way to write a message.

    Parameters
    ----------
    id:
        A word.
    intent:
        What it is for, in a few words.
    instruction:
        What an agent is told; empty for natural language.
    example:
        One message written that way.
    watch:
        What tends to go wrong.
    """

    id: str
    intent: str
    instruction: str = ""
    example: str = ""
    watch: str = ""

    @property
    def text(self) -> str:
        """The instruction with its example, as it stands in a prompt; empty for natural language.

        >>> POOL["telegraphic"].text
        'Write only words that carry content, no grammar words. Example: pump 3 leaks, valve B shut, need pressure'
        """
        if not self.instruction:
            return ""
        return f"{self.instruction} Example: {self.example}" if self.example else self.instruction


POOL: dict[str, Format] = {
    f.id: f
    for f in (
        Format(NATURAL, "full sentences, nothing prescribed"),
        Format(
            "natural_terse",
            "sentences without courtesy or restatement",
            "Write one short sentence. No greeting, no thanks, nothing that was said before.",
            "Pump 3 leaks at valve B; what pressure do you read?",
        ),
        Format(
            "telegraphic",
            "content words only",
            "Write only words that carry content, no grammar words.",
            "pump 3 leaks, valve B shut, need pressure",
            "lost negation",
        ),
        Format(
            "json",
            "a one-line object",
            "Write one line of JSON with the keys know, need and answer.",
            '{"know": "pump 3 leaks", "need": "pressure", "answer": null}',
            "tokens of punctuation",
        ),
        Format(
            "key_value",
            "key=value pairs",
            "Write key=value pairs separated by semicolons; a question mark for what you need.",
            "pump=3; leak=valve B; pressure=?",
        ),
        Format(
            "logic",
            "predicates and unknowns",
            "Write predicates; a letter stands for what is unknown, -> for what follows.",
            "leaks(pump3, valveB); pressure(pump3, X) -> X?",
            "weak models",
        ),
        Format(
            "triples",
            "subject, relation, object",
            "Write one fact a line as subject | relation | object, with ? for what you need.",
            "pump 3 | leaks at | valve B\npump 3 | pressure | ?",
        ),
        Format(
            "table",
            "a table with its header once",
            "Write a table: its header once, then one row a fact, cells separated by |.",
            "pump | leak | pressure\n3 | valve B | ?",
            "separator rows",
        ),
        Format(
            "code",
            "assignments",
            "Write assignments and short pseudo-code only.",
            'leak[3] = "valve B"; need(pressure[3])',
        ),
        Format(
            "abbreviations",
            "declared once, then used",
            "Declare short forms once in your first message, then use only these.",
            "P=pump, V=valve, p=pressure. P3 leaks VB, p?",
            "undeclared ones",
        ),
        Format(
            "numbered_facts",
            "facts with numbers, later only the numbers",
            "Number each new fact F1, F2, ...; later write only its number.",
            "F1 pump 3 leaks at valve B. F2 pressure of pump 3?",
            "a wrong number",
        ),
        Format(
            "question_answer_ids",
            "open questions with numbers",
            "Ask with Q1, Q2, ... and answer with A1, A2, ...; repeat no question.",
            "Q1 pressure of pump 3? A2 valve B",
        ),
        Format(
            "reference",
            "point instead of repeating",
            "Never repeat what was said: point at it as [message number].",
            "[2] yes; pressure 4 bar",
            "what only one of you sees can't be pointed at",
        ),
        Format(
            "verbatim",
            "the shortest quoted span of one's own text",
            "Quote the shortest piece of your text that helps, and nothing else.",
            '"valve B drips since Monday"',
        ),
        Format(
            "delta",
            "only what changed",
            "Write only what has changed since your own last message.",
            "valve B: now shut",
        ),
    )
}
"""Every shipped format by its id, natural language first."""

BANDIT = tuple(id for id in POOL if id not in ("triples", "verbatim", "delta"))
"""The twelve formats that a search starts from."""


def pool(ids: Iterable[str] | None = None, more: Sequence[Format] = ()) -> dict[str, Format]:
    """The formats called ``ids`` (all by default) and ``more``; natural language is always among them, first.

    Raises
    ------
    ConfigError
        For an unknown id, or two formats of one id.

    >>> list(pool(["json"]))
    ['natural', 'json']
    """
    wanted = list(POOL) if ids is None else list(dict.fromkeys(ids))
    own = {f.id: f for f in more}
    if len(own) < len(more) or set(own) & set(POOL):
        raise ConfigError(f"formats of your own need ids of their own; taken: {', '.join(POOL)}")
    if strange := [id for id in wanted if id not in POOL and id not in own]:
        raise ConfigError(f"unknown formats {', '.join(strange)}; there are {', '.join(POOL)}")
    chosen = [NATURAL, *(id for id in wanted if id != NATURAL), *(id for id in own if id not in wanted)]
    return {id: own.get(id) or POOL[id] for id in chosen}
