"""Rows of benchmark files: read in order, with the line of every one, and refused when wrong.

Read are JSON lines, JSON lists, JSON documents with a list under ``data``, and CSV, each plain or
as ``.gz``; a byte-order mark and CRLF do no harm. What kind of JSON it is follows from the text, not
from the name. A row that can't be used is an error that names file and line.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agentcomm.errors import TaskError


@dataclass(frozen=True)
class Row:
    """One row and where it stands. The accessors raise :class:`TaskError` naming file and line."""

    values: Mapping[str, Any]
    file: str
    line: int
    part: str = ""
    inside: str = ""
    """Where in the row, for nested formats: ``paragraphs[0].qas[3]``."""
    path: Path | None = None

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.line}" + (f", {self.inside}" if self.inside else "")

    def wrong(self, what: str) -> NoReturn:
        """Say what is wrong with this row."""
        raise TaskError(f"{self.where}: {what}")

    def has(self, *keys: str) -> bool:
        return all(key in self.values for key in keys)

    def get(self, key: str) -> Any:
        """The value of a key, which must be there."""
        if key not in self.values:
            self.wrong(f"has no {key!r} (it has: {', '.join(map(str, self.values)) or 'nothing'})")
        return self.values[key]

    def text(self, key: str) -> str:
        """A text that is not empty, stripped."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.wrong(f"{key!r} must be a text, not {_kind(value)}")
        if not (text := str(value).strip()):
            self.wrong(f"{key!r} is empty")
        return text

    def raw(self, key: str) -> str:
        """A text that is not empty, with the space around it."""
        self.text(key)
        return str(self.get(key))

    def number(self, key: str) -> float:
        """A finite number, also when written as a text."""
        value = self.get(key)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            self.wrong(f"{key!r} must be a number, not {value!r}")
        if not math.isfinite(number):
            self.wrong(f"{key!r} must be a finite number, not {value!r}")
        return number

    def members(self, key: str, kind: type = object, *, empty: bool = False) -> list[Any]:
        """A list whose members are all of a kind; not empty unless allowed."""
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(member, kind) for member in value):
            self.wrong(
                f"{key!r} must be a list"
                + ("" if kind is object else f" of {_KINDS.get(kind, kind.__name__)}")
            )
        if not value and not empty:
            self.wrong(f"{key!r} is empty")
        return value

    def rows(self, key: str) -> list[Row]:
        """The objects in a list, each as a row that knows its place."""
        prefix = f"{self.inside}." if self.inside else ""
        return [
            dataclasses.replace(self, values=value, inside=f"{prefix}{key}[{i}]")
            for i, value in enumerate(self.members(key, dict))
        ]

    def row(self, key: str) -> Row:
        """An object within this row."""
        value = self.get(key)
        if not isinstance(value, dict):
            self.wrong(f"{key!r} must be an object, not {_kind(value)}")
        return dataclasses.replace(self, values=value, inside=f"{self.inside}.{key}" if self.inside else key)


_KINDS: dict[type, str] = {dict: "objects", list: "lists", str: "texts"}


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", type(None): "null", bool: "true or false"}
    return names.get(type(value), f"{value!r}")


def read_rows(path: Path, columns: Sequence[str] = (), headers: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of a file in order.

    Parameters
    ----------
    path:
        A JSON or CSV file, or one compressed with gzip.
    columns:
        Names of a CSV file's columns where it has no header line.
    headers:
        Names separated by spaces. A CSV file's first line is a header if all names of one of these are in
        it, or if ``columns`` is empty.

    Raises
    ------
    TaskError
        For a file or row that can't be read; names the line.
    """
    text = _text(path)
    if not text.strip():
        raise TaskError(f"{path}, line 1: the file is empty")
    if suffix_of(path) == ".csv":
        yield from _csv_rows(path, text, columns, [frozenset(names.split()) for names in headers])
    else:
        yield from _json_rows(path, text)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"can't read {path}: {error.strerror or error}") from error
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            got = _gunzip_what_there_is(raw)
            line = got.count(b"\n") + 1
            raise TaskError(
                f"{path}, line {line}: the compressed file is cut off or damaged; fetch it again"
            ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, line {line}: not UTF-8 text; convert the file or fetch it again") from error


def _gunzip_what_there_is(raw: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(raw)
    except zlib.error:
        return b""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number a row may hold")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_SPACE = re.compile(r"[ \t\r\n]*")


class _Json:
    """A position in a JSON text, moved forward value by value, that can say its line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text, self.at = path, text, 0
        self._counted, self._line = 0, 1

    def line(self, at: int) -> int:
        if at < self._counted:
            return self.text.count("\n", 0, at) + 1
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def peek(self) -> str:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches always
        return self.text[self.at : self.at + 1]

    def expect(self, characters: str) -> str:
        found = self.peek()
        if not found:
            self.cut_off(self.at)
        if found not in characters:
            wanted = " or ".join(repr(c) for c in characters)
            raise TaskError(f"{self.path}, line {self.line(self.at)}: expected {wanted}, found {found!r}")
        self.at += 1
        return found

    def value(self) -> tuple[Any, int]:
        """The next value and its line."""
        self.peek()
        line = self.line(self.at)
        try:
            value, self.at = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            # An unterminated string is reported where it starts; the file may still go on after it.
            if not self.text[error.pos :].strip() or (
                error.msg.startswith("Unterminated") and '"' not in self.text[error.pos + 1 :]
            ):
                self.cut_off(len(self.text.rstrip()))
            raise TaskError(f"{self.path}, line {self.line(error.pos)}: not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{self.path}, line {line}: {error}") from error
        return value, line

    def cut_off(self, at: int) -> NoReturn:
        raise TaskError(f"{self.path}, line {self.line(at)}: the file is cut off here; fetch it again")

    def members(self) -> Iterator[tuple[Any, int]]:
        """The members of a list, the position being at its bracket."""
        self.expect("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.expect(",]") == "]":
                return


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    at = _Json(path, text)
    if at.peek() == "[":
        values = at.members()
        for value, line in values:
            yield _row(path, value, line)
        if at.peek():
            raise TaskError(f"{path}, line {at.line(at.at)}: there is more text after the end of the list")
        return
    if (
        document := re.match(r'\s*\{\s*(?:"version"\s*:\s*"[^"]*"\s*,\s*)?"[Dd]ata"\s*:\s*(?=\[)', text)
    ) is not None:
        at.at = document.end()
        for value, line in at.members():
            yield _row(path, value, line)
        while at.expect(",}") == ",":  # the rest of the document: version and the like
            at.value()
            at.expect(":")
            at.value()
        return
    while at.peek():
        start = at.at
        value, line = at.value()
        if isinstance(value, dict) and isinstance(rows := value.get("data", value.get("Data")), list):
            yield from (
                _row(path, row, line) for row in rows
            )  # its list comes late: lines are the document's
        else:
            yield _row(path, value, line)
        rest = at.text.find("\n", at.at)
        if (after := at.text[at.at : rest if rest >= 0 else None].strip()) and at.at > start:
            raise TaskError(
                f"{path}, line {at.line(at.at)}: two values on one line, the second begins {after[:20]!r}"
            )


def _row(path: Path, value: Any, line: int) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{path}, line {line}: a row must be an object with keys, not {_kind(value)}")
    return Row(value, str(path), line, path=path)


def _csv_rows(
    path: Path, text: str, columns: Sequence[str], headers: Sequence[frozenset[str]]
) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            ending = "unexpected end" in str(error)
            what = "the file is cut off here; fetch it again" if ending else f"not CSV: {error}"
            raise TaskError(f"{path}, line {line}: {what}") from error
        if cells is None:
            return
        if cells:
            if not names:
                header = not columns or any(wanted.issubset(cells) for wanted in headers)
                names = [cell.strip() for cell in cells] if header else list(columns)
                if header:
                    line = reader.line_num + 1
                    continue
            if len(cells) != len(names):
                raise TaskError(
                    f"{path}, line {line}: has {len(cells)} cells where there should be {len(names)}"
                )
            yield Row(dict(zip(names, cells, strict=True)), str(path), line, path=path)
        line = reader.line_num + 1


def suffix_of(path: Path) -> str:
    """What kind of file it is, ``.gz`` aside: ``.json``."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
