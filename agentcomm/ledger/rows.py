"""The ledger's rows: one a model call attempt, one a delivery, one a channel's work, one an episode;
where agents learn, one a dialogue and one a training.

A call row is an *attempt*: a retried call has several. Buckets are what the server reported,
inclusive with subsets, ``None`` where it reported nothing. ``parts`` splits ``input_tokens``
over who pays: ``"system"``, ``"task"``, ``"memory"``, ``"sender->reader"`` for each edge, and
``"template"``; its values sum to ``input_tokens`` exactly, and it is ``None`` where the total is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agentcomm.message import CompressionStatus

Phase = Literal["evaluate", "learn", "compress", "judge"]

PENDING = "pending"
"""Error kind of a call that was sent and whose end was never recorded (the process was killed)."""

NOT_RECORDED = "not_recorded"
"""Error kind of a request that a replay doesn't have: nothing was sent, so it is in no total."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One attempt at one model call.

    ``item`` and ``sample`` (0 unless an item is run several times) name the episode; ``edge`` is
    set when a channel made the call for that edge. ``cost`` is in US dollars, ``None`` where the
    price is unknown. ``cache_hit`` marks a reply from a cache or replay: its tokens were not
    paid now. ``parts_estimated`` says that no tokenizer was at hand and shares are by length.
    """

    id: str
    item: str
    sample: int
    round: int
    agent: str
    attempt: int
    phase: Phase
    model: str
    request_id: str
    started_at: float
    edge: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_hit: bool = False
    latency_s: float | None = None
    finish_reason: str | None = None
    cost: float | None = None
    parts: Mapping[str, int] | None = None
    parts_estimated: bool = False
    error_kind: str | None = None
    error: str | None = None
    reply_text: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A message as one call read it; the reader pays ``tokens`` (its own tokenizer).

    ``call_id`` is the reader's call, ``sender_call_id`` the call that made the message (``None``
    for function agents). ``again`` marks a message of an earlier round read again from memory.
    ``original_text`` and ``text`` are stored by content hash, once each.
    """

    call_id: str
    item: str
    sample: int
    round: int
    sender: str
    reader: str
    kind: str
    message_id: str
    sender_call_id: str | None
    tokens: int | None
    original_text: str
    text: str
    channel: str = "verbatim"
    note: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What a channel made of one message for one reader, whether or not the reader's call came off.

    The fields are those of :class:`agentcomm.message.Compression`; ``budget``, ``tokens`` and
    ``original_tokens`` are ``None`` where the channel doesn't count tokens. ``original_text`` and
    ``text`` are stored by content hash: the original can be had again from the ledger.
    """

    item: str
    sample: int
    round: int
    sender: str
    reader: str
    kind: str
    message_id: str
    channel: str
    status: CompressionStatus
    original_text: str
    text: str
    reason: str = ""
    adherent: bool = True
    budget: int | None = None
    tokens: int | None = None
    original_tokens: int | None = None
    counted_by: str = ""


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """One graph on one item. ``status`` is ``"ok"`` or ``"failed"``; a failure is not a wrong answer."""

    item: str
    sample: int
    status: Literal["ok", "failed"]
    answer: str | None
    score: float | None
    extracted: str | None
    failure: str | None
    wall_s: float
    finished_at: float
    topology: str | None = None
    """JSON of the topology used, ``None`` for the whole graph."""
    failures: int = 0
    """Turns and deliveries that failed, the decision's turn included."""


@dataclass(frozen=True, slots=True)
class DialogueRow:
    """What a dialogue that was learned from was for, and every component of its reward.

    ``item`` and ``sample`` name its episode. ``purpose`` is ``calibrate``, ``generate``, ``search`` (of a
    tree) or ``accept``, ``draw`` its number there, ``origin`` the tree's node it goes on from, ``format``
    the message format's id. ``nlls`` are the messages' mean nats per token by ``readability``: ``None``
    where there was nothing to score, NaN where scoring failed. The fields from ``task`` to
    ``selectable`` are those of :class:`agentcomm.dialogue.reward.RewardTerms`, ``None`` for a dialogue
    that failed; ``nll`` and ``total`` are also ``None`` where they are NaN.
    """

    item: str
    sample: int
    iteration: int
    purpose: str
    draw: int
    format: str
    model: str
    origin: int = 0
    message_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    readability: str = "off"
    nlls: tuple[float | None, ...] = ()
    task: float | None = None
    tokens: int | None = None
    normaliser: float | None = None
    ratio: float | None = None
    nll: float | None = None
    task_term: float | None = None
    token_term: float | None = None
    loss_term: float | None = None
    total: float | None = None
    guards: tuple[str, ...] = ()
    selectable: bool = False


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A trainer's run: token positions read (over all epochs), steps and seconds; ``None`` is unknown."""

    iteration: int
    method: str
    rows: int
    tokens: int | None
    steps: int | None
    seconds: float | None
    device: str = ""
