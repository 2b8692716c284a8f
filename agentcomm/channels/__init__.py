"""Channels: what happens to a message on an edge.

``None`` on an edge delivers verbatim. Each channel here is a small frozen dataclass with ``name``,
``spec()`` (JSON for the run's configuration) and ``deliver``; all but ``truncate(characters)`` have
a token budget that is met (:mod:`agentcomm.channels.base` says how), and what came of it is on the
delivery and in the ledger.

    ac.Edge("reader", "writer", channel=ac.channels.summarise(budget=64, model="local/smollm2"))

On the command line: ``agentcomm eval GRAPH TASK --channel summarise:budget=64,model=local/smollm2``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

# Imported here, not where they are used: a submodule that is imported later would take the place
# of the function with its name.
from agentcomm.channels.base import Compressor
from agentcomm.channels.breakeven import Economy
from agentcomm.channels.budget import Keep
from agentcomm.channels.extract import By, Extract
from agentcomm.channels.llmlingua import LLMLingua2
from agentcomm.channels.rules import Rules
from agentcomm.channels.seen import Dedup, Reference
from agentcomm.channels.summarise import Summarise
from agentcomm.channels.truncate import Truncate
from agentcomm.errors import ConfigError, GraphError
from agentcomm.graph import Channel

__all__ = [
    "Compressor",
    "Economy",
    "Truncate",
    "dedup",
    "extract",
    "from_spec",
    "from_words",
    "llmlingua2",
    "reference",
    "rules",
    "summarise",
    "truncate",
]


def truncate(characters: int | None = None, *, tokens: int | None = None, keep: Keep = "head") -> Truncate:
    """The first ``characters`` characters, or at most ``tokens`` tokens (``keep``: head, tail or both)."""
    return Truncate(characters, tokens, keep)


def summarise(
    budget: int, model: str | None = None, *, query: bool = False, temperature: float = 0.0, **more: Any
) -> Summarise:
    """A model says it in at most ``budget`` tokens; with ``query`` it is told what the reader is asked.

    ``more``: ``retries``, and what all have: ``protect``, ``infeasible``, ``on_failure``
    (:class:`~agentcomm.channels.base.Compressor`).
    """
    return Summarise(budget=budget, model=model, query=query, temperature=temperature, **more)


def extract(
    budget: int, by: By = "bm25", *, query: bool = True, model: str | None = None, **more: Any
) -> Extract:
    """The sentences that say most about the question (``query=False``: about the message)."""
    return Extract(budget=budget, by=by, query=query, model=model, **more)


def dedup(budget: int | None = None, **more: Any) -> Dedup:
    """Without the sentences that stand before the reader already."""
    return Dedup(budget=budget, **more)


def reference(budget: int | None = None, **more: Any) -> Reference:
    """With a handle (``[critic: "The first step…"]``) for what stands before the reader already."""
    return Reference(budget=budget, **more)


def rules(budget: int | None = None, **more: Any) -> Rules:
    """Without white space, filler phrases, repeated lines and markdown's decoration."""
    return Rules(budget=budget, **more)


def llmlingua2(model: str, budget: int, **more: Any) -> LLMLingua2:
    """The words that an LLMLingua-2 classifier (a folder or hub name; extra ``learn``) marks highest."""
    return LLMLingua2(model=model, budget=budget, **more)


_MAKE: dict[str, Callable[..., Any]] = {
    "truncate": truncate,
    "summarise": summarise,
    "extract": extract,
    "dedup": dedup,
    "reference": reference,
    "rules": rules,
    "llmlingua2": llmlingua2,
}


def from_spec(spec: Mapping[str, Any], more: Mapping[str, Callable[..., Any]] | None = None) -> Channel:
    """The channel that ``spec()`` described.

    Parameters
    ----------
    more:
        What makes channels that other rooms define, by name.

    Raises
    ------
    GraphError
        If the name is unknown or the fields don't fit.
    ConfigError
        If a value can't be used.
    """
    known = {**_MAKE, **(more or {})}
    fields = dict(spec)
    name = fields.pop("name", None)
    if name not in known:
        raise GraphError(f"unknown channel {name!r}; known: {', '.join(known)}")
    try:
        return cast(Channel, known[name](**fields))
    except TypeError as error:
        raise GraphError(f"channel {name!r}: {error}") from error


def from_words(words: str) -> Channel:
    """``"summarise:budget=64,model=local/smollm2"`` as a channel; several values are joined by ``+``
    (``protect=code+urls``, ``economy=reads:10+write:1.25+read:0.1+input:1+output:5``).

    >>> from_words("truncate:tokens=40,keep=tail").spec()
    {'name': 'truncate', 'tokens': 40, 'keep': 'tail'}

    Raises
    ------
    UserError
        If it can't be read so.
    """
    name, _, rest = words.partition(":")
    spec: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"channel {words!r}: {word!r}; write NAME:KEY=VALUE,KEY=VALUE")
        try:
            spec[key.strip()] = json.loads(value)
        except ValueError:
            spec[key.strip()] = _said(key.strip(), value)
    if spec.get("protect") == [""]:
        spec["protect"] = []
    return from_spec({**spec, "name": name.strip()})


def _said(key: str, value: str) -> Any:
    """A word that isn't JSON: several for ``protect``, prices by name for ``economy``, else a text."""
    if key == "protect":
        return value.split("+")
    if key != "economy":
        return value
    pairs = [word.partition(":") for word in value.split("+") if word]
    try:
        return {name.strip(): json.loads(number) for name, _, number in pairs}
    except ValueError as error:
        raise ConfigError(
            f"economy={value!r}: write reads:10+write:1.25+read:0.1+input:1+output:5"
        ) from error
