"""Search: where sources come from, behind one small protocol.

A :class:`Search` answers a query with whole sources. Three are here: the files of a folder, the texts
that an item of a task brings along, and a record of another search (to repeat a run). Ranking is BM25 by
SQLite's FTS5, which every Python carries; words are cut up by :func:`agentcomm.channels.relevance.terms`
(so that Chinese and Japanese are found, too) and English endings are ignored. :mod:`agentcomm.research.web`
has the one that asks a server.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agentcomm.channels.relevance import terms
from agentcomm.errors import BackendError, ConfigError
from agentcomm.message import content_id
from agentcomm.task import Item

LARGEST = 20_000_000
"""Bytes of a file that is still read."""
QUERY_TERMS = 64


@dataclass(frozen=True, slots=True)
class Source:
    """A text that can be cited: ``name`` is its path in the folder, or its address."""

    name: str
    title: str
    text: str


class Search(Protocol):
    """What a query finds."""

    def spec(self) -> str:
        """Which search this is, in one line for the run's configuration; another corpus, another line."""
        ...

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        """At most ``most`` sources, best first; none is no error.

        Raises
        ------
        BackendError
            If the provider fails; ``fatal`` where every later query must fail, too.
        """
        ...


class Index:
    """Sources by BM25. Equal scores come in the order of the sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._finalizer = weakref.finalize(self, self._db.close)
        try:
            self._db.execute("CREATE VIRTUAL TABLE texts USING fts5(words, tokenize='porter unicode61')")
        except sqlite3.OperationalError as error:
            raise ConfigError(f"this Python's SQLite has no full-text search (FTS5): {error}") from error
        rows = [(i, " ".join(terms(f"{s.name} {s.title} {s.text}"))) for i, s in enumerate(self.sources)]
        self._db.executemany("INSERT INTO texts (rowid, words) VALUES (?, ?)", rows)

    def find(self, query: str, most: int) -> list[Source]:
        """The sources with any word of the query, best first."""
        words = list(dict.fromkeys(terms(query)))[:QUERY_TERMS]
        if not words or most < 1:
            return []
        asked = " OR ".join(f'"{word}"' for word in words)
        with self._lock:
            rows = self._db.execute(
                "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY bm25(texts), rowid LIMIT ?",
                (asked, most),
            ).fetchall()
        return [self.sources[row[0]] for row in rows]

    def close(self) -> None:
        self._finalizer()


class LeftOut(NamedTuple):
    """A file of the corpus that is not searched, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class FolderSearch:
    """The text files of a folder and of the folders in it, hidden ones excepted.

    A file that is not UTF-8 text (a PDF, a picture) is left out and named in ``left_out``.

    Raises
    ------
    ConfigError
        If there is no such folder, or no text in it.
    """

    folder: Path
    sources: tuple[Source, ...] = field(init=False, repr=False)
    left_out: tuple[LeftOut, ...] = field(init=False, repr=False)
    _index: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        folder = Path(self.folder)
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}; --corpus names a folder of text files")
        found: list[Source] = []
        left: list[LeftOut] = []
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            text = _text(path)
            if isinstance(text, LeftOut):
                left.append(text._replace(name=name))
            else:
                found.append(Source(name, _title(text, name), text))
        object.__setattr__(self, "sources", tuple(found))
        object.__setattr__(self, "left_out", tuple(left))
        if not found:
            why = f" ({left[0].name} {left[0].why})" if left else ""
            raise ConfigError(f"{folder} holds no text{why}; put UTF-8 text files into it, e.g. .txt or .md")
        object.__setattr__(self, "_index", Index(found))

    def spec(self) -> str:
        held = content_id(*((s.name, s.text) for s in self.sources))[:16]
        return f"folder {self.folder.name}: {len(self.sources)} texts, {held}"

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        return self._index.find(query, most)


@dataclass(frozen=True)
class ItemSearch:
    """What an item of a task shows beside its question: each of its views is a source, and its context."""

    def spec(self) -> str:
        return "the item's own texts"

    def sources(self, item: Item) -> tuple[Source, ...]:
        own = (("context", item.context), *item.views.items())
        return tuple(Source(name, _title(text, name), text) for name, text in own if text.strip())

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        index = Index(self.sources(item))
        try:
            return index.find(query, most)
        finally:
            index.close()


class Recorded:
    """A search whose results are kept in a file, a query a line, and taken from there the next time.

    So that a run that goes on, or is repeated, reads what it read. ``inner=None`` only plays back.
    """

    def __init__(self, inner: Search | None, path: str | Path) -> None:
        self.inner = inner
        self.path = Path(path)
        self._known: dict[str, list[Source]] = {}
        self._spec = inner.spec() if inner is not None else ""
        if inner is None and not self.path.is_file():
            raise ConfigError(f"no searches recorded at {self.path}; name the file that a run kept")
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        except (OSError, ValueError) as error:
            raise ConfigError(f"recorded searches can't be read from {self.path}: {error}") from error
        for line in lines:
            try:
                row = json.loads(line)
                sources = [Source(**source) for source in row["sources"]]
                key, spec = row["key"], row["search"]
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off when the run was
            if inner is None:
                self._spec = spec
            self._known[key] = sources

    def spec(self) -> str:
        return self._spec

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        key = content_id(self._spec, query, most)
        if key in self._known:
            return self._known[key]
        if self.inner is None:
            raise BackendError(
                f"{self.path} has no results for {query!r}; repeat the run that was recorded",
                kind="not_recorded",
            )
        found = list(await self.inner.search(query, most, item))
        row: dict[str, Any] = {"key": key, "search": self._spec, "query": query, "most": most}
        self._keep(json.dumps({**row, "sources": [asdict(s) for s in found]}))
        self._known[key] = found
        return found

    def _keep(self, line: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                # What a killed run left of its last line must not swallow this one.
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackendError(
                f"searches can't be recorded in {self.path}: {error.strerror}", kind="record", fatal=True
            ) from error


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, by name; what begins with a dot is hidden. Links to folders aren't followed."""
    found: list[Path] = []
    for at, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(at, name) for name in names if not name.startswith(".")]
    return sorted((p for p in found if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def _text(path: Path) -> str | LeftOut:
    try:
        if path.stat().st_size > LARGEST:
            return LeftOut("", f"has more than {LARGEST:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        return LeftOut("", f"can't be read: {error.strerror}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return LeftOut("", "is not UTF-8 text")
    if "\0" in text:
        return LeftOut("", "is not text")
    return text if text.strip() else LeftOut("", "is empty")


def _title(text: str, name: str) -> str:
    """The first line if it is short, else the name."""
    first = text.lstrip().split("\n", 1)[0].strip().lstrip("#").strip()
    return first if 0 < len(first) <= 100 else name


def short_hash(text: str) -> str:
    """Tells two texts apart without showing them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
