"""RunDir: the directory of a run, and why the same command may continue in it.

    config.json      the resolved configuration: what the results depend on
    items.json       the content hash of every item, by id
    questions.jsonl  what every item asks and shows, one a line: for whoever reads the run later
    ledger.sqlite    every call, delivery and episode
    results.json     the summary and one row an episode, written at the end and on interruption
    report.html      what ``agentcomm view`` drew of it, if it did
    value.json       what its edges are worth, if somebody found out (:mod:`agentcomm.evaluation.report`)
    lock             held while a process runs in it

A second run under the same configuration continues; under another it is refused and the
differences are shown. Files are replaced atomically, so a cut-off write leaves the old one.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentcomm.errors import ConfigError, LedgerError
from agentcomm.ledger.store import Ledger
from agentcomm.task import Item

CONFIG, ITEMS, LEDGER, RESULTS, LOCK = "config.json", "items.json", "ledger.sqlite", "results.json", "lock"
QUESTIONS = "questions.jsonl"
SHOWN_DIFFERENCES = 8


class RunDir:
    """A run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make the directory, or enter one that holds a run; :meth:`settle` says of which configuration.

        Raises
        ------
        ConfigError
            If it can't be made or holds other files.
        """
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"can't make the run directory {path}: {error.strerror}; choose another --out"
            ) from error
        if not run.config_path.exists():
            own = (ITEMS, CONFIG, LOCK)  # of a run that was cut off while it began
            strange = sorted(p.name for p in path.iterdir() if not p.name.startswith(own))
            if strange:
                raise ConfigError(
                    f"{path} is not a run directory but holds {', '.join(strange[:3])}; choose an empty or new --out"
                )
        return run

    def settle(self, config: Mapping[str, Any], items: Mapping[str, str]) -> None:
        """Write the configuration, or make sure that the run goes on under the one it has.

        A run in which nothing was asked yet (its model's name was mistyped, say) takes the new one.

        Raises
        ------
        ConfigError
            If the run has another configuration (the differences are named) or nothing can be written.
        """
        if self.config_path.exists():
            differences = list(_differences(self.config(), json.loads(_json(config))))
            if not differences:
                return
            if self._has_records():
                shown = "; ".join(differences[:SHOWN_DIFFERENCES])
                more = len(differences) - SHOWN_DIFFERENCES
                raise ConfigError(
                    f"{self.path} holds a run with another configuration: {shown}"
                    + (f"; and {more} more" if more > 0 else "")
                    + "; use another --out, or repeat the command that began it"
                )
        try:
            # The configuration comes last: with it the directory is a run.
            write_json(self.path / ITEMS, items)
            write_json(self.config_path, config)
        except LedgerError as error:  # nothing runs yet
            raise ConfigError(str(error)) from error

    def keep_questions(self, items: Iterable[Item], hide: Callable[[str], str] = str) -> None:
        """Write down what the items ask; ``hide`` takes secrets out of a text.

        The ledger holds what was said, not what was asked: without this, a run could only be read
        by whoever still has the task and its data.

        Raises
        ------
        ConfigError
            If it can't be written.
        """
        path = self.path / QUESTIONS
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                for item in items:
                    row = {
                        "id": item.id,
                        "question": hide(item.question),
                        "context": hide(item.context),
                        "views": {name: hide(text) for name, text in item.views.items()},
                        "answer": plain(item.answer),
                    }
                    # ASCII: a text may hold halves of surrogate pairs, which UTF-8 has no bytes for.
                    file.write(json.dumps(row, ensure_ascii=True) + "\n")
            partial.replace(path)
        except OSError as error:  # nothing runs yet
            raise ConfigError(
                f"can't write {path}: {error.strerror}; free space or choose another --out"
            ) from error

    def questions(self) -> Iterator[dict[str, Any]]:
        """What :meth:`keep_questions` wrote, item by item; none for a run of an older agentcomm.

        A line that was cut off or damaged is left out.
        """
        path = self.path / QUESTIONS
        if not path.exists():
            return
        with path.open("r", encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and isinstance(row.get("id"), str):
                    yield row

    def _has_records(self) -> bool:
        if not self.ledger_path.exists():
            return False
        with Ledger.open(self.ledger_path, read_only=True) as ledger:
            return bool(ledger.calls(texts=False) or ledger.episodes())

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run, for reading.

        Raises
        ------
        ConfigError
            If there is no run at ``path``.
        """
        run = cls(path)
        if not run.config_path.exists() or not run.ledger_path.exists():
            raise ConfigError(
                f"no run at {path}: it has no {CONFIG} and {LEDGER}; name a directory that `agentcomm eval` made"
            )
        return run

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG

    @property
    def ledger_path(self) -> Path:
        return self.path / LEDGER

    @property
    def results_path(self) -> Path:
        return self.path / RESULTS

    def config(self) -> dict[str, Any]:
        return read_json(self.config_path)

    def items(self) -> dict[str, str]:
        """The content hash of every item, by id, in the task's order."""
        return read_json(self.path / ITEMS)

    def results(self) -> dict[str, Any]:
        if not self.results_path.exists():
            raise ConfigError(
                f"{self.path} has no {RESULTS} yet: the run was cut off; repeat its command to continue"
            )
        return read_json(self.results_path)

    def is_finished(self) -> bool:
        """Whether every item is done and none failed."""
        if not self.results_path.exists():
            return False
        try:
            summary = self.results()["summary"]
            return bool(summary["not_run"] == 0 and summary["failed"] == 0)
        except (ConfigError, KeyError, TypeError):  # evaluate says what is wrong with it
            return False

    def ledger(self, *, read_only: bool = False) -> Ledger:
        return Ledger.open(self.ledger_path, read_only=read_only)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one process; the system lets go even after ``kill -9``."""
        try:
            file = (self.path / LOCK).open("a+")
        except OSError as error:
            raise ConfigError(
                f"can't write in {self.path}: {error.strerror}; free space or choose another --out"
            ) from error
        with file:
            if sys.platform != "win32":
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise ConfigError(
                        f"another process is running in {self.path}; wait for it or use another --out"
                    ) from error
            yield


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON so that a reader finds the old file or the whole new one, never a part.

    Raises
    ------
    LedgerError
        If the disk is full or the folder can't be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(_json(data, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise LedgerError(
            f"can't write {path}: {error.strerror}; free space or choose another --out"
        ) from error


def _json(data: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(plain(data), indent=indent, ensure_ascii=False)


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: what a task says of itself may hold paths, tuples or NaN."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def read_json(path: Path) -> dict[str, Any]:
    """One of a run's files.

    Raises
    ------
    ConfigError
        If it can't be read or holds no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read {path}: {error}; restore it or use another --out") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a run's file: expected a JSON object")
    return data


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif old != new:
        yield f"{where} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
