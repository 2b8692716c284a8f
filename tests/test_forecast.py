"""What an item would cost, against what it then costs."""

from __future__ import annotations

import anyio
import pytest

from agentcomm import channels, topologies
from agentcomm.api import run
from agentcomm.backends.scripted import Echo, Scripted, count_words
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


def shortened(budget: int = 5) -> AgentGraph:
    """A debate of two rounds whose every edge is summarised."""
    return TEAMS["mesh"].with_channel(channels.summarise(budget=budget))


def test_calls_that_channels_make_are_counted_as_the_ledger_then_counts_them() -> None:
    graph = shortened()
    said = " ".join(["word"] * 20) + "."

    async def ask() -> tuple[int, int]:
        model = Scripted(lambda request: "Short." if "shorten texts" in request.messages[0].content else said)
        usage = (await run(graph, "Why?", model, executor="plain")).usage
        return usage.calls, sum(row.edge is not None for row in usage.rows)

    rounds = forecast(graph, message_tokens=count_words(said))
    assert (sum(r.calls for r in rounds), sum(r.channel_calls for r in rounds)) == anyio.run(ask)
    assert sum(r.channel_calls for r in rounds) > 0
    plain = forecast(TEAMS["mesh"], message_tokens=count_words(said))
    assert sum(r.calls for r in rounds) == sum(
        r.calls + s.channel_calls for r, s in zip(plain, rounds, strict=True)
    )


def test_a_message_that_fits_the_budget_makes_no_call_of_its_channel() -> None:
    rounds = forecast(shortened(budget=100), message_tokens=100)
    assert not any(r.channel_calls for r in rounds)
    assert [r.calls for r in rounds] == [r.calls for r in forecast(TEAMS["mesh"], message_tokens=100)]


def test_a_channel_without_a_model_makes_no_call_but_shortens_what_is_read() -> None:
    chain = TEAMS["chain"]
    (whole,) = forecast(chain, message_tokens=50)
    for channel in (channels.extract(budget=10), channels.truncate(tokens=10)):
        (cut,) = forecast(chain.with_channel(channel), message_tokens=50)
        assert cut.channel_calls == 0 and cut.calls == whole.calls
        assert whole.input_tokens - cut.input_tokens == 2 * 40
    (made,) = forecast(chain.with_channel(channels.summarise(budget=10)), message_tokens=50)
    assert made.channel_calls == 2 and made.input_tokens == whole.input_tokens - 2 * 40 + 2 * 50
