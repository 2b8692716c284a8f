"""Splits follow from content, are the same everywhere, and are guarded."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.errors import TaskError
from agentcomm.evaluation import splits
from agentcomm.evaluation.splits import (
    HASHED,
    SplitGuard,
    assign,
    content_hash,
    near_duplicates,
    require_learn,
    take,
)
from agentcomm.task import Item


def item(n: int | str, split: str = "learn", **metadata: object) -> Item:
    question = f"question {n}"
    return Item(f"i{n}", question, metadata={"hash": content_hash(question), "split": split, **metadata})


ITEMS = [item(n, splits.SPLITS[n % 3], stratum="big" if n % 10 else "small") for n in range(300)]


@pytest.mark.parametrize(
    "same",
    [
        ("How MANY  eggs?", ["5", "Six"], ""),
        ("how many eggs?\r\n", ["six", "5"], ""),
        ("Ｈow many\u00a0eggs?", ["5", " SIX"], "  "),
    ],
)
def test_spacing_case_unicode_form_and_order_of_options_do_not_matter(
    same: tuple[str, list[str], str],
) -> None:
    assert content_hash(*same) == content_hash("How many eggs?", ["5", "six"])


def test_question_options_and_context_all_matter_and_do_not_run_together() -> None:
    hashes = {
        content_hash("ab"),
        content_hash("a", ["b"]),
        content_hash("a", [], "b"),
        content_hash("a", ["b", "c"]),
        content_hash("a", ["b c"]),
        content_hash("a"),
    }
    assert len(hashes) == 6


def test_the_hash_is_the_same_on_every_machine() -> None:
    # A changed value here moves items between splits of everyone's past experiments.
    assert content_hash("How many?", ["b", "A"], "Ctx") == (
        "4df1cc521905fda3f7ff385d8419d5d3d224b9f13791268431af860d852e2b28"
    )
    code = "from agentcomm.evaluation.splits import *; print(content_hash('How many?', ['b', 'A'], 'Ctx'))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )
    assert run.stdout.strip() == content_hash("How many?", ["b", "A"], "Ctx")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert splits.normalise(splits.normalise(text)) == splits.normalise(text)


def test_shares_are_met() -> None:
    found = [assign(content_hash(f"q{n}"), HASHED) for n in range(4000)]
    for split, share in zip(splits.SPLITS, HASHED, strict=True):
        assert found.count(split) / 4000 == pytest.approx(share, abs=0.03)
    assert {assign(content_hash(f"q{n}"), splits.TRAIN) for n in range(200)} == {"learn", "validate"}
    assert {assign(content_hash(f"q{n}"), splits.SCORE) for n in range(200)} == {"score"}


def test_a_sample_does_not_depend_on_the_order_of_the_file() -> None:
    shuffled = random.Random(1).sample(ITEMS, len(ITEMS))
    assert take(shuffled, "score", 20, 5) == take(ITEMS, "score", 20, 5)


def test_a_larger_limit_contains_a_smaller_one() -> None:
    assert take(ITEMS, "learn", 50)[:20] == take(ITEMS, "learn", 20)
    assert take(ITEMS, "learn")[:50] == take(ITEMS, "learn", 50)


def test_another_seed_takes_another_sample() -> None:
    assert {i.id for i in take(ITEMS, "learn", 20, 0)} != {i.id for i in take(ITEMS, "learn", 20, 1)}


def test_a_limited_sample_holds_every_stratum_in_proportion() -> None:
    for limit in (50, 100, 200):
        small = sum(i.metadata["stratum"] == "small" for i in take(ITEMS, "all", limit))
        assert abs(small - limit / 10) <= 1


def test_every_item_is_equally_likely_to_be_in_a_sample() -> None:
    counts = {i.id: 0 for i in ITEMS}
    for seed in range(400):
        for chosen in take(ITEMS, "all", 30, seed):
            counts[chosen.id] += 1
    assert min(counts.values()) > 10
    assert max(counts.values()) < 80  # 40 expected, standard deviation 6


def test_all_takes_every_split() -> None:
    assert len(take(ITEMS, "all")) == 300
    assert {splits.split_of(i) for i in take(ITEMS, "validate")} == {"validate"}


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "5"])
def test_a_limit_that_is_no_number_of_items_is_refused(limit: object) -> None:
    with pytest.raises(TaskError, match="limit must be a positive whole number"):
        take(ITEMS, "learn", limit)  # type: ignore[arg-type]


def test_an_unknown_split_is_refused_with_those_there_are() -> None:
    with pytest.raises(TaskError, match="unknown split 'test'; choose one of learn, validate, score, all"):
        take(ITEMS, "test")


# ------------------------------------------------------------------------------ guarding


def test_a_learner_that_touches_a_score_item_raises() -> None:
    require_learn([item(1), item(2)])
    with pytest.raises(TaskError, match="item 'i3' belongs to split 'score', which a learner must not see"):
        require_learn([item(1), item(3, "score")])


def test_validate_items_are_for_selection_only() -> None:
    require_learn([item(1), item(2, "validate")], validate=True)
    with pytest.raises(TaskError, match="split 'validate'"):
        require_learn([item(2, "validate")])
    with pytest.raises(TaskError, match="split 'score'"):
        require_learn([item(3, "score")], validate=True)


def test_an_item_that_does_not_say_its_split_is_not_learned_on() -> None:
    with pytest.raises(TaskError, match="does not say which split"):
        require_learn([Item("x", "q")])


def test_overlapping_splits_raise_at_construction() -> None:
    twin = dataclasses.replace(item(1, "score"), id="other")
    with pytest.raises(TaskError, match="splits learn and score share 1 items"):
        SplitGuard.of([item(1), twin])


def test_the_guard_stands_at_mining_training_and_evaluating() -> None:
    learn, validate, score = item(1), item(2, "validate"), item(3, "score")
    guard = SplitGuard.of([learn, validate, score])
    guard.mine([learn])
    guard.train(iter([learn.metadata["hash"]]))
    guard.evaluate([score], learned_from=[learn.metadata["hash"]])
    for other in (validate, score, item(99)):
        with pytest.raises(TaskError, match="not among the learn items"):
            guard.mine([other])
    for other in (validate, score):
        with pytest.raises(TaskError, match=f"belong to split {other.metadata['split']}"):
            guard.train(iter([learn.metadata["hash"], other.metadata["hash"]]))
    with pytest.raises(TaskError, match="1 items were used for learning"):
        guard.evaluate([score], learned_from=[score.metadata["hash"]])


def test_a_guard_survives_json() -> None:
    guard = SplitGuard.of(ITEMS)
    assert SplitGuard.from_dict(guard.to_dict()) == guard


def test_the_hash_of_an_item_without_one_covers_what_it_shows() -> None:
    plain = Item("a", "q", context="c", views={"x": "1"})
    assert splits.hash_of(plain) == splits.hash_of(dataclasses.replace(plain, id="b", question="Q "))
    assert splits.hash_of(plain) != splits.hash_of(dataclasses.replace(plain, views={"x": "2"}))
    assert splits.hash_of(plain) != splits.hash_of(dataclasses.replace(plain, context="d"))


# ------------------------------------------------------------------------ near-duplicates


def words(seed: int, count: int = 40) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def asking(id: str, text: list[str], split: str) -> Item:
    return Item(id, " ".join(text), metadata={"split": split})


def test_near_duplicates_across_splits_are_found_and_reported() -> None:
    base = words(0)
    changed = [*base[:20], "17", *base[21:]]
    others = [asking(f"o{n}", words(n), "score") for n in range(1, 50)]
    pairs = near_duplicates([asking("a", base, "learn"), asking("b", changed, "score"), *others])
    assert [(p.a.id, p.b.id) for p in pairs] == [("a", "b")]
    assert pairs[0].similarity == pytest.approx(35 / 41)
    assert splits.report(pairs) == "1 near-duplicates across splits:\na (learn) ~ b (score): 0.85"


def test_near_duplicates_within_a_split_are_nobodys_business() -> None:
    assert near_duplicates([asking("a", words(0), "learn"), asking("b", words(0), "learn")]) == ()
    assert splits.report(()) == "no near-duplicates across splits"


def test_two_lists_are_compared_with_each_other_only() -> None:
    a = [asking("a", words(0), "learn"), asking("a2", words(0), "learn")]
    b = [asking("b", words(0), "learn")]
    assert [(p.a.id, p.b.id) for p in near_duplicates(a, b)] == [("a", "b"), ("a2", "b")]
    assert near_duplicates([], []) == ()


def test_nothing_below_the_threshold_is_reported() -> None:
    base = words(0)
    half = [*base[:20], *words(1)[:20]]
    items = [asking("a", base, "learn"), asking("b", half, "score")]
    assert near_duplicates(items) == ()
    assert len(near_duplicates(items, threshold=0.2)) == 1


@pytest.mark.parametrize("text", ["", "one", "one two"])
def test_very_short_questions_are_compared_too(text: str) -> None:
    pairs = near_duplicates(
        [Item("a", text, metadata={"split": "learn"}), Item("b", text, metadata={"split": "score"})]
    )
    assert [p.similarity for p in pairs] == [1.0]


def test_ten_thousand_items_are_compared_quickly() -> None:
    items = [asking(f"{n}", words(n % 9990), ("learn", "score")[n >= 9990]) for n in range(10_000)]
    began = time.monotonic()
    assert len(near_duplicates(items)) == 10
    assert time.monotonic() - began < 60  # about 3 s on two cores


def test_many_equal_items_do_not_take_for_ever() -> None:
    items = [asking(f"{n}", words(0), ("learn", "score")[n % 2]) for n in range(600)]
    assert len(near_duplicates(items)) == 300 * 300
