"""A matrix keeps the row's query in every column, and knows what failed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from agentcomm.errors import ScorerError, UserError
from agentcomm.information import ScoreMatrix, draw_candidates, estimate_mi, fill, rows_of

QUERIES = [f"what is {i}?" for i in range(6)]


def by_query(context: str, query: str, text: str) -> float:
    """A scorer that only looks whether the message repeats the query."""
    return -1.0 if query in text else -50.0


def test_identical_contexts_with_different_queries_say_nothing() -> None:
    rows = rows_of(QUERIES, [[f"you ask {query}"] for query in QUERIES])
    estimate = estimate_mi(fill(by_query, ["the same"] * 6, rows, reference_set="same"))
    assert estimate.mc_nats == pytest.approx(0, abs=1e-9)
    assert estimate.n_distinct_contexts == 1
    # The defect: column l scored with the query of context l.
    defect = np.array([[by_query("the same", query, row.text or "") for query in QUERIES] for row in rows])
    assert estimate_mi(defect).mc_nats == pytest.approx(math.log(6))


def test_a_noisy_scorer_never_exceeds_the_cap_because_the_positive_is_scored_once() -> None:
    rng = np.random.default_rng(0)
    asked: list[tuple[str, str]] = []

    def noisy(context: str, query: str, text: str) -> float:
        asked.append((context, text))
        return -abs(float(rng.normal(5 if context in text else 20, 5)))

    names = [f"name {i}." for i in range(12)]
    rows = rows_of("who?", [[f"it was {name}", f"surely {name}"] for name in names])
    estimate = estimate_mi(fill(noisy, names, rows, reference_set="names"))
    assert len(asked) == len(set(asked)) == 24 * 12
    assert (estimate.row_nats <= math.log(12)).all()
    assert (estimate.design, estimate.quantity) == ("shared", "I(X;Z|Q=q)")


def test_a_scorer_error_and_a_missing_message_are_failures_with_their_reason() -> None:
    def score(context: str, query: str, text: str) -> float:
        if (context, text) == ("c3", "t0"):
            raise ScorerError("server closed")
        return -1.0 if text[1:] == context[1:] else -5.0

    texts: list[list[str | None]] = [[f"t{i}"] for i in range(30)]
    texts[7], texts[9] = [None], [""]
    matrix = fill(score, [f"c{i}" for i in range(30)], rows_of("q", texts), reference_set="letters")
    estimate = estimate_mi(matrix)
    assert estimate.failures == {"compressor_error": 30, "server closed": 1}
    assert (estimate.n_rows_dropped, estimate.n_contexts_scored, estimate.N) == (2, 28, 30)
    assert estimate.n_empty == 1, "an empty message is no failure, and a missing one is not empty"


def test_a_bug_in_a_scorer_is_not_hidden_as_a_failure() -> None:
    def broken(context: str, query: str, text: str) -> float:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        fill(broken, ["a"], rows_of("q", [["a"]]), reference_set="r")


def test_the_score_without_context_fills_the_prior_or_fails_there_alone() -> None:
    def prior(query: str, text: str) -> float:
        if text == "b":
            raise ScorerError("no")
        return -7.0

    matrix = fill(
        lambda c, q, t: -1.0, ["a", "b"], rows_of("q", [["a"], ["b"]]), reference_set="r", prior=prior
    )
    assert matrix.prior is not None and matrix.prior.tolist()[0] == -7 and math.isnan(matrix.prior[1])
    assert not np.isnan(matrix.logp).any()


def test_only_candidates_are_scored() -> None:
    asked = []

    def score(context: str, query: str, text: str) -> float:
        asked.append(context)
        return -1.0

    contexts = [str(i) for i in range(10)]
    rows = rows_of("q", [[c] for c in contexts])
    candidates = draw_candidates([r.context for r in rows], 10, 4, np.random.default_rng(0))
    assert candidates.sum(axis=1).tolist() == [4] * 10 and np.diag(candidates).all()
    matrix = fill(score, contexts, rows, reference_set="r", candidates=candidates)
    assert len(asked) == 40
    estimate = estimate_mi(matrix)
    assert (estimate.n_failed, estimate.log_n) == (0, pytest.approx(math.log(4)))
    assert estimate.mc_nats == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match="every cell"):
        estimate_mi(matrix, method="jackknife")


def test_negatives_are_drawn_uniformly() -> None:
    drawn = draw_candidates(np.zeros(4000, dtype=int), 5, 3, np.random.default_rng(0)).mean(axis=0)
    assert drawn[0] == 1
    assert drawn[1:] == pytest.approx(0.5, abs=0.04)


def test_text_of_any_script_and_broken_surrogates_has_a_hash() -> None:
    texts = ["", "😀👩‍👩‍👧", "שלום", "\ud800"]
    matrix = fill(lambda c, q, t: -1.0, texts, rows_of("q", [[t] for t in texts]), reference_set="r")
    assert len(set(matrix.context_hashes or ())) == 4
    assert matrix.n_bytes is not None and matrix.n_bytes.tolist() == [0, 22, 8, 3]


def test_a_matrix_cannot_be_changed_and_does_not_see_later_changes() -> None:
    source = np.zeros((2, 2))
    matrix = ScoreMatrix.from_array(source)
    source[0, 0] = 9
    assert matrix.logp[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        matrix.logp[0, 0] = 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prior": np.zeros(3)}, "prior"),
        ({"n_tokens": np.zeros(3)}, "n_tokens"),
        ({"context_hashes": ("a",)}, "context_hashes: 1 given, 2 needed"),
        ({"reference_set": ""}, "reference_set"),
        ({"candidates": np.zeros((2, 3))}, "candidates has the shape"),
        ({"candidates": ~np.eye(2, dtype=bool)}, "own context must be among"),
        ({"row_context": [0, -1]}, "row 1 belongs to context -1"),
    ],
)
def test_a_matrix_that_does_not_fit_together_is_told(change: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        replace(ScoreMatrix.from_array(np.zeros((2, 2))), **change)  # type: ignore[arg-type]


def test_other_misuse_is_told() -> None:
    matrix = ScoreMatrix.from_array(np.zeros((2, 2)))
    with pytest.raises(UserError, match="leave rows out"):
        estimate_mi(matrix, rows=[0, 1])
    with pytest.raises(UserError, match="2 contexts need as many queries, not 1"):
        rows_of(["one"], [["a"], ["b"]])
    with pytest.raises(UserError, match="between 1 and 5, not 6"):
        draw_candidates([0], 5, 6, np.random.default_rng(0))
