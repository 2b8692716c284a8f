"""Relevance: which sentences of a text say most about a question, within a budget.

BM25 over the sentences of one text needs no index and no library: twenty lines, as Robertson and
Zaragoza (2009) give it, with k1 = 1.2 and b = 0.75. (``bm25s`` and the like are for corpora.)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentcomm.channels.budget import Meter, fit
from agentcomm.channels.protect import Kind, lost
from agentcomm.channels.text import Place, sentences
from agentcomm.message import EdgeKey
from agentcomm.prompting import Turn

K1, B = 1.2, 0.75
REDUNDANCY = 0.5
"""What a sentence loses, of the best score, for saying all over again what is chosen already."""
MISSES = 25
"""Sentences in a row that don't fit before the rest is left unread."""
_TERM = re.compile(r"[\u2e80-\ua4cf\uf900-\ufaff]|[^\W_]+")


@dataclass(frozen=True)
class Job:
    """One text to shorten: ``kept`` are the protected pieces that must come back.

    ``room`` is what the budget leaves for anything else (tokens), ``None`` without a budget.
    """

    text: str
    edge: EdgeKey
    turn: Turn | None
    meter: Meter
    budget: int | None
    places: tuple[Place, ...]
    kept: tuple[tuple[str, Kind], ...]
    room: int | None

    @property
    def question(self) -> str:
        """What the item asks, without options or advice on how to answer; empty without an item."""
        if self.turn is None:
            return ""
        asked = self.turn.item.metadata.get("asked")
        return asked if isinstance(asked, str) and asked.strip() else self.turn.item.question

    async def fits(self, text: str) -> bool:
        return self.budget is None or await self.meter.count(text) <= self.budget


def together(text: str, pieces: Sequence[str]) -> str:
    """A text with the pieces that it lost put back at its end: short ones in a line, others below."""
    short = [p for p in pieces if "\n" not in p]
    parts = [text.rstrip()] if text.strip() else []
    if short:
        parts.append(f"({'; '.join(short)})" if parts else "; ".join(short))
    parts += [p for p in pieces if "\n" in p]
    return ("\n" if any("\n" in p for p in pieces) else " ").join(parts)


def terms(text: str) -> list[str]:
    """Words, lower case; Chinese and Japanese signs one by one."""
    return _TERM.findall(text.casefold())


def bm25(query: Sequence[str], documents: Sequence[Sequence[str]]) -> list[float]:
    """The BM25 score of each document (its terms) for the query's terms, each counted once.

    >>> [round(s, 2) for s in bm25(["cat"], [["a", "cat"], ["a", "dog"], ["the", "cat", "cat"]])]
    [0.5, 0.0, 0.6]
    """
    mean = sum(map(len, documents)) / max(1, len(documents)) or 1.0
    holding = Counter(term for d in documents for term in set(d))
    wanted = set(query)
    scores: list[float] = []
    for document in documents:
        score = 0.0
        for term, tf in Counter(document).items():
            if term in wanted:
                idf = math.log(1 + (len(documents) - holding[term] + 0.5) / (holding[term] + 0.5))
                score += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(document) / mean))
        scores.append(score)
    return scores


async def by_relevance(job: Job, query: str) -> str:
    """Sentences of the job's text by BM25; without a query, those most like the whole text."""
    listed = sentences(job.text, job.places)
    documents = [terms(job.text[a:b]) for a, b in listed]
    return await choose(job, listed, bm25(terms(query or job.text), documents))


async def choose(job: Job, listed: Sequence[Place], scores: Sequence[float]) -> str:
    """The best sentences that fit together, in their own order; earlier ones win ties.

    A sentence counts less the more of its terms are in sentences chosen already. What must be kept
    and isn't in the choice takes its place in the budget. At least a part of the best one is chosen.
    """
    documents = [set(terms(job.text[a:b])) for a, b in listed]
    top = max(scores, default=0.0) or 1.0
    chosen: list[int] = []
    said: set[str] = set()
    left = set(range(len(listed)))
    misses = 0

    def worth(i: int) -> tuple[float, int]:
        new = len(documents[i] - said) / len(documents[i]) if documents[i] else 0.0
        return scores[i] - REDUNDANCY * top * (1 - new), -i

    while left and misses < MISSES:
        best = max(left, key=worth)
        left.discard(best)
        text = _joined(job.text, listed, sorted([*chosen, best]))
        if await job.fits(together(text, lost(text, job.kept))):
            chosen.append(best)
            said.update(documents[best])
            misses = 0
        else:
            misses += 1
    if chosen or not listed:
        return _joined(job.text, listed, sorted(chosen))
    a, b = listed[max(range(len(listed)), key=lambda i: (scores[i], -i))]
    return await fit(job.text[a:b], job.room or 0, job.meter)


def _joined(text: str, listed: Sequence[Place], chosen: Sequence[int]) -> str:
    """Sentences as they stood: on lines of their own if they did."""
    parts: list[str] = []
    for i in chosen:
        piece = text[slice(*listed[i])]
        parts.append(piece.rstrip() + ("\n" if "\n" in piece[len(piece.rstrip()) :] else " "))
    return "".join(parts).strip()
