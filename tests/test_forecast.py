"""What an item would cost, against what it then costs."""

from __future__ import annotations

import anyio
import pytest

from agentcomm import topologies
from agentcomm.api import run
from agentcomm.backends.scripted import Echo
from agentcomm.forecast import forecast
from agentcomm.graph import Agent, AgentGraph, Edge

TEAMS = {
    "chain": topologies.chain(["a", "b", "c"]),
    "debate": topologies.debate(["a", "b", "c"], decision="judge", rounds=3),
    "mesh": topologies.mesh(["a", "b", "c"], decision="judge", rounds=2),
    "forgetful": AgentGraph(
        [Agent("a", memory=False), Agent("b")], [("a", "b"), Edge("a", "a", "temporal")], "b", rounds=3
    ),
}


@pytest.mark.parametrize("name", sorted(TEAMS))
def test_calls_and_messages_are_what_the_ledger_then_counts(name: str) -> None:
    graph = TEAMS[name]

    async def ask() -> tuple[int, int]:
        usage = (await run(graph, "Why?", Echo(), executor="plain")).usage
        return usage.calls, sum(usage.messages_by_edge().values())

    said = forecast(graph)
    assert (sum(r.calls for r in said), sum(r.messages for r in said)) == anyio.run(ask)


def test_what_is_pruned_costs_nothing() -> None:
    graph = TEAMS["debate"]
    whole, cut = forecast(graph), forecast(graph, graph.topology(without_agents=["a"]))
    assert [r.calls for r in whole] == [3, 3, 4]
    assert [r.calls for r in cut] == [2, 2, 3]
    assert sum(r.messages for r in cut) < sum(r.messages for r in whole)


def test_tokens_grow_with_the_lengths_that_are_assumed() -> None:
    (short,) = forecast(TEAMS["chain"], message_tokens=0, task_tokens=0)
    (long,) = forecast(TEAMS["chain"], message_tokens=10, task_tokens=7)
    assert long.input_tokens - short.input_tokens == 2 * 10 + 3 * 7
