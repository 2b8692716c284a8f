"""Metered model calls: the one place where a prompt becomes a paid reply.

:class:`Calls` owns what a run shares: the backends by model string, the ledger, prices, limits
and the retry policy. One call goes like this::

    limits admit it → (resumed run: already answered? reuse) → a slot at its endpoint
      → ledger: attempt started → backend, one attempt → ledger: what it cost, who pays
      → on a retryable failure: wait, again

Every attempt is a row. What reached the ledger is never paid for twice within a run: a resumed
episode takes the replies it already has. Limits are checked before each attempt; calls in
flight can overshoot limits of tokens, cost and time, never that of calls.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import anyio
import tenacity

from agentcomm.backends.base import Backend, ChatRequest, TokenCounter
from agentcomm.backends.limiter import slot
from agentcomm.errors import AgentCommError, BackendError, ConfigError
from agentcomm.graph import Agent
from agentcomm.ledger.limits import Limits, Scope
from agentcomm.ledger.prices import PriceBook
from agentcomm.ledger.rows import NOT_RECORDED, CallRow, DeliveryRow, Phase
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.tokens import Attribution, attribute
from agentcomm.message import Reply, Usage, content_id
from agentcomm.prompting import Prompt

UNREACHABLE_IN_A_ROW = 3
"""So many calls in a row that found nobody listening, after all their retries, end the run."""


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a failed attempt is repeated.

    Waits double from ``first_wait_s`` up to ``longest_wait_s``; a server's Retry-After is
    honoured up to ``longest_retry_after_s`` (beyond it the call fails). ``scale`` multiplies every
    wait: tests set it to 0.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 300.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"retry attempts={self.attempts}; it must be at least 1")

    def wait(self, attempt: int, error: BaseException | None) -> float:
        """Seconds before the attempt after ``attempt`` (counted from 1)."""
        asked: float | None = getattr(error, "retry_after", None)
        if asked is not None:
            return min(asked, self.longest_retry_after_s) * self.scale
        return min(self.first_wait_s * 2.0 ** (attempt - 1), self.longest_wait_s) * self.scale

    def again(self, error: BaseException) -> bool:
        return (
            isinstance(error, BackendError)
            and error.retryable
            and not error.fatal
            and (error.retry_after or 0.0) <= self.longest_retry_after_s
        )


@dataclass(frozen=True)
class Sampling:
    """A run's defaults for agents that don't say otherwise. ``max_tokens`` guards the bill."""

    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int | None = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}; it must be a number of at least 0")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p={self.top_p}; it must be above 0 and at most 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens={self.max_tokens}; it must be at least 1")

    def request(self, model: str, agent: Agent, prompt: Prompt, seed: int) -> ChatRequest:
        """The request of ``agent``: its own sampling where it has some, else these defaults."""

        def own(value: Any, default: Any) -> Any:
            return default if value is None else value

        return ChatRequest(
            model=model,
            messages=prompt.chat(),
            temperature=own(agent.temperature, self.temperature),
            top_p=own(agent.top_p, self.top_p),
            max_tokens=own(agent.max_tokens, self.max_tokens),
            stop=agent.stop,
            seed=seed,
            schema=agent.schema,
        )


@dataclass(frozen=True)
class Place:
    """Where in a run a call is made: what its ledger row says beside the cost."""

    item: str
    agent: str
    round: int
    sample: int = 0
    phase: Phase = "evaluate"
    edge: str | None = None


@dataclass(frozen=True)
class Called:
    """A reply and the rows that record it. ``reused``: it was paid for before the run resumed."""

    reply: Reply
    row: CallRow
    deliveries: tuple[DeliveryRow, ...] = ()
    reused: bool = False


@dataclass(frozen=True)
class _Job:
    """A call to be made: the same for all its attempts."""

    place: Place
    backend: Backend
    request: ChatRequest
    request_id: str
    prompt: Prompt
    scope: Scope
    heard: Callable[[CallRow], None]


@dataclass
class Calls:
    """What all model calls of a run share. An async context manager: it closes what it opened.

    ``resolve`` turns a model string into a backend; each is opened once and closed at the end.
    ``default`` serves agents without a model of their own; a backend that is given as an object
    belongs to whoever made it and stays open. ``on_row`` hears of every finished attempt.
    """

    ledger: Ledger
    resolve: Callable[[str], Backend]
    default: Backend | str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    retry: Retry = field(default_factory=Retry)
    prices: PriceBook | None = None
    scope: Scope = field(default_factory=lambda: Scope("run", Limits()))
    resuming: bool = False
    on_row: Callable[[CallRow], None] | None = None
    _opened: dict[str, Backend] = field(default_factory=dict, repr=False)
    _unreachable: dict[str, int] = field(default_factory=dict, repr=False)

    async def __aenter__(self) -> Calls:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            while self._opened:
                _, backend = self._opened.popitem()
                await backend.aclose()

    def _default_answers_for_all(self) -> bool:
        default = self.default
        if isinstance(default, str):
            return default.startswith("replay/")
        return bool(getattr(default, "answers_for_all", False))

    def backend(self, model: str | None) -> Backend:
        """The backend of a model string, or the run's default.

        Raises
        ------
        ConfigError
            If there is neither, or the string is unknown.
        """
        if self._default_answers_for_all():
            model = None  # a replay: nothing is paid beside it
        if model is None:
            if self.default is None:
                raise ConfigError(
                    "no model: pass model=... (--model on the command line), e.g. 'local/smollm2', "
                    "or give every agent a model of its own"
                )
            if not isinstance(self.default, str):
                return self.default
            model = self.default
        if model not in self._opened:
            self._opened[model] = self.resolve(model)
        return self._opened[model]

    async def call(
        self,
        place: Place,
        agent: Agent,
        prompt: Prompt,
        scope: Scope,
        *,
        seed: int,
        heard: Callable[[CallRow], None] | None = None,
    ) -> Called:
        """Make one model call, with its retries, and record it; ``heard`` gets every attempt's row.

        Raises
        ------
        LimitExceeded
            Before an attempt that a limit forbids.
        BackendError
            When the last attempt failed; every attempt is in the ledger.
        """
        backend = self.backend(agent.model)
        request = self.sampling.request(backend.name, agent, prompt, seed)
        request_id = request.id
        if self.resuming:
            known = self.ledger.reply(
                place.item, place.sample, place.round, place.agent, request_id, place.edge
            )
            if known is not None:
                rows = tuple(
                    d
                    for d in self.ledger.deliveries(item=place.item, sample=place.sample)
                    if d.call_id == known.id
                )
                # The run was charged for it when it was resumed; its item and agent start anew.
                scope.charge_again(known, below=self.scope)
                if heard is not None:
                    heard(known)
                return Called(_reply_of(known), known, rows, reused=True)
        if self.prices is not None:
            scope.require_price(backend.name, self.prices)
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.retry.attempts),
            retry=tenacity.retry_if_exception(self.retry.again),
            wait=lambda state: self.retry.wait(
                state.attempt_number, state.outcome.exception() if state.outcome else None
            ),
            sleep=anyio.sleep,
            reraise=True,
        )

        def hear(row: CallRow) -> None:
            for listener in (heard, self.on_row):
                if listener is not None:
                    listener(row)

        job = _Job(place, backend, request, request_id, prompt, scope, hear)
        number = 0

        async def attempt() -> Called:
            nonlocal number
            number += 1
            return await self._attempt(job, number)

        try:
            called: Called = await attempts(attempt)
        except BackendError as error:
            self._note_unreachable(backend, error)
            raise
        self._unreachable.pop(backend.endpoint, None)
        return called

    async def _attempt(self, job: _Job, number: int) -> Called:
        place, backend = job.place, job.backend
        async with slot(backend):
            job.scope.admit()
            row = CallRow(
                id=uuid.uuid4().hex,
                item=place.item,
                sample=place.sample,
                round=place.round,
                agent=place.agent,
                attempt=number,
                phase=place.phase,
                model=backend.name,
                request_id=job.request_id,
                started_at=time.time(),
                edge=place.edge,
            )
            self.ledger.start_call(row)
            began = time.perf_counter()
            try:
                reply = await backend.chat(job.request)
            except BaseException as error:
                latency = time.perf_counter() - began
                await self._failed(row, job, latency, error)
                raise
        # What was paid for is recorded even if the run is being cancelled right now.
        with anyio.CancelScope(shield=True):
            called = await self._succeeded(row, job, reply, time.perf_counter() - began)
        return called  # noqa: RET504 -- a cancel scope may swallow, says its type

    async def _failed(self, row: CallRow, job: _Job, latency: float, error: BaseException) -> None:
        if isinstance(error, BackendError):
            kind, text = error.kind, str(error)
        elif isinstance(error, AgentCommError):
            kind, text = "config", str(error)
        elif isinstance(error, Exception):
            kind, text = "bug", f"{type(error).__name__}: {error}"
        else:
            kind, text = "cancelled", "the run was interrupted before the reply came"
        row = replace(row, latency_s=latency, error_kind=kind, error=self.ledger.redact(text))
        usage = error.usage if isinstance(error, BackendError) else None
        cost: float | None = None
        with anyio.CancelScope(shield=True):
            if usage is not None:  # a reply of no use that was paid for all the same
                cost = self.prices.cost(row.model, usage) if self.prices else None
                shares = await attribute(job.prompt, usage.input_tokens, None)
                row = _with_cost(row, usage, cost, shares)
            await self.ledger.finish_call(row)
        if kind == NOT_RECORDED:
            job.scope.release()  # nothing was sent
        else:
            job.scope.charge(usage, cost)
        job.heard(row)

    async def _succeeded(self, row: CallRow, job: _Job, reply: Reply, latency: float) -> Called:
        backend, prompt, usage = job.backend, job.prompt, reply.usage
        counter = backend if isinstance(backend, TokenCounter) else None
        cancelled: BaseException | None = None
        try:
            shares = await attribute(prompt, usage.input_tokens, counter)
        except anyio.get_cancelled_exc_class() as error:
            # LangGraph cancels past our shield. The reply was paid for: record it, with estimated shares.
            cancelled = error
            shares = await attribute(prompt, usage.input_tokens, None)
        cost = 0.0 if reply.cache_hit else self.prices.cost(backend.name, usage) if self.prices else None
        row = replace(
            _with_cost(row, usage, cost, shares),
            cache_hit=reply.cache_hit,
            latency_s=reply.latency_s if reply.latency_s is not None else latency,
            finish_reason=reply.finish_reason,
            reply_text=reply.text,
        )
        shown = [s for s in prompt.segments if s.delivery is not None]
        deliveries = tuple(
            DeliveryRow(
                call_id=row.id,
                item=row.item,
                sample=row.sample,
                round=row.round,
                sender=s.delivery.edge.sender,
                reader=s.delivery.edge.reader,
                kind=s.delivery.edge.kind,
                message_id=s.delivery.original.id,
                sender_call_id=s.delivery.original.call_id,
                tokens=tokens,
                original_text=s.delivery.original.text,
                text=s.delivery.text,
                channel=s.delivery.channel,
                note=s.delivery.note,
                again=s.again,
            )
            for s, tokens in zip(shown, shares.delivery_tokens, strict=True)
            if s.delivery is not None
        )
        await self.ledger.finish_call(row, deliveries)
        if reply.cache_hit:
            job.scope.release()
        else:
            job.scope.charge(usage, cost)
        job.heard(row)
        if cancelled is not None:
            raise cancelled
        return Called(reply, row, deliveries)

    def _note_unreachable(self, backend: Backend, error: BackendError) -> None:
        if error.kind != "unreachable":
            return
        seen = self._unreachable[backend.endpoint] = self._unreachable.get(backend.endpoint, 0) + 1
        if seen >= UNREACHABLE_IN_A_ROW:
            error.fatal = True


def derive_seed(*parts: object) -> int:
    """A stable 31-bit seed from any parts; equal on every machine."""
    return int(content_id(*parts)[:8], 16) & 0x7FFFFFFF


def _with_cost(row: CallRow, usage: Usage, cost: float | None, shares: Attribution) -> CallRow:
    return replace(
        row,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=cost,
        parts=shares.parts,
        parts_estimated=shares.estimated,
    )


def _reply_of(row: CallRow) -> Reply:
    return Reply(
        text=row.reply_text or "",
        usage=Usage(row.input_tokens, row.output_tokens, row.cached_tokens, row.reasoning_tokens),
        finish_reason=row.finish_reason,
        model=row.model,
        latency_s=row.latency_s,
        cache_hit=row.cache_hit,
    )
