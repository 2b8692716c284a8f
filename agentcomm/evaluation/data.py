"""Benchmark files: finding them, and making a task's items of their rows.

A task file describes its set once, as a :class:`Benchmark`: the formats its rows come in, its home
on the hub and how its official files map to splits (see ``splits.py``). ``Benchmark.load`` then

1. finds the files: ``data`` or ``AGENTCOMM_DATA`` names a file, the set's own folder, or a folder
   of sets in which ``<task>/``, ``<task>_sample/`` or one folder beginning with ``<task>`` is
   looked for; a file's own name doesn't matter, its rows must have the keys of one format;
2. without a folder: a package that carries the set, then the hub (extra ``datasets``);
3. reads every row. A row that can't be used is an error that names file and line: leaving out the
   odd row would change what the benchmark measures without anybody noticing.

How files are read is in ``rows.py``.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from agentcomm.errors import TaskError
from agentcomm.evaluation.rows import Row, read_rows, suffix_of
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


def _data_files(folder: Path, *, deep: bool) -> list[Path]:
    """Data files in a folder and below it; if not ``deep``, below it only in folders named like a part.

    A folder that may be one *of sets* is not searched through: another set's rows may look alike.
    """
    found = [
        p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and suffix_of(p) in SUFFIXES
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
