"""Channels: what happens to a message on an edge.

``None`` on an edge delivers verbatim. Each channel here is a small frozen dataclass with
``name``, ``spec()`` (JSON for the run's configuration) and ``deliver``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentcomm.channels.truncate import Truncate
from agentcomm.errors import GraphError
from agentcomm.graph import Channel

__all__ = ["Truncate", "from_spec", "truncate"]


def truncate(characters: int) -> Truncate:
    """The first ``characters`` characters of each message, cut at a word."""
    return Truncate(characters)


def from_spec(spec: Mapping[str, Any]) -> Channel:
    """The channel that ``spec()`` described.

    Raises
    ------
    GraphError
        If the name is unknown or the fields don't fit.
    """
    fields = dict(spec)
    name = fields.pop("name", None)
    if name != "truncate":
        raise GraphError(f"unknown channel {name!r}; known: truncate")
    try:
        return Truncate(**fields)
    except TypeError as error:
        raise GraphError(f"channel {name!r}: {error}") from error
