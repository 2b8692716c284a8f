"""Where models answer: one small protocol, several providers, chosen by model string."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentcomm.backends.base import Backend, BackendOptions, ChatRequest, TokenCounter
from agentcomm.backends.models import ModelName, parse_model, resolve

if TYPE_CHECKING:
    from agentcomm.backends.replay import Replay
    from agentcomm.backends.scripted import Echo, Scripted

__all__ = [
    "Backend",
    "BackendOptions",
    "ChatRequest",
    "Echo",
    "ModelName",
    "Replay",
    "Scripted",
    "TokenCounter",
    "parse_model",
    "resolve",
]

_HOMES = {"Echo": "scripted", "Replay": "replay", "Scripted": "scripted"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentcomm.backends' has no attribute {name!r}")
    value = getattr(import_module(f"agentcomm.backends.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
