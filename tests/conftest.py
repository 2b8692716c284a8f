"""Shared by every test: asyncio as the event loop, and no way to a real network."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import settings

os.environ["LANGSMITH_TRACING"] = "false"

# A busy machine is no failure: no test depends on how fast an example ran.
settings.register_profile("agentcomm", deadline=None)
settings.load_profile("agentcomm")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond this machine fails, saying where it went."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]  # type: ignore[index]
            if host not in ("127.0.0.1", "::1", "localhost"):
                raise AssertionError(f"a test tried to reach {host!r}; only loopback is allowed")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
