"""Real vLLM: needs AGENTCOMM_VLLM_PYTHON and AGENTCOMM_VLLM_MODEL (a Hugging Face folder)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agentcomm.backends import BackendOptions, resolve, vllm
from agentcomm.backends.base import ChatRequest
from agentcomm.errors import BackendError
from agentcomm.message import ChatMessage

MODEL = os.environ.get("AGENTCOMM_VLLM_MODEL", "")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.vllm,
    pytest.mark.skipif(
        not (MODEL and os.environ.get("AGENTCOMM_VLLM_PYTHON")),
        reason="set AGENTCOMM_VLLM_PYTHON and AGENTCOMM_VLLM_MODEL",
    ),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def backend() -> AsyncIterator[vllm.Vllm]:
    made = resolve(f"vllm/{MODEL}", BackendOptions(context_tokens=1024, timeout_s=300))
    assert isinstance(made, vllm.Vllm)
    await made.check()
    yield made
    server = made._server
    await made.aclose()
    assert server is not None
    assert not server.running


def request(text: str, **fields: object) -> ChatRequest:
    sent = ChatRequest(f"vllm/{MODEL}", (ChatMessage("user", text),), max_tokens=16, seed=1)
    return replace(sent, **fields)  # type: ignore[arg-type]


async def test_it_answers_and_reports_usage(backend: vllm.Vllm) -> None:
    reply = await backend.chat(request("What is the capital of France?"))
    assert reply.text.strip()
    assert reply.usage.input_tokens
    assert reply.usage.output_tokens
    assert reply.usage.cached_tokens is not None


async def test_the_same_request_gets_the_same_reply(backend: vllm.Vllm) -> None:
    replies = [await backend.chat(request("Name a colour.")) for _ in range(2)]
    assert replies[0].text == replies[1].text


async def test_a_long_prefix_is_found_in_the_cache(backend: vllm.Vllm) -> None:
    sent = request("All work and no play makes Jack a dull boy. " * 30)
    await backend.chat(sent)
    again = await backend.chat(sent)
    assert again.usage.cached_tokens
    assert again.usage.input_tokens
    assert again.usage.cached_tokens <= again.usage.input_tokens


async def test_tokens_are_counted_with_the_models_own_tokenizer(backend: vllm.Vllm) -> None:
    short, long = await backend.count_tokens("one"), await backend.count_tokens("one two three four")
    assert short is not None
    assert long is not None
    assert 0 < short < long


async def test_a_prompt_that_is_too_long_is_told_as_such(backend: vllm.Vllm) -> None:
    with pytest.raises(BackendError) as caught:
        await backend.chat(request("word " * 3000))
    assert caught.value.kind == "too_long"


async def test_json_that_is_asked_for_comes(backend: vllm.Vllm) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    reply = await backend.chat(request("Is water wet?", schema=schema, max_tokens=60))
    assert reply.text.lstrip().startswith("{")
