"""to_langgraph joins a team to models, limits and a ledger inside a user's application."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.errors import ConfigError, GraphError
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger

EXAMPLE = Path(__file__).parents[1] / "examples" / "inside_langgraph.py"


def chain() -> ac.AgentGraph:
    return ac.topologies.chain(["a", "b"], "judge")


@pytest.mark.anyio
async def test_an_exported_team_answers_as_run_does() -> None:
    answer = await ac.to_langgraph(chain(), model="mock/echo").ainvoke({"question": "Why?"})
    episode = await ac.run(chain(), "Why?", model="mock/echo")
    assert answer["answer"] == episode.answer
    assert [m["text"] for m in answer["messages"]] == [m.text for m in episode.messages]
    assert answer["usage"] == episode.usage.to_dict()


@pytest.mark.anyio
async def test_a_policy_chooses_who_speaks_from_the_item() -> None:
    graph = chain()

    def policy(item: ac.Item) -> ac.Topology:
        return graph.topology(without_agents=["a"] if "short" in item.question else [])

    team = ac.to_langgraph(graph, model="mock/echo", policy=policy)
    long = await team.ainvoke({"question": "The long way?"})
    short = await team.ainvoke({"question": "The short way?"})
    assert [m["agent"] for m in long["messages"]] == ["a", "b", "judge"]
    assert [m["agent"] for m in short["messages"]] == ["b", "judge"]


@pytest.mark.anyio
async def test_calls_are_limited_and_recorded_in_the_ledger_given() -> None:
    with Ledger.in_memory() as ledger:
        team = ac.to_langgraph(chain(), model="mock/echo", ledger=ledger, item_limits=Limits(calls=2))
        answer = await team.ainvoke({"question": "Why?"})
        assert answer["answer"] is None
        assert answer["failure"]["kind"] == "limit"
        assert answer["usage"]["calls"] == 2
        assert [row.agent for row in ledger.calls()] == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "error"), [({"temprature": 1}, ConfigError), ({"policy": "other"}, GraphError)]
)
def test_what_cannot_work_is_refused_when_the_graph_is_made(
    wrong: dict[str, Any], error: type[Exception]
) -> None:
    if "policy" in wrong:
        wrong = {"policy": ac.topologies.chain(["x", "y"]).topology()}
    with pytest.raises(error):
        ac.to_langgraph(chain(), model="mock/echo", **wrong)


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "mock/echo"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.index("[writer]") < printed.index("[editor]") < printed.index("Your support team")
    assert "writer->editor" in printed
