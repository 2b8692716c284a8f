"""Forecast: what a research would cost at most, before anything is paid for.

Searching a folder costs nothing, so what the question alone finds is known; what the planner's queries
will find isn't, but it is bounded by the sources and chunks that the options allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentcomm.forecast import CHARACTERS_PER_TOKEN
from agentcomm.graph import AgentGraph
from agentcomm.message import EdgeKey
from agentcomm.research.agents import NOTES, PLANNER, SEARCH, WRITER, Searching
from agentcomm.research.digest import Digest
from agentcomm.research.search import FolderSearch, ItemSearch, Source
from agentcomm.task import Item

_EDGE = EdgeKey(SEARCH, NOTES)


@dataclass(frozen=True)
class ResearchForecast:
    """Calls and input tokens of a research; tokens by characters, without what chat templates add.

    ``chunks`` is what the question alone finds, ``most_chunks`` what the plan may find at most in all
    rounds; both ``None`` where nobody can know without asking a search service. ``most_calls`` and
    ``most_tokens`` count each chunk's retry, but not retries of failed calls.
    """

    sources: int | None
    chunks: int | None
    most_chunks: int
    most_calls: int
    most_input_tokens: int
    most_output_tokens: int | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


async def forecast_research(graph: AgentGraph, item: Item, max_tokens: int | None) -> ResearchForecast:
    """What ``graphs/deep_research.py`` would cost on an item; ``max_tokens`` is the run's default."""
    looks, digest = graph.by_name[SEARCH].act, graph.by_key[_EDGE].channel
    assert isinstance(looks, Searching) and isinstance(digest, Digest)
    search = looks.search
    known: tuple[Source, ...] | None = None
    if isinstance(search, FolderSearch):
        known = search.sources
    elif isinstance(search, ItemSearch):
        known = search.sources(item)
    found: int | None = None
    allowed = looks.most * graph.rounds
    longest = looks.size
    if known is not None:
        counts = sorted((len(looks.cut({s: ()})[0]) for s in known), reverse=True)
        # A source is read once, whatever finds it and in whichever round.
        reach = sum(counts[: looks.queries * looks.sources * graph.rounds])
        allowed = min(allowed, reach)
        longest = min(longest, max((len(s.text) for s in known), default=0))
        asked = await search.search(item.question, looks.sources, item)
        alone: Mapping[Source, tuple[str, ...]] = dict.fromkeys(asked, ())
        found = min(looks.most, len(looks.cut(alone)[0]))
    note = {"source": "", "text": "x" * longest, "tasks": ["x" * 100]}
    fixed = digest.prompt(note, _EDGE, item.question, 1)
    per_chunk = _tokens(sum(len(m.content) for m in fixed.messages))
    planner, writer = graph.by_name[PLANNER], graph.by_name[WRITER]
    opening = len(graph.system) + len(item.question)
    longest_plan = planner.max_tokens or max_tokens
    longest_report = writer.max_tokens or max_tokens
    plan_said = longest_plan or 0
    notes = allowed * digest.tokens
    planning = sum(
        _tokens(opening + len(planner.role)) + r * plan_said + (notes if r else 0)
        for r in range(graph.rounds)
    )
    writing = _tokens(opening + len(writer.role)) + graph.rounds * plan_said + notes
    said: int | None = None
    if longest_plan is not None and longest_report is not None:
        said = graph.rounds * longest_plan + longest_report + 2 * allowed * digest.tokens
    return ResearchForecast(
        sources=len(known) if known is not None else None,
        chunks=found,
        most_chunks=allowed,
        most_calls=graph.rounds + 1 + 2 * allowed,
        most_input_tokens=planning + writing + 2 * allowed * per_chunk,
        most_output_tokens=said,
    )


def _tokens(characters: int) -> int:
    return round(characters / CHARACTERS_PER_TOKEN)
