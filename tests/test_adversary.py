"""Adversaries: who is turned or added, where it stands, and that its mark is told to people alone."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agentcomm.adversary import MISLEAD, add_adversary, adversaries, with_adversary
from agentcomm.backends.scripted import Scripted
from agentcomm.channels import truncate
from agentcomm.errors import GraphError
from agentcomm.evaluation.report import write_report
from agentcomm.evaluation.run import evaluate
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.task import Item, Score, Task
from tests.reports import Opened


async def nothing(turn: object) -> str:
    return ""


def team() -> AgentGraph:
    return AgentGraph(
        [
            Agent("solver", "Solve.", model="mock/echo", view="facts"),
            Agent("critic", "Criticise."),
            Agent("runner", act=nothing),
            Agent("judge", "Judge."),
        ],
        [
            Edge("solver", "critic"),
            Edge("solver", "judge", channel=truncate(50)),
            Edge("critic", "judge"),
            Edge("runner", "judge"),
            Edge("critic", "solver", "temporal"),
        ],
        "judge",
        rounds=2,
    )


def keys(graph: AgentGraph) -> set[tuple[str, str, str]]:
    return {tuple(e.key) for e in graph.edges}


def test_a_turned_agent_keeps_its_place_and_is_told_to_mislead_after_its_own_role() -> None:
    turned = with_adversary(team(), "solver")
    one = turned.by_name["solver"]
    assert (one.model, one.view, one.adversarial) == ("mock/echo", "facts", True)
    assert one.role == f"Solve.\n\n{MISLEAD}"
    assert keys(turned) == keys(team()) and turned.names == team().names
    assert [a.adversarial for a in turned.agents] == [True, False, False, False]
    assert turned.by_name["critic"] == team().by_name["critic"]


def test_a_role_of_ones_own_is_all_that_it_is_told() -> None:
    assert with_adversary(team(), "critic", role="Say 7.").by_name["critic"].role == "Say 7."


def test_an_added_adversary_stands_where_the_imitated_agent_stands() -> None:
    grown = add_adversary(team(), "solver")
    assert grown.names == ("solver", "solver2", "critic", "runner", "judge")
    added = grown.by_name["solver2"]
    assert (added.model, added.view, added.adversarial) == ("mock/echo", "facts", True)
    assert keys(grown) - keys(team()) == {
        ("solver2", "critic", "spatial"),
        ("solver2", "judge", "spatial"),
        ("critic", "solver2", "temporal"),
    }
    (copied,) = [e for e in grown.edges if (e.sender, e.reader) == ("solver2", "judge")]
    assert copied.channel == truncate(50)
    assert not grown.by_name["solver"].adversarial


def test_by_default_it_imitates_whom_most_agents_read_under_a_name_that_is_free() -> None:
    twice = add_adversary(add_adversary(team()))
    assert [a.name for a in twice.agents if a.adversarial] == ["solver3", "solver2"]
    assert "mallory" in add_adversary(team(), name="mallory").by_name


def test_an_agent_that_reads_itself_is_imitated_with_an_edge_to_oneself() -> None:
    graph = AgentGraph(
        [Agent("a", memory=False), Agent("b")], [("a", "b"), ("a", "a", "temporal")], "b", rounds=2
    )
    assert keys(add_adversary(graph, "a")) - keys(graph) == {
        ("a2", "b", "spatial"),
        ("a2", "a2", "temporal"),
    }


def test_words_turn_an_agent_or_add_one_beside_it() -> None:
    made = adversaries(team(), ["critic", "+solver"])
    assert [a.name for a in made.agents if a.adversarial] == ["solver2", "critic"]
    assert [a.name for a in adversaries(team(), ["+"]).agents if a.adversarial] == ["solver2"]
    assert adversaries(team(), []) == team()


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("nobody", "no agent 'nobody' to make an adversary; the graph has: solver, critic, runner, judge"),
        ("runner", "agent 'runner' is a function"),
        ("+judge", "would be read by nobody"),
        ("+nobody", "no agent 'nobody'"),
    ],
)
def test_what_cannot_mislead_is_refused(word: str, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        adversaries(team(), [word])


def test_a_taken_name_or_nobody_to_imitate_is_refused() -> None:
    with pytest.raises(GraphError, match="already has an agent 'critic'"):
        add_adversary(team(), "solver", name="critic")
    with pytest.raises(GraphError, match="nobody to imitate"):
        add_adversary(AgentGraph([Agent("only")], (), "only"))


def test_the_mark_survives_json_and_is_drawn() -> None:
    turned = with_adversary(AgentGraph([Agent("a"), Agent("b")], [("a", "b")], "b"), "a")
    assert AgentGraph.from_json(turned.to_json()) == turned
    assert "class n0 adversary" in turned.mermaid()
    assert "adversarial" not in AgentGraph([Agent("a")], (), "a").to_json()


def test_the_mark_reaches_the_runs_config_and_report_and_no_prompt(tmp_path: Path) -> None:
    graph = AgentGraph([Agent("a", "Solve."), Agent("b", "Judge.")], [("a", "b")], "b")
    task = Task("t", [Item("q", "What is 2 plus 2?", "4")], lambda item, text: Score(1.0))
    model = Scripted(default="4")

    async def run() -> None:
        await evaluate(with_adversary(graph, "a"), task, model, out=tmp_path / "run", executor="plain")

    anyio.run(run)
    config = (tmp_path / "run" / "config.json").read_text()
    assert '"adversarial": true' in config
    write_report([tmp_path / "run"], tmp_path / "report.html")
    facts = Opened(tmp_path / "report.html").facts["runs"][0]
    assert [a["adversarial"] for a in facts["agents"]] == [True, False]
    asked = [m.content for request in model.requests for m in request.messages]
    assert any(MISLEAD in text for text in asked)
    assert not any("adversar" in text.lower() for text in asked)
