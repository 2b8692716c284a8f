from __future__ import annotations

import anyio
import pytest

from agentcomm.backends.base import Backend
from agentcomm.backends.limiter import slot
from agentcomm.backends.scripted import Echo

pytestmark = pytest.mark.anyio


class At(Echo):
    """An echo at a shared endpoint."""

    @property
    def endpoint(self) -> str:
        return "here"


class Elsewhere(Echo):
    @property
    def endpoint(self) -> str:
        return "elsewhere"


class Meter:
    def __init__(self) -> None:
        self.now = self.peak = 0

    async def hold(self, backend: Backend) -> None:
        async with slot(backend):
            self.now += 1
            self.peak = max(self.peak, self.now)
            await anyio.sleep(0.005)
            self.now -= 1


async def run(*backends: Backend, each: int = 12) -> int:
    meter = Meter()
    async with anyio.create_task_group() as group:
        for backend in backends:
            for _ in range(each):
                group.start_soon(meter.hold, backend)
    return meter.peak


async def test_no_more_requests_are_in_flight_than_the_limit() -> None:
    assert await run(At(max_concurrency=3)) == 3


async def test_backends_at_one_endpoint_share_one_limit_and_the_smallest_wins() -> None:
    strict, lenient, meter = At(max_concurrency=2), At(max_concurrency=9), Meter()
    while_strict: list[int] = []

    async def strictly() -> None:
        await meter.hold(strict)
        while_strict.append(meter.peak)

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(strictly)
            group.start_soon(meter.hold, lenient)
    assert max(while_strict) == 2


async def test_another_endpoint_has_a_limit_of_its_own() -> None:
    assert await run(At(max_concurrency=2), Elsewhere(max_concurrency=3)) == 5


async def test_a_strict_caller_that_is_done_binds_nobody() -> None:
    assert await run(At(max_concurrency=1)) == 1
    assert await run(At(max_concurrency=6)) == 6


async def test_a_place_is_given_back_after_an_error_and_after_a_cancellation() -> None:
    backend = At(max_concurrency=1)
    with pytest.raises(ValueError, match="boom"):
        async with slot(backend):
            raise ValueError("boom")
    async with slot(backend):
        with anyio.move_on_after(0.01) as waiting:
            async with slot(backend):
                raise AssertionError("two places where there is one")
        assert waiting.cancelled_caught
    with anyio.fail_after(2):
        async with slot(backend):
            pass


def test_every_event_loop_starts_afresh() -> None:
    for _ in range(2):
        assert anyio.run(run, At(max_concurrency=2)) == 2
