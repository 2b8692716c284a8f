"""Forecast: what an item would cost on a graph, before anything is run.

Calls and messages are exact (the schedule knows them); tokens rest on assumptions that the caller
gives: how long a message and the question are. They are for comparing graphs, not for a bill.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from agentcomm.graph import AgentGraph, Topology
from agentcomm.schedule import Schedule

CHARACTERS_PER_TOKEN = 4.0
"""Of English in common tokenizers, for the team's text and the roles."""


@dataclass(frozen=True, slots=True)
class RoundForecast:
    """One round: its waves, model calls, and messages that those calls read.

    ``again`` of the messages are read again from memory. ``input_tokens`` assumes the lengths given
    to :func:`forecast`; what a chat template adds is not in it.
    """

    round: int
    waves: tuple[tuple[str, ...], ...]
    calls: int
    messages: int
    again: int
    input_tokens: int

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
    said: dict[str, int] = {}
    rounds: list[RoundForecast] = []
    for r in range(1, graph.rounds + 1):
        waves = tuple(w.agents for w in schedule.waves if w.round == r)
        calls = messages = again = tokens = 0
        for name in (a for wave in waves for a in wave):
            agent = graph.by_name[name]
            fresh = len(schedule.sources(name, r))
            remembered, own = (read.get(name, 0), said.get(name, 0)) if agent.memory else (0, 0)
            read[name], said[name] = remembered + fresh, own + 1
            if agent.act is None:
                calls += 1
                messages += fresh + remembered
                again += remembered
                fixed = (len(graph.system) + len(agent.role)) / CHARACTERS_PER_TOKEN
                tokens += round(fixed) + task_tokens + (fresh + remembered + own) * message_tokens
        rounds.append(RoundForecast(r, waves, calls, messages, again, tokens))
    return tuple(rounds)
