"""Cells on disk: what has been scored is not scored again.

One SQLite row a cell. The key is the SHA-256 of what determines the number: the scorer (its weights,
dtype, engine and version), the prompt, whether the end token is summed, and the hashes of context,
query and text. So a file serves many matrices, and a matrix that was cut off continues where it was.

A cell that failed is kept with its reason, for whoever reads the file, and is scored again next time.
Commits come every 64 cells or 5 seconds; what a kill loses is at most that.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from agentcomm.errors import ConfigError, ScorerError
from agentcomm.information.scorers.base import Scored

APPLICATION_ID = 0x6163434C  # "acCL"
VERSION = 1
COMMIT_CELLS, COMMIT_S = 64, 5.0
_AT_ONCE = 500
"""Keys in one query; SQLite bears 999 in its oldest builds."""

_SCHEMA = """
CREATE TABLE cells (
    key TEXT PRIMARY KEY,
    sum_logprob REAL,
    n_tokens INTEGER,
    n_bytes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    scorer TEXT NOT NULL,
    scored_at REAL NOT NULL
) WITHOUT ROWID
"""


def cell_key(
    *, scorer: str, prompt: str, include_eos: bool, context_hash: str, query_hash: str, text_hash: str
) -> str:
    """SHA-256 of the canonical JSON of what determines a cell."""
    fields = {
        "scorer": scorer,
        "prompt": prompt,
        "include_eos": include_eos,
        "context": context_hash,
        "query": query_hash,
        "text": text_hash,
    }
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class CellStore:
    """Scored cells in a SQLite file, or in memory without one.

    Raises
    ------
    ConfigError
        If the file is another one's, of a newer version, or can't be opened.
    ScorerError
        From every method, if the file can't be read or written any more.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._pending = 0
        self._committed_at = time.monotonic()
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path or ":memory:", timeout=30.0, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"cells can't be kept in {self.path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigError(f"cells can't be kept in {self.path}: {error}") from error
        except ConfigError:
            self._db.close()
            raise

    def __enter__(self) -> CellStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        found = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found != APPLICATION_ID and (found or tables):
            raise ConfigError(f"{self.path} is not a file of scored cells; name another one")
        if version > VERSION:
            raise ConfigError(f"{self.path} was made by a newer agentcomm; update this one or name another")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # the first of several processes makes the table
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")

    def find(self, keys: Sequence[str]) -> dict[str, Scored]:
        """The cells among ``keys`` that were scored; failed ones are not among them."""
        found: dict[str, Scored] = {}
        try:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(
                    "SELECT key, sum_logprob, n_tokens, n_bytes FROM cells "
                    f"WHERE reason = '' AND key IN ({marks})",
                    some,
                )
                found.update({key: Scored(value, tokens, size) for key, value, tokens, size in rows})
        except sqlite3.Error as error:
            raise ScorerError(f"the cells in {self.path} can't be read: {error}") from error
        return found

    def failures(self) -> dict[str, int]:
        """Failed cells by reason."""
        rows = self._db.execute("SELECT reason, count(*) FROM cells WHERE reason <> '' GROUP BY reason")
        return dict(rows.fetchall())

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM cells WHERE reason = ''").fetchone()[0]
        return count

    def put(self, cells: Iterable[tuple[str, Scored]], scorer: str) -> None:
        """Keep cells; a second value for the same key replaces the first, but no failure a success."""
        now = time.time()
        rows = [
            (
                key,
                None if math.isnan(cell.sum_logprob) else cell.sum_logprob,
                cell.n_tokens,
                cell.n_bytes,
                cell.reason,
                scorer,
                now,
            )
            for key, cell in cells
        ]
        try:
            self._db.executemany(
                "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "sum_logprob = excluded.sum_logprob, n_tokens = excluded.n_tokens, "
                "n_bytes = excluded.n_bytes, reason = excluded.reason, scorer = excluded.scorer, "
                "scored_at = excluded.scored_at WHERE cells.reason <> '' OR excluded.reason = ''",
                rows,
            )
            self._pending += len(rows)
            if self._pending >= COMMIT_CELLS or time.monotonic() - self._committed_at >= COMMIT_S:
                self.commit()
        except sqlite3.Error as error:
            raise ScorerError(f"cells can't be kept in {self.path}: {error}") from error

    def commit(self) -> None:
        try:
            self._db.commit()
        except sqlite3.Error as error:
            raise ScorerError(f"cells can't be kept in {self.path}: {error}") from error
        self._pending, self._committed_at = 0, time.monotonic()

    def close(self) -> None:
        """Keep what is pending and let go of the file."""
        try:
            self.commit()
        finally:
            self._db.close()
