"""The ledger's file format: numbered migrations, and how a file is recognised.

``PRAGMA user_version`` holds the number of migrations that were applied, ``PRAGMA application_id``
marks the file as ours. Migrations are append-only: a released one is never edited, a change of
the format is a new one at the end.

A text is stored once, in ``bodies``, under the SHA-256 of its UTF-8 bytes; rows hold the hash.
Text that is not valid Unicode (lone surrogates in a model's JSON) is stored as its bytes with
``surrogatepass`` instead of as SQL text, and comes back as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agentcomm.errors import LedgerError

APPLICATION_ID = 0x61676C31  # "agl1"

Migration = tuple[str, ...]

MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE bodies (sha BLOB PRIMARY KEY, text BLOB NOT NULL)",
        """CREATE TABLE calls (
            n INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            round INTEGER NOT NULL,
            agent TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            phase TEXT NOT NULL,
            model TEXT NOT NULL,
            request_id TEXT NOT NULL,
            started_at REAL,
            edge TEXT,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_tokens INTEGER,
            reasoning_tokens INTEGER,
            cache_hit INTEGER NOT NULL,
            latency_s REAL,
            finish_reason TEXT,
            cost REAL,
            parts TEXT,
            parts_estimated INTEGER NOT NULL,
            error_kind TEXT,
            error TEXT,
            reply BLOB)""",
        "CREATE INDEX calls_by_turn ON calls (item, sample, round, agent)",
        """CREATE TABLE deliveries (
            call_id TEXT NOT NULL,
            position INTEGER NOT NULL,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            round INTEGER NOT NULL,
            sender TEXT NOT NULL,
            reader TEXT NOT NULL,
            kind TEXT NOT NULL,
            message_id TEXT NOT NULL,
            sender_call_id TEXT,
            tokens INTEGER,
            original BLOB NOT NULL,
            body BLOB NOT NULL,
            channel TEXT NOT NULL,
            note TEXT NOT NULL,
            again INTEGER NOT NULL,
            PRIMARY KEY (item, sample, call_id, position)) WITHOUT ROWID""",
        """CREATE TABLE episodes (
            n INTEGER PRIMARY KEY,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            status TEXT NOT NULL,
            answer BLOB,
            score REAL,
            extracted TEXT,
            failure TEXT,
            wall_s REAL,
            finished_at REAL,
            topology TEXT,
            failures INTEGER NOT NULL)""",
        "CREATE INDEX episodes_by_item ON episodes (item, sample)",
    ),
    (
        """CREATE TABLE channels (
            n INTEGER PRIMARY KEY,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            round INTEGER NOT NULL,
            sender TEXT NOT NULL,
            reader TEXT NOT NULL,
            kind TEXT NOT NULL,
            message_id TEXT NOT NULL,
            channel TEXT NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            adherent INTEGER NOT NULL,
            budget INTEGER,
            tokens INTEGER,
            original_tokens INTEGER,
            counted_by TEXT NOT NULL,
            original BLOB NOT NULL,
            body BLOB NOT NULL)""",
        "CREATE INDEX channels_by_item ON channels (item, sample)",
    ),
    (
        """CREATE TABLE counts (
            sha BLOB NOT NULL,
            model TEXT NOT NULL,
            tokens INTEGER NOT NULL,
            PRIMARY KEY (sha, model)) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE dialogues (
            n INTEGER PRIMARY KEY,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            iteration INTEGER NOT NULL,
            purpose TEXT NOT NULL,
            draw INTEGER NOT NULL,
            origin INTEGER NOT NULL,
            format TEXT NOT NULL,
            model TEXT NOT NULL,
            message_tokens INTEGER,
            completion_tokens INTEGER,
            total_tokens INTEGER,
            readability TEXT NOT NULL,
            nlls TEXT NOT NULL,
            task REAL,
            tokens INTEGER,
            normaliser REAL,
            ratio REAL,
            nll REAL,
            task_term REAL,
            token_term REAL,
            loss_term REAL,
            total REAL,
            guards TEXT NOT NULL,
            selectable INTEGER NOT NULL)""",
        "CREATE INDEX dialogues_by_item ON dialogues (item, sample)",
        """CREATE TABLE trainings (
            n INTEGER PRIMARY KEY,
            iteration INTEGER NOT NULL,
            method TEXT NOT NULL,
            rows INTEGER NOT NULL,
            tokens INTEGER,
            steps INTEGER,
            seconds REAL,
            device TEXT NOT NULL)""",
    ),
)


def prepare(
    connection: sqlite3.Connection,
    where: Path | str,
    migrations: Sequence[Migration] = MIGRATIONS,
    *,
    read_only: bool = False,
) -> None:
    """Bring the file up to date, or refuse it.

    Raises
    ------
    LedgerError
        If the file is no ledger, was written by a newer agentcomm, or is read-only and old.
    sqlite3.Error
        Whatever SQLite meets; the caller says it in words.
    """
    version = _version(connection, where, len(migrations))
    if version == len(migrations):
        return
    if read_only:
        what = "is empty" if version == 0 else "was written by an older agentcomm"
        raise LedgerError(
            f"the ledger {where} {what} and can't be written; make the file writable and open it again"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        for migration in migrations[_version(connection, where, len(migrations)) :]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, where: Path | str, newest: int) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    used = version != 0 or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if owner != APPLICATION_ID and used:
        raise foreign(where)
    if version > newest:
        raise LedgerError(
            f"the ledger {where} has format {version}, this agentcomm knows formats up to {newest}; "
            f"update agentcomm (pip install -U agentcomm)"
        )
    return version


def foreign(where: Path | str) -> LedgerError:
    return LedgerError(
        f"{where} is not an agentcomm ledger; name a ledger.sqlite that a run made, or another path"
    )
