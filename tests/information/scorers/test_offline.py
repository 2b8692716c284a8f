"""Critics without a model find their own context, and are never taken for likelihoods."""

from __future__ import annotations

import lzma
import math
import random
import zlib
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, UserError
from agentcomm.information import estimate_mi
from agentcomm.information.scorers import open_scorer
from agentcomm.information.scorers.offline import BM25, CRITICS, Codelength, NGram, words

FACTS = (
    "lives in",
    "works for",
    "was born in",
    "paid",
    "sold a house in",
    "met the mayor of",
    "wrote to",
    "left",
)
NAMES = (
    "Oslo",
    "Rome",
    "Lima",
    "Cairo",
    "Delhi",
    "Quito",
    "Paris",
    "Tokyo",
    "Berlin",
    "Madrid",
    "Dublin",
    "Vienna",
)


def documents(n: int, seed: int = 0) -> list[list[str]]:
    """n documents of eight sentences of the same form; what is planted differs."""
    rng = random.Random(seed)
    return [
        [f"The person {fact} {rng.choice(NAMES)} in {rng.randrange(1000, 2000)}." for fact in FACTS]
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_information_rises_with_the_facts_kept_and_saturates(name: str) -> None:
    made = open_scorer(f"offline/{name}")
    found = documents(24)
    contexts = [" ".join(document) for document in found]
    values = []
    for kept in (1, 3, 8):
        texts = [[" ".join(document[:kept])] for document in found]
        estimate = estimate_mi(made.score_matrix(contexts, "q", texts, reference_set="facts"))
        assert estimate.tempered_nats is not None and estimate.tempered_n is not None
        assert "untempered_critic" in estimate.warnings
        assert estimate.upper_label == "diagnostic"
        values.append(estimate.tempered_nats)
    assert values[0] <= values[1] + 0.05
    assert values[2] >= 0.95 * math.log(estimate.tempered_n)
    assert values[0] < values[2] + 1e-9


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_mismatched_summaries_say_about_nothing_once_tempered(name: str) -> None:
    made = open_scorer(f"offline/{name}")
    found = documents(40)
    contexts = [" ".join(document) for document in found]
    others = documents(40, seed=1)
    texts = [[" ".join(document[:3])] for document in others]
    estimate = estimate_mi(made.score_matrix(contexts, "q", texts))
    assert estimate.tempered_nats is not None
    assert -0.6 < estimate.tempered_nats < 0.1, "a bound of nothing may be below it"
    assert (estimate.mc_nats or 0) < estimate.tempered_nats


def test_codelength_is_what_the_text_adds_to_the_compressed_context() -> None:
    made = Codelength()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    x = packer.compress(b"one two three") + packer.flush()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    both = packer.compress(b"one two threetwo") + packer.flush()
    assert made.score("one two three", "q", "two").sum_logprob == pytest.approx(
        -8 * math.log(2) * (len(both) - len(x))
    )
    assert made.score("x", "q", "").sum_logprob == 0
    assert made.score("", "q", "abc").sum_logprob < 0


def test_beyond_zlibs_window_lzma_is_used_for_the_whole_matrix() -> None:
    rng = random.Random(0)
    early = "".join(rng.choice("abcdefghij ") for _ in range(200))
    long = early + "".join(rng.choice("klmnopqrst ") for _ in range(60_000))
    made = Codelength()
    matrix = made.score_matrix(["short text", long], "q", [["short"], [early]])
    assert matrix.scorer_id == "offline/codelength:lzma"
    # Only a compressor that looks back 60,000 bytes finds it there.
    assert matrix.logp[1, 1] > matrix.logp[1, 0] / 4
    short = Codelength().score_matrix(["short text", "b"], "q", [["short"], ["b"]])
    assert short.scorer_id == "offline/codelength:zlib"
    assert lzma.FORMAT_RAW


def test_the_byte_model_is_a_probability_over_the_next_byte() -> None:
    made = NGram(background="a background of some text")
    total = sum(math.exp(made.value("the context here", "the " + chr(b)) - made.value("the context here", "the "))
                for b in range(128))  # fmt: skip
    assert total < 1 + 1e-9
    assert total == pytest.approx(1, abs=0.2), "half of the bytes are no ASCII and have little"
    own, other = made.value("zebra crossing", "zebra"), made.value("nothing of it", "zebra")
    assert own > other


def test_relevance_has_no_likelihoods() -> None:
    matrix = BM25().score_matrix(["the cat sat", "a dog ran"], "q", [["cat"], ["dog"]])
    estimate = estimate_mi(matrix)
    assert (estimate.loo_nats, estimate.doe_nats) == (None, None)
    with pytest.raises(UserError, match="can't score without a context"):
        BM25().score_matrix(["a"], "q", [["b"]], prior=True)
    assert matrix.logp[0, 0] > matrix.logp[0, 1] == 0
    twice = BM25().score("the cat sat", "q", "cat cat").sum_logprob
    assert twice == pytest.approx(2 * matrix.logp[0, 0]), "repeated words count every time"


def test_rare_words_count_more_than_common_ones_by_the_background() -> None:
    made = BM25()
    assert made.score("the zebra", "q", "zebra").sum_logprob > made.score("the zebra", "q", "the").sum_logprob


@pytest.mark.parametrize("name", sorted(CRITICS))
@pytest.mark.parametrize(
    "text", ["東京に住む", "Она живёт", "👩‍👩‍👧 ok", "\ud800 half", "\x00", " ", "مرحبا"]
)
def test_any_script_is_scored(name: str, text: str) -> None:
    made = open_scorer(f"offline/{name}")
    matrix = made.score_matrix([text, "something else"], "q", [[text], ["x"]])
    assert np.isfinite(matrix.logp).all()
    assert not matrix.reasons


def test_words_of_scripts_without_spaces_are_single_characters() -> None:
    assert words("東京 Ünïted, x9") == ["東", "京", "ünïted", "x9"]


def test_the_background_is_named_and_can_be_ones_own() -> None:
    assert NGram(background="mine").id != NGram(background="yours").id
    with pytest.raises(ConfigError, match="weight"):
        NGram(weight=1.0)
    with pytest.raises(ConfigError, match="there are: codelength, ngram, bm25"):
        open_scorer("offline/gzip")


def test_critics_say_what_they_are() -> None:
    for name, critic in CRITICS.items():
        made: Any = critic()
        can = made.capabilities()
        assert (can.prompt_logprobs, can.exact_for) == (False, None)
        matrix = made.score_matrix(["a", "b"], "q", [["a"], ["b"]])
        assert matrix.offline and matrix.n_tokens is None
        assert matrix.scorer_id.startswith(f"offline/{name}:")
        with pytest.raises(UserError, match="exact=True"):
            made.score_matrix(["a"], "q", [["a"]], exact=True)
