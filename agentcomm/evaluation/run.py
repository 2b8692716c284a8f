"""Run: a graph on every item of a task, with a ledger, limits and resumption.

Items run side by side; each is finished, scored and committed on its own. A failed episode is
not a wrong answer: it is counted apart and tried again when the run is continued. What is kept
in memory of a finished episode is its row, so long runs don't grow.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio

from agentcomm.api import check_models, open_turns
from agentcomm.backends.base import Backend
from agentcomm.calls import Calls
from agentcomm.episode import Episode, Listener, run_episode
from agentcomm.errors import AgentCommError, ConfigError, GraphError, LedgerError, TaskError, UserError
from agentcomm.evaluation.rundir import RunDir, plain, write_json
from agentcomm.evaluation.splits import SplitGuard
from agentcomm.evaluation.stats import mean_interval
from agentcomm.executors.base import Executor
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.adherence import EdgeAdherence, adherence
from agentcomm.ledger.redact import Redactor
from agentcomm.ledger.rows import NOT_RECORDED, CallRow, EpisodeRow, Phase
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.usage import UsageReport
from agentcomm.message import content_id
from agentcomm.options import RunOptions, model_name
from agentcomm.schedule import Schedule
from agentcomm.task import Item, Score, Task

IN_FLIGHT = 512
"""Episodes in flight at most; fewer where the endpoint takes fewer requests at a time."""

TopologyOf = Topology | Callable[[Item], Topology] | None


class Scheduling(Protocol):
    """A function of the item whose topologies may have edges that the graph lacks.

    What ``topology=`` is given may also be such: its own ``schedule`` then says what runs. (A
    policy that was learned is one; its ``card.learned_from`` are the items it may not be scored on.)
    """

    def __call__(self, item: Item) -> Topology: ...

    def schedule(self, topology: Topology) -> Schedule:
        """What runs under one of its topologies."""
        ...


@dataclass
class Progress:
    """Where a run stands; given to ``on_progress`` after every finished episode and call.

    Tokens, calls and cost include what was paid before the run was resumed.
    """

    total: int
    done: int = 0
    failed: int = 0
    score_sum: float = 0.0
    scored: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    resumed: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def score(self) -> float | None:
        return self.score_sum / self.scored if self.scored else None

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the items finished in this process; ``None`` before the first."""
        fresh = self.done - self.resumed
        if fresh <= 0:
            return None
        return (time.monotonic() - self.began) / fresh * (self.total - self.done)

    def add_call(self, row: CallRow) -> None:
        if row.cache_hit or row.error_kind == NOT_RECORDED:
            return
        self.calls += 1
        self.input_tokens += row.input_tokens or 0
        self.output_tokens += row.output_tokens or 0
        if row.cost is not None:
            self.cost = (self.cost or 0.0) + row.cost

    def add_episode(self, row: EpisodeRow) -> None:
        self.done += 1
        if row.status == "failed":
            self.failed += 1
        elif row.score is not None:
            self.scored += 1
            self.score_sum += row.score


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) run: its configuration, episodes and usage."""

    config: dict[str, Any]
    episodes: tuple[EpisodeRow, ...]
    """One for each (item, sample) that was finished or failed, in the task's order."""
    usage: UsageReport
    items: int
    """(item, sample) pairs asked for."""
    wall_s: float
    path: Path | None = None
    stopped: str | None = None
    """Why the run ended before its last item, if it did."""
    channels: Mapping[str, EdgeAdherence] = field(default_factory=dict)
    """What channels were asked for and what came of it, by ``"sender->reader"``."""

    @property
    def failed(self) -> int:
        return sum(e.status == "failed" for e in self.episodes)

    def summary(self) -> dict[str, Any]:
        """What ``agentcomm eval --json`` prints and ``results.json`` holds."""
        scored = [e for e in self.episodes if e.status == "ok" and e.score is not None]
        interval = (
            mean_interval(
                [float(e.score) for e in scored if e.score is not None], clusters=[e.item for e in scored]
            )
            if scored
            else None
        )
        usage = self.usage
        return {
            "run": str(self.path) if self.path else None,
            "graph": self.config["graph"]["name"],
            "task": self.config["task"]["name"],
            "model": self.config["model"],
            "adversaries": [a["name"] for a in self.config["graph"]["agents"] if a.get("adversarial")],
            "seed": self.config["options"]["seed"],
            "items": self.items,
            "scored": len(scored),
            "failed": self.failed,
            "not_run": self.items - len(self.episodes),
            "stopped": self.stopped,
            "score": {
                "mean": interval.mean if interval else None,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "level": interval.level if interval else None,
            },
            "calls": usage.calls,
            "failed_calls": usage.failed_calls,
            "unknown_calls": usage.unknown_calls,
            "cache_hits": usage.cache_hits,
            "tokens": {
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cached": usage.cached_tokens,
                "by_agent": {name: a.to_dict() for name, a in usage.by_agent().items()},
                "by_edge": usage.by_edge(),
                "by_part": usage.by_part(),
                "by_phase": {name: p.to_dict() for name, p in usage.by_phase().items()},
                "net_by_edge": usage.net_by_edge(),
            },
            "channels": {name: edge.to_dict() for name, edge in self.channels.items()},
            "cost": usage.cost,
            "wall_s": round(self.wall_s, 3),
        }

    def results(self) -> dict[str, Any]:
        """The summary, the configuration and one row an episode."""
        rows = [
            {
                "item": e.item,
                "sample": e.sample,
                "status": e.status,
                "score": e.score,
                "answer": e.answer,
                "extracted": e.extracted,
                "failure": e.failure,
                "wall_s": round(e.wall_s, 3),
            }
            for e in self.episodes
        ]
        return {"summary": self.summary(), "config": self.config, "episodes": rows}


async def evaluate(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None = None,
    *,
    out: Path | str | None = None,
    topology: TopologyOf = None,
    samples: int = 1,
    name: str | None = None,
    control: Mapping[str, Any] | None = None,
    phase: Phase = "evaluate",
    on_progress: Callable[[Progress], None] | None = None,
    listen: Listener | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> Run:
    """Run ``graph`` on every item of ``task``.

    Parameters
    ----------
    out:
        The run's directory. The same call again continues it: finished items are not paid for
        again, failed ones are tried again, and an episode that was cut off keeps the replies it
        already paid for. ``None`` keeps the ledger in memory.
    topology:
        What of the graph is alive: a :class:`Topology`, or a function of the item, such as a
        policy (:class:`Scheduling`).
    samples:
        How often each item is run, each time with seeds of its own.
    name:
        The graph's name in results.
    control:
        Marks the run as a control of another one (:mod:`agentcomm.evaluation.control_runs`).

    Raises
    ------
    UserError
        For anything that would fail every item (what was finished before stays in ``out``), and
        for items that a policy has learned from.
    LedgerError
        If the ledger can't be written any more (a full disk).
    """
    opts = RunOptions.of(options, **overrides)
    if samples < 1:
        raise TaskError(f"samples={samples}; it must be at least 1")
    fixed = None if callable(topology) else Schedule.of(graph, topology)
    if learned := learned_from(topology):
        SplitGuard(frozenset()).evaluate(task.items, learned)
    config = run_config(graph, task, model, opts, samples=samples, topology=topology, name=name)
    if control is not None:
        config["control"] = plain(control)
    directory = RunDir.create(Path(out)) if out is not None else None
    began = time.monotonic()

    async def go(ledger: Ledger) -> Run:
        evaluation = _Evaluation(
            graph,
            task,
            model,
            fixed,
            topology,
            samples,
            phase,
            opts,
            ledger,
            on_progress,
            listen,
            _run_id(config, out),
        )
        try:
            await evaluation.run()
        finally:
            run = evaluation.result(config, directory.path if directory else None, time.monotonic() - began)
            if directory is not None and not evaluation.ledger_broken:
                write_json(directory.results_path, run.results())
        return run

    if directory is None:
        with Ledger.in_memory() as ledger:
            return await go(ledger)
    with directory.locked():
        directory.settle(config, {i.id: i.content_hash for i in task.items})
        directory.keep_questions(task.items, Redactor(opts.secrets).exact)
        try:
            opened = directory.ledger()
        except LedgerError as error:  # nothing runs yet: the user can mend it
            raise ConfigError(str(error)) from error
        with opened as ledger:
            return await go(ledger)


def run_config(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None,
    options: RunOptions,
    *,
    samples: int = 1,
    topology: TopologyOf = None,
    name: str | None = None,
) -> dict[str, Any]:
    """What a run's results depend on, as JSON: a run directory continues only under the same."""
    return {
        "graph": {"name": name or "graph", **graph.to_dict()},
        "task": {
            "name": task.name,
            "config": plain(task.config),
            "items": len(task.items),
            # What is expected counts too: it decides the scores.
            "items_hash": content_id(*((i.id, i.content_hash, _reference(i)) for i in task.items)),
        },
        "model": model_name(model),
        "samples": samples,
        "topology": topology_spec(topology),
        "options": options.identity(),
    }


def topology_spec(topology: TopologyOf) -> Any:
    """A topology as JSON; a function of the item by its own ``spec()``, else by its name."""
    if topology is None:
        return None
    if isinstance(topology, Topology):
        return topology.to_dict()
    spec = getattr(topology, "spec", None)
    named = topology if hasattr(topology, "__qualname__") else type(topology)
    return spec() if callable(spec) else f"{named.__module__}:{named.__qualname__}"


def learned_from(topology: TopologyOf) -> frozenset[str]:
    """Hashes of the items that a policy has learned from; none for anything else."""
    return frozenset(getattr(getattr(topology, "card", None), "learned_from", ()))


def _run_id(config: Mapping[str, Any], out: Path | str | None) -> str:
    """Tells the checkpoints of this run from those of other runs in the same file."""
    return content_id(config, uuid.uuid4().hex if out is None else str(Path(out).resolve()))[:12]


def _reference(item: Item) -> str | None:
    """An item's answer where it is plain data; other objects may read differently in each process."""
    try:
        return json.dumps(item.answer, sort_keys=True)
    except (TypeError, ValueError):
        return None


@dataclass
class _Evaluation:
    """The state of :func:`evaluate` while it runs."""

    graph: AgentGraph
    task: Task
    model: str | Backend | None
    fixed: Schedule | None
    topology: TopologyOf
    samples: int
    phase: Phase
    options: RunOptions
    ledger: Ledger
    on_progress: Callable[[Progress], None] | None
    listen: Listener | None
    run_id: str
    rows: dict[tuple[str, int], EpisodeRow] = field(default_factory=dict)
    stopped: str | None = None
    ledger_broken: bool = False
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.tries: Counter[tuple[str, int]] = Counter()
        for row in self.ledger.episodes(history=True):
            self.rows[(row.item, row.sample)] = row
            self.tries[(row.item, row.sample)] += 1
        self.secrets = Redactor(self.options.secrets)
        self.progress = Progress(total=len(self.task.items) * self.samples)

    async def run(self) -> None:
        work = [
            (item, s)
            for item in self.task.items
            for s in range(self.samples)
            if (known := self.rows.get((item.id, s))) is None or known.status == "failed"
        ]
        for item, s in work:
            self.rows.pop((item.id, s), None)
        for row in self.rows.values():
            self.progress.add_episode(row)
        self.progress.resumed = self.progress.done
        before = self.ledger.calls(texts=False)
        for call in before:
            self.progress.add_call(call)
        paid_before = self.progress.calls
        self._report()
        if not work:
            return
        calls = self.options.calls(self.ledger, self.model, resuming=bool(before), on_row=self._count_call)
        for call in before:
            calls.scope.charge_past(call)
        executor = self.options.make_executor()
        async with calls:
            await check_models(calls, self.graph)
            queue: Iterator[tuple[Item, int]] = iter(work)
            workers = min(in_flight(calls, self.graph), len(work))
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(self._work, queue, calls, executor)
        if self.error is not None:
            if isinstance(self.error, UserError):
                self.error.running = self.progress.calls > paid_before
            raise self.error

    async def _work(self, queue: Iterator[tuple[Item, int]], calls: Calls, executor: Executor) -> None:
        for item, sample in queue:
            if self.stopped is not None or self.error is not None:
                return
            try:
                await self._one(item, sample, calls, executor)
            except LedgerError as error:
                self.ledger_broken = True
                self.error = error
            except Exception as error:
                # Raised outside the task group, so that it comes as itself, and after the other
                # episodes in flight have finished what is already paid for.
                self.error = self.error or error

    async def _one(self, item: Item, sample: int, calls: Calls, executor: Executor) -> None:
        schedule = self.fixed
        cut: Topology | None = None
        if schedule is None:
            cut = self._cut(item)
            own = getattr(self.topology, "schedule", None)
            schedule = own(cut) if callable(own) else Schedule.of(self.graph, cut)
        turns = open_turns(
            calls, schedule, item, self.options, sample=sample, phase=self.phase, listen=self.listen
        )
        # A failed episode is tried anew, not taken from its checkpoint; what it paid for is reused.
        thread = f"{self.run_id}:{item.id}#{sample}#{self.tries[(item.id, sample)]}"
        episode = await run_episode(executor, turns, thread=thread)
        score = await score_of(self.task, episode)
        failure = episode.failure
        row = episode_row(episode, score, cut, self.secrets)
        await self.ledger.record_episode(row)
        self.rows[(item.id, sample)] = row
        self.progress.add_episode(row)
        self._report()
        if failure is not None and failure.fatal and failure.scope != "item":
            self.stopped = self.stopped or self.ledger.redact(failure.reason)

    def _cut(self, item: Item) -> Topology:
        assert callable(self.topology)
        try:
            cut = self.topology(item)
        except AgentCommError:
            raise
        except Exception as error:
            raise GraphError(
                f"the topology of item {item.id!r} could not be made: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(cut, Topology):
            raise GraphError(
                f"topology= gave {cut!r} for item {item.id!r}; return what graph.topology(...) makes"
            )
        return cut

    def _count_call(self, row: CallRow) -> None:
        self.progress.add_call(row)
        self._report()

    def _report(self) -> None:
        if self.on_progress:
            self.on_progress(self.progress)

    def result(self, config: dict[str, Any], path: Path | None, wall_s: float) -> Run:
        order = {item.id: i for i, item in enumerate(self.task.items)}
        usage = self.ledger.usage()
        episodes = sorted(self.rows.values(), key=lambda e: (order[e.item], e.sample))
        return Run(
            config=config,
            episodes=tuple(episodes),
            usage=usage,
            channels=adherence(self.ledger.channels(texts=False), usage.channel_tokens_by_edge()),
            items=len(self.task.items) * self.samples,
            wall_s=wall_s,
            path=path,
            stopped=self.stopped,
        )


def in_flight(calls: Calls, graph: AgentGraph) -> int:
    """How many episodes of a graph are worth having in flight at a time."""
    models = {a.model for a in graph.agents if a.act is None}
    widest = max((calls.backend(m).max_concurrency for m in models), default=IN_FLIGHT)
    return max(1, min(IN_FLIGHT, widest))


async def score_of(task: Task, episode: Episode) -> Score | None:
    """What the task's scorer says of an episode's answer; ``None`` where there is none.

    Raises
    ------
    TaskError
        If the scorer fails or gives no score.
    """
    item = episode.item
    if episode.answer is None:
        return None
    try:
        score = task.score(item, episode.answer)
        if not isinstance(score, Score):
            score = await score
    except AgentCommError:
        raise
    except Exception as error:
        raise TaskError(
            f"the scorer of task {task.name!r} failed on item {item.id!r}: "
            f"{type(error).__name__}: {error}; mend it and repeat the command, no reply is paid for again"
        ) from error
    if not isinstance(score, Score):
        raise TaskError(
            f"the scorer of task {task.name!r} gave {score!r} for item {item.id!r}; return a Score"
        )
    if not 0.0 <= score.value <= 1.0:
        raise TaskError(
            f"the scorer of task {task.name!r} gave {score.value!r} for item {item.id!r}; it must be in 0..1"
        )
    return score


def episode_row(episode: Episode, score: Score | None, cut: Topology | None, secrets: Redactor) -> EpisodeRow:
    """The ledger's row of a finished episode; ``cut`` is the topology that was chosen for its item."""
    failure = episode.failure

    def hidden(text: str | None) -> str | None:
        return None if text is None else secrets.exact(text)

    return EpisodeRow(
        item=episode.item.id,
        sample=episode.sample,
        status="ok" if failure is None else "failed",
        answer=hidden(episode.answer),
        score=score.value if score else None,
        extracted=hidden(score.extracted) if score else None,
        failure=secrets.text(f"{failure.sender}, round {failure.round}: {failure.kind}: {failure.reason}")
        if failure
        else None,
        wall_s=episode.wall_s,
        finished_at=time.time(),
        topology=json.dumps(cut.to_dict()) if cut is not None else None,
        failures=len(episode.failures) + len(episode.failed_deliveries),
    )
