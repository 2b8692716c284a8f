"""Runner: the environment in which topologies are tried on a real team.

A rollout takes the same way as an evaluation's episode (schedule, turns, calls with their retries
and limits, scorer, ledger), under phase ``learn``. A directory keeps what was paid for:

    config.json      what the outcomes depend on; another configuration is refused
    ledger.sqlite    every call and delivery, and one row a rollout
    records.jsonl    one record a rollout (:mod:`agentcomm.pruning.records`)
    cache.sqlite     every reply by its request
    reference.json   what the whole team takes, to which utilities are set in relation
    confirmed.jsonl  one record a rollout on ``validate`` items, which nothing is learned from
    begun.json       how many records there were before anything was run here
    lock             held while a process learns in it

**Paid once.** A rollout that has ended is answered from its record. One that was cut off finds the
replies it has paid for in the ledger. And two topologies in which an agent reads the same ask it the
same: the reply then comes from the cache. For that, rollouts don't have seeds of their own: a
rollout's seed chooses one of ``draws`` draws of the model (one by default), so topologies are
compared under the same luck. What the cache saved is counted.

**Two prices of a rollout.** An outcome's tokens are what the topology takes when it runs, replies
from the cache included: that is what is learned from. What learning *paid* is
:attr:`RealEnvironment.spent`, and limits on tokens and money count that.

**Failures.** A rollout in which any agent failed is a failed one, even if the decision agent could
still answer: what was executed is then not the topology. (An agent that its own limit silenced has
not failed: the limit is part of the configuration.)

Deliberately absent: what is learned.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from agentcomm.api import check_models, open_turns
from agentcomm.backends.base import Backend
from agentcomm.calls import Calls, derive_seed
from agentcomm.episode import Episode, run_episode
from agentcomm.errors import BackendError, ConfigError, LedgerError, RunError, TaskError
from agentcomm.evaluation.run import episode_row, in_flight, run_config, score_of
from agentcomm.evaluation.rundir import RunDir, plain, read_json, write_json
from agentcomm.evaluation.splits import SplitGuard, hash_of, require_learn
from agentcomm.executors.base import Executor
from agentcomm.graph import Topology
from agentcomm.ledger.redact import Redactor
from agentcomm.ledger.rows import NOT_RECORDED, CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.usage import UsageReport
from agentcomm.message import Failure, Usage
from agentcomm.options import RunOptions, model_name
from agentcomm.pruning.environment import Outcome, Trial, run_trials, utility_of
from agentcomm.pruning.pool import Arrays, Pool
from agentcomm.pruning.realise import EdgeProbabilities, Realisation
from agentcomm.pruning.records import Collector, Origin, Record, Records
from agentcomm.task import Item, Task

RECORDS, CACHE, REFERENCE, BEGUN = "records.jsonl", "cache.sqlite", "reference.json", "begun.json"
CONFIRMED = "confirmed.jsonl"

REFERENCE_ITEMS = 20
"""So many ``learn`` items, the first ones, tell what the whole team takes (``pruning.md`` section 1)."""

HOPELESS = 8
"""So many rollouts that all fail, before any has succeeded, end learning."""

WINDOW = 20
"""Progress speaks of the mean utility of so many rollouts in a row."""


@dataclass(frozen=True)
class Spent:
    """What learning has paid, and what it didn't have to pay.

    Parameters
    ----------
    rollouts, failed:
        Rollouts made, failed ones included; how many failed.
    reused:
        Rollouts answered from records, those that confirm included.
    confirm_rollouts:
        Rollouts on ``validate`` items, which are not among ``rollouts``; ``failed`` counts none of them.
    calls, input_tokens, output_tokens, cost:
        Paid in all, also before learning was resumed. ``cost`` is ``None`` where a price is unknown.
    unknown_calls:
        Calls whose tokens nobody told: the totals are then a lower bound.
    saved_calls, saved_tokens:
        Calls that the cache answered, and the tokens they would have cost.
    """

    rollouts: int = 0
    failed: int = 0
    reused: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    unknown_calls: int = 0
    saved_calls: int = 0
    saved_tokens: int = 0
    confirm_rollouts: int = 0

    @property
    def all_rollouts(self) -> int:
        """Those that learn and those that confirm."""
        return self.rollouts + self.confirm_rollouts

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, float | None]:
        """For :attr:`Card.spent`."""
        return {**dataclasses.asdict(self), "tokens": self.tokens}


@dataclass
class LearnProgress:
    """Where learning stands; given to ``on_progress`` after every rollout and call.

    ``total`` is ``None`` where nobody knows how many rollouts there will be.
    """

    total: int | None = None
    spent: Spent = field(default_factory=Spent)
    recent: float | None = None
    """Mean utility of the last :data:`WINDOW` rollouts."""
    best: float | None = None
    """The best such mean so far."""
    doing: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the rollouts made in this process; ``None`` before the first, or without a total."""
        fresh = self.spent.all_rollouts - self.spent.reused
        if fresh <= 0 or self.total is None:
            return None
        return (time.monotonic() - self.began) / fresh * max(0, self.total - self.spent.all_rollouts)


class Reference(NamedTuple):
    """What the whole team takes on the first learn items."""

    tokens: float
    """T_ref: mean input and output tokens an item."""
    score: float
    items: tuple[str, ...]
    """Ids of the items behind it."""


def whole_team(pool: Pool) -> Topology:
    """Every agent and every edge; in a complete pool, whose edges could form cycles, i->j for i < j."""
    keep = np.ones(len(pool), dtype=np.bool_)
    spatial = pool.spatial_allowed if pool.edges == "graph" else np.triu(pool.spatial_allowed)
    return pool.topology(keep, spatial.copy(), pool.temporal_allowed.copy())


class RealEnvironment:
    """Where topologies of a team are run by models; an async context manager.

    Parameters
    ----------
    pool:
        The team.
    task:
        Its items are ignored; it scores.
    items:
        The ``learn`` items: no others are ever run, but by :meth:`held_out`.
    model:
        As for :func:`agentcomm.evaluate`.
    directory:
        Where everything is kept; made if it isn't there, continued if it is.
    price:
        lambda of :func:`~agentcomm.pruning.environment.utility_of`.
    origin:
        What the configuration and the records say of the learner: ``method``, ``profile`` and
        anything else that another run in the directory must not differ in.
    records:
        Another file of records than the directory's own.
    draws:
        How many different draws of the model the seeds of rollouts choose from.
    tokens, cost:
        What may be paid in all, learning before an interruption included; beyond that
        :class:`~agentcomm.errors.LimitExceeded` is raised.
    on_progress:
        Hears after every call and rollout.
    options:
        As for :func:`agentcomm.evaluate`; ``cache`` names another file than the directory's own.

    Raises
    ------
    TaskError
        If an item is not a ``learn`` item, or there is none.
    ConfigError
        On entering: if the directory holds learning of another configuration, or another process
        learns there, or the model can't be used.
    """

    def __init__(
        self,
        pool: Pool,
        task: Task,
        items: Sequence[Item],
        model: str | Backend | None,
        directory: Path | str,
        *,
        price: float = 0.2,
        origin: Mapping[str, Any] | None = None,
        records: Path | str | None = None,
        draws: int = 1,
        tokens: int | None = None,
        cost: float | None = None,
        on_progress: Callable[[LearnProgress], None] | None = None,
        options: RunOptions | None = None,
    ) -> None:
        self.items = tuple(items)
        if not self.items:
            raise TaskError("no items to learn from; load the task with split='learn'")
        require_learn(self.items)
        if not (price >= 0 and math.isfinite(price)):
            raise ConfigError(f"a price of {price} on tokens; it must be a number of at least 0")
        if draws < 1:
            raise ConfigError(f"draws={draws}; it must be at least 1")
        self._pool = pool
        self.task = task
        self.model = model
        self.price = price
        self.draws = draws
        self.origin = dict(origin or {})
        self.progress = LearnProgress()
        self.on_progress = on_progress
        self.reference: Reference | None = None
        self.whole: dict[str, Outcome] = {}
        """What came of the whole team, by item, since it was measured."""
        self.directory = Path(directory)
        self._records_path = Path(records) if records is not None else self.directory / RECORDS
        given = RunOptions.of(options)
        limits = given.limits
        limits = dataclasses.replace(
            limits, tokens=_least(limits.tokens, tokens), cost=_least(limits.cost, cost)
        )
        self._own_cache = given.cache is None
        self.options = dataclasses.replace(given, limits=limits)
        self._guard = SplitGuard.of(self.items)
        self._used: list[float] = []
        self._succeeded = False

    _given: int
    _ledger: Ledger
    _collector: Collector
    _calls: Calls
    _executor: Executor
    _redactor: Redactor
    _run_dir: RunDir
    _stack: AsyncExitStack

    # -- what learners see ---------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        return self._pool

    @property
    def concurrency(self) -> int:
        """Rollouts that are worth having in flight: as many as the model takes requests."""
        return in_flight(self._calls, self.pool.graph)

    @property
    def environment(self) -> Collector:
        """What records within this one; learners that add records of their own look for it."""
        return self._collector

    @property
    def records(self) -> Records:
        """What was tried so far."""
        return self._collector.records

    @property
    def spent(self) -> Spent:
        """What was paid so far."""
        return self.progress.spent

    async def rollout(
        self,
        item: Item,
        topology: Topology,
        seed: int,
        *,
        realisation: Realisation | None = None,
        probabilities: EdgeProbabilities | None = None,
    ) -> Outcome:
        """Run ``topology`` on ``item``, or answer from a record.

        Raises
        ------
        LimitExceeded
            If a limit of the whole run was reached; the same call goes on under a higher one.
        RunError
            If every further rollout would fail the same way.
        UserError
            For what only the user can mend.
        """
        outcome = await self._collector.rollout(
            item, topology, seed, realisation=realisation, probabilities=probabilities
        )
        # Records may have been made at another price.
        outcome = dataclasses.replace(outcome, utility=self._utility(outcome))
        self._count(outcome, reused=outcome.ledger is None)
        return outcome

    async def measure(self, count: int = REFERENCE_ITEMS) -> Reference:
        """Run the whole team on the first ``count`` items: its mean tokens are T_ref from now on.

        It is measured once: a directory that has it keeps it, whatever ``count`` says.

        Raises
        ------
        ConfigError
            If the model's server doesn't tell tokens, and they have a price.
        RunError
            If all of it failed.
        """
        path = self.directory / REFERENCE
        if path.exists():
            self.reference = _reference(read_json(path), path)
        items = self.items[:count]
        if self.reference is not None:
            by_id = {item.id: item for item in self.items}
            items = tuple(by_id[i] for i in self.reference.items if i in by_id)
        outcomes = await self.run_all(items, lambda item: whole_team(self.pool))
        self.whole = {i.id: o for i, o in zip(items, outcomes, strict=True)}
        if self.reference is not None:
            return self.reference
        good = [(i, o) for i, o in zip(items, outcomes, strict=True) if o.status == "ok"]
        if not good:
            raise RunError(f"the whole team failed on all of {len(items)} items: {outcomes[0].failure}")
        known = [o.total_tokens for _, o in good if o.total_tokens is not None]
        if not known or not sum(known):
            if self.price:
                raise ConfigError(
                    "the model does not tell how many tokens it used, so they can't have a price; use price 0 "
                    "(--price 0)"
                )
            known = [1]
        self.reference = Reference(
            float(np.mean(known)),
            float(np.mean([o.correct for _, o in good if o.correct is not None])),
            tuple(i.id for i, _ in good),
        )
        write_json(path, self.reference._asdict())
        return self.reference

    def known(self) -> tuple[Record, ...]:
        """What was tried before anything is learned here, with utilities at this price.

        The records that the file held when learning began (a file that is shared grows: what is
        resumed begins with the same ones), and the whole team's rollouts.
        """
        whole = _lists(self.pool.arrays(whole_team(self.pool)))
        measured = set(self.reference.items) if self.reference is not None else set()
        found: list[Record] = []
        for number, record in enumerate(self.records):
            measures = record.item in measured and record.seed == 0 and _lists(record.arrays) == whole
            if measures and record.status == "ok":
                measured.remove(record.item)
                found.append(record)
            elif number < self._given:
                found.append(record)
        return tuple(dataclasses.replace(r, utility=self._utility(r.outcome())) for r in found)

    async def run_all(self, items: Sequence[Item], topology: Callable[[Item], Topology]) -> list[Outcome]:
        """One rollout of each item, seed 0, side by side."""
        return await run_trials(self, [Trial(item, topology(item), 0) for item in items])

    @contextmanager
    def held_out(self, items: Sequence[Item]) -> Iterator[HeldOut]:
        """Where ``validate`` items may be run: the same models, ledger and cache, other records.

        Raises
        ------
        TaskError
            If one is no ``validate`` item, or also a ``learn`` item.
        """
        guard = SplitGuard.of([*self.items, *items])
        guard.confirm(items)
        self._run_dir.keep_questions([*self.items, *items], self._redactor.exact)
        with Records(self.directory / CONFIRMED) as records:
            origin = self._origin()
            yield HeldOut(self, Collector(_Team(self), records, guard, origin, split="validate"))

    def calls_of(self, item: Item, topology: Topology, seed: int = 0) -> tuple[CallRow, ...]:
        """The answered calls of a rollout, one a turn, from the ledger; none where only a record is left."""
        rows = self._ledger.calls(item=item.id, sample=self._sample(item, topology, seed), texts=False)
        # A rollout that failed and was tried again has several rows for a turn.
        return tuple({(r.round, r.agent, r.edge): r for r in rows if r.error_kind is None}.values())

    # -- opening and closing -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            run = RunDir.create(self.directory)
            stack.enter_context(run.locked())
            run.settle(self._config(), {i.id: i.content_hash for i in self.items})
            run.keep_questions(self.items, Redactor(self.options.secrets).exact)
            try:
                self._ledger = stack.enter_context(run.ledger())
            except LedgerError as error:  # nothing runs yet: the user can mend it
                raise ConfigError(str(error)) from error
            self._redactor, self._run_dir = Redactor(self.options.secrets), run
            records = stack.enter_context(Records(self._records_path))
            self._given = _begun(self.directory / BEGUN, len(records))
            self._collector = Collector(_Team(self), records, self._guard, self._origin())
            self._calls = await stack.enter_async_context(await self._open_calls(stack))
            self._executor = self.options.make_executor()
            await check_models(self._calls, self.pool.graph)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def _open_calls(self, stack: AsyncExitStack) -> Calls:
        options, default = self.options, self.model
        if self._own_cache:
            # Stands before every model that is named by a string, those of single agents included.
            options = dataclasses.replace(options, cache=self.directory / CACHE)
            if default is not None and not isinstance(default, str):
                from agentcomm.backends.replay import Replay

                kept = Replay(default, self.directory / CACHE, close_inner=False)
                kept.answers_for_all = bool(getattr(default, "answers_for_all", False))
                stack.push_async_callback(kept.aclose)
                default = kept
        named = default if isinstance(default, str) else None
        calls = options.calls(self._ledger, named, resuming=True, on_row=self._hear)
        calls.default = default
        for row in self._ledger.calls(texts=False):
            self._add(row)
            calls.scope.charge_past(row)
        return calls

    def _config(self) -> dict[str, Any]:
        config = run_config(self.pool.graph, self.task, self.model, self.options, name="learning")
        config["task"] = {k: v for k, v in config["task"].items() if k not in ("items", "items_hash")}
        config["task"]["learn_items"] = sorted(map(hash_of, self.items))
        config["learning"] = plain(
            {
                "edges": self.pool.edges,
                "decision_scope": self.pool.decision_scope,
                "price": self.price,
                "draws": self.draws,
                **self.origin,
            }
        )
        return config

    def _origin(self) -> Origin:
        return Origin(
            run_id=str(self.directory),
            method=str(self.origin.get("method", "")),
            dataset=self.task.name,
            model=model_name(self.model) or "",
            profile=str(self.origin.get("profile", "corrected")),
            decoding={**self.options.identity(), "draws": self.draws},
        )

    # -- one rollout ---------------------------------------------------------------------------

    def _sample(self, item: Item, topology: Topology, seed: int) -> int:
        """The ledger's number of a rollout: the same whenever it is made again."""
        return derive_seed("rollout", hash_of(item), topology.to_dict(), seed)

    async def _run(self, item: Item, topology: Topology, seed: int) -> Outcome:
        sample = self._sample(item, topology, seed)
        turns = open_turns(
            self._calls,
            self.pool.schedule(topology),
            item,
            self.options,
            sample=sample,
            phase="learn",
            draw=seed % self.draws,
        )
        episode = await run_episode(self._executor, turns, thread=f"{item.id}#{sample}")
        score = await score_of(self.task, episode)
        await self._ledger.record_episode(episode_row(episode, score, topology, self._redactor))
        failure = self._failure(episode)
        calls = [dataclasses.replace(row, reply_text=None) for row in episode.usage.rows]
        answered = [row for row in calls if row.error_kind is None]
        outcome = Outcome(
            correct=score.value if score is not None and failure is None else None,
            utility=None,
            tokens=Usage(
                _sum(row.input_tokens for row in answered),
                _sum(row.output_tokens for row in answered),
                _known(row.cached_tokens for row in answered),
            ),
            ledger=UsageReport.of(calls),
            status="ok" if failure is None else "failed",
            failure="" if failure is None else self._words(failure),
            cost=UsageReport.of(calls).cost,
        )
        if failure is not None and failure.fatal:
            self._end(failure)
        if outcome.status == "ok":
            self._succeeded = True
        return dataclasses.replace(outcome, utility=self._utility(outcome))

    def _failure(self, episode: Episode) -> Failure | None:
        """What makes a rollout a failed one."""
        if episode.failure is not None:
            return episode.failure
        for failure in episode.failures:
            if failure.kind != "limit":  # an agent's own limit is as it was asked for
                return failure
        return None

    def _words(self, failure: Failure) -> str:
        text = f"{failure.sender}, round {failure.round}: {failure.kind}: {failure.reason}"
        return self._redactor.text(text)

    def _end(self, failure: Failure) -> None:
        """Raise what would end every further rollout."""
        if failure.scope == "item":
            return
        if failure.kind == "limit":
            self._calls.scope.check()
        if failure.kind == "ledger":
            raise LedgerError(failure.reason)
        raise BackendError(self._words(failure), kind=failure.kind, fatal=True)

    def _utility(self, outcome: Outcome) -> float | None:
        if self.reference is None or outcome.status == "failed":
            return None
        return utility_of(
            outcome.correct, outcome.total_tokens, price=self.price, reference=self.reference.tokens
        )

    # -- counting ------------------------------------------------------------------------------

    def _hear(self, row: CallRow) -> None:
        self._add(row)
        self._tell()

    def _add(self, row: CallRow) -> None:
        if row.error_kind == NOT_RECORDED:
            return
        spent, tokens = self.progress.spent, (row.input_tokens or 0) + (row.output_tokens or 0)
        if row.cache_hit:
            self.progress.spent = dataclasses.replace(
                spent, saved_calls=spent.saved_calls + 1, saved_tokens=spent.saved_tokens + tokens
            )
            return
        cost = spent.cost
        if row.cost is not None:
            cost = (cost or 0.0) + row.cost
        self.progress.spent = dataclasses.replace(
            spent,
            calls=spent.calls + 1,
            input_tokens=spent.input_tokens + (row.input_tokens or 0),
            output_tokens=spent.output_tokens + (row.output_tokens or 0),
            cost=cost,
            unknown_calls=spent.unknown_calls + (row.input_tokens is None or row.output_tokens is None),
        )

    def _count(self, outcome: Outcome, *, reused: bool) -> None:
        progress, failed = self.progress, outcome.status == "failed"
        spent = progress.spent = dataclasses.replace(
            progress.spent,
            rollouts=progress.spent.rollouts + 1,
            reused=progress.spent.reused + reused,
            failed=progress.spent.failed + failed,
        )
        if outcome.utility is not None:
            self._used = [*self._used, outcome.utility][-WINDOW:]
            progress.recent = float(np.mean(self._used))
            if len(self._used) == WINDOW:
                progress.best = max(progress.best or -np.inf, progress.recent)
        self._tell()
        if failed and not self._succeeded and spent.failed == spent.rollouts >= HOPELESS:
            raise RunError(
                f"the first {spent.rollouts} rollouts all failed ({outcome.failure}); see to that first, the "
                f"same command then goes on"
            )

    def _count_held_out(self, *, reused: bool) -> None:
        spent = self.progress.spent
        self.progress.spent = dataclasses.replace(
            spent, confirm_rollouts=spent.confirm_rollouts + 1, reused=spent.reused + reused
        )
        self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.progress)


@dataclass
class HeldOut:
    """A real environment on ``validate`` items (:meth:`RealEnvironment.held_out`)."""

    real: RealEnvironment
    collector: Collector
    made: list[tuple[Item, Topology, int]] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        return self.real.pool

    @property
    def concurrency(self) -> int:
        """As the real environment's."""
        return self.real.concurrency

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        """As :meth:`RealEnvironment.rollout`, for an item of the other split."""
        self.made.append((item, topology, seed))
        outcome = await self.collector.rollout(item, topology, seed)
        outcome = dataclasses.replace(outcome, utility=self.real._utility(outcome))
        self.real._count_held_out(reused=outcome.ledger is None)
        return outcome

    def paid(self) -> int | None:
        """Tokens paid for all that was run here, also before an interruption; ``None`` if nobody knows."""
        rows = [
            row
            for item, topology, seed in self.made
            for row in self.real._ledger.calls(
                item=item.id, sample=self.real._sample(item, topology, seed), texts=False
            )
            if not row.cache_hit and row.error_kind != NOT_RECORDED
        ]
        if any(r.error_kind is None and None in (r.input_tokens, r.output_tokens) for r in rows):
            return None
        return sum((row.input_tokens or 0) + (row.output_tokens or 0) for row in rows)


@dataclass(frozen=True)
class _Team:
    """What the collector records: the environment without its records."""

    environment: RealEnvironment

    @property
    def pool(self) -> Pool:
        return self.environment.pool

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        return await self.environment._run(item, topology, seed)


def _least(a: Any, b: Any) -> Any:
    return min((x for x in (a, b) if x is not None), default=None)


def _sum(values: Any) -> int | None:
    """The sum, ``None`` if any is unknown; 0 of nothing."""
    found = list(values)
    return None if any(v is None for v in found) else sum(found)


def _known(values: Any) -> int | None:
    found = [v for v in values if v is not None]
    return sum(found) if found else None


def _lists(arrays: Arrays) -> list[Any]:
    return [array.tolist() for array in arrays]


def _begun(path: Path, records: int) -> int:
    """How many records there were when learning began in this directory; noted the first time."""
    if not path.exists():
        try:
            write_json(path, {"records": records})
        except LedgerError as error:  # nothing runs yet
            raise ConfigError(str(error)) from error
    known = read_json(path).get("records")
    if not isinstance(known, int):
        raise ConfigError(f"{path} does not say how many records there were; choose another --out")
    return min(known, records)


def _reference(data: Mapping[str, Any], path: Path) -> Reference:
    try:
        return Reference(float(data["tokens"]), float(data["score"]), tuple(map(str, data["items"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} does not say what the whole team takes ({error!r}); remove it to measure again"
        ) from error


__all__ = [
    "CONFIRMED",
    "REFERENCE_ITEMS",
    "HeldOut",
    "LearnProgress",
    "RealEnvironment",
    "Reference",
    "Spent",
    "whole_team",
]
