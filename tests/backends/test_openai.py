"""The OpenAI backend against a real, faulty server on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import openai
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.openai import OpenAI, read_retry_after, read_usage
from agentcomm.errors import AgentCommError, BackendError, ConfigError
from agentcomm.message import ChatMessage, Usage
from tests import servers
from tests.servers import CountingServer

pytestmark = pytest.mark.anyio

KEY = "sk-test-9f8e7d6c5b4a-very-secret"


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def request(text: str = "How much is 2 + 2?", **fields: Any) -> ChatRequest:
    return ChatRequest("openai/test-model", (ChatMessage("user", text),), **fields)


async def ask(server: CountingServer, sent: ChatRequest | None = None, **options: Any) -> Any:
    backend = OpenAI("test-model", base_url=server.url, **options)
    try:
        return await backend.chat(sent or request())
    finally:
        await backend.aclose()


async def failure(server: CountingServer, **options: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await ask(server, **options)
    return caught.value


async def test_a_reply_has_the_text_and_the_usage_that_the_server_reported(server: CountingServer) -> None:
    reply = await ask(server)
    assert reply.text == "You said: How much is 2 + 2?"
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == server.tokens[1:]
    assert reply.usage.cached_tokens is None
    assert reply.finish_reason == "stop"
    assert reply.model == "test-model"
    assert reply.latency_s > 0
    assert not reply.cache_hit


async def test_every_sampling_option_reaches_the_server(server: CountingServer) -> None:
    schema = {"title": "an answer", "type": "object", "properties": {"a": {"type": "integer"}}}
    await ask(
        server,
        request(temperature=0.7, top_p=0.9, max_tokens=5, stop=("\n",), seed=42, schema=schema),
    )
    sent = server.served[0].request
    assert sent["model"] == "test-model"
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.7, 0.9, 5)
    assert (sent["stop"], sent["seed"]) == (["\n"], 42)
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "an_answer", "schema": schema},
    }


async def test_what_is_not_asked_for_is_not_sent(server: CountingServer) -> None:
    await ask(server)
    assert set(server.served[0].request) == {"model", "messages", "temperature"}


async def test_openai_itself_gets_the_newer_name_of_max_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = OpenAI("gpt-5-mini")._body(request(max_tokens=7))
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "status", "fatal"),
    [
        (servers.status(429), "rate_limit", True, 429, False),
        (servers.status(500), "server", True, 500, False),
        (servers.status(503, body=b"<html><h1>Bad day</h1></html>"), "server", True, 503, False),
        (servers.status(408), "server", True, 408, False),
        (servers.status(409), "server", True, 409, False),
        (servers.status(400), "refused", False, 400, False),
        (servers.status(422, body={"detail": [{"msg": "no"}]}), "refused", False, 422, False),
        (servers.status(401), "refused", False, 401, True),
        (servers.status(401, body={"error": "Unauthorized"}), "refused", False, 401, True),
        (servers.status(403), "refused", False, 403, True),
        (servers.status(402), "refused", False, 402, True),
        (servers.status(404), "refused", False, 404, True),
        (servers.status(413), "too_long", False, 413, False),
        (
            servers.status(429, body={"error": {"message": "pay", "code": "insufficient_quota"}}),
            "refused",
            False,
            429,
            True,
        ),
        (
            servers.status(400, body={"error": {"message": "temperature?", "code": "unsupported_value"}}),
            "refused",
            False,
            400,
            True,
        ),
        (servers.cut(), "cut", True, None, False),
        (servers.cut(0), "cut", True, None, False),
        (servers.broken_json(), "broken_reply", True, 200, False),
        (servers.not_utf8(), "broken_reply", True, 200, False),
        (servers.no_choices(), "broken_reply", True, 200, False),
        (servers.body(b""), "broken_reply", True, 200, False),
        (servers.body(b"[1, 2]"), "broken_reply", True, 200, False),
        (servers.body(b"[" * 100_000), "broken_reply", True, 200, False),
        (servers.body(b'{"error": {"message": "upstream died"}}'), "broken_reply", True, 200, False),
        (servers.body(b'{"choices": [null]}'), "broken_reply", True, 200, False),
        (servers.body(b"<html>", content_type="text/html"), "broken_reply", True, 200, False),
    ],
)
async def test_each_fault_of_a_server_becomes_the_right_error_after_one_attempt(
    server: CountingServer, fault: servers.Fault, kind: str, retryable: bool, status: int | None, fatal: bool
) -> None:
    server.script(fault)
    error = await failure(server)
    assert (error.kind, error.retryable, error.status, error.fatal) == (kind, retryable, status, fatal)
    assert len(server.served) == 1
    assert "\n" not in str(error)


@pytest.mark.parametrize("fault", [servers.hang(), servers.drip()])
async def test_a_server_that_hangs_or_drips_is_a_timeout(
    server: CountingServer, fault: servers.Fault
) -> None:
    server.script(fault)
    error = await failure(server, timeout_s=0.3)
    assert (error.kind, error.retryable, error.fatal) == ("timeout", True, False)
    assert "0.3 s" in str(error)


async def test_nobody_listening_is_unreachable_and_says_where() -> None:
    with CountingServer() as gone:
        pass
    error = await failure(gone)
    assert (error.kind, error.retryable) == ("unreachable", True)
    assert gone.url in str(error)
    assert "--base-url" in str(error)


async def test_retry_after_is_read_in_seconds_milliseconds_and_as_a_date(server: CountingServer) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.script(
        servers.status(429, retry_after="7"),
        servers.status(503, headers={"retry-after-ms": "250"}),
        servers.status(429, retry_after=soon),
        servers.status(429, retry_after="whenever"),
    )
    waits = [(await failure(server)).retry_after for _ in range(4)]
    assert waits[:2] == [7.0, 0.25]
    assert waits[2] is not None
    assert 60 < waits[2] <= 90
    assert waits[3] is None


@pytest.mark.parametrize("value", ["nan", "inf", "", "1e999", "Mon, 99 Foo 2020"])
def test_a_retry_after_that_makes_no_sense_is_unknown(value: str) -> None:
    assert read_retry_after({"retry-after": value}) is None


def test_a_retry_after_in_the_past_means_now() -> None:
    past = format_datetime(datetime.fromtimestamp(time.time() - 100, UTC), usegmt=True)
    assert read_retry_after({"retry-after": past}) == 0.0
    assert read_retry_after({"retry-after": "-5"}) == 0.0


@pytest.mark.parametrize(
    "error",
    [
        {"code": 400, "type": "exceed_context_size_error", "message": "request (3031 tokens) exceeds"},
        {"message": "This model's maximum context length is 4096 tokens. However, you", "code": 400},
        {"message": "too much", "code": "context_length_exceeded"},
    ],
)
async def test_an_over_long_prompt_is_recognised(server: CountingServer, error: dict[str, Any]) -> None:
    server.script(servers.status(400, body={"error": error}))
    assert (await failure(server)).kind == "too_long"


@pytest.mark.parametrize(
    ("fault", "text", "finish"),
    [
        (servers.answer(None), "", "stop"),
        (servers.answer(""), "", "stop"),
        (servers.answer(None, refusal="I won't."), "I won't.", "refusal"),
        (
            servers.answer(None, finish_reason="tool_calls", tool_calls=[{"function": {"name": "f"}}]),
            "",
            "tool_calls",
        ),
        (servers.answer("half \ud800 pair"), "half ? pair", "stop"),
        (servers.answer([{"type": "text", "text": "in "}, {"text": "parts"}]), "in parts", "stop"),
    ],
)
async def test_odd_model_output_is_data(
    server: CountingServer, fault: servers.Fault, text: str, finish: str
) -> None:
    server.script(fault)
    reply = await ask(server)
    assert (reply.text, reply.finish_reason) == (text, finish)


async def test_a_huge_reply_is_data(server: CountingServer) -> None:
    server.script(servers.huge(3_000_000))
    assert len((await ask(server)).text) == 3_000_000


async def test_a_wrong_content_type_does_not_hide_a_good_reply(server: CountingServer) -> None:
    good = json.dumps(server.completion({"messages": [{"content": "hi"}]})).encode()
    server.script(servers.body(good, content_type="text/plain"))
    assert (await ask(server)).text == "You said: hi"


async def test_usage_that_is_absent_is_unknown_and_not_zero(server: CountingServer) -> None:
    server.script(servers.no_usage())
    assert (await ask(server)).usage == Usage(None, None, None, None)


def test_usage_is_inclusive_with_subsets() -> None:
    told = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    assert read_usage(told) == Usage(100, 50, 80, 40)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"prompt_tokens": "12", "completion_tokens": 3.5}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(5, None, 0)),
        ("lots", Usage()),
    ],
)
def test_usage_that_is_absurd_is_unknown(told: object, expected: Usage) -> None:
    assert read_usage(told) == expected


async def test_half_a_surrogate_pair_in_a_prompt_can_be_sent(server: CountingServer) -> None:
    await ask(server, request("odd \udc80 byte"))
    assert server.served[0].request["messages"][0]["content"] == "odd ? byte"


async def test_a_model_that_is_not_there_is_fatal_and_lists_what_is(server: CountingServer) -> None:
    server.script(servers.status(404, body={"error": {"message": "no such model"}}))
    backend = OpenAI("tset-model", base_url=server.url)
    with pytest.raises(BackendError) as caught:
        await backend.chat(request())
    assert caught.value.fatal
    assert "'tset-model'" in str(caught.value)
    assert "it offers: test-model" in str(caught.value)
    await backend.aclose()


async def test_a_missing_key_names_the_variable_and_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*--api-key-env"):
        OpenAI("gpt-5-mini")
    with pytest.raises(ConfigError, match="MY_KEY"):
        OpenAI("m", base_url="https://example.com/v1", api_key_env="MY_KEY")


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://x/v1", "http://", "http://h:port/v1"])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        OpenAI("m", base_url=url)


async def test_the_key_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with CountingServer(api_key=KEY) as server:
        assert (await ask(server, api_key_env="MY_KEY")).text


async def test_a_refused_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with CountingServer(api_key="another") as server:
        error = await failure(server, api_key_env="MY_KEY")
    assert error.fatal
    assert "MY_KEY" in str(error)
    assert KEY not in str(error)
    with CountingServer(api_key="another") as server:
        assert "OPENAI_API_KEY, which is not set" in str(await failure(server))


@pytest.mark.parametrize(
    "leak",
    [
        servers.status(500, body={"error": {"message": f"Authorization: Bearer {KEY} failed"}}),
        servers.status(400, body={"error": {"message": "x" * 290 + KEY}}),
        servers.status(401, body={"error": {"message": f"Incorrect API key: {KEY[:9]}****{KEY[-4:]}"}}),
        servers.status(404, body={"error": {"message": f"no model for {KEY}"}}),
        servers.status(429, body=KEY.encode()),
        servers.body(f'"{KEY}"'.encode()),
        servers.body(b"y" * 110 + KEY.encode()),
    ],
)
async def test_no_error_text_holds_the_key(
    server: CountingServer, leak: servers.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script(leak)
    error = await failure(server)
    assert KEY[:12] not in str(error)
    assert KEY[-4:] not in str(error)
    # What a traceback would print.
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert not isinstance(error.__context__, openai.OpenAIError)


async def test_a_password_in_the_url_is_in_no_message_and_not_in_the_endpoint() -> None:
    with CountingServer() as gone:
        pass
    url = f"http://me:{KEY}@127.0.0.1:{gone.port}/v1?token={KEY}"
    backend = OpenAI("m", base_url=url)
    assert KEY not in backend.endpoint
    with pytest.raises(AgentCommError) as caught:
        await backend.chat(request())
    assert KEY not in str(caught.value)
    await backend.aclose()


def test_endpoints_differ_by_url_and_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "key-a-12345678")
    monkeypatch.setenv("B", "key-b-12345678")
    url = "https://example.com/v1"
    a, a2 = (OpenAI(m, base_url=url, api_key_env="A").endpoint for m in ("x", "y"))
    b = OpenAI("x", base_url=url, api_key_env="B").endpoint
    assert a == a2
    assert a != b
    assert OpenAI("x", base_url="https://other.com/v1", api_key_env="A").endpoint != a


async def check(server: CountingServer, model: str = "test-model") -> None:
    backend = OpenAI(model, base_url=server.url, timeout_s=5)
    try:
        await backend.check()
    finally:
        await backend.aclose()


async def test_check_passes_for_a_model_that_is_there_and_for_a_server_without_a_list(
    server: CountingServer,
) -> None:
    await check(server)
    await check(server, "test-model:latest")
    with CountingServer(models=False) as silent:
        await check(silent, "anything")
    assert server.served == []


async def test_check_refuses_what_cannot_work() -> None:
    with CountingServer() as server, pytest.raises(ConfigError, match="it offers: test-model"):
        await check(server, "tost-model")
    with pytest.raises(ConfigError, match="nobody answers"):
        await check(server)
    with CountingServer(api_key="k") as locked, pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        await check(locked)


@pytest.mark.parametrize("style", ["llama", "vllm"])
async def test_tokens_are_counted_by_the_server_and_once_per_text(style: str) -> None:
    with CountingServer(tokenize=style) as server:
        backend = OpenAI("test-model", base_url=server.url)
        counts = [await backend.count_tokens(t) for t in ("one two three", "one two three", "", "four.")]
        assert counts == [3, 3, 0, 2]
        assert len(server.tokenized) == 2
        await backend.aclose()


async def test_a_server_that_cannot_count_is_asked_once_and_chats_on(server: CountingServer) -> None:
    backend = OpenAI("test-model", base_url=server.url)
    assert [await backend.count_tokens(t) for t in ("a", "b")] == [None, None]
    assert backend._can_count is False
    assert (await backend.chat(request())).text
    await backend.aclose()


async def test_counting_gives_up_on_a_dead_server_without_an_error() -> None:
    with CountingServer(tokenize="llama") as gone:
        pass
    backend = OpenAI("test-model", base_url=gone.url)
    assert [await backend.count_tokens(str(i)) for i in range(4)] == [None] * 4
    assert backend._can_count is False
    await backend.aclose()


async def test_a_server_that_has_counted_and_is_busy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcomm.backends.openai.SIDE_REQUEST_S", 0.3)
    with CountingServer(tokenize="vllm") as server:
        busy, unknown = (OpenAI("test-model", base_url=server.url, timeout_s=30) for _ in range(2))
        assert await busy.count_tokens("one") == 1
        server.tokenize_latency_s = 0.6
        assert await busy.count_tokens("one two") == 2
        assert await unknown.count_tokens("one two") is None
        await busy.aclose()
        await unknown.aclose()


async def test_a_cancelled_request_leaves_the_backend_usable(server: CountingServer) -> None:
    server.script(servers.hang())
    backend = OpenAI("test-model", base_url=server.url)
    with anyio.move_on_after(0.2) as scope:
        await backend.chat(request())
    assert scope.cancelled_caught
    assert (await backend.chat(request())).text
    await backend.aclose()


async def test_a_closed_backend_opens_again(server: CountingServer) -> None:
    backend = OpenAI("test-model", base_url=server.url)
    for _ in range(2):
        assert (await backend.chat(request())).text
        await backend.aclose()


def test_a_backend_can_be_used_from_one_event_loop_after_another(server: CountingServer) -> None:
    backend = OpenAI("test-model", base_url=server.url)

    async def once() -> str:
        try:
            return (await backend.chat(request())).text
        finally:
            await backend.aclose()

    assert anyio.run(once) == anyio.run(once)


async def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await ask(server)).text
