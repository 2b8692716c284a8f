"""Facts: what a report says about runs in numbers, gathered from their ledgers item by item.

Memory holds a row an item and never the texts of a run. A run that is still going, was cut off,
or was made by an older agentcomm is read as far as it goes.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentcomm.errors import ConfigError, LedgerError
from agentcomm.evaluation.rundir import QUESTIONS, RunDir
from agentcomm.evaluation.stats import (
    RunPoint,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    pareto_front,
)
from agentcomm.ledger.adherence import EdgeAdherence
from agentcomm.ledger.rows import CallRow, DeliveryRow, EpisodeRow
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.usage import is_edge

SHORT = 60
"""Characters of an answer that the table shows."""
VALUE = "value.json"

ABSENT, NOT_RUN, OK, FAILED = 0, 1, 2, 3
"""What became of a row in a run; the page's script knows the same numbers."""

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
    adversarial: bool
    """Whether it is told to mislead (:mod:`agentcomm.adversary`)."""
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
    channel_did: str = ""
    """What became of the deliveries, both kinds of edge between the two together."""
    alive: float = 1.0
    added: bool = False
    """Whether a policy added it: the graph as written doesn't have it."""
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


# -- reading a run ------------------------------------------------------------------------------


class Source:
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


def _facts(source: Source, graph: Mapping[str, Any]) -> RunFacts:
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
            adversarial=bool(a.get("adversarial", False)),
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


def count(source: Source) -> None:
    """Fill ``source.facts`` and ``source.cells``."""
    facts, sums = source.facts, _Sums()
    alive = _Alive(source)
    did: dict[str, EdgeAdherence] = {}
    for item, digest in source.items.items():
        calls: dict[int, list[CallRow]] = defaultdict(list)
        read: dict[int, list[DeliveryRow]] = defaultdict(list)
        for call in source.ledger.calls(item=item, texts=False):
            calls[call.sample].append(call)
        for row in source.ledger.deliveries(item=item, texts=False):
            read[row.sample].append(row)
        for made in source.ledger.channels(item=item, texts=False):
            name = f"{made.sender}->{made.reader}"
            did.setdefault(name, EdgeAdherence(made.channel)).add(made)
        episodes = {e.sample: e for e in source.ledger.episodes(item=item)}
        for topology in {e.topology for e in episodes.values()}:
            alive.see(topology)  # before its messages: it may have edges that the graph lacks
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
    for name, adhered in did.items():
        for edge in _edges_named(source, name):
            edge.channel_did = str(adhered)
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
    return Cell(state, episode.score, *tokens, round(episode.wall_s, 3), preview(shown, SHORT))


def _add_calls(facts: RunFacts, sums: _Sums, source: Source, calls: Sequence[CallRow]) -> None:
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


def _edges_named(source: Source, name: str) -> list[EdgeFacts]:
    return [e for (s, r, _), e in source.edge.items() if f"{s}->{r}" == name]


def _add_deliveries(source: Source, calls: Sequence[CallRow], rows: Sequence[DeliveryRow]) -> None:
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

    def __init__(self, source: Source) -> None:
        self._source = source
        shared = source.config.get("topology")
        self._fixed = shared if isinstance(shared, dict) and "masks" in shared else None
        self._known: dict[str, tuple[list[int], list[int]]] = {}
        self._whole = (list(range(len(source.names))), list(range(len(source.facts.edges))))
        self._many = False

    def see(self, topology: str | None) -> tuple[list[int], list[int]]:
        """The agents and edges, by position, that are alive under an episode's topology."""
        if topology is None:
            if self._fixed is None:
                return self._whole
            return self._known.setdefault("", self._read(self._fixed))
        if topology not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
                self._many = True
            self._known[topology] = self._read(json.loads(topology))
        return self._known[topology]

    def add(self, topology: str | None, sums: _Sums) -> None:
        agents, edges = self.see(topology)
        sums.episodes += 1
        sums.alive_agents.update(agents)
        sums.alive_edges.update(edges)

    def _read(self, topology: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        source, names = self._source, {n for m in topology["masks"] for n in m["agents"]}
        keys = {(str(a), str(b), str(kind)) for m in topology["masks"] for a, b, kind in m["edges"]}
        for key in sorted(keys - set(source.edge)):
            if key[0] in source.index and key[1] in source.index:
                edge = EdgeFacts(source.index[key[0]], source.index[key[1]], key[2], None, added=True)
                source.edge[key] = edge
                source.facts.edges.append(edge)
        position = {id(e): i for i, e in enumerate(source.facts.edges)}
        return (
            [i for n, i in source.index.items() if n in names],
            [position[id(e)] for k, e in source.edge.items() if k in keys],
        )

    def in_words(self) -> str:
        chosen = {tuple(map(tuple, alive)) for topology, alive in self._known.items() if topology}
        if self._many or len(chosen) > 1:
            return "chosen for each item"
        return "cut" if chosen or self._fixed is not None else "whole graph"


# -- comparing ----------------------------------------------------------------------------------


def compare(sources: Sequence[Source], seed: int = 0) -> None:
    """Places on the chart, over the rows that all runs scored, and differences to the first run."""
    rng = np.random.default_rng(seed)
    scores = [
        {k: c.score for k, c in s.cells.items() if c.state == OK and c.score is not None} for s in sources
    ]
    shared = [k for k in scores[0] if all(k in other for other in scores[1:])]
    front = []
    if shared and len({s.facts.task for s in sources}) == 1:
        points = [
            RunPoint(s.name, [mine[k] for k in shared], [tokens_of(s.cells[k]) for k in shared])
            for s, mine in zip(sources, scores, strict=True)
        ]
        # Fewer resamples where there are many rows: the report is for looking.
        front = list(pareto_front(points, rng=rng, resamples=500 if len(shared) > 2_000 else 2_000))
    for i, (source, mine) in enumerate(zip(sources, scores, strict=True)):
        keys = shared if front else list(mine)
        if not keys:
            continue
        interval = mean_interval([mine[k] for k in keys], clusters=[k[0] for k in keys])
        used = np.array([tokens_of(source.cells[k]) for k in keys], dtype=float)
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
    first: Source, source: Source, theirs: Mapping[Key, float], ours: Mapping[Key, float], rng: Any
) -> dict[str, Any]:
    pairs = [k for k in theirs if k in ours]
    a, b, clusters = [ours[k] for k in pairs], [theirs[k] for k in pairs], [k[0] for k in pairs]
    resamples = 2_000 if len(pairs) > 2_000 else 10_000
    difference = paired_bootstrap(a, b, clusters=clusters, rng=rng, resamples=resamples)
    verdict = non_inferiority(a, b, clusters=clusters, rng=rng, resamples=resamples)
    before = sum(tokens_of(first.cells[k]) for k in pairs)
    after = sum(tokens_of(source.cells[k]) for k in pairs)
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


def tokens_of(cell: Cell) -> int:
    return cell.input + cell.output


# -- what edges are worth ---------------------------------------------------------------------------


def set_worth(source: Source, given: Mapping[str, Any] | None) -> None:
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


def preview(text: str, longest: int) -> str:
    text = " ".join(text[: 4 * longest].split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
