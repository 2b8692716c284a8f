"""Benchmark files are found, read whole, and refused with file and line where a row is wrong."""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from agentcomm.errors import TaskError
from agentcomm.evaluation.data import Benchmark, Format, Hub, find_set
from agentcomm.evaluation.rows import Row, read_rows
from agentcomm.evaluation.splits import SCORE, TRAIN, SplitGuard
from agentcomm.task import Item

ROWS = [{"question": f"What is {n}?", "answer": f"{n}"} for n in range(6)]


def toy(**options: Any) -> Benchmark:
    def read(row: Row) -> Item:
        id = row.text("id") if row.has("id") else None
        return this.item(row, row.text("question"), row.text("answer"), id=id)

    settings = {"shares": {"train": TRAIN, "test": SCORE}, "hub": Hub("org/toy")} | options
    this = Benchmark("toy", [Format("question answer", read)], **settings)
    return this


def jsonl(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode())
    return path


def rows_of(path: Path, text: str | bytes, **options: Any) -> list[Row]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_rows(path, **options))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTCOMM_DATA", raising=False)


# --------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_are_read_with_bom_crlf_and_gzip(
    tmp_path: Path, bom: bytes, end: str, packed: bool
) -> None:
    raw = bom + end.join(json.dumps(row) for row in ROWS).encode()
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    rows = rows_of(path, gzip.compress(raw) if packed else raw)
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6]


def test_json_lists_are_read_with_the_line_of_every_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.json", json.dumps(ROWS, indent=1))
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == [2, 6, 10, 14, 18, 22]
    assert rows_of(tmp_path / "y.json", "[]") == []


def test_json_lines_called_json_are_read_as_lines(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.json", "\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"a": 1},\n{"a": 2}], "version": "1.1"}',
        '{"version": "1.1", "data": [{"a": 1},\n{"a": 2}]}',
        '{"Data": [{"a": 1},\n{"a": 2}], "Domain": "x", "Version": 1}',
        '{"Domain": "x", "Data": [{"a": 1},\n{"a": 2}]}',
    ],
)
def test_documents_with_a_list_under_data_are_read_row_by_row(tmp_path: Path, text: str) -> None:
    assert [row.values for row in rows_of(tmp_path / "x.json", text)] == [{"a": 1}, {"a": 2}]


def test_csv_is_read_with_and_without_a_header(tmp_path: Path) -> None:
    text = '"What, then?","a ""b""\nc",2\nWhy?,d,1\n'
    rows = rows_of(
        tmp_path / "x.csv", text, columns=("question", "A", "answer"), headers=("question answer",)
    )
    assert [row.values for row in rows] == [
        {"question": "What, then?", "A": 'a "b"\nc', "answer": "2"},
        {"question": "Why?", "A": "d", "answer": "1"},
    ]
    assert [row.line for row in rows] == [1, 3]
    with_header = rows_of(
        tmp_path / "y.csv",
        "\ufeffquestion,A,answer\r\n" + text.replace("\n", "\r\n"),
        columns=("x",),
        headers=("question",),
    )
    assert with_header[1].values == rows[1].values
    assert [row.line for row in with_header] == [2, 4]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": NaN}\n', "line 2: NaN is not a number"),
        ("x.jsonl", '{"a": 1}\n{"a": -Infinity}\n', "line 2: -Infinity is not a number"),
        ("x.jsonl", '{"a": 1}\n{"a": "tru', "line 2: the file is cut off here"),
        ("x.jsonl", '{"a": 1}\n{"a": 2', "line 2: the file is cut off here"),
        ("x.jsonl", '{"a": 1}\n{"a": }\n{"a": 3}\n', "line 2: not JSON"),
        ("x.jsonl", '{"a": 1}\n{"a": "x}\n{"a": 3}\n', "line 2: not JSON"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "line 2: a row must be an object with keys, not a list"),
        ("x.jsonl", '{"a": 1} {"a": 2}\n', "line 1: two values on one line"),
        ("x.json", '[{"a": 1},\n{"a": 2}', "line 2: the file is cut off here"),
        ("x.json", '[{"a": 1},\n{"a": ', "line 2: the file is cut off here"),
        ("x.json", '[{"a": 1},\n', "line 1: the file is cut off here"),
        ("x.json", '[{"a": 1}\n{"a": 2}]', "line 2: expected ',' or ']', found '{'"),
        ("x.json", '[{"a": 1}]\n]', "line 2: there is more text after the end"),
        ("x.json", '{"data": [{"a": 1},\n{"a"', "line 2: the file is cut off here"),
        ("x.json", "   \n", "line 1: the file is empty"),
        ("x.csv", "a,b\n1,2\n1\n", "line 3: has 1 cells where there should be 2"),
        ("x.csv", 'a,b\n1,2\n1,"x\n', "line 3: the file is cut off here"),
        ("x.csv", 'a,b\n1,"x"y\n', "line 2: not CSV"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "line 2: not UTF-8"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 2000)[:-20],
            "the compressed file is cut off or damaged",
        ),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(TaskError) as error:
        rows_of(tmp_path / name, text)
    assert message in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q"}, "has no 'answer' (it has: question)"),
        ({"question": " ", "answer": "a"}, "'question' is empty"),
        ({"question": "q", "answer": ""}, "'answer' is empty"),
        ({"question": None, "answer": "a"}, "'question' must be a text, not null"),
        ({"question": ["q"], "answer": "a"}, "'question' must be a text, not a list"),
        ({"question": True, "answer": "a"}, "'question' must be a text, not true or false"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line_and_not_a_skipped_item(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path / "toy" / "test.jsonl", [ROWS[0], row, *ROWS[1:]])
    with pytest.raises(TaskError) as error:
        toy().load(tmp_path, "score", None, 0)
    assert str(error.value) == f"{path}, line 2: {message}"


def test_a_bad_first_row_does_not_hide_the_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "test.jsonl", [{"question": "q"}, *ROWS])
    with pytest.raises(TaskError, match="line 1: has no 'answer'"):
        toy().load(tmp_path, "score", None, 0)


@pytest.mark.parametrize("value", ["x", None, [1], True, "nan", "inf", 1e999])
def test_a_number_must_be_a_finite_number(value: object) -> None:
    row = Row({"n": value}, "f.json", 3)
    with pytest.raises(TaskError, match=r"f.json, line 3: 'n' must be a (finite )?number"):
        row.number("n")
    assert Row({"n": " 4.5 "}, "f.json", 3).number("n") == 4.5


def test_nested_rows_say_where_they_stand() -> None:
    row = Row({"a": [{"b": [{}, {"c": ""}]}]}, "f.json", 3)
    inner = row.rows("a")[0].rows("b")[1]
    with pytest.raises(TaskError, match=r"f.json, line 3, a\[0\].b\[1\]: 'c' is empty"):
        inner.text("c")
    with pytest.raises(TaskError, match="'a' must be an object, not a list"):
        row.row("a")
    with pytest.raises(TaskError, match=r"'b' must be a list of texts"):
        row.rows("a")[0].members("b", str)


# ------------------------------------------------------------------------------------- ids


def test_an_id_given_twice_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "test.jsonl", [{**ROWS[0], "id": "x"}, {**ROWS[1], "id": "y"}, {**ROWS[2], "id": "x"}]
    )
    with pytest.raises(TaskError) as error:
        toy().load(path, "score", None, 0)
    assert (
        str(error.value)
        == f"{path}, line 3: id 'x' was already given in line 1; every question needs its own id"
    )


def test_a_question_in_two_files_is_taken_once_and_that_is_recorded(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "test_a.jsonl", [{**ROWS[0], "id": "x"}])
    jsonl(tmp_path / "toy" / "test_b.jsonl", [{**ROWS[0], "id": "x"}, {**ROWS[1], "id": "y"}])
    items, config = toy().load(tmp_path, "score", None, 0)
    assert sorted(i.id for i in items) == ["x", "y"]
    assert config["taken once though in two files"] == 1


def test_one_id_for_two_questions_is_an_error(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "test_a.jsonl", [{**ROWS[0], "id": "x"}])
    jsonl(tmp_path / "toy" / "test_b.jsonl", [{**ROWS[1], "id": "x"}])
    with pytest.raises(TaskError, match="belongs to another question in .*test_a.jsonl, line 1"):
        toy().load(tmp_path, "score", None, 0)


def test_a_question_without_id_that_comes_twice_is_kept_twice(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "test.jsonl", [ROWS[0], ROWS[1], ROWS[0], ROWS[0]])
    items, _ = toy().load(path, "score", None, 0)
    first = next(i.id for i in items if i.metadata["asked"] == ROWS[1]["question"])
    assert len(items) == 4
    assert sorted(i.id[len(first) :] for i in items) == ["", "", "-2", "-3"]


def test_items_without_ids_are_named_by_their_content(tmp_path: Path) -> None:
    a = toy().load(jsonl(tmp_path / "a" / "test.jsonl", ROWS), "score", None, 0).items
    b = toy().load(jsonl(tmp_path / "b" / "test.jsonl", ROWS[::-1]), "score", None, 0).items
    assert [i.id for i in a] == [i.id for i in b]
    assert all(i.id == f"toy-{i.metadata['hash'][:12]}" for i in a)


# --------------------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    "folders",
    [
        ["toy"],
        ["TOY"],
        ["toy_sample"],
        ["toy_en_v2"],
        ["toy", "toy_sample", "toy_en"],
        ["toy_sample", "toy_en"],
    ],
)
def test_a_set_is_found_in_a_folder_of_sets(tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        jsonl(tmp_path / folder / f"anything-{folder}.jsonl", ROWS)
    jsonl(tmp_path / "other" / "rows.jsonl", ROWS)
    files, folder = find_set("toy", tmp_path)
    assert folder == tmp_path / folders[0]
    assert files == [tmp_path / folders[0] / f"anything-{folders[0]}.jsonl"]


def test_two_folders_that_could_be_the_sets_are_not_chosen_between(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy_v1" / "a.jsonl", ROWS)
    jsonl(tmp_path / "toy_v2" / "a.jsonl", ROWS)
    with pytest.raises(TaskError, match="could be toy: toy_v1, toy_v2; point --data at one"):
        find_set("toy", tmp_path)


def test_the_sets_own_folder_and_a_file_will_do(tmp_path: Path) -> None:
    jsonl(tmp_path / "test" / "rows.jsonl", ROWS)
    jsonl(tmp_path / "another_set" / "rows.jsonl", ROWS)
    (tmp_path / "SOURCE.txt").write_text("about")
    assert find_set("toy", tmp_path)[0] == [tmp_path / "test" / "rows.jsonl"]
    assert find_set("toy", str(tmp_path / "test" / "rows.jsonl"))[0] == [tmp_path / "test" / "rows.jsonl"]


def test_the_environment_names_the_folder_and_data_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(tmp_path / "env" / "toy" / "a.jsonl", ROWS)
    jsonl(tmp_path / "given" / "toy" / "b.jsonl", ROWS)
    monkeypatch.setenv("AGENTCOMM_DATA", str(tmp_path / "env"))
    assert [p.name for p in find_set("toy")[0]] == ["a.jsonl"]
    assert [p.name for p in find_set("toy", tmp_path / "given")[0]] == ["b.jsonl"]
    monkeypatch.setenv("AGENTCOMM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(TaskError, match=r"nowhere \(from AGENTCOMM_DATA\) is neither a folder nor a file"):
        find_set("toy")


def test_a_folder_without_rows_of_the_set_says_what_it_has(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "a.jsonl", [{"prompt": "x"}])
    with pytest.raises(TaskError) as error:
        toy().load(tmp_path, "score", None, 0)
    assert "no rows of toy (with keys question, answer)" in str(error.value)
    assert "a.jsonl, line 1 has prompt" in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match=r"no .jsonl, .json, .csv, .ndjson file in .*empty"):
        toy().load(tmp_path / "empty", "score", None, 0)


# ---------------------------------------------------------------------------- official parts


def test_train_is_learned_on_and_test_is_scored(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "train.jsonl", [{"question": f"t{n}", "answer": "1"} for n in range(60)])
    jsonl(tmp_path / "toy" / "test.jsonl", ROWS)
    loaded = {
        split: toy().load(tmp_path, split, None, 0).items for split in ("learn", "validate", "score", "all")
    }
    assert len(loaded["score"]) == 6
    assert len(loaded["learn"]) + len(loaded["validate"]) == 60
    assert 4 <= len(loaded["validate"]) <= 22
    assert len(loaded["all"]) == 66
    SplitGuard.of(loaded["all"])


def test_an_item_to_learn_that_is_also_scored_is_left_out_and_counted(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "toy" / "train.jsonl",
        [{"question": f"t{n}", "answer": "1"} for n in range(60)]
        + [{"question": " WHAT is 3? ", "answer": "3"}],
    )
    jsonl(tmp_path / "toy" / "test.jsonl", ROWS)
    learn, config = toy().load(tmp_path, "learn", None, 0)
    assert config["left out because also in a later split"] == 1
    assert not any("3?" in i.question for i in learn)
    assert len(toy().load(tmp_path, "all", None, 0).items) == 67


def test_to_score_the_train_file_is_not_even_read(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "test.jsonl", ROWS)
    # Its first rows tell its format; what is broken comes later, and only a learner meets it.
    jsonl(
        tmp_path / "toy" / "train.jsonl",
        [{"question": f"t{n}", "answer": "1"} for n in range(30)] + [{"question": ""}],
    )
    assert len(toy().load(tmp_path, "score", None, 0).items) == 6
    with pytest.raises(TaskError, match="line 31"):
        toy().load(tmp_path, "learn", None, 0)


def test_an_empty_split_is_an_error_that_says_which_there_are(tmp_path: Path) -> None:
    jsonl(tmp_path / "toy" / "test.jsonl", ROWS)
    with pytest.raises(TaskError, match="toy has no items to learn here; the splits it has items of: score"):
        toy().load(tmp_path, "learn", None, 0)


def test_options_are_lettered_and_the_request_for_a_format_does_not_change_the_hash() -> None:
    bench, row = toy(), Row({}, "f", 1)
    item = bench.item(row, "Which?", "B", options=("x", "y"), ask="Say it.")
    assert item.question == "Which?\nA. x\nB. y\n\nSay it."
    assert (
        item.metadata["hash"]
        == bench.item(row, "which?", "A", options=("y", "x"), ask="Go.").metadata["hash"]
    )


def test_a_group_stays_in_one_split() -> None:
    bench = toy(shares={})
    found = {
        bench.item(Row({}, "f", 1), f"q{n}", "a", group="one paragraph").metadata["split"] for n in range(50)
    }
    assert len(found) == 1


# --------------------------------------------------------------------------------- the hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_without_a_folder_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(path: str, config: str | None, *, split: str) -> list[dict[str, Any]]:
        asked.append((path, config, split))
        return ROWS if split == "test" else [{"question": f"t{n}", "answer": "1"} for n in range(60)]

    fake_hub(monkeypatch, load)
    assert len(toy().load(None, "score", None, 0).items) == 6
    assert asked == [("org/toy", None, "test")]
    assert len(toy().load(None, "all", None, 0).items) == 66


def test_a_bad_row_on_the_hub_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, lambda *_, **__: [ROWS[0], {"question": "q", "answer": None}])
    with pytest.raises(TaskError, match="org/toy test, line 2: 'answer' must be a text, not null"):
        toy().load(None, "score", None, 0)


def test_a_missing_extra_is_one_sentence_with_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError) as error:
        toy().load(None, "score", None, 0)
    message = str(error.value)
    assert "--data FOLDER" in message
    assert "pip install 'agentcomm[datasets]'" in message
    assert "\n" not in message


def test_no_network_is_one_sentence_with_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'org/toy' on the Hub (OfflineModeIsEnabled)\nand more")

    fake_hub(monkeypatch, load)
    with pytest.raises(TaskError) as error:
        toy().load(None, "score", None, 0)
    message = str(error.value)
    assert "OfflineModeIsEnabled" in message
    assert "--data FOLDER" in message
    assert "\n" not in message


def test_a_set_that_is_not_on_the_hub_asks_for_a_folder() -> None:
    with pytest.raises(TaskError, match="toy is not on the hub: pass --data FOLDER"):
        dataclasses.replace(toy(), hub=None).load(None, "score", None, 0)


def test_a_package_that_carries_the_set_goes_before_the_hub(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "carried.jsonl", ROWS)
    bench = toy(carried=lambda: path, shares={"": SCORE})
    assert len(bench.load(None, "score", None, 0).items) == 6
