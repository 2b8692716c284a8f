"""Folders are searched as they are, and a recorded search is not made again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentcomm.errors import BackendError, ConfigError
from agentcomm.research.search import FolderSearch, Index, ItemSearch, Recorded, Source
from agentcomm.task import Item
from tests.channels.doubles import TROUBLE

pytestmark = pytest.mark.anyio
ITEM = Item("q", "?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "corpus"
    (made / "deep").mkdir(parents=True)
    (made / "goats.md").write_text("# Goats\nGoats climb on cliffs and eat thistles.", encoding="utf-8")
    (made / "deep" / "ships.txt").write_text("The ship sails to Oslo.", encoding="utf-8")
    (made / "tokyo.txt").write_text("東京の天気は晴れです。", encoding="utf-8")
    return made


async def found(search: FolderSearch | ItemSearch, query: str, item: Item = ITEM) -> list[str]:
    return [s.name for s in await search.search(query, 5, item)]


async def test_a_folder_is_searched_with_the_folders_in_it(folder: Path) -> None:
    search = FolderSearch(folder)
    assert await found(search, "Who climbs the cliffs?") == ["goats.md", "deep/ships.txt"], "rare words first"
    assert await found(search, "sailing to Oslo") == ["deep/ships.txt"], "endings are ignored"
    assert await found(search, "東京") == ["tokyo.txt"]
    assert await found(search, "zebra") == []
    assert [s.title for s in search.sources] == ["The ship sails to Oslo.", "Goats", "東京の天気は晴れです。"]


async def test_what_is_not_text_is_left_out_and_named(folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    (folder / "zeros.bin").write_bytes(b"abc\0def")
    (folder / "empty.txt").write_text(" \n")
    (folder / ".hidden").write_text("hidden goats")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    search = FolderSearch(folder)
    assert [(x.name, x.why) for x in search.left_out] == [
        ("empty.txt", "is empty"),
        ("picture.png", "is not UTF-8 text"),
        ("zeros.bin", "is not text"),
    ]
    assert len(search.sources) == 3
    assert await found(search, "hidden") == []


def test_an_empty_corpus_or_none_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        FolderSearch(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no text"):
        FolderSearch(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match=r"holds no text \(a.bin is not UTF-8 text\)"):
        FolderSearch(tmp_path)


def test_another_text_is_another_corpus(folder: Path) -> None:
    before = FolderSearch(folder).spec()
    assert before == FolderSearch(folder).spec()
    (folder / "goats.md").write_text("Goats swim.")
    assert FolderSearch(folder).spec() != before


@pytest.mark.parametrize("text", TROUBLE)
def test_any_text_can_be_searched_for_and_in(text: str) -> None:
    index = Index([Source("a", "a", text), Source("b", "b", 'AND OR NOT NEAR " * ( )')])
    assert len(index.find(text, 5)) <= 2
    for query in ('"', "AND", "a OR", "NEAR(", "x*", "-", "", "\0", "words:goat"):
        index.find(query, 5)


def test_equal_scores_come_in_the_order_of_the_sources() -> None:
    index = Index([Source(n, n, "goat") for n in "cab"])
    assert [s.name for s in index.find("goat", 2)] == ["c", "a"]
    assert index.find("goat", 0) == []


async def test_without_a_corpus_the_items_own_texts_are_searched() -> None:
    item = Item("q", "?", context="Goats climb.", views={"b": "Ships sail.", "c": "  "})
    assert await found(ItemSearch(), "goat", item) == ["context"]
    assert await found(ItemSearch(), "ships", item) == ["b"]
    assert await found(ItemSearch(), "ships", Item("q", "?")) == []


@dataclass
class Counting:
    asked: list[str] = field(default_factory=list)

    def spec(self) -> str:
        return "counting"

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        self.asked.append(query)
        return [Source("http://a", "A", f"about {query} 🐐")]


async def test_a_recorded_search_is_made_once_also_by_the_next_process(tmp_path: Path) -> None:
    file, inner = tmp_path / "searches.jsonl", Counting()
    first = Recorded(inner, file)
    one = await first.search("goats", 3, ITEM)
    assert await first.search("goats", 3, ITEM) == one
    assert await Recorded(inner, file).search("goats", 3, ITEM) == one
    assert inner.asked == ["goats"]
    await first.search("goats", 4, ITEM)
    assert inner.asked == ["goats", "goats"], "more results are another question"
    played = Recorded(None, file)
    assert played.spec() == "counting"
    assert await played.search("goats", 3, ITEM) == one
    with pytest.raises(BackendError, match="no results for 'ships'"):
        await played.search("ships", 3, ITEM)


async def test_a_line_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    file, inner = tmp_path / "searches.jsonl", Counting()
    await Recorded(inner, file).search("goats", 3, ITEM)
    file.write_bytes(file.read_bytes()[:-20])
    await Recorded(inner, file).search("goats", 3, ITEM)
    assert inner.asked == ["goats", "goats"]
    assert Recorded(None, file).spec() == "counting"
    assert json.loads(file.read_text().splitlines()[-1])["query"] == "goats"


def test_nothing_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no searches recorded"):
        Recorded(None, tmp_path / "none.jsonl")
