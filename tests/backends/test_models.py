from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentcomm import backends
from agentcomm.backends import BackendOptions, parse_model, resolve
from agentcomm.errors import ConfigError, MissingExtraError


def test_a_model_string_is_split_on_its_first_slash_only() -> None:
    assert parse_model("openai/org/name:tag") == ("openai", "org/name:tag")
    assert parse_model("local//abs/x.gguf").model == "/abs/x.gguf"
    assert str(parse_model("vllm/a/b")) == "vllm/a/b"


@pytest.mark.parametrize("model", ["gpt-5", "", "anthropic/x", "/x", "Openai/x", "openai"])
def test_an_unknown_model_is_told_the_known_providers_and_an_example(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_model(model)
    assert "local/smollm2" in str(caught.value) or "openai/gpt-5-mini" in str(caught.value)
    if model != "openai":
        for provider in ("openai/", "local/", "vllm/", "scripted/", "mock/", "replay/"):
            assert provider in str(caught.value)


@pytest.mark.parametrize("model", ["openai/", "mock/ ", "replay/"])
def test_a_provider_without_a_model_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="names no model"):
        parse_model(model)


def test_the_name_of_a_backend_is_its_model_string(tmp_path: Path) -> None:
    script = tmp_path / "s.json"
    script.write_text('{"default": "hm"}')
    options = BackendOptions(base_url="http://127.0.0.1:9/v1")
    for model in ("openai/a/b", "vllm/a/b", "mock/echo", f"scripted/{script}"):
        assert resolve(model, options).name == model
        assert resolve(model, replace(options, max_concurrency=3)).max_concurrency == 3


def test_there_is_one_mock() -> None:
    with pytest.raises(ConfigError, match="mock/echo"):
        resolve("mock/ecco")


@pytest.mark.parametrize("option", [{"timeout_s": 0}, {"max_concurrency": 0}, {"slots": -1}])
def test_options_that_make_no_sense_are_named(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        BackendOptions(**option)  # type: ignore[arg-type]


def test_options_reach_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "k-123456789")
    options = BackendOptions(
        base_url="https://example.com/v1", api_key_env="OTHER_KEY", timeout_s=7, max_concurrency=3
    )
    backend = resolve("openai/x", options)
    assert backend.max_concurrency == 3
    assert backend.timeout_s == 7  # type: ignore[attr-defined]
    assert "example.com" in backend.endpoint


def test_vllm_says_what_to_do_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTCOMM_VLLM_PYTHON", "AGENTCOMM_VLLM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("agentcomm.backends.vllm.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="AGENTCOMM_VLLM_PYTHON"):
        resolve("vllm/x")
    monkeypatch.setenv("AGENTCOMM_VLLM_PYTHON", "/no/such/python")
    with pytest.raises(ConfigError, match="/no/such/python"):
        resolve("vllm/x")


def test_every_exported_name_is_there() -> None:
    assert {name for name in backends.__all__ if getattr(backends, name, None) is None} == set()
    with pytest.raises(AttributeError):
        _ = backends.nothing


def test_importing_the_room_imports_no_provider() -> None:
    code = (
        "import sys, agentcomm.backends; "
        "print([m for m in ('openai', 'httpx', 'xllamacpp', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
