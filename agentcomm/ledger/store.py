"""Ledger: what every call, delivery and episode of a run was and cost, in one SQLite file.

The idea: a row that a caller has been told is recorded is on the disk (WAL, ``synchronous=FULL``)
and survives ``kill -9``; a call and the messages it read are one transaction. Writes go through
one thread that commits together whatever is queued (:mod:`agentcomm.ledger.writer`), so
durability is cheap when calls run side by side. Reading uses a connection of its own and never
waits for a writer, in this process or in another.

Append-only: the one row that changes is a call's, from pending to finished, once. A call that
was sent and whose end was never recorded stays pending: what it cost is unknown, not zero.
Results are sorted by item, sample, round and agent, never by arrival.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from agentcomm.errors import LedgerError
from agentcomm.ledger import schema
from agentcomm.ledger.redact import Redactor
from agentcomm.ledger.rows import (
    PENDING,
    CallRow,
    ChannelRow,
    DeliveryRow,
    DialogueRow,
    EpisodeRow,
    TrainingRow,
)
from agentcomm.ledger.usage import UsageReport
from agentcomm.ledger.writer import (
    CALL_COLUMNS,
    CHANNEL_COLUMNS,
    DELIVERY_COLUMNS,
    DIALOGUE_COLUMNS,
    EPISODE_COLUMNS,
    TRAINING_COLUMNS,
    Batch,
    Values,
    Writer,
    commit,
    in_words,
    sha_of,
    stored,
)

BUSY_TIMEOUT_S = 30.0
_MEMORY = Path(":memory:")
_NO_COUNTS: Mapping[tuple[str, str], int] = {}


class Ledger:
    """The record of a run. A context manager; made by :meth:`open` or :meth:`in_memory`.

    One process writes at a time, any number read. Its coroutines may be awaited from any asyncio
    event loop, also several; one that is cancelled while waiting does not lose its row.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        read_only: bool = False,
        secrets: Iterable[str | None] = (),
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> None:
        self.path = path
        self._where: Path = path if path is not None else _MEMORY
        self._redactor = Redactor(secrets)
        self._lock = threading.Lock()
        self._closed = False
        self._read_only = read_only
        try:
            self._reader, self._read_only = _open(self._where, read_only, migrations)
        except sqlite3.DatabaseError as error:
            raise in_words(error, self._where) from error
        # In memory there is no disk to wait for: rows are written where they are recorded.
        self._memory: _Memory | None = _Memory(self._reader, self._lock) if path is None else None
        self._writer: Writer | None = None
        if path is not None and not self._read_only:
            self._writer = Writer(path, lambda: _connect(path))
        self._finalizer = weakref.finalize(self, _shut, self._reader, self._writer)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        read_only: bool = False,
        secrets: Iterable[str | None] = (),
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> Ledger:
        """The ledger at ``path``; made if there is none, brought up to date if it is older.

        A file that can't be written (a read-only folder or disk) is opened for reading.

        Raises
        ------
        LedgerError
            If it is another program's file, a newer agentcomm's, or can't be read or made.
        """
        return cls(Path(path), read_only=read_only, secrets=secrets, migrations=migrations)

    @classmethod
    def in_memory(cls, *, secrets: Iterable[str | None] = ()) -> Ledger:
        """A ledger that lives as long as the object."""
        return cls(None, secrets=secrets)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued and let go of the file; safe to call twice."""
        self._closed = True
        self._finalizer()

    # ---------------------------------------------------------------- secrets

    def add_secret(self, secret: str | None) -> None:
        """A value that must never be stored (an API key); shorter than 8 characters is ignored."""
        self._redactor.add(secret)

    def redact(self, text: str) -> str:
        """``text`` without registered secrets and without anything shaped like a key or token."""
        return self._redactor.text(text)

    # ---------------------------------------------------------------- writing

    def start_call(self, row: CallRow) -> None:
        """Record that an attempt is being sent; returns at once.

        Until :meth:`finish_call` it is pending. A process that dies in between leaves it so:
        it may have been paid for.

        Raises
        ------
        LedgerError
            If the ledger can't be written any more: nothing should be sent then.
        """
        values, _ = self._encode_call(row, pending=True)

        def add(batch: Batch) -> None:
            batch.calls.setdefault(row.id, values)

        if self._memory is not None:
            self._check_open()
            self._memory.put(add)
        else:
            self._queue().put(add)

    async def finish_call(self, row: CallRow, deliveries: Sequence[DeliveryRow] = ()) -> None:
        """Record how an attempt ended and what it read, in one transaction; returns when committed.

        Finishing an attempt twice keeps the first end.

        Raises
        ------
        LedgerError
            If it could not be written (a full disk), or a value of the row can't be stored.
        """
        values, bodies = self._encode_call(row)
        read = [self._encode_delivery(d, i, bodies) for i, d in enumerate(deliveries)]

        def add(batch: Batch) -> None:
            batch.bodies.update(bodies)
            batch.calls[row.id] = values
            batch.deliveries += read

        await self._write(add)

    async def record_episode(self, row: EpisodeRow) -> None:
        """Record how an episode ended; returns when committed.

        An episode that was tried again has several rows; :meth:`episodes` gives the last.

        Raises
        ------
        LedgerError
            If it could not be written.
        """
        bodies: dict[bytes, str | bytes] = {}
        hide = self._redactor
        values: Values = (
            stored(row.item),
            _integer(row.sample, "sample"),
            row.status,
            self._body(row.answer, bodies),
            _real(row.score),
            _optional(hide.exact, row.extracted),
            _optional(hide.text, row.failure),
            _real(row.wall_s),
            _real(row.finished_at),
            _optional(str, row.topology),
            _integer(row.failures, "failures"),
        )

        def add(batch: Batch) -> None:
            batch.bodies.update(bodies)
            batch.episodes.append(values)

        await self._write(add)

    async def record_channel(
        self, row: ChannelRow, counts: Mapping[tuple[str, str], int] = _NO_COUNTS
    ) -> None:
        """Record what a channel made of a message; returns when committed.

        ``counts`` are tokens by (model, text) that the channel went by: a replay of the run has no
        tokenizer, and must cut where it cut. Only the texts' hashes are kept.

        A delivery that was made again (a resumed or repeated episode) has several rows;
        :meth:`channels` gives the last.

        Raises
        ------
        LedgerError
            If it could not be written.
        """
        bodies: dict[bytes, str | bytes] = {}
        values: Values = (
            stored(row.item),
            _integer(row.sample, "sample"),
            _integer(row.round, "round"),
            stored(row.sender),
            stored(row.reader),
            row.kind,
            row.message_id,
            stored(row.channel),
            row.status,
            stored(self._redactor.text(row.reason)) if row.reason else "",
            int(row.adherent),
            _integer(row.budget, "budget"),
            _integer(row.tokens, "tokens"),
            _integer(row.original_tokens, "original_tokens"),
            stored(row.counted_by),
            self._body(row.original_text, bodies),
            self._body(row.text, bodies),
        )

        counted = [(sha_of(text), stored(model), tokens) for (model, text), tokens in counts.items()]

        def add(batch: Batch) -> None:
            batch.bodies.update(bodies)
            batch.channels.append(values)
            batch.counts += counted

        await self._write(add)

    async def record_dialogues(self, rows: Iterable[DialogueRow]) -> None:
        """Record what dialogues were worth; returns when committed.

        Raises
        ------
        LedgerError
            If it could not be written.
        """
        values = [
            (
                stored(row.item),
                *(_integer(getattr(row, name), name) for name in ("sample", "iteration")),
                row.purpose,
                *(_integer(getattr(row, name), name) for name in ("draw", "origin")),
                stored(row.format),
                stored(row.model),
                *(_integer(getattr(row, f"{name}_tokens"), name) for name in ("message", "completion", "total")),
                stored(row.readability),
                json.dumps(["failed" if x is not None and x != x else x for x in row.nlls]),
                _real(row.task),
                _integer(row.tokens, "tokens"),
                *(_real(getattr(row, name)) for name in _TERMS),
                json.dumps(list(row.guards)),
                int(row.selectable),
            )
            for row in rows
        ]  # fmt: skip
        await self._write(lambda batch: batch.dialogues.extend(values))

    async def record_training(self, row: TrainingRow) -> None:
        """Record a trainer's run; returns when committed.

        Raises
        ------
        LedgerError
            If it could not be written.
        """
        values: Values = (
            _integer(row.iteration, "iteration"),
            row.method,
            *(_integer(getattr(row, name), name) for name in ("rows", "tokens", "steps")),
            _real(row.seconds),
            stored(row.device),
        )
        await self._write(lambda batch: batch.trainings.append(values))

    async def _write(self, add: Callable[[Batch], None]) -> None:
        if self._memory is not None:
            self._check_open()
            self._memory.put(add)
            self._memory.flush()
            return
        writer = self._queue()
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()

        def add_waiting(batch: Batch) -> None:
            add(batch)
            batch.waiters.append((loop, committed))

        writer.put(add_waiting)
        await committed

    def _queue(self) -> Writer:
        if self._writer is None:
            raise LedgerError(
                f"the ledger {self._where} is open for reading only; make it writable and open it again"
            )
        return self._writer

    def flush(self) -> None:
        """Wait, blocking, until everything queued so far is on the disk."""
        if self._memory is not None:
            self._memory.flush()
        elif self._writer is not None:
            self._writer.flush()

    def _check_open(self) -> None:
        if self._closed:
            raise LedgerError(f"the ledger {self._where} is closed; open it again")

    def _encode_call(self, row: CallRow, *, pending: bool = False) -> tuple[Values, dict[bytes, str | bytes]]:
        bodies: dict[bytes, str | bytes] = {}
        hide = self._redactor
        parts = None if row.parts is None else json.dumps(dict(row.parts), separators=(",", ":"))
        values = (
            row.id,
            stored(row.item),
            _integer(row.sample, "sample"),
            _integer(row.round, "round"),
            stored(row.agent),
            _integer(row.attempt, "attempt"),
            row.phase,
            stored(row.model),
            row.request_id,
            _real(row.started_at),
            _optional(str, row.edge),
            _integer(row.input_tokens, "input_tokens"),
            _integer(row.output_tokens, "output_tokens"),
            _integer(row.cached_tokens, "cached_tokens"),
            _integer(row.reasoning_tokens, "reasoning_tokens"),
            int(row.cache_hit),
            _real(row.latency_s),
            _optional(hide.exact, row.finish_reason),
            _real(row.cost),
            parts,
            int(row.parts_estimated),
            PENDING if pending else _optional(str, row.error_kind),
            _optional(hide.text, row.error),
            self._body(row.reply_text, bodies),
        )
        return values, bodies

    def _encode_delivery(self, row: DeliveryRow, position: int, bodies: dict[bytes, str | bytes]) -> Values:
        return (
            row.call_id,
            position,
            stored(row.item),
            _integer(row.sample, "sample"),
            _integer(row.round, "round"),
            stored(row.sender),
            stored(row.reader),
            row.kind,
            row.message_id,
            row.sender_call_id,
            _integer(row.tokens, "tokens"),
            self._body(row.original_text, bodies),
            self._body(row.text, bodies),
            stored(row.channel),
            stored(self._redactor.text(row.note)) if row.note else "",
            int(row.again),
        )

    def _body(self, text: str | None, bodies: dict[bytes, str | bytes]) -> bytes | None:
        if text is None:
            return None
        text = self._redactor.exact(text)
        sha = sha_of(text)
        if sha not in bodies:
            bodies[sha] = stored(text)
        return sha

    # ---------------------------------------------------------------- reading

    def calls(
        self, *, item: str | None = None, sample: int | None = None, texts: bool = True
    ) -> list[CallRow]:
        """Every attempt, by (item, sample, round, agent, attempt, start).

        ``texts=False`` leaves ``reply_text`` out (it is then ``None``): totals don't need it.
        """
        return self._select_calls(texts, *_filter(item, sample, "c"))

    def pending(self) -> list[CallRow]:
        """Attempts that were sent and whose end was never recorded: what they cost is unknown."""
        return self._select_calls(False, "WHERE c.error_kind = ?", (PENDING,))

    def deliveries(
        self, *, item: str | None = None, sample: int | None = None, texts: bool = True
    ) -> list[DeliveryRow]:
        """Every message as a call read it, by (item, sample, round, reader, attempt), in prompt order.

        ``texts=False`` leaves both texts empty.
        """
        bodies = "o.text, b.text" if texts else "'', ''"
        join = "JOIN bodies o ON o.sha = d.original JOIN bodies b ON b.sha = d.body" if texts else ""
        columns = ",".join(f"d.{c}" for c in DELIVERY_COLUMNS)
        where, values = _filter(item, sample, "d")
        self.flush()
        rows = self._all(
            f"SELECT {columns}, {bodies} FROM deliveries d LEFT JOIN calls c ON c.id = d.call_id {join} {where} "
            "ORDER BY d.item, d.sample, d.round, d.reader, c.attempt, c.started_at, d.call_id, d.position",
            values,
        )
        return [_delivery(r) for r in rows]

    def episodes(
        self, *, item: str | None = None, sample: int | None = None, history: bool = False
    ) -> list[EpisodeRow]:
        """The last row of every (item, sample), in this order; ``history=True`` gives earlier ones too."""
        columns = ",".join(f"e.{c}" for c in EPISODE_COLUMNS)
        where, values = _filter(item, sample, "e")
        if not history:
            last = "e.n = (SELECT max(n) FROM episodes x WHERE x.item = e.item AND x.sample = e.sample)"
            where = f"{where} AND {last}" if where else f"WHERE {last}"
        self.flush()
        rows = self._all(
            f"SELECT {columns}, b.text FROM episodes e LEFT JOIN bodies b ON b.sha = e.answer {where} "
            "ORDER BY e.item, e.sample, e.n",
            values,
        )
        return [_episode(r) for r in rows]

    def channels(
        self, *, item: str | None = None, sample: int | None = None, texts: bool = True
    ) -> list[ChannelRow]:
        """What channels made of messages, the last for each, by (item, sample, round, reader), as recorded.

        ``texts=False`` leaves both texts empty.
        """
        bodies = "o.text, b.text" if texts else "'', ''"
        join = "JOIN bodies o ON o.sha = h.original JOIN bodies b ON b.sha = h.body" if texts else ""
        columns = ",".join(f"h.{c}" for c in CHANNEL_COLUMNS)
        where, values = _filter(item, sample, "h")
        same = " AND ".join(f"x.{c} = h.{c}" for c in ("item", "sample", "round", "sender", "reader", "kind"))
        last = f"h.n = (SELECT max(n) FROM channels x WHERE {same})"
        where = f"{where} AND {last}" if where else f"WHERE {last}"
        self.flush()
        rows = self._all(
            f"SELECT {columns}, {bodies} FROM channels h {join} {where} "
            "ORDER BY h.item, h.sample, h.round, h.reader, h.n",
            values,
        )
        return [_channel(r) for r in rows]

    def dialogues(self, *, item: str | None = None, sample: int | None = None) -> list[DialogueRow]:
        """What dialogues were worth, the last row of each, by (item, sample)."""
        columns = ",".join(f"d.{c}" for c in DIALOGUE_COLUMNS)
        where, values = _filter(item, sample, "d")
        last = "d.n = (SELECT max(n) FROM dialogues x WHERE x.item = d.item AND x.sample = d.sample)"
        where = f"{where} AND {last}" if where else f"WHERE {last}"
        self.flush()
        rows = self._all(f"SELECT {columns} FROM dialogues d {where} ORDER BY d.item, d.sample", values)
        return [_dialogue(r) for r in rows]

    def trainings(self) -> list[TrainingRow]:
        """Every trainer's run, as recorded."""
        self.flush()
        rows = self._all(f"SELECT {','.join(TRAINING_COLUMNS)} FROM trainings ORDER BY n", ())
        return [TrainingRow(r[0], r[1], r[2], r[3], r[4], r[5], _text(r[6])) for r in rows]

    def counts(self) -> dict[str, set[int]]:
        """Tokens that channels counted, by the text's SHA-256 (hex); several where models differ."""
        found: dict[str, set[int]] = {}
        self.flush()
        for sha, tokens in self._all("SELECT sha, tokens FROM counts", ()):
            found.setdefault(sha.hex(), set()).add(tokens)
        return found

    def reply(
        self, item: str, sample: int, round: int, agent: str, request_id: str, edge: str | None = None
    ) -> CallRow | None:
        """The finished, error-free call of this turn with this very request, if there is one.

        A resumed episode takes it instead of paying again.
        """
        rows = self._all(
            f"{_CALLS} WHERE c.item = ? AND c.sample = ? AND c.round = ? AND c.agent = ? AND c.request_id = ? "
            "AND c.edge IS ? AND c.error_kind IS NULL ORDER BY c.n LIMIT 1",
            (stored(item), sample, round, stored(agent), request_id, _optional(str, edge)),
        )
        return _call(rows[0]) if rows else None

    def body(self, sha: str) -> str:
        """The text with this SHA-256 (hex), or the original text of the message with this id.

        Raises
        ------
        LedgerError
            If the ledger holds neither.
        """
        try:
            key = bytes.fromhex(sha)
        except ValueError:
            key = b""
        rows = self._all("SELECT text FROM bodies WHERE sha = ?", (key,)) or self._all(
            "SELECT b.text FROM deliveries d JOIN bodies b ON b.sha = d.original WHERE d.message_id = ? LIMIT 1",
            (stored(sha),),
        )
        rows = rows or self._all(
            "SELECT b.text FROM channels h JOIN bodies b ON b.sha = h.original WHERE h.message_id = ? LIMIT 1",
            (stored(sha),),
        )
        if not rows:
            raise LedgerError(
                f"the ledger {self._where} has no text or message {sha!r}; check the hash and the run"
            )
        return _text(rows[0][0])

    def usage(self, *, item: str | None = None, sample: int | None = None) -> UsageReport:
        """What the run, or one item of it, cost."""
        return UsageReport.of(
            self.calls(item=item, sample=sample, texts=False),
            self.deliveries(item=item, sample=sample, texts=False),
        )

    def _select_calls(self, texts: bool, where: str, values: Values) -> list[CallRow]:
        self.flush()
        rows = self._all(
            f"{_CALLS if texts else _CALLS_BARE} {where} "
            "ORDER BY c.item, c.sample, c.round, c.agent, c.attempt, c.started_at, c.id",
            values,
        )
        return [_call(r) for r in rows]

    def _all(self, query: str, values: Values) -> list[Any]:
        self._check_open()
        try:
            with self._lock:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise in_words(error, self._where) from error


class _Memory:
    """A ledger in memory: the queue without a thread, committed when somebody waits or reads."""

    def __init__(self, connection: sqlite3.Connection, lock: threading.Lock) -> None:
        self._connection = connection
        self._lock = lock
        self._batch = Batch()
        self._known: set[bytes] = set()

    def put(self, add: Callable[[Batch], None]) -> None:
        with self._lock:
            add(self._batch)

    def flush(self) -> None:
        with self._lock:
            if not self._batch:
                return
            batch, self._batch = self._batch, Batch()
            try:
                commit(self._connection, batch, self._known)
            except sqlite3.DatabaseError as error:
                raise in_words(error, _MEMORY) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, on a disk where nothing can be written too."""
    uri = path.absolute().as_uri()
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(
            f"{uri}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError:
            # A WAL file needs a shared-memory file beside it; where that can't be made and nothing
            # is left in the log, the file is complete by itself.
            connection.close()
            wal = path.with_name(path.name + "-wal")
            if mode != "mode=ro" or not path.exists() or (wal.exists() and wal.stat().st_size > 0):
                raise
        except BaseException:
            connection.close()
            raise
    raise AssertionError("unreachable")


def _open(
    path: Path, read_only: bool, migrations: Sequence[schema.Migration]
) -> tuple[sqlite3.Connection, bool]:
    """A connection for reading, the file being up to date, and whether it can only be read."""
    if path is _MEMORY:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    elif path.is_dir():
        raise LedgerError(f"{path} is a folder; name the ledger.sqlite in it")
    elif read_only or (path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))):
        connection, read_only = _connect_to_read(path), True
    else:
        _refuse_foreign(path)
        connection = _connect(path)
    try:
        schema.prepare(connection, path, migrations, read_only=read_only)
    except BaseException:
        connection.close()
        raise
    return connection, read_only


def _refuse_foreign(path: Path) -> None:
    """Refuse another program's file before anything (its journal mode) is changed in it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    connection = _connect_to_read(path)
    try:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        connection.close()
    if owner != schema.APPLICATION_ID and tables:
        raise schema.foreign(path)


def _shut(reader: sqlite3.Connection, writer: Writer | None) -> None:
    if writer is not None:
        writer.close()
    with suppress(sqlite3.Error):
        reader.close()


def _filter(item: str | None, sample: int | None, table: str) -> tuple[str, Values]:
    terms: list[str] = []
    values: list[Any] = []
    if item is not None:
        terms.append(f"{table}.item = ?")
        values.append(stored(item))
    if sample is not None:
        terms.append(f"{table}.sample = ?")
        values.append(sample)
    return (f"WHERE {' AND '.join(terms)}" if terms else ""), tuple(values)


def _integer(value: int | None, name: str) -> int | None:
    if value is None:
        return None
    if not -(2**63) <= value < 2**63 or value != int(value):
        raise LedgerError(
            f"can't record {name}={value!r}: it is not a 64-bit integer; store None for unknown"
        )
    return int(value)


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _optional(change: Callable[[str], str], text: str | None) -> str | bytes | None:
    return None if text is None else stored(change(text))


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else str(value)


def _maybe(value: Any) -> str | None:
    return None if value is None else _text(value)


_FIELDS = ",".join(f"c.{c}" for c in CALL_COLUMNS[:-1])
_CALLS = f"SELECT {_FIELDS}, b.text FROM calls c LEFT JOIN bodies b ON b.sha = c.reply"
_CALLS_BARE = f"SELECT {_FIELDS}, NULL FROM calls c"


def _call(r: Sequence[Any]) -> CallRow:
    parts: Mapping[str, int] | None = None if r[19] is None else json.loads(r[19])
    return CallRow(
        id=r[0],
        item=_text(r[1]),
        sample=r[2],
        round=r[3],
        agent=_text(r[4]),
        attempt=r[5],
        phase=r[6],
        model=_text(r[7]),
        request_id=r[8],
        started_at=r[9],
        edge=_maybe(r[10]),
        input_tokens=r[11],
        output_tokens=r[12],
        cached_tokens=r[13],
        reasoning_tokens=r[14],
        cache_hit=bool(r[15]),
        latency_s=r[16],
        finish_reason=_maybe(r[17]),
        cost=r[18],
        parts=parts,
        parts_estimated=bool(r[20]),
        error_kind=_maybe(r[21]),
        error=_maybe(r[22]),
        reply_text=_maybe(r[23]),
    )


def _delivery(r: Sequence[Any]) -> DeliveryRow:
    return DeliveryRow(
        call_id=r[0],
        item=_text(r[2]),
        sample=r[3],
        round=r[4],
        sender=_text(r[5]),
        reader=_text(r[6]),
        kind=r[7],
        message_id=r[8],
        sender_call_id=r[9],
        tokens=r[10],
        channel=_text(r[13]),
        note=_text(r[14]),
        again=bool(r[15]),
        original_text=_text(r[16]),
        text=_text(r[17]),
    )


def _channel(r: Sequence[Any]) -> ChannelRow:
    return ChannelRow(
        item=_text(r[0]),
        sample=r[1],
        round=r[2],
        sender=_text(r[3]),
        reader=_text(r[4]),
        kind=r[5],
        message_id=r[6],
        channel=_text(r[7]),
        status=r[8],
        reason=_text(r[9]),
        adherent=bool(r[10]),
        budget=r[11],
        tokens=r[12],
        original_tokens=r[13],
        counted_by=_text(r[14]),
        original_text=_text(r[17]),
        text=_text(r[18]),
    )


_TERMS = ("normaliser", "ratio", "nll", "task_term", "token_term", "loss_term", "total")


def _dialogue(r: Sequence[Any]) -> DialogueRow:
    values = dict(zip(DIALOGUE_COLUMNS, r, strict=True))
    for name in ("item", "format", "model", "readability"):
        values[name] = _text(values[name])
    nlls = tuple(math.nan if x == "failed" else x for x in json.loads(values["nlls"]))
    guards, selectable = tuple(json.loads(values["guards"])), bool(values["selectable"])
    return DialogueRow(**{**values, "nlls": nlls, "guards": guards, "selectable": selectable})


def _episode(r: Sequence[Any]) -> EpisodeRow:
    return EpisodeRow(
        item=_text(r[0]),
        sample=r[1],
        status=r[2],
        answer=_maybe(r[11]),
        score=r[4],
        extracted=_maybe(r[5]),
        failure=_maybe(r[6]),
        wall_s=r[7],
        finished_at=r[8],
        topology=_maybe(r[9]),
        failures=r[10],
    )
