"""Backend: one async method that answers one chat request.

A backend makes *one attempt* and reports what the server said; retries, limits, concurrency and
the ledger are the business of :mod:`agentcomm.calls`. It raises only
:class:`~agentcomm.errors.BackendError` (or a ``UserError`` for what the user must mend).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from agentcomm.errors import ConfigError
from agentcomm.message import ChatMessage, Reply, content_id

DEFAULT_CONCURRENCY = 16
VLLM_KEY_ENV = "VLLM_API_KEY"
"""Where the key of a running vLLM server stands: OpenAI's is none of its business."""


@dataclass(frozen=True)
class ChatRequest:
    """One chat request. ``max_tokens=None`` leaves the length to the server."""

    model: str
    messages: tuple[ChatMessage, ...]
    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def id(self) -> str:
        """SHA-256 of everything that determines the reply: the key of caches and replays."""
        return content_id(
            self.model,
            [m.as_dict() for m in self.messages],
            self.temperature,
            self.top_p,
            self.max_tokens,
            list(self.stop),
            self.seed,
            self.schema,
        )


@dataclass(frozen=True)
class BackendOptions:
    """How to reach a model; what a provider has no use for, it ignores."""

    base_url: str | None = None
    """Where an OpenAI-compatible server is, e.g. ``http://127.0.0.1:8000/v1``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    timeout_s: float = 120.0
    """Seconds one attempt may take, from sending to the last byte."""
    max_concurrency: int | None = None
    """Requests in flight at the endpoint; ``None``: the provider's own default."""
    context_tokens: int | None = None
    """Longest prompt and reply together, of a model that we serve (``local/``, ``vllm/``)."""
    slots: int | None = None
    """Requests that an embedded model works on side by side; ``None``: 1, the reproducible choice."""
    prompt_cache: bool = True
    """Whether an embedded model keeps the prefix it read last; ``False``: see :mod:`agentcomm.backends.local`."""
    threads: int | None = None
    """Threads of an embedded model; ``None``: the processors at hand."""
    server_args: tuple[str, ...] = ()
    """Further arguments for a vLLM server that we start."""
    note: Callable[[str], None] | None = None
    """Hears what a start that takes long is waiting for; default: this package's log."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "max_concurrency", "context_tokens", "slots", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value}; it must be above 0")


class Backend(Protocol):
    """Where a model answers. ``endpoint`` is what shares one limit of concurrent requests."""

    @property
    def name(self) -> str:
        """The model string, e.g. ``"local/smollm2"``."""
        ...

    @property
    def endpoint(self) -> str: ...

    @property
    def max_concurrency(self) -> int: ...

    async def chat(self, request: ChatRequest) -> Reply: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class TokenCounter(Protocol):
    """A backend that can count text with the serving model's own tokenizer."""

    async def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` alone, without special tokens; ``None`` if the server can't tell."""
        ...
