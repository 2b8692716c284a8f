"""What all scorers share: the row's query in every column, failures as NaN, cells kept, costs said."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, ScorerError, UserError
from agentcomm.information import estimate_mi, fill, rows_of
from agentcomm.information.scorers import Ask, Capabilities, CellStore, Scored, Scorer
from agentcomm.information.scorers.offline import Codelength, NGram
from agentcomm.information.scorers.store import cell_key


class Counting(Scorer):
    """Probability by common letters, noise on top; remembers what it was asked."""

    def __init__(self, *, noise: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[tuple[str | None, str, str]] = []
        self.rng = np.random.default_rng(0)
        self.noise = noise
        self.fails: dict[tuple[str | None, str], float | str] = {}

    id = "counting"
    prompt_id = "none"

    def capabilities(self) -> Capabilities:
        return Capabilities(True, False, True, True, True, None)

    def column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        for i, (query, text) in enumerate(asks):
            if i in known:
                continue
            self.asked.append((context, query, text))
            bad = self.fails.get((context, text))
            if isinstance(bad, str):
                raise ScorerError(bad)
            value = -float(len(set(text) - set(context or ""))) - 0.1 * len(query)
            value -= abs(float(self.rng.normal(0, self.noise))) if self.noise else 0.0
            yield [(i, Scored(value if bad is None else bad, len(text), len(text.encode())))]


CONTEXTS = [f"{a}{b}{c}" for a, b, c in zip("abcdefgh", "ijklmnop", "qrstuvwx", strict=True)]
TEXTS = [[context[:2], context[1:]] for context in CONTEXTS]


def test_a_matrix_equals_that_of_one_cell_at_a_time() -> None:
    made = Counting()
    queries = [f"q{'?' * i}" for i in range(8)]
    matrix = made.score_matrix(CONTEXTS, queries, TEXTS)
    one = Counting()
    expected = fill(
        lambda c, q, t: one.score(c, q, t).sum_logprob, CONTEXTS, rows_of(queries, TEXTS), reference_set="r"
    )
    assert (matrix.logp == expected.logp).all()
    assert matrix.query_hashes == expected.query_hashes
    assert matrix.context_hashes == expected.context_hashes
    assert matrix.text_hashes == expected.text_hashes
    assert {(q, t) for _, q, t in made.asked} == {(r.query, r.text) for r in rows_of(queries, TEXTS)}


def test_a_noisy_scorer_is_asked_once_a_cell_so_no_row_exceeds_the_cap() -> None:
    made = Counting(noise=3.0)
    estimate = estimate_mi(made.score_matrix(CONTEXTS, "q", TEXTS))
    assert len(made.asked) == len(set(made.asked)) == 8 * 16
    assert (estimate.row_nats <= math.log(8) + 1e-12).all()


def test_a_failure_is_nan_with_its_reason_and_no_zero() -> None:
    made = Counting()
    made.fails = {
        ("aiq", "bj"): math.nan,
        ("aiq", "ck"): math.inf,
        ("bjr", "ck"): -math.inf,
        ("cks", "dl"): "gone",
    }
    matrix = made.score_matrix(CONTEXTS, "q", TEXTS)
    assert matrix.reasons[2, 0] == "the score is nan"
    assert matrix.reasons[4, 0] == "the score is inf"
    assert matrix.logp[4, 1] == -math.inf, "impossible under another context is legal"
    # The engine broke off in the third column at this text: it and those after it failed.
    broken = [r for (r, c) in matrix.reasons if c == 2]
    assert broken == list(range(6, 16))
    assert np.isnan(matrix.logp).sum() == len(matrix.reasons) == 12
    assert not (matrix.logp == 0).any()


def test_one_failed_cell_is_the_result_without_its_row() -> None:
    made = Counting()
    whole = made.score_matrix(CONTEXTS * 2, "q", TEXTS * 2)
    made.fails = {("aiq", "bj"): math.nan}
    part = estimate_mi(made.score_matrix(CONTEXTS * 2, "q", TEXTS * 2))
    # Contexts are given twice, so the text stands in two rows, and each is NaN in two columns.
    keep = [r for r in range(32) if r not in (2, 18)]
    without = estimate_mi(whole.logp[keep], rows=whole.row_context[keep])
    assert part.mc_nats == pytest.approx(without.mc_nats, abs=1e-12)
    assert (part.n_failed, part.n_rows_dropped) == (4, 2)


def test_all_cells_failed_is_no_estimate_and_no_crash() -> None:
    made = Counting()
    made.fails = {(context, TEXTS[0][0]): "down" for context in CONTEXTS}
    estimate = estimate_mi(made.score_matrix(CONTEXTS, "q", TEXTS))
    assert estimate.status == "too_many_failures"
    assert estimate.mc_nats is None
    assert estimate.failures == {"down": 128}


def test_empty_and_missing_messages_are_not_sent_anywhere() -> None:
    made = Counting()
    matrix = made.score_matrix(["a", "b"], "q", [["", None], ["b"]], prior=True)
    assert {text for _, _, text in made.asked} == {"b"}
    assert matrix.logp[0].tolist() == [0, 0]
    assert np.isnan(matrix.logp[1]).all()
    assert matrix.prior is not None
    assert matrix.prior[0] == 0
    assert math.isnan(matrix.prior[1])
    assert estimate_mi(matrix).n_empty == 1


def test_identical_messages_carry_nothing_about_different_contexts() -> None:
    estimate = estimate_mi(Counting().score_matrix(["ab", "ab", "ab"], "q", [["ab"]] * 3))
    assert estimate.mc_nats == pytest.approx(0, abs=1e-12)
    assert estimate.n_distinct_contexts == 1


@pytest.mark.parametrize(
    ("contexts", "texts", "complaint"),
    [
        ([], [], "no contexts"),
        (["a"], [[]], "no messages"),
        (["a"], [["x"], ["y"]], "1 contexts need messages"),
        ([None], [["x"]], "context 0"),
        (["a"], [[3]], "row 0"),
    ],
)
def test_what_does_not_fit_is_named(contexts: Any, texts: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Counting().score_matrix(contexts, "q", texts)


def test_estimates_over_other_contexts_cannot_be_compared() -> None:
    from agentcomm.information import compare_mi

    a = Counting().score_matrix(CONTEXTS, "q", TEXTS)
    same = Counting().score_matrix(CONTEXTS, "q", [[t[0]] for t in TEXTS])
    other = Counting().score_matrix([c.upper() for c in CONTEXTS], "q", TEXTS)
    assert a.reference_set == same.reference_set
    compare_mi(a, same)
    with pytest.raises(UserError):
        compare_mi(a, other)


def test_stored_cells_are_not_scored_again_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "cells.sqlite"
    first = Counting(noise=1.0, cells=path)
    a = first.score_matrix(CONTEXTS, "q", TEXTS, prior=True)
    again = Counting(noise=1.0, cells=path)
    b = again.score_matrix(CONTEXTS, "q", TEXTS, prior=True)
    assert again.asked == []
    assert (a.logp == b.logp).all()
    assert a.prior is not None
    assert (a.prior == b.prior).all()
    assert (a.n_tokens == b.n_tokens).all()
    more = Counting(cells=path)
    more.score_matrix([*CONTEXTS, "new"], "q", [*TEXTS, ["n"]])
    assert len(more.asked) == 17 + 8
    elsewhere = Counting(cells=path, include_eos=True)
    elsewhere.score_matrix(CONTEXTS, "q", TEXTS)
    assert len(elsewhere.asked) == 128


def test_an_engine_that_breaks_leaves_what_it_scored(tmp_path: Path) -> None:
    class Breaks(Counting):
        def column(self, *words: Any) -> Iterator[list[tuple[int, Scored]]]:
            for batch in super().column(*words):
                if len(self.asked) == 100:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        Breaks(cells=tmp_path / "c.sqlite").score_matrix(CONTEXTS, "q", TEXTS)
    rest = Counting(cells=tmp_path / "c.sqlite")
    rest.score_matrix(CONTEXTS, "q", TEXTS)
    assert len(rest.asked) == 128 - 99


_KILLED = """
import sys, time
from agentcomm.information.scorers.offline import NGram

class Slow(NGram):
    def value(self, context, text):
        time.sleep(0.005)
        return super().value(context, text)

contexts = [f"{i} is the number of {word}s and {word * 2}" for i in range(16) for word in ("cat", "dog")]
texts = [[c[:12], c[5:]] for c in contexts]
Slow(cells=sys.argv[1], background="the cat and the dog " * 50).score_matrix(contexts, "q", texts)
print("whole", flush=True)
"""


def test_after_a_kill_the_matrix_resumes_and_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "cells.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, env=os.environ, text=True
    )
    end = time.monotonic() + 120
    try:
        while not _rows(path) >= 100:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
    assert "whole" not in out
    contexts = [f"{i} is the number of {word}s and {word * 2}" for i in range(16) for word in ("cat", "dog")]
    texts = [[c[:12], c[5:]] for c in contexts]
    kept = _rows(path)
    assert 100 <= kept < 32 * 64

    class Counted(NGram):
        n = 0

        def value(self, context: str, text: str) -> float:
            self.n += 1
            return super().value(context, text)

    background = "the cat and the dog " * 50
    resumed = Counted(cells=path, background=background)
    a = resumed.score_matrix(contexts, "q", texts)
    fresh = Counted(background=background)
    b = fresh.score_matrix(contexts, "q", texts)
    assert fresh.n - resumed.n == kept
    assert (a.logp == b.logp).all()


def _rows(path: Path) -> int:
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5) as db:
            found: int = db.execute("SELECT count(*) FROM cells").fetchone()[0]
        db.close()
    except sqlite3.OperationalError:
        return 0
    return found


def test_a_key_changes_with_everything_that_determines_a_cell() -> None:
    base = {
        "scorer": "s",
        "prompt": "p",
        "include_eos": False,
        "context_hash": "c",
        "query_hash": "q",
        "text_hash": "t",
    }
    keys = {cell_key(**base)}  # type: ignore[arg-type]
    for name in base:
        keys.add(cell_key(**{**base, name: not base[name] if name == "include_eos" else "x"}))  # type: ignore[arg-type]
    assert len(keys) == 7
    expected = json.dumps({"scorer": "s", "prompt": "p", "include_eos": False, "context": "c", "query": "q", "text": "t"},
                          sort_keys=True, separators=(",", ":"))  # fmt: skip
    import hashlib

    assert cell_key(**base) == hashlib.sha256(expected.encode()).hexdigest()  # type: ignore[arg-type]


def test_a_success_replaces_a_failure_and_no_failure_a_success() -> None:
    with CellStore() as cells:
        good, bad = Scored(-1.0, 2, 3), Scored.failed("abc", "down")
        cells.put([("a", bad), ("b", good)], "s")
        assert list(cells.find(["a", "b"])) == ["b"]
        cells.put([("a", good), ("b", bad)], "s")
        assert cells.find(["a", "b"]) == {"a": good, "b": good}
        assert cells.failures() == {}


def test_many_keys_are_found_at_once() -> None:
    with CellStore() as cells:
        cells.put([(f"k{i}", Scored(-float(i), i, i)) for i in range(2_000)], "s")
        found = cells.find([f"k{i}" for i in range(3_000)])
        assert len(found) == 2_000
        assert found["k1999"].sum_logprob == -1999


def test_impossible_is_kept_as_impossible(tmp_path: Path) -> None:
    with CellStore(tmp_path / "c.sqlite") as cells:
        cells.put([("a", Scored(-math.inf, 1, 1)), ("b", Scored(-0.1 - 0.2, 1, 1))], "s")
    with CellStore(tmp_path / "c.sqlite") as cells:
        assert cells.find(["a"])["a"].sum_logprob == -math.inf
        assert cells.find(["b"])["b"].sum_logprob == -0.1 - 0.2


def test_somebody_elses_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(ConfigError, match="not a file of scored cells"):
        CellStore(other)
    assert other.read_bytes() == before
    (tmp_path / "text").write_text("no database at all, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="can't be kept"):
        CellStore(tmp_path / "text")
    with pytest.raises(ConfigError, match="can't be kept"):
        CellStore(tmp_path / "text" / "below.sqlite")
    newer = tmp_path / "newer.sqlite"
    CellStore(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer agentcomm"):
        CellStore(newer)


def test_a_store_that_breaks_says_so(tmp_path: Path) -> None:
    cells = CellStore(tmp_path / "c.sqlite")
    cells.close()
    with pytest.raises(ScorerError, match="can't be"):
        cells.find(["a"])
    with pytest.raises(ScorerError, match="can't be kept"):
        cells.put([("a", Scored(-1.0, 1, 1))], "s")


def test_what_is_spent_is_said_before() -> None:
    heard: list[str] = []
    Codelength(note=heard.append).score_matrix(["a", "b"], "q", [["x"], ["y"]])
    assert heard[0] == "4 cells"
    assert heard[-1] == "4 of 4 cells, context 2 of 2"
