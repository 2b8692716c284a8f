"""Conversations: what every agent of a row was given, said and paid, as the report's page shows it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from agentcomm.evaluation.report_facts import Key, Source
from agentcomm.ledger.rows import CallRow, ChannelRow, DeliveryRow

LONGEST = 8_000
"""Characters of a text that the report shows; the ledger has them all."""


class Texts:
    """Texts of one row, each once; what is longer than :data:`LONGEST` is cut and says so."""

    def __init__(self) -> None:
        self.list: list[Any] = []
        self._known: dict[str, int] = {}

    def add(self, text: str | None) -> int | None:
        """The text's place in ``list``."""
        if text is None:
            return None
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self.list)
            if len(text) > LONGEST:
                sha = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                self.list.append([text[:LONGEST], len(text), sha])
            else:
                self.list.append(text)
        return at


def conversation(sources: Sequence[Source], key: Key) -> dict[str, Any]:
    """Everything about a row: what was asked, and what happened in each run."""
    item = key[0]
    texts = Texts()
    asked = next((q for s in sources if key in s.cells and (q := s.question(item)) is not None), None)
    row: dict[str, Any] = {"runs": [_episode(s, key, texts) if key in s.cells else None for s in sources]}
    if asked is not None:
        row["question"] = texts.add(asked["question"])
        row["context"] = texts.add(asked.get("context") or None)
        row["views"] = {n: texts.add(t) for n, t in (asked.get("views") or {}).items()}
        answer = asked.get("answer")
        row["answer"] = texts.add(
            answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        )
    row["texts"] = texts.list
    return row


def _episode(source: Source, key: Key, texts: Texts) -> dict[str, Any] | None:
    item, _, sample = key
    history = source.ledger.episodes(item=item, sample=sample, history=True)
    calls = source.ledger.calls(item=item, sample=sample)
    if not history and not calls:
        return None
    given: dict[str, list[dict[str, Any]]] = defaultdict(list)
    said: dict[tuple[int, str], str] = {}
    for row in source.ledger.deliveries(item=item, sample=sample):
        given[row.call_id].append(_given(source, row, texts))
        if row.sender_call_id is None and not row.again:
            said[(row.round if row.kind == "spatial" else row.round - 1, row.sender)] = row.original_text
    last = history[-1] if history else None
    turns: dict[tuple[int, str], dict[str, Any]] = {}
    for call in sorted(calls, key=lambda c: c.started_at):
        turn = turns.setdefault(
            (call.round, call.agent),
            {"round": call.round, "agent": source.index.get(call.agent), "calls": []},
        )
        turn["calls"].append(_call(call, given[call.id], texts))
    for made in source.ledger.channels(item=item, sample=sample):
        if made.status == "failed" and (made.round, made.reader) in turns:
            own = [c for c in turns[(made.round, made.reader)]["calls"] if "edge" not in c]
            if own:
                own[-1].setdefault("given", []).append(_lost(source, made, texts))
    # A function agent makes no call: what it said is known from who read it.
    for (round, agent), text in said.items():
        if (round, agent) not in turns and agent in source.index:
            turns[(round, agent)] = {"round": round, "agent": source.index[agent], "said": texts.add(text)}
    decision = next(a for a in source.facts.agents if a.decision)
    end = (source.facts.rounds, decision.name)
    if decision.function and last is not None and last.answer is not None and end not in turns:
        turns[end] = {"round": end[0], "agent": source.index[end[1]], "said": texts.add(last.answer)}
    episode: dict[str, Any] = {
        "turns": sorted(turns.values(), key=lambda t: (t["round"], *_place(source, t["agent"]))),
        "tries": len(history),
    }
    if last is not None:
        episode |= {
            "answer": texts.add(last.answer),
            "extracted": texts.add(last.extracted),
            "failure": last.failure,
            "failures": last.failures,
            "earlier": [e.failure for e in history[:-1] if e.failure],
        }
        if last.topology is not None:
            alive = {tuple(e) for m in json.loads(last.topology)["masks"] for e in m["edges"]}
            episode["cut"] = [
                i for i, (k, edge) in enumerate(source.edge.items()) if k not in alive and not edge.added
            ]
    return episode


def _place(source: Source, agent: int | None) -> tuple[int, int]:
    return (source.facts.agents[agent].level, agent) if agent is not None else (0, -1)


def _given(source: Source, row: DeliveryRow, texts: Texts) -> dict[str, Any]:
    out: dict[str, Any] = {
        "from": source.index.get(row.sender),
        "text": texts.add(row.text),
        "tokens": row.tokens,
    }
    if row.kind != "spatial":
        out["temporal"] = 1
    if row.again:
        out["again"] = 1
    if row.text != row.original_text:
        out["original"] = texts.add(row.original_text)
    if row.channel != "verbatim":
        out["channel"] = row.channel
    if row.note:
        out["note"] = row.note
    return out


def _lost(source: Source, row: ChannelRow, texts: Texts) -> dict[str, Any]:
    """A message whose channel failed: nobody read it."""
    out: dict[str, Any] = {
        "from": source.index.get(row.sender),
        "text": texts.add(""),
        "original": texts.add(row.original_text),
        "tokens": 0,
        "channel": row.channel,
        "note": f"not delivered: {row.reason}",
    }
    return out if row.kind == "spatial" else {**out, "temporal": 1}


def _call(call: CallRow, given: list[dict[str, Any]], texts: Texts) -> dict[str, Any]:
    out: dict[str, Any] = {
        "input": call.input_tokens,
        "output": call.output_tokens,
        "cached": call.cached_tokens,
        "reasoning": call.reasoning_tokens,
        "hit": call.cache_hit or None,
        "seconds": None if call.latency_s is None else round(call.latency_s, 3),
        "finish": call.finish_reason,
        "cost": call.cost,
        "parts": None if call.parts is None else dict(call.parts),
        "estimated": call.parts_estimated or None,
        "error": call.error_kind,
        "why": call.error,
        "edge": call.edge,
        "model": call.model,
        "reply": texts.add(call.reply_text),
        "given": given or None,
    }
    return {k: v for k, v in out.items() if v is not None}
