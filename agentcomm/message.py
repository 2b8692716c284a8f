"""What travels between agents, and what it cost: Message, Delivery, Reply, Usage, Failure.

All are immutable values. Two conventions hold everywhere in the package:

* Token buckets are **inclusive with subsets**: ``input_tokens`` includes ``cached_tokens``,
  ``output_tokens`` includes ``reasoning_tokens``.
* **Unknown is not zero**: a bucket the server did not report is ``None``.

Rounds are counted from 1, as people count them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

EdgeKind = Literal["spatial", "temporal"]


class EdgeKey(NamedTuple):
    """Names one edge of a graph: ``sender``, ``reader`` and ``kind``."""

    sender: str
    reader: str
    kind: EdgeKind = "spatial"

    def __str__(self) -> str:
        return f"{self.sender}->{self.reader}"


def content_id(*parts: object) -> str:
    """SHA-256 (hex) of the parts as canonical JSON: the id of a message, a request, an item.

    >>> content_id("a", 1) == content_id("a", 1)
    True
    """
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call as the server reported them (inclusive with subsets).

    ``cached_tokens`` is the part of ``input_tokens`` read from a prefix cache;
    ``reasoning_tokens`` the part of ``output_tokens`` spent on hidden reasoning.
    A bucket the server did not report is ``None``, never 0.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What an agent said in a round. ``id`` is the SHA-256 of its content and origin."""

    sender: str
    round: int
    text: str
    item: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    call_id: str | None = field(default=None, compare=False)
    """The ledger's id of the model call that made it; ``None`` for function agents."""
    note: str = field(default="", compare=False)
    """What is odd about it, e.g. that it isn't the JSON asked for; readers get the text as it is."""
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.item, self.sender, self.round, self.text))


CompressionStatus = Literal["compressed", "cut", "passed", "failed"]


@dataclass(frozen=True, slots=True)
class Compression:
    """What a channel was asked for and what came of it.

    ``status``:

    * ``"compressed"``: the channel's own way made the text that is read;
    * ``"cut"``: its own way did not fit (a model that ignored the budget, or said nothing of use),
      so sentences were chosen or cut to meet the budget;
    * ``"passed"``: the original is read, byte for byte, for the ``reason``;
    * ``"failed"``: nothing is read, for the ``reason``.

    Tokens are counted by ``counted_by``: the reader's model, or ``"bytes/3"`` where it can't count.
    ``adherent`` is ``False`` where the channel's model (or method) did not do as it was told,
    whatever was made of it afterwards.
    """

    status: CompressionStatus
    budget: int | None = None
    tokens: int | None = None
    original_tokens: int | None = None
    counted_by: str = ""
    adherent: bool = True
    reason: str = ""

    def __str__(self) -> str:
        budget = "" if self.budget is None else f", budget {self.budget}"
        if self.status == "failed":
            return f"not delivered: {self.reason}"
        if self.status == "passed":
            size = "" if self.original_tokens is None else f": {self.original_tokens} tokens{budget}"
            return f"whole ({self.reason}){size}"
        why = f"; {self.reason}" if self.reason else ""
        return f"{self.original_tokens} to {self.tokens} tokens{budget}{why}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as its reader reads it, after the edge's channel.

    ``text`` is what is read; ``original`` is the message it was made from (its ``id`` recovers
    the original text from the ledger). ``note`` says what the channel did, or why it did nothing;
    ``compression`` says it in numbers, where the channel has a budget or may fail.
    """

    edge: EdgeKey
    original: Message
    text: str
    channel: str = "verbatim"
    note: str = ""
    compression: Compression | None = None

    @property
    def failed(self) -> bool:
        """Whether the channel failed: the reader reads nothing, and the record says why."""
        return self.compression is not None and self.compression.status == "failed"

    @property
    def changed(self) -> bool:
        """Whether the reader reads something other than what was said."""
        return self.text != self.original.text


@dataclass(frozen=True, slots=True)
class Failure:
    """An agent that could not speak in a round: data on the record, read by nobody.

    ``kind`` is one word (``"timeout"``, ``"server"``, ``"limit"``, ``"agent"``...); ``fatal`` means
    the episode can't go on (a limit of the item or the run was reached).
    """

    sender: str
    round: int
    kind: str
    reason: str
    fatal: bool = False
    scope: str | None = None
    """For ``kind="limit"``: whose limit it was (``"run"``, ``"item"``, ``"agent NAME"``)."""


Outcome = Message | Failure
"""What a turn ends in."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat request: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: Literal["system", "user", "assistant"]
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend answered to one chat request."""

    text: str
    usage: Usage = Usage()
    finish_reason: str | None = None
    model: str | None = None
    """The model's name as the server reports it."""
    latency_s: float | None = None
    cache_hit: bool = False
    """True when a response cache or a replay answered: it cost nothing and is counted apart."""
    raw: dict[str, Any] | None = field(default=None, compare=False, repr=False)
