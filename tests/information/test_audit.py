"""Audits of arms of scores: verdicts, intervals, equivalence, corrections, and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from agentcomm.errors import UserError
from agentcomm.information.audit import Arms, audit, audit_all, contrast
from agentcomm.information.donors import donors

N = 300


def scores(share: float, n: int = N, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_readers_that_ignore_copy_or_react_to_presence_get_the_three_right_readings() -> None:
    knows = scores(0.4)
    ignores = audit(Arms(knows, knows, knows, None, range(N)))
    copies = audit(Arms(np.ones(N), knows, knows, None, range(N)))
    presence = audit(Arms(knows, knows, np.zeros(N), None, range(N)))
    assert [a.verdict for a in (ignores, copies, presence)] == [
        "equivalent_to_mismatched",
        "carries_information",
        "equivalent_to_mismatched",
    ]
    assert ignores.generic.equivalent and not presence.generic.equivalent
    assert presence.generic.low is not None and presence.generic.low > 0.25


def test_the_sentence_is_the_issues() -> None:
    mismatched = np.repeat([1.0, 0.0], [30, 70])
    true = mismatched.copy()
    true[40:52] = 1
    empty = mismatched.copy()
    empty[[0, 60]] = [0, 1]
    empty[1] = 0
    found = audit(Arms(true, mismatched, empty, None, range(100)))
    content, generic = found.content, found.generic
    assert content.mean == pytest.approx(0.12) and generic.mean == pytest.approx(0.01)
    assert found.sentence == (
        "the messages' content raises the score by 12 points [6, 18]; their mere presence by 1 [-2.4, 4]"
    )
    assert found.verdict == "carries_information"


def test_not_significant_is_not_equivalent_without_two_one_sided_tests_at_the_margin() -> None:
    few = audit(Arms(scores(0.5, 20, 1), scores(0.5, 20, 2), scores(0.5, 20), None, range(20)))
    assert few.verdict == "undecided" and "undecided: about" in few.sentence
    same = scores(0.5, 20)
    assert audit(Arms(same, same, same, None, range(20))).verdict == "undecided", (
        "20 that agree exclude little"
    )
    assert audit(Arms(same, same, same, None, range(20)), margin=0.2).verdict == "equivalent_to_mismatched"


def test_content_that_makes_it_worse_is_called_misleading() -> None:
    found = audit(Arms(np.zeros(50), np.ones(50), np.ones(50), None, range(50)))
    assert found.verdict == "misleads" and "content lowers the score by 100 points [" in found.sentence


def test_the_interval_is_students_t_where_every_example_is_a_document_of_its_own() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    found = contrast(a, b, range(30))
    low, high = scipy_stats.t.interval(0.95, 29, (a - b).mean(), scipy_stats.sem(a - b))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    z = scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)
    assert found.needed == math.ceil(z**2 * (a - b).var(ddof=1) / 0.02**2)


def test_examples_of_one_document_are_not_independent() -> None:
    rng = np.random.default_rng(4)
    of_document = np.repeat(rng.normal(0, 0.1, 20), 10)
    a = np.clip(0.5 + of_document + rng.normal(0, 0.02, 200), 0, 1)
    b = np.full(200, 0.5)
    apart, together = contrast(a, b, range(200)), contrast(a, b, np.repeat(np.arange(20), 10).tolist())
    assert apart.mean == together.mean and together.documents == 20
    assert together.high - together.low > 2 * (apart.high - apart.low)  # type: ignore[operator]
    assert together.needed > 3 * apart.needed  # type: ignore[operator]


def test_a_t_interval_covers_the_planted_effect() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(120):
        documents = rng.normal(0, 0.15, 25)
        true = np.clip(0.6 + np.repeat(documents, 4) + rng.normal(0, 0.1, 100), 0, 1)
        mismatched = np.clip(0.5 + rng.normal(0, 0.05, 100), 0, 1)
        found = contrast(true, mismatched, np.repeat(np.arange(25), 4).tolist())
        hits += found.low <= 0.1 <= found.high  # type: ignore[operator]
    assert hits / 120 >= 0.9


def test_samples_are_averaged_and_are_no_binary_outcomes() -> None:
    rows = contrast([1, 0, 1, 1], [0, 0, 0, 1], ["p", "p", "q", "q"], examples=["p", "p", "q", "q"])
    assert rows.n == 2 and rows.mean == 0.5 and rows.exact is None
    single = contrast([1, 0, 1], [0, 0, 1], range(3))
    assert single.exact is not None and (single.exact.only_first, single.exact.only_second) == (1, 0)


def test_holm_counts_all_channels_that_were_audited_together() -> None:
    weak = np.repeat([0.6, 0.4], [172, 128])
    arms = Arms(weak, np.full(N, 0.5), np.full(N, 0.5), None, range(N))
    alone = audit(arms)
    assert alone.content.p_value is not None and 0.001 < alone.content.p_value < 0.02
    assert alone.verdict == "carries_information"
    flat = scores(0.5)
    together = audit_all(
        {"weak": arms} | {f"c{i}": Arms(flat, flat, flat, None, range(N)) for i in range(60)}
    )
    assert together[0].content.p_holm == pytest.approx(61 * alone.content.p_value)
    assert together[0].verdict != "carries_information", "one of 61 channels would look like that by chance"


def test_failures_are_left_out_in_pairs_and_an_arm_without_scores_is_unknown() -> None:
    nan = math.nan
    found = audit(Arms([1, 1, nan, 1], [0, nan, 0, 0], [nan] * 4, None, range(4)))
    assert found.content.n == 2 and found.content.left_out == 2
    assert found.generic.mean is None and "presence does is unknown" in found.sentence
    nothing = audit(Arms([nan] * 3, [1, 1, 1], [0, 0, 0], None, range(3)))
    assert (
        nothing.verdict == "undecided"
        and nothing.content.mean is None
        and "nothing is known" in nothing.sentence
    )


def test_one_document_alone_has_no_interval_and_no_verdict() -> None:
    found = audit(Arms([1, 1], [0, 0], [0, 0], None, ["d", "d"]))
    assert found.content.low is None and found.verdict == "undecided" and found.content.needed is None


def test_arms_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="no examples"):
        audit(Arms([], [], [], None, []))
    with pytest.raises(UserError, match="arm 'empty' has the shape"):
        audit(Arms([1, 0], [1, 0], [1], None, range(2)))
    with pytest.raises(UserError, match="outside 0 to 1"):
        audit(Arms([1, 2], [1, 0], [1, 0], None, range(2)))
    with pytest.raises(UserError, match="margin must lie"):
        audit(Arms([1, 0], [1, 0], [1, 0], None, range(2)), margin=0)


# -- donors


def test_donors_are_a_derangement_over_documents_with_the_least_difference_in_length() -> None:
    rng = np.random.default_rng(7)
    lengths = rng.integers(10, 500, 40).tolist()
    documents = [i // 2 for i in range(40)]
    found = donors(lengths, documents, seed=0)
    assert sorted(found) == list(range(40))  # type: ignore[type-var]
    assert all(documents[i] != documents[j] for i, j in enumerate(found))  # type: ignore[index]
    apart = sum(abs(lengths[i] - lengths[j]) for i, j in enumerate(found))  # type: ignore[index]
    for shift in range(2, 40, 2):
        other = [(i + shift) % 40 for i in range(40)]
        assert apart <= sum(abs(lengths[i] - lengths[j]) for i, j in enumerate(other))


def test_a_document_with_more_than_half_of_the_examples_leaves_some_without_a_donor() -> None:
    found = donors([5] * 10, ["big"] * 7 + ["a", "b", "c"], seed=1)
    assert found.count(None) == 4 and all(found[i] is not None for i in (7, 8, 9))
    with pytest.raises(UserError, match="of one document"):
        donors([1, 2], ["d", "d"], seed=0)


def test_donors_depend_on_the_seed_alone_where_lengths_are_equal() -> None:
    same = [donors([9] * 30, range(30), seed=1) for _ in range(2)]
    assert same[0] == same[1] != donors([9] * 30, range(30), seed=2)
