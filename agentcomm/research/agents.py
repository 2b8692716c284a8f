"""The agents of a deep research: what the models are told, and the functions between them.

``Searching`` reads the plan, searches and cuts what it finds into chunks; ``Notes`` numbers the sources
of what was kept. Both say JSON or plain text and make no model call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import anyio

from agentcomm.channels.relevance import bm25, terms
from agentcomm.errors import BackendError, ChannelError, ConfigError
from agentcomm.message import Message
from agentcomm.prompting import Turn
from agentcomm.research.chunks import OVERLAP, SIZE, SMALLEST, chunks
from agentcomm.research.replies import Plan, Query, own, read_own, read_plan
from agentcomm.research.search import Search, Source

PLANNER, SEARCH, NOTES, WRITER = "planner", "search", "notes", "writer"
NOTHING = "No source says anything about this."

_QUERY: Mapping[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "task": {"type": "string"}},
    "required": ["query", "task"],
    "additionalProperties": False,
}


def plan_schema(adaptive: bool) -> dict[str, Any]:
    """The JSON schema of a plan."""
    fields: dict[str, Any] = {
        "queries": {"type": "array", "items": _QUERY},
        "strategy": {"type": "string"},
        **({"enough": {"type": "boolean"}} if adaptive else {}),
    }
    return {
        "title": "plan",
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def planner_role(queries: int, adaptive: bool) -> str:
    """What the planner is told."""
    enough = ', "enough": false' if adaptive else ""
    told = (
        "Do not answer the question yet: plan how to find out. Reply with one JSON object and nothing else: "
        f'{{"queries": [{{"query": "...", "task": "..."}}], "strategy": "..."{enough}}}. '
        f'Give at most {queries} queries. "query" is a few words for a search engine; "task" says in one '
        'sentence what to find out with it; "strategy" says in one or two sentences how the report should '
        "bring it together."
    )
    if adaptive:
        told += (
            " You will then get notes on what was found. Each time, say in the same form what is still missing, "
            'with new queries for that only; if nothing is, set "enough" to true and give no queries.'
        )
    return told


def writer_role(words: int) -> str:
    """What the writer is told."""
    return (
        f"Write the report that answers the question, in at most {words} words, from the notes below and nothing "
        "else. Put the number of the source behind every statement that rests on it, in square brackets: [1]. "
        "Use only numbers that the notes have. If the notes do not answer the question, or a part of it, say so."
    )


@dataclass(frozen=True)
class Searching:
    """Searches for what the plan asks and says what it found, in chunks.

    A plan that can't be read is replaced by the question itself. What was found in an earlier round
    isn't said again.

    Parameters
    ----------
    search:
        Where the sources come from.
    queries, sources:
        Queries of a plan, and sources for each of them, at most.
    most:
        Chunks in a round, at most: those most like the question and the queries; the rest is counted.
    size, overlap, smallest:
        Characters of a chunk (:func:`~agentcomm.research.chunks.chunks`).
    """

    search: Search
    queries: int = 5
    sources: int = 10
    most: int = 60
    size: int = SIZE
    overlap: int = OVERLAP
    smallest: int = SMALLEST

    def __post_init__(self) -> None:
        for name in ("queries", "sources", "most"):
            if getattr(self, name) < 1:
                raise ConfigError(f"deep research: {name}={getattr(self, name)}; it must be at least 1")
        chunks("", self.size, self.overlap, self.smallest)

    def spec(self) -> str:
        """Settings in a line: part of a run's configuration, which then goes on only under the same."""
        return (
            f"Searches {self.search.spec()}; {self.queries} queries, {self.sources} sources each, {self.most} chunks "
            f"of {self.size} characters, {self.overlap} shared, none under {self.smallest}."
        )

    async def __call__(self, turn: Turn) -> str:
        plans = [read_plan(d.text, self.queries) for d in turn.inbox]
        plan = plans[-1] if plans else Plan((), readable=False)
        asked = plan.queries or (Query(turn.item.question, ""),)
        results = await self._search(asked, turn)
        tasks: dict[Source, list[str]] = {}
        for query, found in zip(asked, results, strict=True):
            for source in found:
                tasks.setdefault(source, []).append(query.task)
        known = {
            (piece["source"], piece["at"])
            for record in turn.past
            if isinstance(record.outcome, Message)
            for piece in read_own(record.outcome.text, "search")["pieces"]
        }
        pieces, short = self.cut(tasks)
        fresh = [piece for piece in pieces if (piece["source"], piece["at"]) not in known]
        kept = best(fresh, [turn.item.question, *(q.query for q in asked)], self.most)
        return own(
            "search",
            queries=[
                {**query._asdict(), "sources": [source.name for source in found]}
                for query, found in zip(asked, results, strict=True)
            ],
            planned=plan.readable,
            sources=len(tasks),
            short=short,
            known=len(pieces) - len(fresh),
            left_out=len(fresh) - len(kept),
            pieces=kept,
        )

    async def _search(self, asked: Sequence[Query], turn: Turn) -> list[Sequence[Source]]:
        """The results of every query; those of one that failed are empty.

        Raises
        ------
        BackendError
            If all fail. It is fatal: a report without any search is not worth paying for, and the next
            item would fare no better.
        """
        results: list[Sequence[Source]] = [() for _ in asked]
        errors: dict[int, BackendError] = {}

        async def one(i: int) -> None:
            try:
                results[i] = await self.search.search(asked[i].query, self.sources, turn.item)
            except BackendError as error:
                errors[i] = error

        async with anyio.create_task_group() as group:
            for i in range(len(asked)):
                group.start_soon(one, i)
        if errors and (len(errors) == len(asked) or any(e.fatal for e in errors.values())):
            first = errors[min(errors)]
            first.fatal = True
            raise first
        return results

    def cut(self, sources: Mapping[Source, Sequence[str]]) -> tuple[list[dict[str, Any]], int]:
        """The chunks of sources, with what each was searched for, and how many sources are too short."""
        pieces: list[dict[str, Any]] = []
        short = 0
        for source, tasks in sources.items():
            places = chunks(source.text, self.size, self.overlap, self.smallest)
            short += not places
            pieces += [
                {
                    "source": source.name,
                    "title": source.title,
                    "at": start,
                    "tasks": list(dict.fromkeys(filter(None, tasks))),
                    "text": source.text[start:end],
                }
                for start, end in places
            ]
        return pieces, short


def best(pieces: Sequence[dict[str, Any]], asked: Iterable[str], most: int) -> list[dict[str, Any]]:
    """At most ``most`` pieces, those most like what is asked, in their own order."""
    if len(pieces) <= most:
        return list(pieces)
    scores = bm25(terms(" ".join(asked)), [terms(p["text"]) for p in pieces])
    chosen = sorted(range(len(pieces)), key=lambda i: (-scores[i], i))[:most]
    return [pieces[i] for i in sorted(chosen)]


class Cited(NamedTuple):
    """A source with the number by which it is cited."""

    handle: int
    name: str
    title: str


def number(digests: Iterable[str]) -> dict[str, Cited]:
    """The sources of digests, oldest first, numbered from 1 as they come up; by name."""
    found: dict[str, Cited] = {}
    for digest in digests:
        for note in read_own(digest, "digest")["relevant"]:
            name = note["source"]
            found.setdefault(name, Cited(len(found) + 1, name, note["title"]))
    return found


@dataclass(frozen=True)
class Notes:
    """Says what was kept, source by source, each with the number by which it is cited.

    Numbers go on from those of earlier rounds: a source keeps its own.
    """

    async def __call__(self, turn: Turn) -> str:
        if not turn.inbox:
            raise ChannelError("nothing came of the search: no chunk could be read")
        before = [d.text for record in turn.past for d in record.inbox if not d.failed]
        now = [d.text for d in turn.inbox]
        handles = number([*before, *now])
        notes: dict[str, list[str]] = {}
        for digest in now:
            for note in read_own(digest, "digest")["relevant"]:
                notes.setdefault(note["source"], []).append(note["explanation"])
        if not notes:
            return NOTHING
        blocks = []
        for name, texts in sorted(notes.items(), key=lambda entry: handles[entry[0]].handle):
            cited = handles[name]
            title = f" {cited.title}" if cited.title != name else ""
            blocks.append("\n".join([f"[{cited.handle}]{title} ({name})", *(f"- {text}" for text in texts)]))
        return "\n\n".join(blocks)


@dataclass(frozen=True)
class Enough:
    """Over when the planner, having read notes, says that nothing is missing or names nothing to search for."""

    planner: str = PLANNER
    search: str = SEARCH
    name: ClassVar[str] = "enough"
    _most: int = field(default=1, repr=False)

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, "planner": self.planner, "search": self.search}

    def over(self, messages: Sequence[Message]) -> bool:
        senders = [m.sender for m in messages]
        if self.search not in senders or self.planner not in senders:
            return False  # nothing was read yet, whatever the planner thinks
        last = len(senders) - 1 - senders[::-1].index(self.planner)
        if last < senders.index(self.search) or self.search in senders[last:]:
            return False
        plan = read_plan(messages[last].text, self._most)
        return plan.enough or not plan.queries
