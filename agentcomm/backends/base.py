"""Backend: one async method that answers one chat request.

A backend makes *one attempt* and reports what the server said; retries, limits, concurrency and
the ledger are the business of :mod:`agentcomm.calls`. It raises only
:class:`~agentcomm.errors.BackendError` (or a ``UserError`` for what the user must mend).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from agentcomm.message import ChatMessage, Reply, content_id

DEFAULT_CONCURRENCY = 16


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
