"""Held: a model that we serve ourselves stays loaded over several runs.

A run opens its models and closes them. One that this process loads (``local/``, ``hf/``) or starts
(``vllm/``) ends with its last user, so without this each run of a sweep would load it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentcomm.api import check
from agentcomm.backends.base import Backend
from agentcomm.backends.models import parse_model
from agentcomm.options import RunOptions


@asynccontextmanager
async def held(model: str | Backend | None, options: RunOptions) -> AsyncIterator[None]:
    """Keep ``model`` loaded while the context is open; other models need no keeping.

    Raises
    ------
    ConfigError
        If it can't be loaded.
    """
    if not isinstance(model, str) or parse_model(model).provider not in ("local", "hf", "vllm"):
        yield
        return
    backend = replace(options, cache=None).resolver()(model)
    try:
        await check(backend)
        yield
    finally:
        await backend.aclose()
