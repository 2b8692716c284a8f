"""Benchmark files: finding them, reading them row by row, and making a task's items.

A task file describes its set once, as a :class:`Benchmark`: the formats its rows come in, its home
on the hub and how its official files map to splits (see ``splits.py``). ``Benchmark.load`` then

1. finds the files: ``data`` or ``AGENTCOMM_DATA`` names a file, the set's own folder, or a folder
   of sets in which ``<task>/``, ``<task>_sample/`` or one folder beginning with ``<task>`` is
   looked for; a file's own name doesn't matter, its rows must have the keys of one format;
2. without a folder: a package that carries the set, then the hub (extra ``datasets``);
3. reads every row. A row that can't be used is an error that names file and line: leaving out the
   odd row would change what the benchmark measures without anybody noticing.

Read are JSON lines, JSON lists, JSON documents with a list under ``data``, and CSV, each plain or
as ``.gz``; a byte-order mark and CRLF do no harm.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import importlib
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from agentcomm.errors import TaskError
from agentcomm.evaluation.splits import ALL, HASHED, Shares, assign, check_split, content_hash, take
from agentcomm.task import Item

ENVIRONMENT = "AGENTCOMM_DATA"
SUFFIXES = (".jsonl", ".json", ".csv", ".ndjson")
PARTS = {"train": "train", "dev": "dev", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Words in a file's or folder's name that say which official part it is."""
PEEK = 20
"""Rows looked at to tell a file's format: a bad first row must be reported, not hide the file."""

MANY = 8
"""Files beyond which their number is recorded with a task, not their names."""


# ------------------------------------------------------------------------------------ rows


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
    if _suffix(path) == ".csv":
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


# ----------------------------------------------------------------------------------- items


def make_item(
    row: Row,
    task: str,
    question: str,
    answer: Any,
    *,
    ask: str = "",
    options: Sequence[str] = (),
    context: str = "",
    views: Mapping[str, str] | None = None,
    id: str | None = None,
    hashed: str | None = None,
    group: str | None = None,
    stratum: str = "",
    shares: Shares = HASHED,
    **metadata: Any,
) -> Item:
    """An item that knows its content hash, split and origin.

    Parameters
    ----------
    question, ask:
        What is asked, and the request for an answer format that is put after it.
    options:
        Texts of the options; shown as ``A. ...`` between question and ``ask``.
    id:
        The set's own id; by default the task's name and the start of the content hash.
    hashed:
        Text to hash in place of the context, where what is shown is an option of the task: the
        split must not depend on it.
    group:
        Text that decides the split in place of the content: all questions about one paragraph
        belong to one split.
    stratum:
        Name of the part of the set that a limited sample holds in proportion.
    """
    content = content_hash(question, options, context if hashed is None else hashed)
    lettered = [f"{chr(65 + i)}. {option}" for i, option in enumerate(options)]
    asked = "\n".join([question, *lettered])
    split = assign(content if group is None else content_hash(group), shares)
    return Item(
        id=f"{task}-{content[:12]}" if id is None else id,
        question=f"{asked}\n\n{ask}" if ask else asked,
        answer=answer,
        context=context,
        views=dict(views or {}),
        metadata={
            "hash": content,
            "split": split,
            "asked": question,
            "source": f"{Path(row.file).name}, line {row.line}",
            **({"options": tuple(options)} if options else {}),
            **({"stratum": stratum} if stratum else {}),
            **metadata,
        },
    )


class Format(NamedTuple):
    """Rows with all of these keys, and what reads one of them into an item or several."""

    keys: str
    """Separated by spaces."""
    read: Callable[[Row], Item | Iterable[Item]]


class Hub(NamedTuple):
    """Where the set lives on the Hugging Face hub; ``parts`` maps its splits to official parts."""

    path: str
    config: str | None = None
    parts: Mapping[str, str] = {"train": "train", "test": "test"}  # never changed


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as its task file describes it."""

    name: str
    formats: Sequence[Format]
    shares: Mapping[str, Shares] = field(default_factory=dict)
    """Of each official part (``train``, ``dev``, ``val``, ``test``, ``""`` where the names don't say);
    ``val`` is what ``dev`` is unless both are given, and what is not given is hashed."""
    hub: Hub | None = None
    columns: Sequence[str] = ()
    """Of a CSV file without a header."""
    carried: Callable[[], Path | None] = lambda: None
    """Finds the file in an installed package that carries the set."""
    same_question_once: bool = False
    """Take a question once that stands in several files, also where they give it no id."""

    def load(
        self,
        data: str | Path | None,
        split: str,
        limit: int | None,
        seed: int,
        *,
        only: Callable[[Item], bool] | None = None,
    ) -> Loaded:
        """Items of a split in sampling order (see ``splits.py``), and what to record about them.

        ``only`` filters before ``limit``. An item to learn on that also stands in a file to be scored is left out, and counted.

        Raises
        ------
        TaskError
            If the set can't be found, a row can't be read, or the split is empty.
        """
        check_split(split)
        items, notes = self._unique(self._rows(data, split))
        kept = items if split == ALL else _disjoint(items)  # "all" is never learned on
        chosen = take(filter(only, kept), split, limit, seed)
        if not chosen:
            has = ", ".join(sorted({str(i.metadata["split"]) for i in kept}))
            fit = " that fit the options" if only else ""
            raise TaskError(
                f"{self.name} has no items to {split}{fit} here; the splits it has items of: {has or 'none'}"
            )
        config = {"split": split, "limit": limit, "seed": seed, **notes}
        if excluded := len(items) - len(kept):
            config["left out because also in a later split"] = excluded
        return Loaded(chosen, config)

    def shares_of(self, part: str) -> Shares:
        """The shares of an official part."""
        also = "dev" if part == "val" else part
        return self.shares.get(part, self.shares.get(also, HASHED))

    def item(self, row: Row, question: str, answer: Any, **more: Any) -> Item:
        """:func:`make_item` for this set."""
        return make_item(row, self.name, question, answer, shares=self.shares_of(row.part), **more)

    def _wanted(self, part: str, split: str) -> bool:
        """To score, files that are only learned on need not be read; to learn, all are, to exclude overlaps."""
        return split != "score" or self.shares_of(part).score > 0

    def _rows(self, data: str | Path | None, split: str) -> Iterator[tuple[Format, Row]]:
        files, own = find_set(self.name, data)
        if not files and not own:
            carried = self.carried()
            if carried is None:
                yield from self._hub_rows(split)
                return
            files = [carried]
        misfits: list[str] = []
        found = False
        for path in files:
            rows = read_rows(path, self.columns, [form.keys for form in self.formats])
            head = list(islice(rows, PEEK))
            form = self._format(head)
            if form is None:
                misfits.append(
                    f"{head[0].where} has {', '.join(map(str, head[0].values))}"
                    if head
                    else f"{path} is empty"
                )
                continue
            found = True
            part = _part(path)
            if self._wanted(part, split):
                yield from ((form, dataclasses.replace(row, part=part)) for row in chain(head, rows))
        if not found:
            wanted = " or ".join(f.keys.replace(" ", ", ") for f in self.formats)
            looked = "; ".join(misfits) or f"no {', '.join(SUFFIXES)} file in {own}"
            raise TaskError(
                f"no rows of {self.name} (with keys {wanted}): {looked}; point --data at the set's folder"
            )

    def _format(self, rows: Sequence[Row]) -> Format | None:
        """The format most of the first rows have; ties go to the one described first."""
        fits = [sum(row.has(*form.keys.split()) for row in rows) for form in self.formats]
        return self.formats[fits.index(max(fits))] if rows and max(fits) else None

    def _hub_rows(self, split: str) -> Iterator[tuple[Format, Row]]:
        ways = (
            f"pass --data FOLDER (or set {ENVIRONMENT}) with its files, or pip install 'agentcomm[datasets]' "
            f"to fetch it from the hub"
        )
        if self.hub is None:
            raise TaskError(
                f"{self.name} is not on the hub: pass --data FOLDER (or set {ENVIRONMENT}) with its files"
            )
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise TaskError(f"no data for {self.name}: {ways}") from error
        for hub_split, part in self.hub.parts.items():
            if not self._wanted(part, split):
                continue
            try:
                table = datasets.load_dataset(self.hub.path, self.hub.config, split=hub_split)
            except Exception as error:
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                raise TaskError(
                    f"can't fetch {self.name} from the hub ({reason}): {ways} while there is a network"
                ) from error
            where = f"{self.hub.path} {hub_split}"
            rows = (Row(dict(value), where, n, part) for n, value in enumerate(table, 1))
            head = list(islice(rows, PEEK))
            if (form := self._format(head)) is None:
                raise TaskError(f"{where} on the hub has no rows in a known format of {self.name}: {ways}")
            yield from ((form, row) for row in chain(head, rows))

    def _unique(self, rows: Iterable[tuple[Format, Row]]) -> tuple[list[Item], dict[str, Any]]:
        """All items, each with an id of its own.

        An id that comes twice in one file is an error. The same question in two files of a set (the
        carriers' samples overlap) is taken once. Two rows of a set *without* ids that ask the same
        (28 of MMLU's) are both kept, as its published scores count them twice; the second is ``-2``.
        """
        items: list[Item] = []
        first: dict[str, tuple[Item, Row]] = {}
        files: dict[str, None] = {}
        twice = 0
        for form, row in rows:
            files[Path(row.file).name] = None
            made = form.read(row)
            for item in [made] if isinstance(made, Item) else made:
                id = item.id
                if id in first:
                    other, at = first[id]
                    own = id == f"{self.name}-{item.metadata['hash'][:12]}" and not self.same_question_once
                    if not own and at.file == row.file:
                        row.wrong(
                            f"id {id!r} was already given in line {at.line}; every question needs its own id"
                        )
                    if at.file != row.file and not own:
                        if other.metadata["hash"] != item.metadata["hash"]:
                            row.wrong(
                                f"id {id!r} belongs to another question in {at.where}; keep one of the files"
                            )
                        twice += 1
                        continue
                    n = 2
                    while (id := f"{item.id}-{n}") in first:
                        n += 1
                    item = dataclasses.replace(item, id=id)
                first[id] = (item, row)
                items.append(item)
        notes: dict[str, Any] = {"files": sorted(files) if len(files) <= MANY else len(files)}
        if twice:
            notes["taken once though in two files"] = twice
        return items, notes


class Loaded(NamedTuple):
    """Items in sampling order, and the configuration to record with the task."""

    items: tuple[Item, ...]
    config: dict[str, Any]


def _disjoint(items: Sequence[Item]) -> list[Item]:
    """Without items whose content also stands in a later split: score wins over validate over learn."""
    rank = {"learn": 0, "validate": 1, "score": 2}
    last: dict[str, int] = {}
    for item in items:
        content = str(item.metadata["hash"])
        last[content] = max(last.get(content, 0), rank[item.metadata["split"]])
    return [i for i in items if rank[i.metadata["split"]] == last[i.metadata["hash"]]]


# --------------------------------------------------------------------------------- finding


def find_set(task: str, data: str | Path | None = None) -> tuple[list[Path], Path | None]:
    """The data files of a set and the file or folder they were looked for in.

    ``([], None)`` if neither ``data`` nor ``AGENTCOMM_DATA`` says where to look.

    Raises
    ------
    TaskError
        If the folder isn't there, or two of its folders could be the set's.
    """
    named = data if data not in (None, "") else os.environ.get(ENVIRONMENT)
    if not named:
        return [], None
    base = Path(named).expanduser()
    if base.is_file():
        return [base], base
    if not base.is_dir():
        origin = "" if data else f" (from {ENVIRONMENT})"
        raise TaskError(
            f"{base}{origin} is neither a folder nor a file; --data names the set's folder or a folder of sets"
        )
    folder = _subfolder(task, base)
    if folder is not None:
        return _data_files(folder, deep=True), folder
    return _data_files(base, deep=False), base


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _subfolder(task: str, base: Path) -> Path | None:
    """``<task>``, else ``<task>_sample``, else the one folder beginning with the task's name."""
    wanted = _plain(task)
    folders = sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))
    for exact in (wanted, f"{wanted}sample"):
        if same := [p for p in folders if _plain(p.name) == exact]:
            return _only(task, same)
    return _only(task, [p for p in folders if _plain(p.name).startswith(wanted)])


def _only(task: str, folders: Sequence[Path]) -> Path | None:
    if len(folders) > 1:
        names = ", ".join(p.name for p in folders)
        raise TaskError(
            f"several folders in {folders[0].parent} could be {task}: {names}; point --data at one of them"
        )
    return folders[0] if folders else None


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _data_files(folder: Path, *, deep: bool) -> list[Path]:
    """Data files in a folder and below it; if not ``deep``, below it only in folders named like a part.

    A folder that may be one *of sets* is not searched through: another set's rows may look alike.
    """
    found = [
        p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and _suffix(p) in SUFFIXES
    ]
    for below in folder.iterdir():
        if (
            below.is_dir()
            and not below.name.startswith(".")
            and (deep or _plain(below.name) in {*PARTS, "data"})
        ):
            found += _data_files(below, deep=deep)
    return sorted(found)


def _part(path: Path) -> str:
    """The official part a file belongs to: a word of its name, else its folder's whole name."""
    words = re.split(r"[^a-z]+", path.name.casefold())
    return next((PARTS[word] for word in [*words, path.parent.name.casefold()] if word in PARTS), "")
