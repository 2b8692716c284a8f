"""Report: what runs did, gathered from their directories and written as one HTML file.

Two passes over the ledgers, item by item, so that memory holds numbers and never the texts of a
run. The first adds up what every item, edge, agent and part cost. The second writes the
conversations: all of them if they fit into the file's size, otherwise the failed, disagreed,
retried, most expensive and a sample of the rest, taken in turns; the report says which it lacks.

A run that is still going, was cut off, or was made by an older agentcomm is read as far as it
goes, and the report says so. An edge's worth is drawn where it is known: from ``value.json`` in
the run's directory, or given to :func:`write_report`. It maps ``"sender->reader"`` (or
``"sender->reader temporal"`` for one kind) to a number, the score that is lost without the edge::

    {"what": "score lost without the edge", "edges": {"solver->judge": 0.12, "critic->judge": -0.01}}
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentcomm.errors import ConfigError, LedgerError
from agentcomm.evaluation.page import Page, packed
from agentcomm.evaluation.rundir import QUESTIONS, RunDir
from agentcomm.evaluation.stats import (
    RunPoint,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    pareto_front,
)
from agentcomm.ledger.rows import CallRow, DeliveryRow, EpisodeRow
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.usage import is_edge

SIZE = 18_000_000
"""Bytes that a report takes at most, unless its table alone needs more."""
LONGEST = 8_000
"""Characters of a text that the report shows; the ledger has them all."""
PREVIEW, SHORT = 160, 60
CHUNK = 400_000
"""Characters of conversations that are packed together: opened at once when one is looked at."""
VALUE = "value.json"

ABSENT, NOT_RUN, OK, FAILED = 0, 1, 2, 3
"""What became of a row in a run; the script knows the same numbers."""

Key = tuple[str, str, int]
"""Item id, content hash of the item, sample: the same row in two runs if all three are the same."""


# -- what the page is told: plain data --------------------------------------------------------


@dataclass
class AgentFacts:
    """A node of the graph and what its calls cost. ``level`` is its wave in a round, from 0."""

    name: str
    role: str
    model: str | None
    view: str | None
    memory: bool
    function: bool
    decision: bool
    level: int
    calls: int = 0
    failed_calls: int = 0
    input: int = 0
    output: int = 0
    alive: float = 1.0
    """Share of the episodes in which it was alive."""


@dataclass
class EdgeFacts:
    """An edge, what its reader paid for it, and what it is worth (``None``: unknown)."""

    sender: int
    reader: int
    kind: str
    channel: str | None
    messages: int = 0
    """Messages read for the first time."""
    tokens: int = 0
    again: int = 0
    """Of ``tokens``: paid for reading messages again from memory."""
    channel_tokens: int = 0
    """Input and output tokens of the channel's own calls; beside ``tokens``."""
    alive: float = 1.0
    worth: float | None = None
    worth_low: float | None = None
    worth_high: float | None = None


@dataclass
class RunFacts:
    """One run: how it stands, what it scored, what it cost and on what."""

    name: str
    path: str
    graph: str
    task: str
    model: str | None
    seed: Any
    samples: int
    rounds: int
    system: str
    agents: list[AgentFacts]
    edges: list[EdgeFacts]
    expected: int
    done: int = 0
    failed: int = 0
    stopped: str | None = None
    """Why the run ended before its last item, if it said so."""
    last_at: float | None = None
    """When its last episode ended (seconds since 1970)."""
    scored: int = 0
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    calls: int = 0
    failed_calls: int = 0
    unknown_calls: int = 0
    cache_hits: int = 0
    input: int = 0
    output: int = 0
    cached: int | None = None
    gross: int = 0
    """Input and output tokens of the evaluation's own calls; the rest is channels, judges, learning."""
    cost: float | None = None
    estimated: bool = False
    """Whether shares of some prompts are by length: no tokenizer was at hand."""
    parts: dict[str, int] = field(default_factory=dict)
    """Input tokens by part other than edges; ``channels`` are channels' own calls."""
    point: dict[str, Any] | None = None
    """Its place on the chart: score and tokens an item over the rows that all runs share."""
    against: dict[str, Any] | None = None
    """Paired difference to the first run."""
    worth_of: str | None = None
    questions: bool = True
    """Whether the run's directory says what its items ask."""
    topology: str = ""
    """In words: whole graph, cut, or chosen for each item."""


class Cell(NamedTuple):
    """One row of the table in one run."""

    state: int
    score: float | None = None
    input: int = 0
    output: int = 0
    calls: int = 0
    failed_calls: int = 0
    unknown: int = 0
    wall: float = 0.0
    extracted: str = ""


class Written(NamedTuple):
    """What :func:`write_report` made."""

    path: Path
    bytes: int
    rows: int
    conversations: int
    """Rows whose conversations are in the file."""


# -- reading a run ------------------------------------------------------------------------------


class _Source:
    """A run's directory, open for reading."""

    def __init__(self, path: Path, name: str, stack: ExitStack) -> None:
        self.directory = RunDir.open(path)
        self.name = name
        self.config = self.directory.config()
        self.items = self.directory.items()
        try:
            self.samples = int(self.config["samples"])
            graph = self.config["graph"]
            self.names = [str(a["name"]) for a in graph["agents"]]
            self.facts = _facts(self, graph)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.directory.config_path} is not a run's configuration: {error!r}"
            ) from error
        self.ledger = stack.enter_context(_reading(self.directory))
        self.index = {n: i for i, n in enumerate(self.names)}
        self.edge = {(self.names[e.sender], self.names[e.reader], e.kind): e for e in self.facts.edges}
        self._offsets = _offsets(self.directory.path / QUESTIONS)
        self.facts.questions = bool(self._offsets)
        self._file = (
            stack.enter_context((self.directory.path / QUESTIONS).open("rb")) if self._offsets else None
        )
        self.cells: dict[Key, Cell] = {}

    def question(self, item: str) -> dict[str, Any] | None:
        """What an item asks and shows, if the run wrote it down."""
        offset = self._offsets.get(item)
        if offset is None or self._file is None:
            return None
        self._file.seek(offset)
        row: dict[str, Any] = json.loads(self._file.readline())
        return row


def _reading(directory: RunDir) -> Ledger:
    try:
        return directory.ledger(read_only=True)
    except LedgerError:
        return directory.ledger()  # an older format, which has to be brought up to date


def _offsets(path: Path) -> dict[str, int]:
    """Where in the file each item's line begins; damaged lines are left out."""
    found: dict[str, int] = {}
    if not path.exists():
        return found
    with path.open("rb") as file:
        while line := (at := file.tell(), file.readline())[1]:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                found[row["id"]] = at
    return found


def _facts(source: _Source, graph: Mapping[str, Any]) -> RunFacts:
    config = source.config
    index = {n: i for i, n in enumerate(source.names)}
    edges = [
        EdgeFacts(
            index[e["sender"]],
            index[e["reader"]],
            e.get("kind", "spatial"),
            (e.get("channel") or {}).get("name"),
        )
        for e in graph.get("edges", ())
    ]
    levels = _levels(len(index), edges, index.get(graph["decision"]))
    agents = [
        AgentFacts(
            name=a["name"],
            role=a.get("role", ""),
            model=a.get("model"),
            view=a.get("view"),
            memory=a.get("memory", True),
            function="act" in a,
            decision=a["name"] == graph["decision"],
            level=levels[i],
        )
        for i, a in enumerate(graph["agents"])
    ]
    return RunFacts(
        name=source.name,
        path=str(source.directory.path),
        graph=str(graph.get("name", "graph")),
        task=str(config["task"]["name"]),
        model=config.get("model"),
        seed=config.get("options", {}).get("seed"),
        samples=source.samples,
        rounds=int(graph.get("rounds", 1)),
        system=graph.get("system", ""),
        agents=agents,
        edges=edges,
        expected=len(source.items) * source.samples,
    )


def _levels(n: int, edges: Sequence[EdgeFacts], decision: int | None) -> list[int]:
    """Each agent's wave within a round; the decision agent comes after all."""
    level = [0] * n
    spatial = [(e.sender, e.reader) for e in edges if e.kind == "spatial"]
    for _ in range(n):
        moved = False
        for a, b in spatial:
            if level[b] <= level[a]:
                level[b], moved = level[a] + 1, True
        if not moved:
            break
    if decision is not None and n > 1:
        level[decision] = max(level[i] for i in range(n) if i != decision) + 1
    return level


# -- the first pass: numbers ----------------------------------------------------------------------


@dataclass
class _Sums:
    """What is added up over a run."""

    alive_agents: Counter[int] = field(default_factory=Counter)
    alive_edges: Counter[int] = field(default_factory=Counter)
    episodes: int = 0
    unpriced: bool = False
    cost: float = 0.0
    parts: Counter[str] = field(default_factory=Counter)


def _count(source: _Source) -> None:
    """Fill ``source.facts`` and ``source.cells``."""
    facts, sums = source.facts, _Sums()
    alive = _Alive(source)
    for item, digest in source.items.items():
        calls: dict[int, list[CallRow]] = defaultdict(list)
        read: dict[int, list[DeliveryRow]] = defaultdict(list)
        for call in source.ledger.calls(item=item, texts=False):
            calls[call.sample].append(call)
        for row in source.ledger.deliveries(item=item, texts=False):
            read[row.sample].append(row)
        episodes = {e.sample: e for e in source.ledger.episodes(item=item)}
        for sample in sorted({*range(source.samples), *episodes, *calls}):
            episode = episodes.get(sample)
            source.cells[(item, digest, sample)] = _cell(episode, calls[sample])
            _add_calls(facts, sums, source, calls[sample])
            _add_deliveries(source, calls[sample], read[sample])
            if episode is not None:
                facts.done += 1
                facts.failed += episode.status == "failed"
                facts.last_at = max(facts.last_at or 0.0, episode.finished_at)
                alive.add(episode.topology, sums)
    facts.parts = dict(sums.parts)
    facts.cost = None if sums.unpriced or not facts.calls else sums.cost
    for i, agent in enumerate(facts.agents):
        agent.alive = sums.alive_agents[i] / sums.episodes if sums.episodes else 1.0
    for i, edge in enumerate(facts.edges):
        edge.alive = sums.alive_edges[i] / sums.episodes if sums.episodes else 1.0
    facts.topology = alive.in_words()
    scored = [(k, c.score) for k, c in source.cells.items() if c.state == OK and c.score is not None]
    facts.scored = len(scored)
    interval = mean_interval([s for _, s in scored], clusters=[k[0] for k, _ in scored])
    facts.score, facts.score_low, facts.score_high = interval.mean, interval.low, interval.high
    if facts.done < facts.expected:
        facts.stopped = _stopped(source.directory)


def _stopped(directory: RunDir) -> str | None:
    try:
        reason = directory.results()["summary"]["stopped"]
    except (ConfigError, KeyError, TypeError):
        return None
    return None if reason is None else str(reason)


def _cell(episode: EpisodeRow | None, calls: Sequence[CallRow]) -> Cell:
    paid = [c for c in calls if not c.cache_hit]
    tokens = (
        sum(c.input_tokens or 0 for c in paid),
        sum(c.output_tokens or 0 for c in paid),
        len(paid),
        sum(c.error_kind is not None for c in paid),
        sum(c.input_tokens is None or c.output_tokens is None for c in paid),
    )
    if episode is None:
        return Cell(NOT_RUN, None, *tokens)
    state = OK if episode.status == "ok" else FAILED
    shown = episode.extracted if episode.extracted is not None else (episode.answer or "").strip()
    return Cell(state, episode.score, *tokens, round(episode.wall_s, 3), _preview(shown, SHORT))


def _add_calls(facts: RunFacts, sums: _Sums, source: _Source, calls: Sequence[CallRow]) -> None:
    for call in calls:
        if call.cache_hit:
            facts.cache_hits += 1
            continue
        facts.calls += 1
        facts.failed_calls += call.error_kind is not None
        facts.unknown_calls += call.input_tokens is None or call.output_tokens is None
        used = (call.input_tokens or 0) + (call.output_tokens or 0)
        facts.input += call.input_tokens or 0
        facts.output += call.output_tokens or 0
        if call.cached_tokens is not None:
            facts.cached = (facts.cached or 0) + call.cached_tokens
        if call.phase == "evaluate":
            facts.gross += used
        facts.estimated |= call.parts_estimated
        sums.cost += call.cost or 0.0
        sums.unpriced |= call.cost is None and call.error_kind is None
        at = source.index.get(call.agent)
        if at is not None:
            agent = facts.agents[at]
            agent.calls += 1
            agent.failed_calls += call.error_kind is not None
            agent.input += call.input_tokens or 0
            agent.output += call.output_tokens or 0
        if call.edge is not None:
            sums.parts["channels"] += call.input_tokens or 0
            for edge in _edges_named(source, call.edge)[:1]:
                edge.channel_tokens += used
        elif call.input_tokens is not None:
            parts = call.parts or {}
            for part, tokens in parts.items():
                sums.parts["messages" if is_edge(part) else part] += tokens
            if rest := call.input_tokens - sum(parts.values()):
                sums.parts["unattributed"] += rest


def _edges_named(source: _Source, name: str) -> list[EdgeFacts]:
    return [e for (s, r, _), e in source.edge.items() if f"{s}->{r}" == name]


def _add_deliveries(source: _Source, calls: Sequence[CallRow], rows: Sequence[DeliveryRow]) -> None:
    paid = {c.id for c in calls if not c.cache_hit and c.edge is None and c.parts is not None}
    for row in rows:
        edge = source.edge.get((row.sender, row.reader, row.kind))
        if edge is None or row.call_id not in paid:
            continue
        edge.messages += not row.again
        edge.tokens += row.tokens or 0
        edge.again += (row.tokens or 0) if row.again else 0


class _Alive:
    """How often each agent and edge was alive, over a run's episodes."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        shared = source.config.get("topology")
        self._fixed = shared if isinstance(shared, dict) and "masks" in shared else None
        self._known: dict[str, tuple[list[int], list[int]]] = {}
        self._whole = (list(range(len(source.names))), list(range(len(source.facts.edges))))
        self._any_cut = False

    def add(self, topology: str | None, sums: _Sums) -> None:
        agents, edges = self._whole
        if topology is not None:
            if topology not in self._known:
                if len(self._known) > 1000:
                    self._known.clear()
                self._known[topology] = self._read(json.loads(topology))
            agents, edges = self._known[topology]
            self._any_cut = True
        elif self._fixed is not None:
            agents, edges = self._known.setdefault("", self._read(self._fixed))
        sums.episodes += 1
        sums.alive_agents.update(agents)
        sums.alive_edges.update(edges)

    def _read(self, topology: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        names = {n for m in topology["masks"] for n in m["agents"]}
        keys = {tuple(e) for m in topology["masks"] for e in m["edges"]}
        position = {id(e): i for i, e in enumerate(self._source.facts.edges)}
        return (
            [i for n, i in self._source.index.items() if n in names],
            [position[id(e)] for k, e in self._source.edge.items() if k in keys],
        )

    def in_words(self) -> str:
        if self._any_cut:
            return "chosen for each item"
        return "cut" if self._fixed is not None else "whole graph"


# -- comparing ----------------------------------------------------------------------------------


def _compare(sources: Sequence[_Source], seed: int = 0) -> None:
    """Places on the chart, over the rows that all runs scored, and differences to the first run."""
    rng = np.random.default_rng(seed)
    scores = [
        {k: c.score for k, c in s.cells.items() if c.state == OK and c.score is not None} for s in sources
    ]
    shared = [k for k in scores[0] if all(k in other for other in scores[1:])]
    front = []
    if shared and len({s.facts.task for s in sources}) == 1:
        points = [
            RunPoint(s.name, [mine[k] for k in shared], [_tokens(s.cells[k]) for k in shared])
            for s, mine in zip(sources, scores, strict=True)
        ]
        # Fewer resamples where there are many rows: the report is for looking.
        front = list(pareto_front(points, rng=rng, resamples=500 if len(shared) > 2_000 else 2_000))
    for i, (source, mine) in enumerate(zip(sources, scores, strict=True)):
        keys = shared if front else list(mine)
        if not keys:
            continue
        interval = mean_interval([mine[k] for k in keys], clusters=[k[0] for k in keys])
        used = np.array([_tokens(source.cells[k]) for k in keys], dtype=float)
        spread = 1.96 * used.std(ddof=1) / math.sqrt(len(used)) if len(used) > 1 else None
        source.facts.point = {
            "score": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "tokens": used.mean(),
            "spread": spread,
            "rows": len(keys),
            "shared": bool(front),
            "front": front[i].on_front if front else None,
            "probability": front[i].probability if front else None,
        }
        if i and front:
            source.facts.against = _against(sources[0], source, scores[0], mine, rng)


def _against(
    first: _Source, source: _Source, theirs: Mapping[Key, float], ours: Mapping[Key, float], rng: Any
) -> dict[str, Any]:
    pairs = [k for k in theirs if k in ours]
    a, b, clusters = [ours[k] for k in pairs], [theirs[k] for k in pairs], [k[0] for k in pairs]
    resamples = 2_000 if len(pairs) > 2_000 else 10_000
    difference = paired_bootstrap(a, b, clusters=clusters, rng=rng, resamples=resamples)
    verdict = non_inferiority(a, b, clusters=clusters, rng=rng, resamples=resamples)
    before = sum(_tokens(first.cells[k]) for k in pairs)
    after = sum(_tokens(source.cells[k]) for k in pairs)
    return {
        "to": first.name,
        "pairs": len(pairs),
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "verdict": verdict.verdict,
        "margin": verdict.margin,
        "needed": verdict.needed,
        "saved": 1 - after / before if before else None,
    }


def _tokens(cell: Cell) -> int:
    return cell.input + cell.output


# -- what edges are worth ---------------------------------------------------------------------------


def _worth(source: _Source, given: Mapping[str, Any] | None) -> None:
    data = given
    path = source.directory.path / VALUE
    if data is None and path.exists():
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"can't read {path}: {error}; mend it or take it away") from error
    if data is None:
        return
    edges = data.get("edges", data) if isinstance(data, Mapping) else None
    if not isinstance(edges, Mapping):
        raise ConfigError(f'{path} says nothing about edges; write {{"edges": {{"sender->reader": 0.1}}}}')
    for (sender, reader, kind), edge in source.edge.items():
        name = f"{sender}->{reader}"
        value = edges.get(f"{name} {kind}", edges.get(name))
        spread = value if isinstance(value, Mapping) else {"worth": value}
        edge.worth, edge.worth_low, edge.worth_high = (
            _number(spread.get(k)) for k in ("worth", "low", "high")
        )
    what = data.get("what")
    source.facts.worth_of = str(what) if what else "what the score loses without the edge"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


# -- the second pass: conversations -----------------------------------------------------------------


class _Texts:
    """Texts of one row, each once; what is longer than :data:`LONGEST` is cut and says so."""

    def __init__(self) -> None:
        self.list: list[Any] = []
        self._known: dict[str, int] = {}

    def add(self, text: str | None) -> int | None:
        """The text's place in ``list``."""
        if text is None:
            return None
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self.list)
            if len(text) > LONGEST:
                sha = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                self.list.append([text[:LONGEST], len(text), sha])
            else:
                self.list.append(text)
        return at


def _conversation(sources: Sequence[_Source], key: Key) -> dict[str, Any]:
    """Everything about a row: what was asked, and what happened in each run."""
    item = key[0]
    texts = _Texts()
    asked = next((q for s in sources if key in s.cells and (q := s.question(item)) is not None), None)
    row: dict[str, Any] = {"runs": [_episode(s, key, texts) if key in s.cells else None for s in sources]}
    if asked is not None:
        row["question"] = texts.add(asked["question"])
        row["context"] = texts.add(asked.get("context") or None)
        row["views"] = {n: texts.add(t) for n, t in (asked.get("views") or {}).items()}
        answer = asked.get("answer")
        row["answer"] = texts.add(
            answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        )
    row["texts"] = texts.list
    return row


def _episode(source: _Source, key: Key, texts: _Texts) -> dict[str, Any] | None:
    item, _, sample = key
    history = source.ledger.episodes(item=item, sample=sample, history=True)
    calls = source.ledger.calls(item=item, sample=sample)
    if not history and not calls:
        return None
    given: dict[str, list[dict[str, Any]]] = defaultdict(list)
    said: dict[tuple[int, str], str] = {}
    for row in source.ledger.deliveries(item=item, sample=sample):
        given[row.call_id].append(_given(source, row, texts))
        if row.sender_call_id is None and not row.again:
            said[(row.round if row.kind == "spatial" else row.round - 1, row.sender)] = row.original_text
    last = history[-1] if history else None
    turns: dict[tuple[int, str], dict[str, Any]] = {}
    for call in sorted(calls, key=lambda c: c.started_at):
        turn = turns.setdefault(
            (call.round, call.agent),
            {"round": call.round, "agent": source.index.get(call.agent), "calls": []},
        )
        turn["calls"].append(_call(call, given[call.id], texts))
    # A function agent makes no call: what it said is known from who read it.
    for (round, agent), text in said.items():
        if (round, agent) not in turns and agent in source.index:
            turns[(round, agent)] = {"round": round, "agent": source.index[agent], "said": texts.add(text)}
    decision = next(a for a in source.facts.agents if a.decision)
    end = (source.facts.rounds, decision.name)
    if decision.function and last is not None and last.answer is not None and end not in turns:
        turns[end] = {"round": end[0], "agent": source.index[end[1]], "said": texts.add(last.answer)}
    episode: dict[str, Any] = {
        "turns": sorted(turns.values(), key=lambda t: (t["round"], *_place(source, t["agent"]))),
        "tries": len(history),
    }
    if last is not None:
        episode |= {
            "answer": texts.add(last.answer),
            "extracted": texts.add(last.extracted),
            "failure": last.failure,
            "failures": last.failures,
            "earlier": [e.failure for e in history[:-1] if e.failure],
        }
        if last.topology is not None:
            alive = {tuple(e) for m in json.loads(last.topology)["masks"] for e in m["edges"]}
            episode["cut"] = [i for i, k in enumerate(source.edge) if k not in alive]
    return episode


def _place(source: _Source, agent: int | None) -> tuple[int, int]:
    return (source.facts.agents[agent].level, agent) if agent is not None else (0, -1)


def _given(source: _Source, row: DeliveryRow, texts: _Texts) -> dict[str, Any]:
    out: dict[str, Any] = {
        "from": source.index.get(row.sender),
        "text": texts.add(row.text),
        "tokens": row.tokens,
    }
    if row.kind != "spatial":
        out["temporal"] = 1
    if row.again:
        out["again"] = 1
    if row.text != row.original_text:
        out["original"] = texts.add(row.original_text)
    if row.channel != "verbatim":
        out["channel"] = row.channel
    if row.note:
        out["note"] = row.note
    return out


def _call(call: CallRow, given: list[dict[str, Any]], texts: _Texts) -> dict[str, Any]:
    out: dict[str, Any] = {
        "input": call.input_tokens,
        "output": call.output_tokens,
        "cached": call.cached_tokens,
        "reasoning": call.reasoning_tokens,
        "hit": call.cache_hit or None,
        "seconds": None if call.latency_s is None else round(call.latency_s, 3),
        "finish": call.finish_reason,
        "cost": call.cost,
        "parts": None if call.parts is None else dict(call.parts),
        "estimated": call.parts_estimated or None,
        "error": call.error_kind,
        "why": call.error,
        "edge": call.edge,
        "model": call.model,
        "reply": texts.add(call.reply_text),
        "given": given or None,
    }
    return {k: v for k, v in out.items() if v is not None}


def _order(rows: Sequence[Key], sources: Sequence[_Source]) -> Iterator[tuple[Key, str]]:
    """Rows in the order in which their conversations are kept, and why: the interesting ones in turns."""
    cells = {k: [s.cells[k] for s in sources if k in s.cells] for k in rows}
    by_hash = sorted(
        rows, key=lambda k: hashlib.sha256("\0".join(map(str, k)).encode("utf-8", "replace")).digest()
    )
    began = [k for k in by_hash if any(c.state > NOT_RUN or c.calls for c in cells[k])]
    queues = {
        "failed": [k for k in began if any(c.state == FAILED for c in cells[k])],
        "disagreed": [k for k in began if disagreed(cells[k])],
        "most expensive": sorted(began, key=lambda k: -max(map(_tokens, cells[k])))[
            : max(50, len(began) // 100)
        ],
        "retried": [k for k in began if any(c.failed_calls for c in cells[k])],
        "sampled": began,
    }
    seen: set[Key] = set()
    waiting = {why: iter(keys) for why, keys in queues.items()}
    while waiting:
        for why, keys in list(waiting.items()):
            key = next((k for k in keys if k not in seen), None)
            if key is None:
                del waiting[why]
            else:
                seen.add(key)
                yield key, why


def disagreed(cells: Iterable[Cell]) -> bool:
    """Whether runs scored the same row differently."""
    return len({c.score for c in cells if c.state == OK and c.score is not None}) > 1


# -- the whole ----------------------------------------------------------------------------------------


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    size: int = SIZE,
) -> Written:
    """Write the report of runs, the first being the reference.

    Parameters
    ----------
    paths:
        Run directories; finished, cut off or still going.
    out:
        The HTML file; replaced whole.
    values:
        By a run's name, what its edges are worth, as ``value.json`` would say it.
    size:
        Bytes that conversations may fill the file up to.

    Raises
    ------
    ConfigError
        If a path is no run, a run's file can't be read, or ``out`` can't be written.
    """
    if not paths:
        raise ConfigError("no run to show; name one or more run directories")
    with ExitStack() as stack:
        names = _names(paths)
        sources = [_Source(p, n, stack) for p, n in zip(paths, names, strict=True)]
        for source in sources:
            _count(source)
            _worth(source, (values or {}).get(source.name))
        _compare(sources)
        rows = list(dict.fromkeys(k for s in sources for k in s.cells))
        partial = out.with_name(out.name + ".partial")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                kept = _write(Page(file), sources, rows, size)
            partial.replace(out)
        except OSError as error:
            raise ConfigError(f"can't write {out}: {error.strerror}; choose another --out") from error
        return Written(out, out.stat().st_size, len(rows), kept)


def _write(page: Page, sources: Sequence[_Source], rows: Sequence[Key], size: int) -> int:
    """Write all data, the conversations first; returns how many of those there are."""
    table = packed(_table(sources, rows))
    room = size - page.written - len(table) - 100_000 - 20 * len(rows) // 3
    where: dict[Key, tuple[int, int]] = {}
    reasons: Counter[str] = Counter()
    waiting: list[dict[str, Any]] = []
    keys: list[tuple[Key, str]] = []
    held = chunks = 0

    def flush() -> bool:
        nonlocal held, chunks, room
        text = packed(waiting)
        fits = len(text) <= room
        if fits:
            page.packed(f"chunk-{chunks}", text)
            for i, (key, why) in enumerate(keys):
                where[key] = (chunks, i)
                reasons[why] += 1
            chunks, room = chunks + 1, room - len(text)
        waiting.clear()
        keys.clear()
        held = 0
        return fits

    full = False
    for key, why in _order(rows, sources):
        row = _conversation(sources, key)
        waiting.append(row)
        keys.append((key, why))
        # Close to what its JSON takes, without making it twice.
        held += 600 + sum(len(t if isinstance(t, str) else t[0]) for t in row["texts"])
        held += 150 * sum(len(t.get("calls", ())) for e in row["runs"] if e for t in e["turns"])
        if held >= CHUNK and not flush():
            full = True
            break
    if not full and waiting:
        full = not flush()
    position = [where.get(k, (-1, 0)) for k in rows]
    page.packed("table", table)
    page.packed("where", packed([[c for c, _ in position], [i for _, i in position]]))
    page.data(
        "facts",
        {
            "made": time.time(),
            "runs": [_finite(asdict(s.facts)) for s in sources],
            "rows": len(rows),
            "kept": len(where),
            "full": full,
            "reasons": dict(reasons),
            "longest": LONGEST,
        },
    )
    page.end()
    return len(where)


def _table(sources: Sequence[_Source], rows: Sequence[Key]) -> dict[str, Any]:
    """Column by column: what gzip likes best, and what the page reads fastest."""
    previews = []
    for item, digest, sample in rows:
        source = next(s for s in sources if (item, digest, sample) in s.cells)
        asked = source.question(item)
        previews.append("" if asked is None or sample else _preview(str(asked.get("question", "")), PREVIEW))
    absent = Cell(ABSENT)
    return {
        "item": [k[0] for k in rows],
        "sample": [k[2] for k in rows],
        "question": previews,
        "runs": [
            {name: [getattr(s.cells.get(k, absent), name) for k in rows] for name in Cell._fields}
            for s in sources
        ],
    }


def _preview(text: str, longest: int) -> str:
    text = " ".join(text[: 4 * longest].split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _finite(value: Any) -> Any:
    """NaN and infinities as null, and numpy's numbers as Python's: JSON has neither."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the directory's, or as much of its path as it takes."""
    whole = [Path(os.path.abspath(p)) for p in paths]  # noqa: PTH100 -- without following links
    if len(set(whole)) < len(whole):
        raise ConfigError("the same run is named twice; name each once")
    for depth in range(1, max(len(p.parts) for p in whole) + 1):
        names = ["/".join(p.parts[-depth:]) for p in whole]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in whole]
