"""Records: what was tried on which item, how it was drawn, and what came of it.

One JSON object a line, appended and flushed as soon as its rollout ends, successes, wrong answers
and failures alike (``pruning.md`` section 2.4). A record holds everything needed to learn from it
later, under any method: the *executed* agents and edges, which alone are labels, and beside them
the facts of sampling (order, pairs considered, probabilities), which never are.

:class:`Collector` is an environment that records. It refuses items that are not in the ``learn``
split, and what its file already holds (same item, topology and seed, not failed) is answered from
there, so a collection that was cut off goes on where it stopped and pays for nothing twice.
:func:`labels` are the records a trainer may learn from; it refuses those of other splits.

Deliberately absent: which records deserve a weight, and the ledger of calls, which is
:mod:`agentcomm.ledger`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, cast

import numpy as np

from agentcomm.errors import ConfigError, LedgerError, TaskError
from agentcomm.evaluation.splits import SplitGuard, hash_of, split_of
from agentcomm.graph import Topology
from agentcomm.message import Usage, content_id
from agentcomm.pruning.environment import Environment, Outcome
from agentcomm.pruning.pool import Arrays, Pool
from agentcomm.pruning.realise import EdgeProbabilities, Realisation
from agentcomm.task import Item

SCHEMA = 1

Nested = list[Any]
"""An array as nested lists, as JSON has it; 0 and 1 for booleans."""


@dataclass(frozen=True)
class Origin:
    """Where records come from: the same for all of a collection.

    ``run_id`` names the collection, ``method`` and ``profile`` the learner, ``dataset`` the task;
    ``model`` and ``decoding`` are what answered.
    """

    run_id: str
    method: str
    dataset: str
    model: str
    profile: str = "corrected"
    decoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One rollout. ``None`` is unknown, never 0.

    Parameters
    ----------
    schema, run_id, method, profile, stage_round:
        Origin; ``stage_round`` is the learner's own round (of mining, say), from 1, 0 where it has none.
    item, item_hash, dataset, split, query:
        The item, by id and by the hash that splits go by, and its question.
    roles, pool_hash, prompt_hash, model, decoding, decision:
        What ran: the pool's role texts in order, :attr:`Pool.id`, a hash of everything that agents
        are told, the model and the decision agent's name.
    keep, spatial, temporal:
        What was executed: 1 = kept, 1 = read. [N], [N, N] or with a leading round axis.
    considered, order, keep_prob, edge_prob, log_prob:
        How it was drawn (:class:`Realisation`), ``None`` where it wasn't; never labels.
    seed:
        Of the rollout.
    draw_seed:
        Of the realisation.
    correct, utility, tokens, cost:
        What came of it; ``tokens`` has ``prompt``, ``completion`` and ``cached``.
    utility_n:
        How many rollouts ``utility`` is the mean of.
    status, failure, weight:
        ``"ok"``, or ``"failed"`` and why; weight 0: no target of training.
    """

    run_id: str
    method: str
    item: str
    item_hash: str
    dataset: str
    split: str
    query: str
    roles: Sequence[str]
    pool_hash: str
    prompt_hash: str
    model: str
    decision: str
    keep: Nested
    spatial: Nested
    temporal: Nested
    seed: int
    correct: float | None
    utility: float | None
    tokens: Mapping[str, int | None]
    status: Literal["ok", "failed"]
    schema: int = SCHEMA
    profile: str = "corrected"
    stage_round: int = 0
    decoding: Mapping[str, Any] = field(default_factory=dict)
    considered: Nested | None = None
    order: Nested | None = None
    keep_prob: Nested | None = None
    edge_prob: Nested | None = None
    log_prob: float | None = None
    draw_seed: int | None = None
    utility_n: int = 1
    cost: float | None = None
    failure: str = ""
    weight: float = 0.0

    @property
    def arrays(self) -> Arrays:
        """The executed agents and edges as boolean arrays."""
        return Arrays(*(np.array(a, dtype=np.bool_) for a in (self.keep, self.spatial, self.temporal)))

    @property
    def key(self) -> str:
        """Equal for records of one item, topology and seed."""
        return _key(self.item_hash, self.keep, self.spatial, self.temporal, self.seed)

    def topology(self, pool: Pool) -> Topology:
        """What was executed.

        Raises
        ------
        ConfigError
            If the record is of another pool (agents renamed, added, removed, or other edges).
        """
        if pool.id != self.pool_hash:
            raise ConfigError(
                f"the record of item {self.item!r} is of another team than this one; collect again, or use "
                f"the graph it was collected with"
            )
        return pool.topology(*self.arrays)

    def outcome(self) -> Outcome:
        """What came of it, without the ledger."""
        tokens = Usage(*(self.tokens.get(k) for k in ("prompt", "completion", "cached")))
        return Outcome(
            self.correct, self.utility, tokens, status=self.status, failure=self.failure, cost=self.cost
        )

    def to_json(self) -> str:
        """One line of ASCII, keys in order."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The reverse of :meth:`to_json`.

        Raises
        ------
        ValueError
            If it is no record, or one of a newer schema.
        """
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        if data.get("schema") not in range(1, SCHEMA + 1):
            raise ValueError(f"schema {data.get('schema')!r}; this version reads up to {SCHEMA}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from error


def _key(item_hash: str, keep: Any, spatial: Any, temporal: Any, seed: int) -> str:
    return content_id(item_hash, keep, spatial, temporal, seed)


class Records:
    """A file of records, for appending; a context manager.

    A last line that was cut off (the process was killed while it wrote) is removed on opening. One
    process writes at a time; the system lets go of a file even after ``kill -9``.

    Raises
    ------
    ConfigError
        If the file can't be read, holds something else or records of a newer schema, or another
        process writes to it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self.path.open("a", encoding="ascii")
            with contextlib.ExitStack() as on_error:
                on_error.callback(self._file.close)
                _lock(self._file, self.path)
                _drop_cut_line(self.path)
                self._all = list(_read(self.path))
                on_error.pop_all()
        except OSError as error:
            raise ConfigError(
                f"records {self.path} can't be opened: {error.strerror}; choose another file"
            ) from error
        self._ok = {r.key: r for r in self._all if r.status == "ok"}

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._all)

    def append(self, record: Record) -> None:
        """Write a record and flush it: it outlives this process from now on.

        Raises
        ------
        LedgerError
            If it can't be written (a full disk).
        """
        try:
            self._file.write(record.to_json() + "\n")
            self._file.flush()
        except OSError as error:
            raise LedgerError(f"records {self.path} can't be written: {error.strerror}") from error
        self._all.append(record)
        if record.status == "ok":
            self._ok.setdefault(record.key, record)

    def known(self, key: str) -> Record | None:
        """The first record of a key that did not fail."""
        return self._ok.get(key)


def read_records(path: Path | str) -> tuple[Record, ...]:
    """All records of a file; a last line that was cut off is left out.

    Raises
    ------
    ConfigError
        As :class:`Records`.
    """
    try:
        return tuple(_read(Path(path)))
    except OSError as error:
        raise ConfigError(f"records {path} can't be read: {error.strerror}") from error


def _read(path: Path) -> Iterator[Record]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line break was cut off
        try:
            yield Record.from_json(line.decode("ascii"))
        except ValueError as error:
            raise ConfigError(
                f"{path} line {number} is no record: {error}; mend or move the file, or choose another"
            ) from error


def _lock(file: IO[str], path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"another process writes records to {path}; wait for it or choose another file"
        ) from error


def _drop_cut_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        if whole == 0 and not data.startswith(b"{"):
            raise ConfigError(f"{path} is no file of records; choose another")
        with path.open("r+b") as file:
            file.truncate(whole)


@dataclass
class Collector:
    """An environment that records every rollout, and answers from its records what it has seen.

    Parameters
    ----------
    environment:
        Where topologies are run; a :class:`~agentcomm.pruning.environment.Metered` one keeps a budget,
        which answers from records don't touch.
    records:
        The file.
    guard:
        The experiment's splits; only its ``learn`` items are run.
    origin:
        Goes into every record.
    split:
        ``"validate"``: run only such items, in a file of their own, which nothing may be learned from.

    ``stage_round`` is the learner's to set. ``reused`` counts rollouts answered from the file, and
    ``saved_tokens`` what they had cost (of what is known).

    Raises
    ------
    ConfigError
        If the file holds records of another team, model or decoding.
    """

    environment: Environment
    records: Records
    guard: SplitGuard
    origin: Origin
    stage_round: int = 0
    reused: int = 0
    saved_tokens: int = 0
    split: Literal["learn", "validate"] = "learn"

    def __post_init__(self) -> None:
        ours = {
            "pool_hash": self.pool.id,
            "prompt_hash": prompt_hash(self.pool),
            "model": self.origin.model,
            "decoding": json.loads(json.dumps(dict(self.origin.decoding))),
        }
        for record in self.records:
            for name, value in ours.items():
                if (theirs := getattr(record, name)) != value:
                    raise ConfigError(
                        f"{self.records.path} holds records with {name} {theirs!r}, not {value!r}; choose "
                        f"another file, or collect with what it was begun with"
                    )

    @property
    def pool(self) -> Pool:
        return self.environment.pool

    @property
    def concurrency(self) -> int:
        """As the environment's own."""
        return max(1, int(getattr(self.environment, "concurrency", 1)))

    async def rollout(
        self,
        item: Item,
        topology: Topology,
        seed: int,
        *,
        realisation: Realisation | None = None,
        probabilities: EdgeProbabilities | None = None,
    ) -> Outcome:
        """Run ``topology`` on ``item`` and record it, or answer from a record.

        ``realisation`` and ``probabilities`` say how the topology was drawn.

        Raises
        ------
        TaskError
            For an item that is not known to be a ``learn`` item (``validate``, if it collects these).
        ConfigError
            If ``realisation`` is of another topology.
        """
        (self.guard.mine if self.split == "learn" else self.guard.confirm)([item])
        if realisation is not None and realisation.topology != topology:
            raise ConfigError(
                "the realisation that should be recorded is of another topology than the one to run"
            )
        keep, spatial, temporal = (_nested(a) for a in self.pool.arrays(topology))
        known = self.records.known(_key(hash_of(item), keep, spatial, temporal, seed))
        if known is not None:
            outcome = known.outcome()
            self.reused += 1
            self.saved_tokens += outcome.total_tokens or 0
            return outcome
        outcome = await self.environment.rollout(item, topology, seed)
        tokens = outcome.tokens
        record = Record(
            run_id=self.origin.run_id,
            method=self.origin.method,
            profile=self.origin.profile,
            stage_round=self.stage_round,
            item=item.id,
            item_hash=hash_of(item),
            dataset=self.origin.dataset,
            split=split_of(item),
            query=item.question,
            roles=[a.role for a in self.pool.agents],
            pool_hash=self.pool.id,
            prompt_hash=prompt_hash(self.pool),
            model=self.origin.model,
            decoding=dict(self.origin.decoding),
            decision=self.pool.decision,
            keep=keep,
            spatial=spatial,
            temporal=temporal,
            considered=_nested(realisation.considered) if realisation is not None else None,
            order=realisation.order.tolist() if realisation is not None else None,
            keep_prob=probabilities.keep.tolist() if probabilities is not None else None,
            edge_prob=probabilities.spatial.tolist() if probabilities is not None else None,
            log_prob=realisation.log_prob if realisation is not None else None,
            draw_seed=realisation.seed if realisation is not None else None,
            seed=seed,
            correct=outcome.correct,
            utility=outcome.utility,
            tokens={
                "prompt": tokens.input_tokens,
                "completion": tokens.output_tokens,
                "cached": tokens.cached_tokens,
            },
            cost=outcome.cost,
            status=outcome.status,
            failure=outcome.failure,
        )
        self.records.append(record)
        return outcome


def prompt_hash(pool: Pool) -> str:
    """SHA-256 over what agents are told beside the item: the team's text, roles, views, and channels if any."""
    graph = pool.graph
    channels = {str(e.key): e.channel.spec() for e in graph.edges if e.channel is not None}
    told = [(a.name, a.role, a.view, a.memory) for a in graph.agents]
    return content_id(graph.system, told, *([channels] if channels else []))


def labels(records: Iterable[Record], guard: SplitGuard) -> tuple[Record, ...]:
    """The records that a trainer fits: those that did not fail and have a weight.

    Raises
    ------
    TaskError
        If *any* record, label or not, is of another split than ``learn``, or if no label is left.
    """
    records = tuple(records)
    guard.train(r.item_hash for r in records)
    for record in records:
        if record.split != "learn":
            raise TaskError(
                f"the record of item {record.item!r} says split {record.split!r}; learn from split 'learn' only"
            )
    found = tuple(r for r in records if r.status == "ok" and r.weight > 0)
    if not found:
        failed = sum(r.status == "failed" for r in records)
        raise TaskError(
            f"nothing to learn from: of {len(records)} records none has a weight above 0 ({failed} failed); "
            f"collect more, or choose labels among them"
        )
    return found


def learned_from(records: Iterable[Record]) -> frozenset[str]:
    """The hashes of the items behind records, for :meth:`SplitGuard.evaluate`."""
    return frozenset(r.item_hash for r in records)


def _nested(array: Any) -> Nested:
    return cast("Nested", np.asarray(array).astype(int).tolist())
