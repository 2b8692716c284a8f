"""Embeddings from a server: what is asked, and that nothing but good vectors comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agentcomm.backends.openai_embeddings import OpenAIEmbeddings
from agentcomm.errors import BackendError
from tests.servers import CountingServer, body, broken_json, cut, embeddings, hang, status

SECRET = "sk-secret-0123456789abcdef"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with CountingServer(api_key=SECRET) as running:
        yield running


@pytest.fixture
def asking(server: CountingServer) -> Iterator[OpenAIEmbeddings]:
    client = OpenAIEmbeddings("test-model", base_url=server.url, timeout_s=2.0)
    yield client
    client.close()


def test_vectors_come_in_the_order_of_the_texts_with_the_tokens_they_took(
    server: CountingServer, asking: OpenAIEmbeddings
) -> None:
    vectors, tokens = asking.embed(["one", "one two"])
    assert vectors.tolist() == [[3.0, 1.0, 1.0], [7.0, 2.0, 1.0]]
    assert (tokens, asking.name) == (3, "openai/test-model")
    (served,) = server.served
    assert served.request == {
        "model": "test-model",
        "input": ["one", "one two"],
        "encoding_format": "float",
    }


def reply(**changes: Any) -> bytes:
    made = embeddings(["one", "two"])
    made["data"][0].update(changes)
    return json.dumps(made).encode()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (json.dumps(embeddings(["one"])).encode(), "has 1 embeddings, of 2 texts"),
        (json.dumps(embeddings(["one"] * 3)).encode(), "has 3 embeddings, of 2 texts"),
        (reply(index=0), "has 2 embeddings, of 2 texts"),  # the same place twice
        (reply(embedding=[1.0, 2.0]), "lengths [2, 3]"),
        (reply(embedding=[]), "lengths [0, 3]"),
        (reply(embedding="AACAPwAAAEA="), "lengths [0, 3]"),
        (reply(embedding=[1.0, "x", 2.0]), "something else than numbers"),
        (reply(embedding=[1.0, None, 2.0]), "NaN"),
        (reply(embedding=[float("nan"), 1.0, 2.0]), "NaN"),
        (reply(embedding=[float("inf"), 1.0, 2.0]), "infinite"),
        (reply(embedding=[0.0, 0.0, 0.0]), "all zeros"),
        (b'{"data": {"a": 1}}', "is no list of embeddings"),
        (b'{"object": "list"}', "is no list of embeddings"),
        (b"[1]", "is no list of embeddings"),
    ],
)
def test_what_is_no_embedding_of_these_texts_is_an_error_that_may_be_tried_again(
    server: CountingServer, asking: OpenAIEmbeddings, sent: bytes, said: str
) -> None:
    server.script(body(sent))
    with pytest.raises(BackendError) as caught:
        asking.embed(["one", "two"])
    assert said in str(caught.value)
    assert (caught.value.kind, caught.value.retryable) == ("broken_reply", True)
    assert server.url in str(caught.value)
    assert asking.embed(["one", "two"]).vectors.shape == (2, 3)


@pytest.mark.parametrize(
    ("fault", "kind", "retryable"),
    [
        (status(429, retry_after="1"), "rate_limit", True),
        (status(500), "server", True),
        (status(400), "refused", False),
        (status(404), "refused", False),
        (broken_json(), "broken_reply", True),
        (cut(), "cut", True),
        (hang(), "timeout", True),
    ],
)
def test_failures_are_those_of_chats(server: CountingServer, fault: Any, kind: str, retryable: bool) -> None:
    asking = OpenAIEmbeddings("test-model", base_url=server.url, timeout_s=0.5)
    server.script(fault)
    with pytest.raises(BackendError) as caught:
        asking.embed(["one"])
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
    asking.close()


def test_a_refused_key_is_said_and_never_shown(server: CountingServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789")
    asking = OpenAIEmbeddings("test-model", base_url=server.url)
    with pytest.raises(BackendError, match="refused the key in OPENAI_API_KEY") as caught:
        asking.embed(["one"])
    assert "sk-wrong" not in str(caught.value)
    asking.close()


def test_a_reply_without_usage_leaves_the_tokens_unknown(
    server: CountingServer, asking: OpenAIEmbeddings
) -> None:
    made = embeddings(["one"])
    del made["usage"]
    server.script(body(json.dumps(made).encode()))
    vectors, tokens = asking.embed(["one"])
    assert tokens is None and np.isfinite(vectors).all()
