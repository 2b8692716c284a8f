"""Replay: keeps every request with its reply, answers equal requests from what it keeps.

Two modes:

``cache``
    In front of a backend. An equal request is answered from the store and costs nothing; any
    other goes to the backend, and its reply is kept. Equal requests in flight at the same time
    share one call. Errors are never kept.
``replay``
    Without a backend. A request that was not recorded is a ``BackendError`` of kind
    ``"not_recorded"``: nothing is ever sent anywhere.

Requests are equal if :attr:`ChatRequest.id` is: model string, messages, sampling, seed and
schema. A model string says nothing of what its server has loaded; when the model behind a name
changes, use another file.

``replay/PATH`` plays back a store's file, or a run's ledger (a run directory or its
``ledger.sqlite``). The recorded requests name the model that answered then, while a request now
names ``replay/PATH``; so a request is looked up as it would have read under each recorded model.
Should two models have been asked exactly the same and answered differently, the request is
refused as ambiguous instead of guessed. Everything else must be equal: graph, task, seed,
sampling; the error shows the prompt that wasn't found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio

from agentcomm.backends.base import DEFAULT_CONCURRENCY, Backend, ChatRequest, TokenCounter
from agentcomm.errors import BackendError, ConfigError, LedgerError
from agentcomm.message import Reply, Usage

log = logging.getLogger(__name__)

APPLICATION_ID = 0x61635250  # "acRP"
VERSION = 1
LEDGER_NAME = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE replies (
    request_id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT NOT NULL,
    recorded_at REAL NOT NULL
) WITHOUT ROWID
"""


# Beside the replies, so that files made before there were counts go on being used.
_COUNTS = """
CREATE TABLE IF NOT EXISTS counts (sha TEXT, model TEXT, tokens INTEGER, PRIMARY KEY (sha, model)) WITHOUT ROWID
"""


class Replay:
    """A backend that remembers.

    Parameters
    ----------
    inner:
        The backend in front of which it stands; ``None`` only in mode ``"replay"``.
    store:
        A SQLite file; made in mode ``"cache"``, must exist in mode ``"replay"``.
    mode:
        ``"cache"`` or ``"replay"``.
    close_inner:
        Whether closing it closes the backend behind it, too; not where that is somebody else's.

    Raises
    ------
    ConfigError
        If the mode has no use for what was given, or the file isn't a store.
    """

    def __init__(
        self,
        inner: Backend | None,
        store: str | Path,
        mode: Literal["cache", "replay"] = "cache",
        *,
        name: str | None = None,
        close_inner: bool = True,
    ) -> None:
        if mode not in ("cache", "replay"):
            raise ConfigError(f"unknown replay mode {mode!r}; use 'cache' or 'replay'")
        if mode == "cache" and inner is None:
            raise ConfigError("mode='cache' needs a backend to ask for what isn't kept yet")
        self.inner = inner
        self.close_inner = close_inner
        self.store = Path(store)
        self.mode = mode
        self.answers_for_all = mode == "replay"
        """Whether it answers for agents that have a model of their own, too: nothing may be paid."""
        self._name = name or (inner.name if inner is not None else f"replay/{store}")
        self._recorded = _open(self.store, create=mode == "cache")
        self._flights: dict[str, anyio.Event] = {}

    @classmethod
    def of_run(cls, path: str | Path) -> Replay:
        """Play back a run directory, a ledger or a store: the model string ``replay/PATH``.

        Raises
        ------
        ConfigError
            If there is nothing recorded at ``path``.
        """
        at = Path(path)
        file = at / LEDGER_NAME if at.is_dir() else at
        return cls(None, file, "replay", name=f"replay/{path}")

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> str:
        return self.inner.endpoint if self.inner is not None else self._name

    @property
    def max_concurrency(self) -> int:
        return self.inner.max_concurrency if self.inner is not None else DEFAULT_CONCURRENCY

    async def chat(self, request: ChatRequest) -> Reply:
        if self.mode == "replay" or self.inner is None:
            return self._played(request)
        request_id = request.id
        while True:
            if (known := self._recorded.find(request_id)) is not None:
                return known.reply
            if request_id not in self._flights:
                break
            await self._flights[request_id].wait()  # if that call fails, the next in line makes its own
        landed = self._flights[request_id] = anyio.Event()
        try:
            reply = await self.inner.chat(request)
            self._recorded.keep(request_id, request, reply)
        finally:
            del self._flights[request_id]
            landed.set()
        return reply

    async def check(self) -> None:
        check = getattr(self.inner, "check", None)
        if check is not None:
            await check()

    async def count_tokens(self, text: str) -> int | None:
        """As the backend counts, or counted when it was recorded (``None`` where models differed)."""
        if self.inner is None:
            return self._recorded.count(text)
        tokens = await self.inner.count_tokens(text) if isinstance(self.inner, TokenCounter) else None
        if tokens is not None and self.mode == "cache":
            self._recorded.keep_count(text, self.inner.name, tokens)
        return tokens

    async def aclose(self) -> None:
        self._recorded.close()
        if self.inner is not None and self.close_inner:
            await self.inner.aclose()

    def _played(self, request: ChatRequest) -> Reply:
        exact = self._recorded.find(request.id)
        if exact is not None:
            return exact.reply
        found = [
            known
            for model in self._recorded.models
            if (known := self._recorded.find(replace(request, model=model).id)) is not None
        ]
        if len({known.reply.text for known in found}) > 1:
            models = ", ".join(known.model for known in found)
            raise BackendError(
                f"{self._name} has several replies to this request, by {models}; {_described(request)}",
                kind="not_recorded",
            )
        if not found:
            raise BackendError(
                f"{self._name} has no reply to this request; replay the same graph, task, seed and sampling: "
                + _described(request),
                kind="not_recorded",
            )
        return found[0].reply


class _Known(NamedTuple):
    model: str
    reply: Reply


class _Store:
    """A file of our own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._warned = False

    @property
    def models(self) -> list[str]:
        rows = self._open().execute("SELECT DISTINCT model FROM replies ORDER BY model")
        return [row[0] for row in rows]

    def find(self, request_id: str) -> _Known | None:
        row = (
            self._open()
            .execute("SELECT model, reply FROM replies WHERE request_id = ?", (request_id,))
            .fetchone()
        )
        if row is None:
            return None
        data = json.loads(row[1])
        return _Known(row[0], Reply(**{**data, "usage": Usage(**data["usage"])}, cache_hit=True))

    def keep(self, request_id: str, request: ChatRequest, reply: Reply) -> None:
        kept = {
            "text": reply.text,
            "usage": asdict(reply.usage),
            "finish_reason": reply.finish_reason,
            "model": reply.model,
        }
        try:
            with self._open() as db:
                db.execute(
                    "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)",
                    (request_id, request.model, _canonical(request), json.dumps(kept), time.time()),
                )
        except sqlite3.Error as error:
            # The reply is paid for and good; that it can't be kept (a full disk) is no reason to lose it.
            if not self._warned:
                log.warning("replies can't be kept in %s: %s", self.path, error)
            self._warned = True

    def count(self, text: str) -> int | None:
        try:
            rows = self._open().execute("SELECT DISTINCT tokens FROM counts WHERE sha = ?", (_sha(text),))
            found = [row[0] for row in rows]
        except sqlite3.OperationalError:  # made before counts were kept
            return None
        return found[0] if len(found) == 1 else None

    def keep_count(self, text: str, model: str, tokens: int) -> None:
        try:
            with self._open() as db:
                db.execute(_COUNTS)
                db.execute("INSERT OR IGNORE INTO counts VALUES (?, ?, ?)", (_sha(text), model, tokens))
        except sqlite3.Error as error:  # it can be counted again
            log.debug("a count can't be kept in %s: %s", self.path, error)

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = NORMAL")
        return self._db

    def prepare(self) -> None:
        """Make the table in a new file; the first of several processes does it."""
        db = self._open()
        db.execute("PRAGMA journal_mode = WAL")
        with db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                db.execute(_SCHEMA)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")


class _LedgerReplies:
    """The replies in a run's ledger, read once."""

    def __init__(self, path: Path) -> None:
        from agentcomm.ledger.store import Ledger

        self._known: dict[str, _Known] = {}
        try:
            try:
                opened = Ledger.open(path, read_only=True)
            except LedgerError:
                opened = Ledger.open(path)  # an older format, which has to be brought up to date
            with opened as ledger:
                rows = ledger.calls()
                self._counts = ledger.counts()
        except LedgerError as error:
            raise ConfigError(f"{path} can't be replayed: {error}") from error
        for row in rows:
            if row.error_kind is None and row.reply_text is not None:
                usage = Usage(row.input_tokens, row.output_tokens, row.cached_tokens, row.reasoning_tokens)
                reply = Reply(row.reply_text, usage, row.finish_reason, row.model, cache_hit=True)
                # The first of equal requests is the one that a resumed run went on with.
                self._known.setdefault(row.request_id, _Known(row.model, reply))
        if not self._known:
            raise ConfigError(f"{path} records no reply; nothing can be replayed from it")
        self.models = sorted({known.model for known in self._known.values()})

    def find(self, request_id: str) -> _Known | None:
        return self._known.get(request_id)

    def keep(self, request_id: str, request: ChatRequest, reply: Reply) -> None:
        raise NotImplementedError("a ledger is only read")

    def count(self, text: str) -> int | None:
        found = self._counts.get(_sha(text), set())
        return next(iter(found)) if len(found) == 1 else None

    def keep_count(self, text: str, model: str, tokens: int) -> None:
        raise NotImplementedError("a ledger is only read")

    def close(self) -> None:
        pass


def _open(path: Path, *, create: bool) -> _Store | _LedgerReplies:
    if not path.is_file() and not create:
        raise ConfigError(
            f"nothing recorded at {path}; give a run directory (with {LEDGER_NAME}) or a cache file"
        )
    new = not path.exists() or (path.is_file() and path.stat().st_size == 0)
    store = _Store(path)
    try:
        if new and create:
            path.parent.mkdir(parents=True, exist_ok=True)
            store.prepare()
            return store
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            kind = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            db.close()
        if create and not tables:  # another process is about to make it
            store.prepare()
            return store
    except (sqlite3.Error, OSError) as error:
        store.close()
        raise ConfigError(f"{path} can't be used to keep or replay replies: {error}") from error
    if kind != APPLICATION_ID:
        if create:
            raise ConfigError(f"{path} is not a file of kept replies; name another one")
        return _LedgerReplies(path)
    if version > VERSION:
        raise ConfigError(f"{path} was made by a newer agentcomm; update this one or name another file")
    return store


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(request: ChatRequest) -> str:
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [m.as_dict() for m in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "seed": request.seed,
        "schema": request.schema,
    }
    return json.dumps(fields, sort_keys=True, default=dict)


def _described(request: ChatRequest) -> str:
    text = " ".join("\n".join(m.content for m in request.messages).split())
    shown = text if len(text) <= 240 else f"{text[:120]} ... {text[-120:]}"
    return (
        f"prompt {shown!r}, seed {request.seed}, temperature {request.temperature:g}, "
        f"max_tokens {request.max_tokens}"
    )
