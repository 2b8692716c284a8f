"""Arms: a graph whose readers read something else than was said.

What is said on exchanged edges then reaches nobody, so agents who can reach the answer over those edges
only are not asked again: they play back what they said in the true run, and cost nothing.

In the arm *full* a reader gets what the message was made from: the message as it was said, if a channel
shortened it (``verbatim``), or what its sender, and whoever the sender heard from, sees of the item
beyond what the reader itself sees (``context``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from agentcomm.channels.swap import Place, Swap
from agentcomm.errors import AgentCommError, ConfigError, GraphError
from agentcomm.evaluation.parts import Pairs, useful, without
from agentcomm.graph import AgentGraph, Topology
from agentcomm.information.said import Key, Said
from agentcomm.ledger.usage import ARROW
from agentcomm.message import EdgeKey, content_id
from agentcomm.prompting import Turn
from agentcomm.task import ALL_VIEWS, Item

Full = Literal["auto", "verbatim", "context", "none"]
FULL: tuple[Full, ...] = ("auto", "verbatim", "context", "none")


def pairs_of(graph: AgentGraph, topology: Topology | None, words: Sequence[str] | None) -> Pairs:
    """The pairs ``sender->reader`` that ``words`` name, or all from one agent to another.

    Raises
    ------
    GraphError
        If a word names no edge of the team, or the team has none.
    """
    alive = frozenset[EdgeKey]().union(*(m.edges for m in useful(graph, topology).masks))
    pairs = list(dict.fromkeys((e.sender, e.reader) for e in graph.edges if e.key in alive))
    if words is None:
        found = [pair for pair in pairs if pair[0] != pair[1]]
        if not found:
            raise GraphError("no agent of the team reads another one: there is no message to audit")
        return tuple(found)
    asked = []
    for word in words:
        sender, arrow, reader = (part.strip() for part in word.partition(ARROW))
        if not arrow or (sender, reader) not in pairs:
            known = ", ".join(ARROW.join(pair) for pair in pairs) or "none"
            raise GraphError(f"no edge {word!r} in the team; there are: {known}")
        asked.append((sender, reader))
    return tuple(dict.fromkeys(asked))


def keys_of(graph: AgentGraph, pairs: Pairs) -> tuple[EdgeKey, ...]:
    """Edges of both kinds between these agents."""
    return tuple(e.key for e in graph.edges if (e.sender, e.reader) in pairs)


@dataclass(frozen=True)
class Playback:
    """A function agent that says what an agent said in another run."""

    name: str
    said: Mapping[Key, Said]

    async def __call__(self, turn: Turn) -> str:
        episode = self.said.get((turn.item.id, turn.sample))
        spoken = (
            {} if episode is None else {r: t for (r, who), t in episode.spoken.items() if who == self.name}
        )
        before = [r for r in spoken if r <= turn.round]
        if not before:
            raise LookupError(f"{self.name} said nothing in the true run either")
        return spoken[max(before)]


def exchanged(
    graph: AgentGraph, pairs: Pairs, channel: Swap, said: Mapping[Key, Said], topology: Topology | None = None
) -> AgentGraph:
    """The graph with ``channel`` on the edges between ``pairs``, and playback for whoever is not heard."""
    whole = useful(graph, topology)
    left = without(graph, whole, pairs=pairs)
    heard = frozenset[str]().union(*(m.agents for m in left.masks))
    agents = [
        a if a.name in heard or a.act is not None else dataclasses.replace(a, act=Playback(a.name, said))
        for a in graph.agents
    ]
    changed = [
        dataclasses.replace(e, channel=channel) if (e.sender, e.reader) in pairs else e for e in graph.edges
    ]
    return dataclasses.replace(graph, agents=tuple(agents), edges=tuple(changed))


def others(
    said: Mapping[Key, Said], donors: Mapping[Key, Key | None], edges: Iterable[EdgeKey]
) -> dict[Place, dict[int, str]]:
    """What everybody reads in the arm *mismatched*: on each edge what the donor's reader read on it."""
    table: dict[Place, dict[int, str]] = {}
    for edge in edges:
        for (item, sample), donor in donors.items():
            if donor is not None:
                letters = said[donor].letters.get(edge, {})
                table[item, sample, edge] = {round: letter.text for round, letter in letters.items()}
    return table


def sources(
    graph: AgentGraph, edges: Iterable[EdgeKey], said: Mapping[Key, Said], items: Mapping[str, Item]
) -> dict[Place, dict[int, str]]:
    """What everybody reads in the arm *full*, by ``context``.

    A reader gets each text once: on the first edge that has it, in the first message (in every one if
    it has no memory).
    """
    shown = seen_by_way_of(graph, edges)
    table: dict[Place, dict[int, str]] = {}
    for (item, sample), episode in said.items():
        for edge, views in shown.items():
            text = "\n\n".join(filter(None, (_view(items[item], view) for view in views)))
            rounds = sorted(episode.letters.get(edge, {}))
            reader = graph.by_name[edge.reader]
            once = reader.memory or (graph.stop is not None and reader.name == graph.decision)
            table[item, sample, edge] = {r: "" if once and r != rounds[0] else text for r in rounds}
    return table


def seen_by_way_of(graph: AgentGraph, edges: Iterable[EdgeKey]) -> dict[EdgeKey, tuple[str | None, ...]]:
    """For each edge the views (``None``: the item's context) that its reader doesn't have, and gets over it."""
    wanted = set(edges)
    reads: nx.DiGraph[str] = nx.DiGraph((e.sender, e.reader) for e in graph.edges)
    found: dict[EdgeKey, tuple[str | None, ...]] = {}
    for reader in graph.agents:
        has: set[str | None] = ({None} if reader.context else set()) | (
            {reader.view} if reader.view else set()
        )
        for edge in graph.incoming[reader.name]:
            if edge.key not in wanted:
                continue
            behind = ({edge.sender} | nx.ancestors(reads, edge.sender)) - {reader.name}
            views: list[str | None] = []
            for agent in graph.agents:
                if agent.name in behind:
                    views += [None] * agent.context + [agent.view] * (agent.view is not None)
            new = [v for v in dict.fromkeys(views) if v not in has and (v is None or ALL_VIEWS not in has)]
            if ALL_VIEWS in new:  # the rest is in it
                new = [v for v in new if v in (None, ALL_VIEWS)]
            has |= set(new)
            found[edge.key] = tuple(new)
    return found


def _view(item: Item, view: str | None) -> str:
    return item.context if view is None else item.view(view)


def full_kind(
    graph: AgentGraph, edges: Sequence[EdgeKey], full: Full, items: Sequence[Item]
) -> tuple[Full, str]:
    """``verbatim``, ``context`` or ``none``, and in words what it is.

    Raises
    ------
    ConfigError
        If what was asked for makes no difference on these edges.
    """
    if full not in FULL:
        raise ConfigError(f"--full {full}: choose {', '.join(FULL)}")
    shortened = any(graph.by_key[key].channel is not None for key in edges)
    hidden = any(
        _shows(item, view)
        for views in seen_by_way_of(graph, edges).values()
        for view in views
        for item in items[:50]
    )
    if full == "verbatim" and not shortened:
        raise ConfigError(
            "--full verbatim: no channel on these edges shortens anything; take --full context or none"
        )
    if full == "context" and not hidden:
        raise ConfigError(
            "--full context: the senders see nothing of the items that their readers don't; take --full none"
        )
    if full == "verbatim" or (full == "auto" and shortened):
        return "verbatim", "the messages verbatim, without their channel"
    if full == "context" or (full == "auto" and hidden):
        return "context", "instead of the messages what their senders see of the item and their readers don't"
    why = "not asked for" if full == "none" else "nothing shortens the messages, and all agents see the same"
    return "none", why


def _shows(item: Item, view: str | None) -> bool:
    try:
        return bool(_view(item, view))
    except AgentCommError:  # said when it runs
        return True


def document_of(item: Item) -> str:
    """What an item was drawn from: ``metadata["document"]``, else the hash of what it shows, else itself."""
    named = item.metadata.get("document")
    if isinstance(named, str) and named:
        return named
    return content_id(item.context, dict(item.views)) if item.context or any(item.views.values()) else item.id
