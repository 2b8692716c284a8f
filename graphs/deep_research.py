"""Deep research: a planner, a search, a small model that reads every chunk, and a writer who cites.

    agentcomm research "QUESTION" --corpus FOLDER --compressor local/smollm2 --predictor openai/NAME
    agentcomm eval graphs/deep_research.py research --model openai/NAME -G compressor=local/smollm2

The planner says what to search for; ``search`` finds sources and cuts them into chunks, the channel on
its edge has the compressor read each of them (one call a chunk, side by side, phase ``compress``) and
lets through what is relevant; ``notes`` numbers the sources; the writer answers from the notes. Without a
corpus, the search is in what the task's item shows. With ``rounds`` above 1 the planner reads the notes
and asks for what is missing, until nothing is.
"""

from __future__ import annotations

from pathlib import Path

import agentcomm as ac
from agentcomm.research import (
    Digest,
    Enough,
    FolderSearch,
    ItemSearch,
    Notes,
    Recorded,
    Search,
    Searching,
    WebSearch,
    planner_role,
    writer_role,
)
from agentcomm.research.agents import NOTES, PLANNER, SEARCH, WRITER, plan_schema


def search_of(corpus: str | None, search: str | None, search_key: str | None, record: str | None) -> Search:
    """What these options name: a folder, a service, a record of one, or the item's own texts."""
    if corpus and (search or record):
        raise ac.UserError(
            "deep research: give a corpus, or a search service, or a record of one, not several"
        )
    if corpus:
        return FolderSearch(Path(corpus))
    if not search:
        return Recorded(None, record) if record else ItemSearch()
    header, colon, variable = (search_key or "").partition(":")
    service = WebSearch(search, variable, header) if colon else WebSearch(search, header or None)
    return Recorded(service, record) if record else service


def graph(
    corpus: str | None = None,
    compressor: str | None = None,
    predictor: str | None = None,
    planner: str | None = None,
    rounds: int = 1,
    queries: int = 5,
    sources: int = 10,
    chunks: int = 60,
    chunk: int = 6000,
    overlap: int = 200,
    note_tokens: int = 300,
    words: int = 400,
    max_tokens: int | None = None,
    structured: bool = True,
    search: str | None = None,
    search_key: str | None = None,
    record: str | None = None,
) -> ac.AgentGraph:
    """2 calls and one for each chunk; every further round adds a call for the planner and its chunks.

    ``corpus`` is a folder; ``search`` the address of a search service, ``search_key`` the variable with its
    key (or ``HEADER:VARIABLE``), ``record`` a file that keeps its results (alone, it plays them back).
    ``compressor``, ``predictor`` and ``planner`` are model strings; by default the run's.
    """
    if rounds < 1:
        raise ac.UserError(f"deep research: rounds={rounds}; it must be at least 1")
    looks = Searching(search_of(corpus, search, search_key, record), queries, sources, chunks, chunk, overlap)
    adaptive = rounds > 1
    agents = [
        ac.Agent(
            PLANNER,
            role=planner_role(queries, adaptive),
            model=planner or predictor,
            context=False,
            max_tokens=max_tokens,
            schema=plan_schema(adaptive) if structured else None,
        ),
        # A function's role is in no prompt: it says in the run's configuration what is searched.
        ac.Agent(SEARCH, role=looks.spec(), act=looks),
        ac.Agent(NOTES, act=Notes()),
        ac.Agent(WRITER, role=writer_role(words), model=predictor, context=False, max_tokens=max_tokens),
    ]
    edges = [
        ac.Edge(PLANNER, SEARCH),
        ac.Edge(SEARCH, NOTES, channel=Digest(compressor, note_tokens, structured)),
        ac.Edge(PLANNER, WRITER),
        ac.Edge(NOTES, WRITER),
    ]
    if adaptive:
        edges.append(ac.Edge(NOTES, PLANNER, kind="temporal"))
    return ac.AgentGraph(
        agents,
        edges,
        decision=WRITER,
        rounds=rounds,
        system="You work in a team that writes a report from sources.",
        stop=Enough() if adaptive else None,
    )
