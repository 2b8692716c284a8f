"""One limit of concurrent requests per endpoint, shared by everything in the process.

An endpoint is a base URL and a key. Several runs, graphs and backend objects may ask for the
same one at once, each with a limit of its own; while they do, **the smallest limit wins**: the
strictest caller knows best what the endpoint bears. A limit counts only while its caller waits
or calls, so a strict run that has ended binds nobody.

Limits hold per running event loop: a process with two loops can have twice as many requests in
flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.lowlevel import RunVar

from agentcomm.backends.base import Backend


@dataclass
class _Gate:
    limiter: anyio.CapacityLimiter
    asked: Counter[int] = field(default_factory=Counter)

    def enter(self, limit: int) -> None:
        self.asked[limit] += 1
        self._apply()

    def leave(self, limit: int) -> None:
        self.asked[limit] -= 1
        if not self.asked[limit]:
            del self.asked[limit]
        if self.asked:
            self._apply()

    def _apply(self) -> None:
        smallest = min(self.asked)
        if smallest != self.limiter.total_tokens:
            self.limiter.total_tokens = smallest


_gates: RunVar[dict[str, _Gate]] = RunVar("agentcomm_gates")


@asynccontextmanager
async def slot(backend: Backend) -> AsyncIterator[None]:
    """Hold one of the endpoint's places for a request; waits in line until one is free.

    One request, one slot: a task that asks for a second place of an endpoint while it holds the
    last one waits for itself.
    """
    gates = _gates.get({})
    _gates.set(gates)
    endpoint, limit = backend.endpoint, max(1, backend.max_concurrency)
    gate = gates.get(endpoint)
    if gate is None:
        gate = gates[endpoint] = _Gate(anyio.CapacityLimiter(limit))
    gate.enter(limit)
    borrower = object()
    try:
        await gate.limiter.acquire_on_behalf_of(borrower)
        try:
            yield
        finally:
            gate.limiter.release_on_behalf_of(borrower)
    finally:
        gate.leave(limit)
        if not gate.asked:
            gates.pop(endpoint, None)
