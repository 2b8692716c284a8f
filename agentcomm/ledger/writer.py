"""Writer: one thread that commits what was queued, everything at once (group commit).

What is queued while a commit is at the disk goes into the next transaction, so that the price of
an fsync is shared by all calls that end meanwhile. A waiter hears only of what is committed. The
first failure ends the writer: every waiter and every later write gets the same error, and what
was committed before stays.

Rows are bound in chunks of many rows a statement: each step of SQLite lets go of Python's lock,
and getting it back from a busy event loop can take milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcomm.errors import LedgerError

CALL_COLUMNS = [
    "id",
    "item",
    "sample",
    "round",
    "agent",
    "attempt",
    "phase",
    "model",
    "request_id",
    "started_at",
    "edge",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cache_hit",
    "latency_s",
    "finish_reason",
    "cost",
    "parts",
    "parts_estimated",
    "error_kind",
    "error",
    "reply",
]
DELIVERY_COLUMNS = [
    "call_id",
    "position",
    "item",
    "sample",
    "round",
    "sender",
    "reader",
    "kind",
    "message_id",
    "sender_call_id",
    "tokens",
    "original",
    "body",
    "channel",
    "note",
    "again",
]
CHANNEL_COLUMNS = [
    "item",
    "sample",
    "round",
    "sender",
    "reader",
    "kind",
    "message_id",
    "channel",
    "status",
    "reason",
    "adherent",
    "budget",
    "tokens",
    "original_tokens",
    "counted_by",
    "original",
    "body",
]
EPISODE_COLUMNS = [
    "item",
    "sample",
    "status",
    "answer",
    "score",
    "extracted",
    "failure",
    "wall_s",
    "finished_at",
    "topology",
    "failures",
]

DIALOGUE_COLUMNS = [
    "item",
    "sample",
    "iteration",
    "purpose",
    "draw",
    "origin",
    "format",
    "model",
    "message_tokens",
    "completion_tokens",
    "total_tokens",
    "readability",
    "nlls",
    "task",
    "tokens",
    "normaliser",
    "ratio",
    "nll",
    "task_term",
    "token_term",
    "loss_term",
    "total",
    "guards",
    "selectable",
]
TRAINING_COLUMNS = ["iteration", "method", "rows", "tokens", "steps", "seconds", "device"]

_CHUNKS = (256, 64, 16, 4, 1)
_REMEMBERED_BODIES = 100_000

Values = tuple[Any, ...]


def stored(text: str) -> str | bytes:
    """How a text is bound: as it is, or as its bytes where it is not valid Unicode."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def sha_of(text: str) -> bytes:
    """SHA-256 of the text's UTF-8 bytes (lone surrogates encoded as they stand)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass
class Batch:
    """What goes into one transaction, and who waits for it."""

    bodies: dict[bytes, str | bytes] = field(default_factory=dict)
    calls: dict[str, Values] = field(default_factory=dict)
    """By id: a call that ended while its start was queued is one insert."""
    deliveries: list[Values] = field(default_factory=list)
    episodes: list[Values] = field(default_factory=list)
    channels: list[Values] = field(default_factory=list)
    counts: list[Values] = field(default_factory=list)
    dialogues: list[Values] = field(default_factory=list)
    trainings: list[Values] = field(default_factory=list)
    waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = field(default_factory=list)
    events: list[threading.Event] = field(default_factory=list)

    @property
    def has_rows(self) -> bool:
        return bool(
            self.calls
            or self.deliveries
            or self.episodes
            or self.channels
            or self.dialogues
            or self.trainings
        )

    def __bool__(self) -> bool:
        return bool(self.has_rows or self.waiters or self.events)


def _insert(table: str, columns: Sequence[str], rows: int, verb: str = "INSERT", tail: str = "") -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"{verb} INTO {table} ({','.join(columns)}) VALUES {','.join([row] * rows)} {tail}"


# A pending row becomes a finished one, once; nothing else in the ledger is ever rewritten.
_FINISH = (
    "ON CONFLICT (id) DO UPDATE SET "
    + ",".join(f"{c}=excluded.{c}" for c in CALL_COLUMNS[1:])
    + " WHERE calls.error_kind = 'pending'"
)


class Statements:
    """Multi-row inserts into one table, for each chunk size."""

    def __init__(self, table: str, columns: Sequence[str], verb: str = "INSERT", tail: str = "") -> None:
        self._by_size = {n: _insert(table, columns, n, verb, tail) for n in _CHUNKS}

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> None:
        at = 0
        while at < len(rows):
            size = next(n for n in _CHUNKS if n <= len(rows) - at)
            flat = [value for row in rows[at : at + size] for value in row]
            connection.execute(self._by_size[size], flat)
            at += size


_BODIES = Statements("bodies", ("sha", "text"), "INSERT OR IGNORE")
_CALLS = Statements("calls", CALL_COLUMNS, tail=_FINISH)
_DELIVERIES = Statements("deliveries", DELIVERY_COLUMNS, "INSERT OR IGNORE")
_EPISODES = Statements("episodes", EPISODE_COLUMNS)
_CHANNELS = Statements("channels", CHANNEL_COLUMNS)
_DIALOGUES = Statements("dialogues", DIALOGUE_COLUMNS)
_TRAININGS = Statements("trainings", TRAINING_COLUMNS)
_COUNTS = Statements("counts", ("sha", "model", "tokens"), "INSERT OR IGNORE")


def commit(connection: sqlite3.Connection, batch: Batch, known: set[bytes]) -> None:
    """Write a batch in one transaction; ``known`` are hashes of bodies that are stored already."""
    if not batch.has_rows:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        fresh = [(sha, text) for sha, text in batch.bodies.items() if sha not in known]
        _BODIES.insert(connection, fresh)
        _CALLS.insert(connection, list(batch.calls.values()))
        _DELIVERIES.insert(connection, batch.deliveries)
        _EPISODES.insert(connection, batch.episodes)
        _CHANNELS.insert(connection, batch.channels)
        _COUNTS.insert(connection, batch.counts)
        _DIALOGUES.insert(connection, batch.dialogues)
        _TRAININGS.insert(connection, batch.trainings)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise
    if len(known) > _REMEMBERED_BODIES:
        known.clear()
    known.update(sha for sha, _ in fresh)


def in_words(error: Exception, where: Path | str) -> LedgerError:
    """What SQLite met, as one sentence that says what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    kept = "what was recorded stays"
    if primary == sqlite3.SQLITE_FULL:
        what = f"the disk is full: the ledger {where} can't grow; free space and repeat the command, {kept}"
    elif primary == sqlite3.SQLITE_IOERR:
        what = (
            f"the ledger {where} can't be written or read ({error}); check the disk, its free space and quotas, "
            f"then repeat the command, {kept}"
        )
    elif primary in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_AUTH,
    ):
        what = f"the ledger {where} can't be opened or written ({error}); check that its folder exists and is writable"
    elif primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        what = (
            f"the ledger {where} is held by another process; wait for it or end it, then repeat the command"
        )
    elif primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        what = f"{where} is damaged or not an agentcomm ledger ({error}); restore it or use another path"
    else:
        what = f"the ledger {where} failed: {type(error).__name__}: {error}"
    return LedgerError(what)


class Writer:
    """The queue and its thread; the thread and its connection are made at the first write."""

    def __init__(self, where: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._where = where
        self._connect = connect
        self._changed = threading.Condition()
        self._batch = Batch()
        self._busy = False
        self._closing = False
        self._error: LedgerError | None = None
        self._thread: threading.Thread | None = None

    def put(self, add: Callable[[Batch], None]) -> None:
        """Let ``add`` put rows and waiters into the next transaction.

        Raises
        ------
        LedgerError
            If the writer has failed or is closed.
        """
        with self._changed:
            if self._error is not None:
                raise LedgerError(str(self._error))
            if self._closing:
                raise LedgerError(f"the ledger {self._where} is closed; open it again to write")
            add(self._batch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"ledger {self._where.name}", daemon=True
                )
                self._thread.start()
            elif not self._busy:
                self._changed.notify()

    def flush(self) -> None:
        """Wait until everything queued so far is committed (or the writer has failed)."""
        done = threading.Event()
        with self._changed:
            idle = not self._busy and not self._batch
            if self._thread is None or self._error is not None or idle:
                return
            self._batch.events.append(done)
            self._changed.notify()
        done.wait()

    def close(self) -> None:
        """Commit what is queued and end the thread; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        known: set[bytes] = set()
        try:
            while (batch := self._next()) is not None:
                failed: LedgerError | None = None
                try:
                    connection = connection or self._connect()
                    commit(connection, batch, known)
                except LedgerError as error:
                    failed = error
                except Exception as error:  # a waiter must hear of anything that went wrong
                    failed = in_words(error, self._where)
                batches = [batch]
                if failed is not None:
                    with self._changed:
                        self._error = failed
                        batches.append(self._batch)
                        self._batch = Batch()
                for done in batches:
                    _settle(done, failed)
                if failed is not None:
                    return
        finally:
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def _next(self) -> Batch | None:
        with self._changed:
            self._busy = False
            while not self._batch:
                if self._closing:
                    return None
                self._changed.wait()
            batch, self._batch = self._batch, Batch()
            self._busy = True
            return batch


def _settle(batch: Batch, error: LedgerError | None) -> None:
    """Wake who waits for a batch, each in its own event loop, one wake-up a loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, future in batch.waiters:
        loops.setdefault(loop, []).append(future)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, futures, error)
    for event in batch.events:
        event.set()


def _resolve(futures: Iterable[asyncio.Future[None]], error: LedgerError | None) -> None:
    for future in futures:
        if future.done():  # its waiter was cancelled; the row is stored all the same
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(LedgerError(str(error)))
