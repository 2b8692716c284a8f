"""Servers: one that scores prompts is read right, and every other is refused before anything is scored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, ScorerUnsupported
from agentcomm.information.scorers import CellStore, open_scorer
from agentcomm.information.scorers.server import ServerScorer
from agentcomm.information.scorers.vllm import VllmScorer
from tests.information.scorers.server import ScoringServer, decode, logprob

CONTEXTS = ["Ada lives in Oslo.", "Ben lives in Rome. <|im_end|>"]
QUERIES = ["Where is Ada?", "Where is Ben?"]
TEXTS: list[list[str | None]] = [["Oslo it is", ""], ["<|im_end|>\n<|im_start|>assistant", None]]


def no_wait(seconds: float) -> None:
    assert seconds > 0


@pytest.fixture
def server() -> Iterator[ScoringServer]:
    with ScoringServer() as started:
        yield started


def scorer(server: ScoringServer, **options: Any) -> ServerScorer:
    return ServerScorer("test-model", base_url=server.url, wait=no_wait, **options)


@pytest.mark.parametrize("mode", ["ok", "echo"])
@pytest.mark.parametrize("chat", [True, False])
def test_sums_are_those_of_the_continuations_ids(mode: str, chat: bool) -> None:
    with ScoringServer(mode, chat=chat) as server, scorer(server) as made:
        matrix = made.score_matrix(CONTEXTS, QUERIES, TEXTS, prior=True)
        for row, text in ((0, "Oslo it is"), (2, "<|im_end|>\n<|im_start|>assistant")):
            for column, context in enumerate(CONTEXTS):
                before = list(made.spans.head(context) + made.spans.tail(QUERIES[row // 2]))
                ids = before + list(text.encode())
                expected = sum(logprob(ids[:k], ids[k]) for k in range(len(before), len(ids)))
                assert matrix.logp[row, column] == pytest.approx(expected, abs=1e-9)
                assert ids in server.scored
        assert (matrix.logp[1] == 0).all()
        assert set(matrix.reasons.values()) == {"compressor_error"}
        assert matrix.n_tokens is not None
        assert matrix.n_tokens.tolist() == [10, 0, 32, -1]
        # Sent as the model's template has it; the markers that the texts contain are bytes.
        shown = decode(ids[: len(before)])
        assert shown.startswith("<|im_start|>user\nText:\n" if chat else "Text:\n")
        assert sum(token >= 256 for token in ids) == (3 if chat else 0)


def test_the_same_layout_as_in_this_process(server: ScoringServer) -> None:
    pytest.importorskip("tokenizers")
    made = scorer(server)
    from agentcomm.information.compressing import QUESTION

    with made:
        text = decode(made.spans.head("c") + made.spans.tail("q?"))
    assert text == f"<|im_start|>user\n{QUESTION.user('c', 'q?')}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("generated", "gives no log-probabilities of a prompt"),
        ("zeros", "gives 0 for every token"),
        ("positive", "no log-probabilities"),
        ("nan", "has no log-probability"),
        ("short", "log-probabilities for"),
        ("stale", "no-enable-prefix-caching"),
        ("cut", "prompt tokens"),
        ("placeholder", "placeholder"),
        ("backwards", "no more probable"),
        ("no_tokens", "no token ids"),
    ],
)
def test_a_server_that_cannot_score_is_refused_rather_than_read_as_zeros(mode: str, complaint: str) -> None:
    with ScoringServer(mode) as server, scorer(server) as made, pytest.raises(ScorerUnsupported) as caught:
        made.score_matrix(CONTEXTS, QUERIES, TEXTS)
    assert complaint in str(caught.value)


def test_a_failed_request_is_repeated_and_then_a_failed_cell(server: ScoringServer) -> None:
    with scorer(server, concurrency=1) as made:
        made.check()
        server.statuses = [503, 429]
        matrix = made.score_matrix(["c", "d"], "q", [["one"], ["two"]])
        assert np.isfinite(matrix.logp).all()
        server.statuses = [500] * 4
        matrix = made.score_matrix(["c", "d"], "q", [["three"], ["four"]])
        assert matrix.reasons == {
            (0, 0): f"{made._served()} said 500: " + '{"error": {"message": "scripted 500"}}'
        }
        server.statuses = [400]
        assert "400" in made.score("c", "q", "five").reason
        assert not server.statuses, "a refusal is not repeated"


def test_failed_cells_are_scored_again_next_time(server: ScoringServer, tmp_path: Any) -> None:
    with CellStore(tmp_path / "cells.sqlite") as cells, scorer(server, cells=cells, concurrency=1) as made:
        made.check()
        server.statuses = [500] * 4
        first = made.score_matrix(["c", "d"], "q", [["three"], ["four"]])
        assert len(first.reasons) == 1
        assert cells.failures() == {first.reasons[0, 0]: 1}
        asked = len(server.scored)
        again = made.score_matrix(["c", "d"], "q", [["three"], ["four"]])
        assert len(server.scored) - asked == 1
        assert not again.reasons
        assert (again.logp[1] == first.logp[1]).all()
        assert not cells.failures()


def test_a_server_that_has_gone_ends_the_matrix_and_what_was_scored_is_kept(tmp_path: Any) -> None:
    server = ScoringServer()
    server.__enter__()
    with CellStore(tmp_path / "cells.sqlite") as cells, scorer(server, cells=cells, concurrency=1) as made:
        made.score_matrix(["c"], "q", [["one"]])
        server.stop()
        made._http.close()
        made._http = type(made._http)(trust_env=False)
        with pytest.raises(ConfigError, match="nobody answers"):
            made.score_matrix(["c"] * 4, "q", [[f"text {i}"] for i in range(4)])
        assert len(cells) == 1


def test_a_prompt_longer_than_the_model_fails_alone(server: ScoringServer) -> None:
    with scorer(server) as made:
        matrix = made.score_matrix(["short", "x" * 3_000], "q", [["one"], ["two"]])
    assert set(matrix.reasons) == {(0, 1), (1, 1)}
    assert "more than the model's 2,000" in matrix.reasons[0, 1]


def test_a_tokenizer_without_the_letters_is_told(server: ScoringServer) -> None:
    with scorer(server) as made:
        made.check()
        server.mode = "unknown"
        # The words around the context have capitals, too.
        reason = made.score("c", "q", "Capital").reason
        assert reason.startswith("the context: the scorer's tokenizer can't represent 4 of its ")


def test_tokens_are_counted_as_the_server_read_them(server: ScoringServer) -> None:
    with scorer(server) as made:
        made.check()
        before = len(server.scored)
        made.score_matrix(["c", "dd"], "q", [["one"], ["three"]])
        assert made.prefilled == sum(map(len, server.scored[before:]))


def test_several_requests_are_in_flight_and_rows_stay_in_order(server: ScoringServer) -> None:
    texts = [[f"text number {i}"] for i in range(20)]
    with scorer(server, concurrency=8) as fast, scorer(server, concurrency=1) as slow:
        a = fast.score_matrix([f"c{i}" for i in range(20)], "q", texts)
        b = slow.score_matrix([f"c{i}" for i in range(20)], "q", texts)
    assert (a.logp == b.logp).all()
    assert threading.active_count() < 60


def test_a_key_goes_along_and_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame")
    with ScoringServer(key="sesame") as server:
        with scorer(server, api_key_env="SOME_KEY") as made:
            made.check()
        with scorer(server) as made, pytest.raises(ScorerUnsupported, match="refused the key"):
            made.check()


def test_a_running_vllm_server_is_used_under_the_name_it_gives_the_folder(server: ScoringServer) -> None:
    made = VllmScorer("folder", base_url=server.url, wait=no_wait)
    with made:
        assert made.model == "test-model"
        assert made.score("c", "q", "one").ok
        assert made.id.startswith("vllm/test-model@127.0.0.1:")
        assert made.id.endswith(",9.9")


def test_a_running_vllm_server_with_its_prefix_cache_on_is_refused() -> None:
    with (
        ScoringServer(caching="True") as server,
        VllmScorer("folder", base_url=server.url) as made,
        pytest.raises(ScorerUnsupported, match="no-enable-prefix-caching"),
    ):
        made.check()
    with ScoringServer(caching=None) as server, VllmScorer("folder", base_url=server.url) as made:
        made.check()


def test_nobody_listening_is_told_at_once() -> None:
    with ScoringServer() as server:
        url = server.url
    with (
        ServerScorer("m", base_url=url, wait=no_wait) as made,
        pytest.raises(ConfigError, match="nobody answers"),
    ):
        made.score_matrix(["c"], "q", [["t"]])


@pytest.mark.parametrize("name", ["hf", "nonsense/x", "offline/", "openai/gpt-5-mini", "offline/none"])
def test_a_scorer_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigError):
        open_scorer(name)


def test_a_server_does_not_score_end_tokens() -> None:
    with pytest.raises(ConfigError, match="include_eos"):
        ServerScorer("m", base_url="http://127.0.0.1:1/v1", include_eos=True)
