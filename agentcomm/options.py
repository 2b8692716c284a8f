"""RunOptions: everything about how a graph is run that isn't the graph, the task or the model.

One flat frozen dataclass, so that the library, the command line and the run's saved
configuration speak of the same options. ``identity`` tells those that change results (a run
directory refuses to continue under others) from those that only change how it is carried out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentcomm.backends.base import VLLM_KEY_ENV, Backend
from agentcomm.calls import Calls, Retry, Sampling
from agentcomm.errors import ConfigError
from agentcomm.ledger.limits import Limits, Scope
from agentcomm.ledger.prices import PriceBook

if TYPE_CHECKING:
    from agentcomm.executors.base import Executor
    from agentcomm.ledger.rows import CallRow
    from agentcomm.ledger.store import Ledger

ExecutorName = Literal["langgraph", "plain"]


def model_name(model: str | Backend | None) -> str | None:
    """The model string of what a user passes as ``model=``.

    Raises
    ------
    ConfigError
        If it is neither a string nor a backend.
    """
    if isinstance(model, str | None):
        return model
    if not hasattr(model, "chat"):
        raise ConfigError(
            f"model={model!r} is none; pass a model string such as 'local/smollm2' or a backend"
        )
    return model.name


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Parameters
    ----------
    seed, temperature, top_p, max_tokens:
        Defaults for agents that don't say otherwise. Every turn gets a seed of its own, derived
        from ``seed``, the item, the sample, the agent and the round.
    base_url, api_key_env, timeout_s, max_concurrency:
        The endpoint: where it is, which environment variable holds its key, seconds for one
        attempt, and requests in flight at a time (per endpoint, in the whole process).
    retry:
        How often and how patiently a failed attempt is repeated.
    limits, item_limits, agent_limits:
        For the whole run, for each item, and for each agent within an item.
    prices:
        A TOML file of prices, or ``None`` for the known public ones.
    executor:
        ``"langgraph"`` (default) or ``"plain"``; both do the same.
    checkpoint:
        A SQLite file for LangGraph's checkpoints, or ``None``.
    cache:
        A file that keeps replies by request; equal requests are answered from it and cost nothing.
        It stands before models named by strings; a backend object is yours to wrap.
    note:
        Hears what a slow start is waiting for (a vLLM server that is being started).
    """

    seed: int = 0
    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int | None = 1024
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    max_concurrency: int | None = None
    retry: Retry = Retry()
    limits: Limits = Limits()
    item_limits: Limits = Limits()
    agent_limits: Limits = Limits()
    prices: Path | str | None = None
    executor: ExecutorName = "langgraph"
    checkpoint: Path | str | None = None
    cache: Path | str | None = None
    note: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.executor not in ("langgraph", "plain"):
            raise ConfigError(f"unknown executor {self.executor!r}; use 'langgraph' or 'plain'")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s={self.timeout_s}; it must be above 0")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError(f"max_concurrency={self.max_concurrency}; it must be at least 1")
        for name in ("limits", "item_limits", "agent_limits"):
            if not isinstance(given := getattr(self, name), Limits):
                raise ConfigError(f"{name}={given!r} is none; write e.g. {name}=Limits(calls=10)")
        if self.checkpoint is not None and self.executor != "langgraph":
            raise ConfigError("checkpoint needs executor='langgraph'")
        _ = self.sampling

    @classmethod
    def of(cls, options: RunOptions | None, **overrides: Any) -> RunOptions:
        """``options`` (or the defaults) with ``overrides``; an unknown one is named."""
        base = options or cls()
        known = [f.name for f in fields(cls)]
        if strange := sorted(set(overrides) - set(known)):
            raise ConfigError(f"unknown option {', '.join(strange)}; there are: {', '.join(known)}")
        return cls(**{**{name: getattr(base, name) for name in known}, **overrides})

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.seed)

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """The keys that may be sent: what must never be stored or shown."""
        return tuple(os.environ.get(name) for name in (self.api_key_env, VLLM_KEY_ENV))

    def identity(self) -> dict[str, Any]:
        """The options that change results, for the run's configuration."""
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }

    def resolver(self) -> Callable[[str], Backend]:
        """Turns a model string into a backend under these options."""
        from agentcomm.backends import BackendOptions, resolve

        backend_options = BackendOptions(
            base_url=self.base_url,
            api_key_env=self.api_key_env,
            timeout_s=self.timeout_s,
            max_concurrency=self.max_concurrency,
            note=self.note,
        )

        def open_backend(model: str) -> Backend:
            backend = resolve(model, backend_options)
            if self.cache is not None:
                from agentcomm.backends.replay import Replay

                return Replay(backend, self.cache)
            return backend

        return open_backend

    def calls(
        self,
        ledger: Ledger,
        model: str | Backend | None,
        *,
        resuming: bool = False,
        on_row: Callable[[CallRow], None] | None = None,
    ) -> Calls:
        """What all model calls of a run under these options share."""
        if self.cache is not None and not isinstance(model, str | None):
            raise ConfigError(
                "cache= keeps the replies of models named by strings; put it before a backend object "
                "yourself: backends.Replay(backend, FILE)"
            )
        for secret in self.secrets:
            ledger.add_secret(secret)
        return Calls(
            ledger=ledger,
            resolve=self.resolver(),
            default=model,
            sampling=self.sampling,
            retry=self.retry,
            prices=PriceBook.load(
                self.prices, base_url=self.base_url or os.environ.get("OPENAI_BASE_URL") or None
            ),
            scope=Scope("run", self.limits),
            resuming=resuming,
            on_row=on_row,
        )

    def make_executor(self) -> Executor:
        if self.executor == "plain":
            from agentcomm.executors.plain import PlainExecutor

            return PlainExecutor()
        from agentcomm.executors.langgraph import LangGraphExecutor

        return LangGraphExecutor(checkpoint=self.checkpoint)
