"""Forecast: what an item would cost on a graph, before anything is run.

Calls and messages are exact (the schedule knows them); tokens rest on assumptions that the caller
gives: how long a message and the question are. They are for comparing graphs, not for a bill.

Channels change both. One that calls a model does so for every message that it delivers, unless the
message fits its budget already (how often it asks again after a reply of no use, nobody knows
beforehand); and what is read is then no longer than the budget.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from agentcomm.graph import AgentGraph, Channel, Topology
from agentcomm.schedule import Schedule

CHARACTERS_PER_TOKEN = 4.0
"""Of English in common tokenizers, for the team's text and the roles."""


@dataclass(frozen=True, slots=True)
class RoundForecast:
    """One round: its waves, model calls, and messages that agents' calls read.

    ``channel_calls`` of the calls are made by channels. ``again`` of the messages are read again from
    memory. ``input_tokens``, the channels' included, assumes the lengths given to :func:`forecast`; what
    a chat template adds, and a channel's own words, are not in it.
    """

    round: int
    waves: tuple[tuple[str, ...], ...]
    calls: int
    messages: int
    again: int
    input_tokens: int
    channel_calls: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"waves": [list(w) for w in self.waves]}


def forecast(
    graph: AgentGraph, topology: Topology | None = None, *, message_tokens: int = 100, task_tokens: int = 100
) -> tuple[RoundForecast, ...]:
    """What each round of ``graph`` costs for one item.

    Parameters
    ----------
    message_tokens, task_tokens:
        Assumed tokens of a message, and of the question with the view an agent sees.

    Examples
    --------
    >>> team = AgentGraph.from_dict({"agents": [{"name": "a"}, {"name": "b"}],
    ...                              "edges": [{"sender": "a", "reader": "b"}], "decision": "b"})
    >>> [(r.calls, r.messages) for r in forecast(team)]
    [(2, 1)]
    """
    schedule = Schedule.of(graph, topology)
    read: dict[str, int] = {}
    read_tokens: dict[str, int] = {}
    said: dict[str, int] = {}
    rounds: list[RoundForecast] = []
    for r in range(1, graph.rounds + 1):
        waves = tuple(w.agents for w in schedule.waves if w.round == r)
        calls = messages = again = tokens = by_channels = 0
        for name in (a for wave in waves for a in wave):
            agent = graph.by_name[name]
            edges = schedule.sources(name, r)
            fresh = len(edges)
            lengths = sum(_delivered(edge.channel, message_tokens) for edge in edges)
            made = sum(_calls_model(edge.channel, message_tokens) for edge in edges)
            by_channels += made
            tokens += made * message_tokens
            old, old_tokens, own = (
                (read.get(name, 0), read_tokens.get(name, 0), said.get(name, 0))
                if agent.memory
                else (0, 0, 0)
            )
            read[name], read_tokens[name], said[name] = old + fresh, old_tokens + lengths, own + 1
            if agent.act is None:
                calls += 1
                messages += fresh + old
                again += old
                fixed = (len(graph.system) + len(agent.role)) / CHARACTERS_PER_TOKEN
                tokens += round(fixed) + task_tokens + lengths + old_tokens + own * message_tokens
        rounds.append(RoundForecast(r, waves, calls + by_channels, messages, again, tokens, by_channels))
    return tuple(rounds)


def _budget(channel: Channel | None) -> int | None:
    """The most tokens that a channel delivers, if it says so."""
    for name in ("budget", "tokens"):
        value = getattr(channel, name, None)
        if isinstance(value, int):
            return value
    return None


def _delivered(channel: Channel | None, length: int) -> int:
    budget = _budget(channel)
    return length if budget is None else min(length, budget)


def _calls_model(channel: Channel | None, length: int) -> bool:
    """Whether a channel asks a model about a message of ``length`` tokens."""
    budget = _budget(channel)
    return bool(getattr(channel, "models", ())) and (budget is None or length > budget)
