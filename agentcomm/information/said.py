"""Said: what the agents of a run said and what their readers read of it, from the run's ledger.

Deliberately absent: running anything, and a second record of what the ledger has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agentcomm.errors import ConfigError
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.rows import ChannelRow, DeliveryRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import EdgeKey, content_id
from agentcomm.schedule import Schedule

Key = tuple[str, int]
"""Item and sample."""


class Letter(NamedTuple):
    """A message on its way: what was said, and what its reader read ('' if that failed)."""

    original: str
    text: str


@dataclass
class Said:
    """One episode.

    Attributes
    ----------
    spoken:
        What was said, by (round, agent).
    letters:
        What was read, by edge and by the round in which it was said.
    """

    spoken: dict[tuple[int, str], str] = field(default_factory=dict)
    letters: dict[EdgeKey, dict[int, Letter]] = field(default_factory=dict)

    def in_order(self, schedule: Schedule) -> list[tuple[int, str]]:
        """The (round, agent) of what was said, in the order of speaking."""
        order = schedule.order
        return sorted((place for place in self.spoken if place in order), key=order.__getitem__)

    def read(self, place: tuple[int, str], edges: Iterable[EdgeKey]) -> str:
        """What readers read of a message: the first of ``edges`` on which it went; itself if on none."""
        round, agent = place
        for edge in edges:
            if edge.sender == agent and (letter := self.letters.get(edge, {}).get(round)) is not None:
                return letter.text
        return self.spoken[place]


def said_in(
    ledger: Ledger, graph: AgentGraph, edges: Iterable[EdgeKey], topology: Topology | None = None
) -> dict[Key, Said]:
    """Every finished episode of a run of ``graph``, with the letters on ``edges``.

    Raises
    ------
    ConfigError
        If messages on an edge are in no ledger: they went verbatim from one function to another.
    """
    wanted = list(edges)
    for key in wanted:
        ends = (graph.by_name[key.sender], graph.by_name[key.reader])
        if graph.by_key[key].channel is None and all(agent.act is not None for agent in ends):
            raise ConfigError(
                f"what goes over {key} is in no ledger, since both are functions; leave it out with --edge, "
                "or put a channel on it"
            )
    schedule = Schedule.of(graph, topology)
    found = {(e.item, e.sample): Said() for e in ledger.episodes() if e.status == "ok"}
    for call in sorted(ledger.calls(), key=lambda row: row.started_at):
        episode = found.get((call.item, call.sample))
        if episode is not None and call.edge is None and call.error_kind is None:
            episode.spoken[call.round, call.agent] = call.reply_text or ""
    rows: list[DeliveryRow | ChannelRow] = [d for d in ledger.deliveries() if not d.again]
    # What a channel made counts, also where it was nothing and the reader's prompt shows nothing.
    rows += ledger.channels()
    for row in rows:
        episode = found.get((row.item, row.sample))
        key = EdgeKey(row.sender, row.reader, row.kind)  # type: ignore[arg-type]
        if episode is None or key not in graph.by_key:
            continue
        round = _round_of(row, graph.rounds)
        text = "" if isinstance(row, ChannelRow) and row.status == "failed" else row.text
        episode.letters.setdefault(key, {})[round] = Letter(row.original_text, text)
        episode.spoken.setdefault((round, row.sender), row.original_text)
    for episode in found.values():
        for key in wanted:
            _fill(episode, key, graph, schedule)
    return found


def _fill(episode: Said, key: EdgeKey, graph: AgentGraph, schedule: Schedule) -> None:
    """What a function reads verbatim is in no delivery: it is what the sender's model replied."""
    if graph.by_name[key.reader].act is None or graph.by_key[key].channel is not None:
        return
    letters = episode.letters.setdefault(key, {})
    for (round, agent), text in episode.spoken.items():
        read_in = round if key.kind == "spatial" else round + 1
        if agent == key.sender and schedule.topology.delivers(key, min(read_in, graph.rounds)):
            letters.setdefault(round, Letter(text, text))


def _round_of(row: DeliveryRow | ChannelRow, rounds: int) -> int:
    """When a message was said: its id tells."""
    for round in range(1, rounds + 1):
        if content_id(row.item, row.sender, round, row.original_text) == row.message_id:
            return round
    return row.round if row.kind == "spatial" else row.round - 1  # a text that the ledger had to redact


def lengths(said: Mapping[Key, Said], edges: Iterable[EdgeKey]) -> dict[Key, int]:
    """Characters that were read over ``edges`` in each episode."""
    wanted = list(edges)
    return {
        key: sum(len(letter.text) for edge in wanted for letter in episode.letters.get(edge, {}).values())
        for key, episode in said.items()
    }
