"""TurnRecords as plain data for checkpoints: dicts, lists, strings and numbers, never pickle.

A message body is stored once, with the turn that said it. A delivery that shows the reader what
was said holds no text: it names the sender and the round, and the body is looked up among the
turns before it. So the checkpoint of an episode grows with what was said, not with how many
read it; only what a channel made (a summary, say) is stored with its delivery.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from agentcomm.message import Compression, Delivery, EdgeKey, Failure, Message, Outcome, Usage
from agentcomm.schedule import Mailbox, TurnRecord


def encode(record: TurnRecord, mailbox: Mailbox) -> dict[str, Any]:
    """A record as plain data; ``mailbox`` holds the turns before it."""
    data: dict[str, Any] = {"agent": record.agent, "round": record.round}
    if record.inbox:
        data["inbox"] = [_encode_delivery(d, record.round, mailbox) for d in record.inbox]
    if isinstance(record.outcome, Message):
        data["said"] = _encode_message(record.outcome)
    else:
        f = record.outcome
        data["failed"] = [f.sender, f.round, f.kind, _pack(f.reason), f.fatal]
    return data


def decode(data: Mapping[str, Any], mailbox: Mailbox) -> TurnRecord:
    """The record that :func:`encode` described, with the same turns before it."""
    outcome: Outcome
    if "said" in data:
        outcome = _decode_message(data["said"])
    else:
        sender, round, kind, reason, fatal = data["failed"]
        outcome = Failure(sender, round, kind, _unpack(reason), fatal)
    inbox = tuple(_decode_delivery(d, data["agent"], data["round"], mailbox) for d in data.get("inbox", ()))
    return TurnRecord(data["agent"], data["round"], inbox, outcome)


def _pack(text: str) -> str | list[str]:
    """Text as it is, or in a list as escaped JSON: a model may say half a surrogate pair, which
    UTF-8 can't hold and the checkpointer would turn into a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return [json.dumps(text)]
    return text


def _unpack(data: str | list[str]) -> str:
    return data if isinstance(data, str) else str(json.loads(data[0]))


def _spoke(kind: str, round: int) -> int:
    return round if kind == "spatial" else round - 1


def _encode_delivery(delivery: Delivery, round: int, mailbox: Mailbox) -> dict[str, Any]:
    edge, original = delivery.edge, delivery.original
    data: dict[str, Any] = {"from": edge.sender, "kind": edge.kind}
    said = mailbox.get((_spoke(edge.kind, round), edge.sender))
    if said is None or said.outcome != original:
        data["original"] = _encode_message(original)
    if delivery.changed:
        data["text"] = _pack(delivery.text)
    if delivery.channel != "verbatim":
        data["channel"] = delivery.channel
    if delivery.note:
        data["note"] = _pack(delivery.note)
    if (made := delivery.compression) is not None:
        data["compression"] = {**dataclasses.asdict(made), "reason": _pack(made.reason)}
    return data


def _decode_delivery(data: Mapping[str, Any], reader: str, round: int, mailbox: Mailbox) -> Delivery:
    edge = EdgeKey(data["from"], reader, data["kind"])
    if "original" in data:
        original = _decode_message(data["original"])
    else:
        said = mailbox[(_spoke(edge.kind, round), edge.sender)].outcome
        assert isinstance(said, Message)  # encode refers only to messages
        original = said
    text = _unpack(data["text"]) if "text" in data else original.text
    made: Compression | None = None
    if "compression" in data:
        made = Compression(**{**data["compression"], "reason": _unpack(data["compression"]["reason"])})
    return Delivery(
        edge, original, text, data.get("channel", "verbatim"), _unpack(data.get("note", "")), made
    )


def _encode_message(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"sender": message.sender, "round": message.round, "text": _pack(message.text)}
    if message.usage is not None:
        u = message.usage
        data["usage"] = [u.input_tokens, u.output_tokens, u.cached_tokens, u.reasoning_tokens]
    for name in ("item", "finish_reason", "call_id", "note", "id"):
        if value := getattr(message, name):
            data[name] = value
    return data


def _decode_message(data: Mapping[str, Any]) -> Message:
    usage = Usage(*data["usage"]) if "usage" in data else None
    return Message(**{**data, "text": _unpack(data["text"]), "usage": usage})
