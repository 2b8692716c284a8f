"""Model strings: ``provider/model``, split on the first ``/`` only.

    openai/gpt-5-mini            any server that speaks OpenAI's protocol; --base-url says where
    local/smollm2                the bundled SmolLM2, embedded llama.cpp
    local/models/qwen.gguf       any GGUF file (``local//abs/path.gguf`` for an absolute path)
    vllm/FOLDER-OR-NAME          a vLLM server: a running one, or one started for the run
    hf/FOLDER                    a Hugging Face folder in this process (transformers)
    hf/FOLDER+ADAPTER            with an adapter of agentcomm train; vllm/FOLDER+ADAPTER too
    scripted/replies.json        replies from a file, for tests
    mock/echo                    answers with what it was asked, for tests
    replay/RUN-DIR               the recorded replies of an earlier run

Provider modules are imported when their provider is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

from agentcomm.backends.base import DEFAULT_CONCURRENCY, Backend, BackendOptions
from agentcomm.errors import ConfigError

PROVIDERS = {
    "openai": "openai/gpt-5-mini",
    "local": "local/smollm2",
    "vllm": "vllm/FOLDER-OR-NAME",
    "hf": "hf/FOLDER",
    "scripted": "scripted/replies.json",
    "mock": "mock/echo",
    "replay": "replay/RUN-DIR",
}
"""Known providers, each with an example."""


class ModelName(NamedTuple):
    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


def parse_model(model: str) -> ModelName:
    """Split a model string.

    Raises
    ------
    ConfigError
        If the provider is unknown or there is nothing after it.

    >>> parse_model("openai/org/name")
    ModelName(provider='openai', model='org/name')
    """
    provider, slash, name = model.partition("/")
    if provider not in PROVIDERS:
        known = ", ".join(f"{p}/" for p in PROVIDERS)
        raise ConfigError(
            f"unknown model {model!r}; write provider/model with one of {known} e.g. 'local/smollm2'"
        )
    if not slash or not name.strip():
        raise ConfigError(f"model {model!r} names no model; write e.g. {PROVIDERS[provider]!r}")
    return ModelName(provider, name)


def resolve(model: str, options: BackendOptions | None = None) -> Backend:
    """The backend of a model string. Nothing is started or sent until it is used.

    Raises
    ------
    ConfigError
        If the string is unknown, a key is missing or a file isn't there.
    MissingExtraError
        If the provider needs packages that are not installed.
    """
    options = options or BackendOptions()
    provider, name = parse_model(model)
    if provider == "openai":
        from agentcomm.backends.openai import OpenAI

        return OpenAI.from_options(name, options)
    if provider == "local":
        from agentcomm.backends.local import Local

        return Local.from_options(name, options)
    if provider == "vllm":
        from agentcomm.backends.vllm import Vllm

        return Vllm.from_options(name, options)
    if provider == "hf":
        from agentcomm.backends.hf import Hf

        return Hf.from_options(name, options)
    if provider == "scripted":
        from agentcomm.backends.scripted import Scripted

        return Scripted.from_file(name, max_concurrency=options.max_concurrency)
    if provider == "replay":
        from agentcomm.backends.replay import Replay

        return Replay.of_run(name)
    if name != "echo":
        raise ConfigError(f"unknown model {model!r}; the one mock is 'mock/echo'")
    from agentcomm.backends.scripted import Echo

    return Echo(max_concurrency=options.max_concurrency or DEFAULT_CONCURRENCY)
