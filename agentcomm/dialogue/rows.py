"""Rows: what a model is trained on, one row for each own turn of a dialogue.

A row is the prompt that the speaker had before it and what it said then; loss falls on the second
only (``dialogue.md`` section 5). Prompts come from :func:`agentcomm.prompting.build`, the function
that makes the prompts of calls, so that what is trained on is what is served, byte for byte. The
layout is therefore the package's own where section 5's example sketches another: the role and the
private view stand in the first ``user`` message after the question (not in ``system``), and what
was heard reads ``From bob:`` and a line break (not ``Bob: ``).

Two things differ from what was called, on purpose. No row has a format instruction: rows are made
with the graph without it (:func:`without_formats`), and an instruction of the pool in a prompt is
refused. And an agent's own name in front of what it says ("Alice: ...") is taken off wherever the
message stands, as it would have been said without it.

Deliberately absent: tokens, templates and which dialogues are good.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from agentcomm.backends.chat_template import folded as folded
from agentcomm.dialogue.formats import POOL, Format
from agentcomm.dialogue.select import Pair
from agentcomm.dialogue.tree import Said
from agentcomm.errors import ConfigError, RunError
from agentcomm.graph import AgentGraph
from agentcomm.message import ChatMessage, Delivery, Message, content_id
from agentcomm.prompting import Turn, build
from agentcomm.schedule import Mailbox, Schedule, TurnRecord, inbox
from agentcomm.task import Item

Chat = tuple[ChatMessage, ...]


@dataclass(frozen=True)
class Meta:
    """Where a row comes from; the same keys in every row, none of them null.

    ``turn`` is the message's place in its dialogue, from 1. ``prompt_sha256`` is :func:`digest` of
    the prompt.
    """

    item: str
    iteration: int
    agent: str
    turn: int
    reward: float
    prompt_sha256: str


@dataclass(frozen=True)
class Row:
    """One own turn to imitate."""

    prompt: Chat
    completion: str
    meta: Meta

    @property
    def texts(self) -> tuple[str, ...]:
        """What may be said after the prompt."""
        return (self.completion,)

    def to_dict(self) -> dict[str, Any]:
        """As TRL reads it."""
        return {
            "prompt": [m.as_dict() for m in self.prompt],
            "completion": _said(self.completion),
            "meta": vars(self.meta),
        }


@dataclass(frozen=True)
class PreferenceRow:
    """Two ways to take the same turn, the better one first."""

    prompt: Chat
    chosen: str
    rejected: str
    meta: Meta

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.chosen, self.rejected)

    def to_dict(self) -> dict[str, Any]:
        """As TRL reads it, the prompt explicit."""
        return {
            "prompt": [m.as_dict() for m in self.prompt],
            "chosen": _said(self.chosen),
            "rejected": _said(self.rejected),
            "meta": vars(self.meta),
        }


AnyRow = Row | PreferenceRow
R = TypeVar("R", Row, PreferenceRow)


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def digest(prompt: Iterable[ChatMessage]) -> str:
    """SHA-256 of chat messages: equal for a call and the row that is trained on in its place."""
    return content_id([m.as_dict() for m in prompt])


# ----------------------------------------------------------------------- from dialogues


def rows(
    graph: AgentGraph,
    item: Item,
    dialogue: Sequence[Said] | Sequence[TurnRecord],
    *,
    reward: float,
    iteration: int = 0,
    formats: Mapping[str, Format] = POOL,
    cut: Collection[int] = (),
) -> list[Row]:
    """A row for every turn of a model in a dialogue; turns without a word have none.

    Parameters
    ----------
    graph:
        The team *without* a format instruction (:func:`without_formats`).
    dialogue:
        What was said, in the order of speaking, or an episode's records: these know what channels
        made of a message.
    formats:
        Whose instructions may not stand in a prompt.
    cut:
        Turns (from 1) that a limit on tokens cut off: they have no row, since a row ends in a stop
        token, and whoever imitates it learns to stop in the middle of a sentence.

    Raises
    ------
    ConfigError
        For messages that don't fit the graph, a format instruction in a prompt, a reward that is no
        number, or a graph with channels where only the messages are known.
    """
    found = []
    for turn, (record, prompt) in enumerate(_prompts(graph, item, _records(graph, item, dialogue)), 1):
        assert isinstance(record.outcome, Message)
        if prompt is not None and turn not in cut and record.outcome.text.strip():
            meta = _meta(item, record.agent, turn, reward, iteration, prompt, formats)
            found.append(Row(prompt, record.outcome.text, meta))
    return found


def preference_rows(
    graph: AgentGraph,
    item: Item,
    pairs: Iterable[Pair],
    *,
    iteration: int = 0,
    formats: Mapping[str, Format] = POOL,
) -> list[PreferenceRow]:
    """A row for each pair of :func:`agentcomm.dialogue.select.select_pairs`; ``meta.reward`` is its value.

    The prompt is the common history from the speaker's own view. Pairs that are equal without
    name tags, or whose better text is empty, have no row.

    Raises
    ------
    ConfigError
        As :func:`rows`; and for a pair of two speakers.
    """
    found = []
    for pair in pairs:
        agent = pair.chosen.agent
        if pair.rejected.agent != agent:
            raise ConfigError(
                f"a pair of what {agent!r} and {pair.rejected.agent!r} said; both must be one agent's turn"
            )
        chosen, rejected = (_untagged(said.text, agent) for said in (pair.chosen, pair.rejected))
        if chosen == rejected or not chosen.strip():
            continue
        records = _records(graph, item, [*pair.history, Said(agent, chosen)])
        record, prompt = list(_prompts(graph, item, records))[-1]
        if prompt is None:
            raise ConfigError(f"agent {record.agent!r} is code: it makes no model call to train")
        meta = _meta(item, agent, len(pair.history) + 1, pair.value, iteration, prompt, formats)
        found.append(PreferenceRow(prompt, chosen, rejected, meta))
    return found


def without_formats(graph: AgentGraph, formats: Mapping[str, Format] = POOL) -> AgentGraph:
    """The graph with the format instructions taken out of its agents' roles.

    Equal to the graph as it is made without one, where the instruction ends the role as in the
    shipped settings.
    """

    def plain(role: str) -> str:
        for format in formats.values():
            for text in (format.text, format.instruction):
                if text and text in role:
                    role = role.replace(text, "").strip()
        return role

    return replace(graph, agents=tuple(replace(a, role=plain(a.role)) for a in graph.agents))


def _meta(
    item: Item,
    agent: str,
    turn: int,
    reward: float,
    iteration: int,
    prompt: Chat,
    formats: Mapping[str, Format],
) -> Meta:
    if not math.isfinite(reward):
        raise ConfigError(
            f"item {item.id!r}: a reward of {reward} in a training row; leave that dialogue out"
        )
    for format in formats.values():
        if format.instruction and any(format.instruction in m.content for m in prompt):
            raise ConfigError(
                f"the instruction of format {format.id!r} stands in the prompt of {agent!r}; "
                "make rows with without_formats(graph)"
            )
    return Meta(item.id, iteration, agent, turn, float(reward), digest(prompt))


def _untagged(text: str, agent: str) -> str:
    """A message without its speaker's name in front.

    >>> _untagged("Alice: it is 5", "alice")
    'it is 5'
    """
    return re.sub(rf"^\s*{re.escape(agent)}\s*:\s*", "", text, count=1, flags=re.IGNORECASE)


def _records(
    graph: AgentGraph, item: Item, dialogue: Sequence[Said] | Sequence[TurnRecord]
) -> list[TurnRecord]:
    """The turns of a dialogue with what each speaker read, name tags taken off."""
    known = [r for r in dialogue if isinstance(r, TurnRecord)]
    if known:
        return [_plain_record(r) for r in known]
    if any(edge.channel is not None for edge in graph.edges):
        raise ConfigError(
            "this graph has channels, so what was said isn't what was read; pass the episode's records"
        )
    schedule = Schedule.of(graph)
    left = [said for said in dialogue if isinstance(said, Said)]
    if left and left[-1].agent == graph.decision and graph.by_name[graph.decision].act is not None:
        left.pop()  # a verdict by code is nothing to learn from
    mailbox: Mailbox = {}
    found: list[TurnRecord] = []
    for wave in schedule.waves:
        for agent in wave.agents:
            if not left or (left[0].agent != agent and graph.by_name[agent].act is not None):
                continue  # a function agent's words (the verdict's) are not part of what is learned from
            said = left.pop(0)
            if said.agent != agent:
                raise ConfigError(
                    f"item {item.id!r}: message {len(found) + 1} is by {said.agent!r}, where this graph lets "
                    f"{agent!r} speak"
                )
            read = inbox(schedule, agent, wave.round, mailbox)
            message = Message(agent, wave.round, _untagged(said.text, agent), item.id)
            letters = tuple(Delivery(edge.key, letter, letter.text) for edge, letter in read.letters)
            record = TurnRecord(agent, wave.round, letters, message)
            mailbox = {**mailbox, (wave.round, agent): record}
            found.append(record)
    if left:
        raise ConfigError(
            f"item {item.id!r}: {len(left)} messages more than {graph.rounds} rounds of this graph hold"
        )
    return found


def _plain_record(record: TurnRecord) -> TurnRecord:
    def plain(delivery: Delivery) -> Delivery:
        return replace(delivery, text=_untagged(delivery.text, delivery.edge.sender))

    outcome = record.outcome
    if isinstance(outcome, Message):
        outcome = replace(outcome, text=_untagged(outcome.text, record.agent), id="")
    return replace(record, inbox=tuple(map(plain, record.inbox)), outcome=outcome)


def _prompts(
    graph: AgentGraph, item: Item, records: Iterable[TurnRecord]
) -> Iterator[tuple[TurnRecord, Chat | None]]:
    """Every turn that ended in a message, with its prompt; ``None`` for a function agent's."""
    before: dict[str, list[TurnRecord]] = {}
    for record in records:
        agent = graph.by_name.get(record.agent)
        if agent is None:
            raise ConfigError(f"item {item.id!r}: {record.agent!r} spoke, which is not in this graph")
        past = tuple(before.get(record.agent, ())) if agent.memory else ()
        if isinstance(record.outcome, Message):
            turn = Turn(item, agent, record.round, record.inbox, past)
            yield record, None if agent.act is not None else build(graph, turn).chat()
        before.setdefault(record.agent, []).append(record)


# ------------------------------------------------------------------------------- files


class Split(NamedTuple, Generic[R]):
    """Rows to train on and rows to validate on; no item is in both."""

    train: list[R]
    validation: list[R]


def split(found: Sequence[R], percent: int, *, seed: int = 0) -> Split[R]:
    """``percent`` of the *items* for validation, at least one of two or more; the same ones for a seed.

    Raises
    ------
    ConfigError
        For a percentage outside 0..99.
    """
    if not 0 <= percent < 100:
        raise ConfigError(f"{percent} percent of the items for validation; use 0 to 99")
    items = sorted({row.meta.item for row in found}, key=lambda item: content_id("validation", seed, item))
    count = max(1, len(items) * percent // 100) if percent and len(items) > 1 else 0
    held = set(items[:count])
    return Split(
        [row for row in found if row.meta.item not in held], [row for row in found if row.meta.item in held]
    )


def write_rows(path: Path, found: Iterable[AnyRow]) -> None:
    """Rows as JSON Lines; a file that was there stays until the new one is whole.

    Raises
    ------
    RunError
        If the file can't be written.
    """
    write_text(path, "".join(json.dumps(row.to_dict()) + "\n" for row in found))


def write_text(path: Path, text: str) -> None:
    """A whole file or none: written beside its place, then renamed."""
    beside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(
            f"{path} can't be written ({error.strerror}); make space or name another folder"
        ) from error


def read_rows(path: Path) -> list[Row] | list[PreferenceRow]:
    """Rows of a file that :func:`write_rows` wrote.

    Raises
    ------
    ConfigError
        For a file that isn't there, or a line that is no row, by its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror})") from error
    plain: list[Row] = []
    pairs: list[PreferenceRow] = []
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            prompt = tuple(ChatMessage(**message) for message in data["prompt"])
            meta = Meta(**data["meta"])
            if "completion" in data:
                plain.append(Row(prompt, data["completion"][0]["content"], meta))
            else:
                pairs.append(
                    PreferenceRow(prompt, data["chosen"][0]["content"], data["rejected"][0]["content"], meta)
                )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(
                f"{path}, line {number}: not a training row ({type(error).__name__}: {error})"
            ) from error
    if plain and pairs:
        raise ConfigError(f"{path} mixes rows to imitate and preference rows; use one file for each")
    return plain or pairs
