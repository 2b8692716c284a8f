"""Rows for the ledger's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agentcomm.ledger.rows import CallRow, ChannelRow, DeliveryRow, EpisodeRow


def call(id: str = "c1", **changes: Any) -> CallRow:
    row = CallRow(
        id=id,
        item="q1",
        sample=0,
        round=1,
        agent="solver",
        attempt=1,
        phase="evaluate",
        model="mock/echo",
        request_id="request",
        started_at=1.0,
    )
    return replace(row, **changes)


def answered(id: str = "c1", **changes: Any) -> CallRow:
    return call(
        id,
        **{
            "input_tokens": 10,
            "output_tokens": 4,
            "cached_tokens": 2,
            "latency_s": 0.5,
            "finish_reason": "stop",
            "parts": {"task": 5, "critic->solver": 3, "template": 2},
            "reply_text": f"the reply of {id}",
            **changes,
        },
    )


def delivery(call_id: str = "c1", **changes: Any) -> DeliveryRow:
    row = DeliveryRow(
        call_id=call_id,
        item="q1",
        sample=0,
        round=1,
        sender="critic",
        reader="solver",
        kind="spatial",
        message_id="ab" * 32,
        sender_call_id=None,
        tokens=3,
        original_text="a long message",
        text="a message",
        channel="truncate",
        note="cut",
    )
    return replace(row, **changes)


def channelled(**changes: Any) -> ChannelRow:
    row = ChannelRow(
        item="q1",
        sample=0,
        round=1,
        sender="critic",
        reader="solver",
        kind="spatial",
        message_id="ab" * 32,
        channel="summarise",
        status="compressed",
        original_text="a long message",
        text="a message",
        budget=4,
        tokens=2,
        original_tokens=5,
        counted_by="mock/echo",
    )
    return replace(row, **changes)


def episode(item: str = "q1", **changes: Any) -> EpisodeRow:
    row = EpisodeRow(
        item=item,
        sample=0,
        status="ok",
        answer="42",
        score=1.0,
        extracted="42",
        failure=None,
        wall_s=1.5,
        finished_at=2.0,
    )
    return replace(row, **changes)
