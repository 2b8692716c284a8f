"""Contexts are dealt to agents so that none of them alone can answer, the same way every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentcomm.errors import TaskError
from agentcomm.evaluation.multihop import Deal, Paragraph, dealt
from agentcomm.loading import load_graph, load_task
from agentcomm.task import Item, Task
from tests.command import agentcomm
from tests.tasks.test_real_files import DATA

HOTPOT = {
    "_id": "q",
    "question": "Who leads the town of Po?",
    "answer": "Ann Lee",
    "type": "bridge",
    "supporting_facts": [["Town", 0], ["Leaders", 1]],
    "context": [[t, [f"{t} says x.", " More."]] for t in ("Town", "Leaders", "Cats", "Dogs", "Birds")],
}
RESULTS = [
    ("Beach Boys", "They sang of Po."),
    ("Rivers", "Po is long."),
    ("Cats", ""),
    ("Dogs", "Dogs bark."),
]
TRIVIA = {
    "Question": "Which river is long?",
    "QuestionId": "tc_1",
    "Answer": {"Value": "Po", "Aliases": ["River Po"]},
    "SearchResults": [{"Title": t, "Description": d, "Rank": n} for n, (t, d) in enumerate(RESULTS)],
}
HUB_TRIVIA = {
    "question": TRIVIA["Question"],
    "question_id": "tc_1",
    "answer": {"value": "Po", "aliases": ["River Po"]},
    "search_results": {
        "title": [t for t, _ in RESULTS],
        "description": [d for _, d in RESULTS],
        "search_context": ["p1", "p2", "A page on cats. " * 100, "p4"],
    },
}


def load(folder: Path, name: str, rows: list[Any], **options: Any) -> Task:
    path = folder / name / "dev.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load_task(name, {"data": str(folder), "split": "all", **options})


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa"])
def test_supporting_paragraphs_alternate_so_that_neither_half_suffices(tmp_path: Path, name: str) -> None:
    (item,) = load(tmp_path, name, [HOTPOT], deal=2).items
    assert list(item.views) == ["s1", "s2"] and item.metadata["needed"] == ("s1", "s2")
    for view in item.views.values():
        assert ("Town: " in view) != ("Leaders: " in view)
    assert sorted(len(v.split("\n\n")) for v in item.views.values()) == [2, 3]
    assert "Answer:" not in item.question and item.context == ""


def test_dealing_moves_no_item_to_another_split_and_follows_no_file_order(tmp_path: Path) -> None:
    (two,) = load(tmp_path, "hotpotqa", [HOTPOT], deal=2).items
    (plain,) = load(tmp_path, "hotpotqa", [HOTPOT]).items
    (turned,) = load(tmp_path, "hotpotqa", [HOTPOT | {"context": HOTPOT["context"][::-1]}], deal=2).items  # type: ignore[index]
    assert two.metadata["hash"] == plain.metadata["hash"] and two.metadata["split"] == plain.metadata["split"]
    assert two.views == turned.views


@pytest.mark.parametrize("agents", [2, 3, 4, 5, 6])
def test_n_agents_hold_everything_once_and_every_seat_may_be_the_first(agents: int) -> None:
    texts = [Paragraph(f"T{n}", "x", n < 2) for n in range(8)]
    holds: Counter[str] = Counter()
    for q in range(120):
        names, held = dealt(f"question {q}", texts, Deal(agents))
        assert sorted(p.title for half in held for p in half) == sorted(p.title for p in texts)
        assert max(map(len, held)) - min(map(len, held)) <= 1
        with_support = [n for n, half in zip(names, held, strict=True) if any(p.supporting for p in half)]
        assert len(with_support) == 2
        holds.update(with_support)
    assert min(holds.values()) > 0.5 * 240 / agents and len(holds) == agents


@pytest.mark.parametrize("distractors", [0, 1, 2, 9])
def test_only_so_many_distractors_stay(tmp_path: Path, distractors: int) -> None:
    (item,) = load(tmp_path, "hotpotqa", [HOTPOT], deal=2, distractors=distractors).items
    text = "\n\n".join(item.views.values())
    assert len(text.split("\n\n")) == 2 + min(distractors, 3) and "Town: " in text and "Leaders: " in text
    (whole,) = load(tmp_path, "hotpotqa", [HOTPOT], context="all", distractors=distractors).items
    assert len(whole.context.split("\n\n")) == 2 + min(distractors, 3)


@pytest.mark.parametrize("row", [TRIVIA, HUB_TRIVIA])
def test_search_results_are_shuffled_and_dealt(tmp_path: Path, row: dict[str, Any]) -> None:
    (item,) = load(tmp_path, "triviaqa", [row], deal=2, characters=100).items
    (plain,) = load(tmp_path, "triviaqa", [row]).items
    texts = [t for v in item.views.values() for t in v.split("\n\n")]
    pages = {"Beach Boys: They sang of Po.", "Rivers: Po is long.", "Dogs: Dogs bark."}
    assert pages <= set(texts) and len(texts) == (3 if row is TRIVIA else 4)  # one has no description
    assert max(map(len, texts)) <= len("Cats: ") + 100
    assert item.metadata["hash"] == plain.metadata["hash"] and not plain.views
    (few,) = load(tmp_path, "triviaqa", [row], deal=2, results=2).items
    assert "Dogs" not in "".join(few.views.values()) and all(few.views.values())


@pytest.mark.parametrize(
    ("name", "row", "options", "says"),
    [
        ("hotpotqa", HOTPOT, {"deal": 1}, "deal=1; it must be a whole number from 2"),
        ("hotpotqa", HOTPOT, {"deal": 9}, "at most 6 agents"),
        ("hotpotqa", HOTPOT, {"deal": "two"}, "deal='two'"),
        ("hotpotqa", HOTPOT, {"distractors": -1}, "distractors=-1"),
        ("hotpotqa", HOTPOT, {"deal": 2, "context": "all"}, "context='split'"),
        ("triviaqa", TRIVIA, {"results": 3}, "goes with deal=N"),
        ("triviaqa", TRIVIA, {"deal": 3, "results": 2}, "a result for each agent"),
        ("triviaqa", TRIVIA, {"deal": 5}, "line 1: has 3 search results with a text, too few"),
        ("triviaqa", {k: v for k, v in TRIVIA.items() if k != "SearchResults"}, {"deal": 2}, "has 0 search"),
    ],
)
def test_what_cannot_be_dealt_is_refused(
    tmp_path: Path, name: str, row: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(TaskError, match=says):
        load(tmp_path, name, [row], **options)


def test_a_dealt_set_runs_through_the_command(tmp_path: Path) -> None:
    load(tmp_path, "hotpotqa", [HOTPOT])
    script = tmp_path / "model.json"
    script.write_text(json.dumps({"default": "It is <A>Ann Lee</A>"}))
    made = agentcomm(
        "eval", "information_exchange", "hotpotqa", "-T", "deal=2", "--split", "all", "--data", tmp_path,
        "-m", f"scripted/{script}", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert (made.json["score"]["mean"], made.json["calls"]) == (1.0, 2)


@pytest.mark.skipif(not (DATA / "hotpotqa").is_dir(), reason="no folder of benchmark files")
@pytest.mark.parametrize(("name", "least"), [("hotpotqa", 600), ("2wikimultihopqa", 8)])
def test_of_the_real_sets_no_agent_holds_all_that_is_needed(name: str, least: int) -> None:
    items: tuple[Item, ...] = tuple(load_task(name, {"data": str(DATA), "split": "all", "deal": 2}).items)
    assert len(items) >= least
    one_sided = [i.id for i in items if len(i.metadata["needed"]) < 2]
    assert not one_sided
    first = sum(len(i.views["s1"]) for i in items) / sum(len(v) for i in items for v in i.views.values())
    assert 0.4 < first < 0.6  # nobody is favoured
    assert load_graph("information_exchange").by_name["bob"].view in items[0].views
