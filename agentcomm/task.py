"""Task, Item and Score: what a team works on and how its answer is judged.

A user's task file defines ``task(...) -> Task``; see ``tasks/`` for ready ones. An item may be
split into *views*: text that only the agents with that view see (information asymmetry).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcomm.errors import TaskError
from agentcomm.message import content_id

ALL_VIEWS = "*"
"""``Agent(view="*")`` sees every view of an item."""


@dataclass(frozen=True)
class Item:
    """One question.

    ``context`` is shared text that every agent sees before the question; ``views`` maps a view's
    name to text that only agents with that view see; ``answer`` is the reference for the scorer,
    never shown to an agent.
    """

    id: str
    question: str
    answer: Any = None
    context: str = ""
    views: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the item asks and shows; independent of its id, order and machine."""
        return content_id(self.question, self.context, dict(self.views))

    def view(self, name: str | None) -> str:
        """The text an agent with view ``name`` sees beside the question ('' for ``None``).

        Raises
        ------
        TaskError
            If the item has no such view.
        """
        if name is None:
            return ""
        if name == ALL_VIEWS:
            return "\n".join(self.views.values())
        try:
            return self.views[name]
        except KeyError:
            has = ", ".join(map(repr, self.views)) or "none"
            raise TaskError(
                f"item {self.id!r} has no view {name!r} (it has: {has}); "
                f"give the agent one of these, view='*' for all, or no view"
            ) from None


@dataclass(frozen=True, slots=True)
class Score:
    """A judgement of one answer: ``value`` in [0, 1], what was read as the answer, and a note."""

    value: float
    extracted: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Task:
    """Items and the function that scores an answer: ``score(item, answer_text) -> Score``.

    A scorer that has to wait (hidden tests in a sandbox) may be async.

    ``extract(item, answer_text) -> str | None`` reads the final answer out of a text, so that answers
    can be voted on: equal answers give equal strings, and ``None`` means that there is none. It is
    asked with an item whose ``answer`` is ``None``. Tasks whose answers can't be voted on (code, long
    texts) leave it out.

    Raises
    ------
    TaskError
        If there are no items or two share an id.
    """

    name: str
    items: Sequence[Item]
    score: Callable[[Item, str], Score | Awaitable[Score]]
    description: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    extract: Callable[[Item, str], str | None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise TaskError(f"task {self.name!r} has no items; check its data folder, split and limit")
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise TaskError(f"task {self.name!r} has two items with id {item.id!r}; ids must be unique")
            seen.add(item.id)


def as_item(question: str | Item) -> Item:
    """A plain question as an item (its id is the start of its content hash)."""
    if isinstance(question, Item):
        return question
    if not isinstance(question, str) or not question.strip():
        raise TaskError("the question is empty; pass a non-empty string or an Item")
    return Item(id=content_id(question)[:12], question=question)
