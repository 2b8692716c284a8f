"""Records: facts split over specialists, exact answers, known relevance."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import pytest

from agentcomm.errors import TaskError
from agentcomm.task import Item

PATH = pathlib.Path(__file__).resolve().parents[2] / "tasks" / "records.py"
SPEC = importlib.util.spec_from_file_location("records_task", PATH)
assert SPEC is not None
assert SPEC.loader is not None
records: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(records)

SHAPES = [
    {},
    {"facts": 2, "specialists": 6},
    {"by": "attribute"},
    {"by": "attribute", "hops": 2},
    {"by": "attribute", "fixed": True},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_arguments_give_the_same_items(shape: dict[str, Any]) -> None:
    assert records.task(8, 3, "learn", **shape).items == records.task(8, 3, "learn", **shape).items


@pytest.mark.parametrize("shape", SHAPES)
def test_splits_and_seeds_share_no_item(shape: dict[str, Any]) -> None:
    tasks = [records.task(30, seed, split, **shape) for seed in (0, 1) for split in records.SPLITS]
    for key in (lambda i: i.id, lambda i: i.content_hash):
        seen = [key(item) for task in tasks for item in task.items]
        assert len(set(seen)) == len(seen)


def test_a_smaller_limit_gives_the_first_items_of_a_larger_one() -> None:
    assert records.task(5).items == records.task(9).items[:5]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_stands_in_a_needed_view_and_in_no_other(shape: dict[str, Any]) -> None:
    for item in records.task(40, **shape).items:
        holders = {name for name, view in item.views.items() if item.answer in view.replace(".", "").split()}
        assert len(holders) == 1
        assert holders <= set(item.metadata["needed"])
        assert len(item.metadata["needed"]) == shape.get("hops", 1)


def test_with_fixed_attributes_the_question_tells_whom_to_ask() -> None:
    asked: dict[str, set[Any]] = {}
    for item in records.task(60, by="attribute", fixed=True).items:
        asked.setdefault(item.question.split()[1], set()).add(item.metadata["needed"])
    assert len(asked) == 4
    assert all(len(needed) == 1 for needed in asked.values())
    loose = records.task(60, by="attribute").items
    assert len({i.metadata["needed"] for i in loose if i.question.split()[1] == "city"}) > 1
    with pytest.raises(TaskError, match="by=attribute"):
        records.task(1, fixed=True)


def test_two_hops_ask_for_a_person_who_is_not_named() -> None:
    for item in records.task(40, by="attribute", hops=2).items:
        assert not set(item.question.split()) & set(records.NAMES)
        first, second = (item.views[name] for name in item.metadata["needed"])
        assert {line.split()[0] for line in first.splitlines()} == {
            line.split()[0] for line in second.splitlines()
        }


@pytest.mark.parametrize(
    "shape", [{"specialists": 3, "facts": 2}, {"by": "attribute", "specialists": 3, "facts": 5}]
)
def test_each_specialist_gets_its_number_of_facts(shape: dict[str, Any]) -> None:
    for item in records.task(5, **shape).items:
        assert [len(v.splitlines()) for v in item.views.values()] == [shape["facts"]] * shape["specialists"]
        assert list(item.views) == [f"s{i + 1}" for i in range(shape["specialists"])]


@pytest.mark.parametrize(
    "options",
    [
        {"split": "test"},
        {"hops": 2},
        {"hops": 3},
        {"by": "colour"},
        {"facts": 99},
        {"specialists": 0},
        {"limit": 0},
    ],
)
def test_options_that_make_no_sense_are_user_errors(options: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        records.task(**options)


@pytest.mark.parametrize("shape", [{"relevant": 2}, {"relevant": 2, "by": "attribute", "hops": 2}])
def test_irrelevant_specialists_are_never_needed(shape: dict[str, Any]) -> None:
    needed = {name for item in records.task(30, **shape).items for name in item.metadata["needed"]}
    assert needed == {"s1", "s2"}


CITY = Item(id="x", question="Which city does Ada live in?", answer="Oslo")
PET = Item(id="y", question="What pet does the person who lives in Oslo have?", answer="cat")


@pytest.mark.parametrize(
    ("item", "answer", "value"),
    [
        (CITY, "Oslo", 1),
        (CITY, "oslo.", 1),
        (CITY, "**Oslo**", 1),
        (CITY, "Ada lives in Oslo.\nAda lives in Oslo.", 1),
        (CITY, "From s1:\nAda lives in Oslo", 1),
        (CITY, "", 0),
        (CITY, "nothing", 0),
        (CITY, "Osloer", 0),
        (CITY, "Rome", 0),
        (CITY, "Oslo or Rome", 0),
        (CITY, "Oslo, Rome, Lima, Cairo, Delhi, Quito, Paris, Tokyo", 0),
        (CITY, " ".join(v for a in records.ATTRIBUTES for v in a.values), 0),
        (CITY, "Ada lives in Oslo. Ada has a pet cat.", 0),
        (CITY, "Ada does not live in Oslo.", 0),
        (CITY, "It is not Oslo", 0),
        (PET, "The person who lives in Oslo has a pet cat.", 1),
        (PET, "cats", 1),
        (PET, "Oslo", 0),
        (PET, "cat and dog", 0),
        (PET, "cats and dogs", 0),
        (PET, "The category is caterpillar", 0),
    ],
)
def test_an_answer_counts_only_if_it_names_the_right_value_alone(
    item: Item, answer: str, value: float
) -> None:
    assert records.score(item, answer).value == value


def test_a_list_says_what_was_read() -> None:
    assert records.score(CITY, "Rome or Oslo").extracted == "oslo, rome"


def test_every_value_belongs_to_one_attribute() -> None:
    values = [v.lower() for a in records.ATTRIBUTES for v in a.values]
    assert len(set(values)) == len(values)
    assert not set(values) & {n.lower() for n in records.NAMES}
