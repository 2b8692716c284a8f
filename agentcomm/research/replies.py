"""Replies: the JSON in what a model said, read without believing that it is all it said."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from agentcomm.errors import ChannelError

_TRIES = 50


def json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text (models put words or a code fence around it); else ``None``.

    >>> json_object('Sure! ```json\\n{"relevant": true}\\n```')
    {'relevant': True}
    """
    decoder = json.JSONDecoder()
    for i, match in enumerate(re.finditer(r"\{", text)):
        if i == _TRIES:
            break
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value:
            return value
    return None


class Note(NamedTuple):
    """What a model says of one chunk."""

    relevant: bool
    explanation: str


def read_note(text: str) -> Note | None:
    """The note in a reply; ``None`` if it can't be read, or calls a chunk relevant and says nothing of it.

    >>> read_note('{"explanation": "It has 3 legs.", "relevant": "yes"}')
    Note(relevant=True, explanation='It has 3 legs.')
    """
    found = json_object(text)
    if found is None:
        return None
    relevant, explanation = _truth(found.get("relevant")), found.get("explanation")
    if relevant is None or not isinstance(explanation, str) or (relevant and not _says(explanation)):
        return None
    return Note(relevant, " ".join(explanation.split()))


class Query(NamedTuple):
    """What to search for, and what for."""

    query: str
    task: str


class Plan(NamedTuple):
    """What the planner asks for; ``readable=False``: its reply was no plan."""

    queries: tuple[Query, ...]
    strategy: str = ""
    enough: bool = False
    readable: bool = True


def read_plan(text: str, most: int) -> Plan:
    """The plan in a reply, with at most ``most`` queries, each once.

    >>> read_plan('{"queries": [{"query": "goat legs", "task": "How many?"}], "strategy": "Say it."}', 5)
    Plan(queries=(Query(query='goat legs', task='How many?'),), strategy='Say it.', enough=False, readable=True)
    """
    found = json_object(text)
    if found is None or not isinstance(found.get("queries", [] if "enough" in found else None), list):
        return Plan((), readable=False)
    queries: dict[str, Query] = {}
    for entry in found.get("queries", ()):
        if isinstance(entry, dict):
            query, task = entry.get("query"), entry.get("task")
        else:
            query, task = entry, ""
        if isinstance(query, str) and _says(query):
            told = task.strip() if isinstance(task, str) else ""
            queries.setdefault(" ".join(query.casefold().split()), Query(query.strip(), told))
    strategy = found.get("strategy")
    enough = _truth(found.get("enough")) is True
    if not queries and not enough:
        return Plan((), readable=False)
    return Plan(
        tuple(queries.values())[:most], strategy.strip() if isinstance(strategy, str) else "", enough, True
    )


def read_own(text: str, kind: str) -> dict[str, Any]:
    """A message that a function of this room wrote.

    Raises
    ------
    ChannelError
        If it is another one.
    """
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise ChannelError(
            f"the message is no {kind!r} of agentcomm's deep research; use it in that graph only"
        )
    return data


def own(kind: str, **facts: Any) -> str:
    """A message for a function or channel of this room."""
    return json.dumps({"kind": kind, **facts}, ensure_ascii=False)


def _says(text: str) -> bool:
    """Whether there is a word in it: small models give back the dots of the form they were shown."""
    return any(c.isalnum() for c in text)


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().casefold())
    return None
