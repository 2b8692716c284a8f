"""``agentcomm graph``: what a graph looks like and what a round of it would cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph
from tests.command import CALLS_PER_ITEM, agentcomm


def test_json_is_the_graph_and_its_calls_a_round(team: Path) -> None:
    done = agentcomm("graph", team, "--json")
    assert (done.code, done.err) == (0, "")
    rounds = done.json.pop("rounds_cost")
    assert [r["calls"] for r in rounds] == [2, 3]
    assert sum(r["calls"] for r in rounds) == CALLS_PER_ITEM
    assert rounds[1]["waves"] == [["solver"], ["critic"], ["judge"]]
    assert AgentGraph.from_dict(done.json) == load_graph(team)


def test_what_it_says_an_item_costs_is_what_an_item_costs(team: Path, sums: Path) -> None:
    for cut in ([], ["--cut", "critic"], ["--cut", "solver->critic", "--cut", "critic->judge"]):
        said = agentcomm("graph", team, "--json", *cut).json["rounds_cost"]
        run = agentcomm("eval", team, sums, "--limit", "1", "--model", "mock/echo", "--json", *cut).json
        calls = agentcomm("ledger", run["run"], "--by", "call", "--json").json
        assert sum(r["calls"] for r in said) == run["calls"] == len(calls)


def test_mermaid_is_printed_alone(team: Path) -> None:
    done = agentcomm("graph", team, "--mermaid")
    assert done.code == 0
    assert done.out.strip() == load_graph(team).mermaid().strip()
    assert done.err == ""


@pytest.mark.parametrize("name", ["single", "debate", "solver_critic_judge"])
def test_every_shipped_graph_is_shown(name: str) -> None:
    done = agentcomm("graph", name)
    assert done.code == 0
    assert "model calls" in done.out


def test_a_cut_that_fits_nothing_is_refused(team: Path) -> None:
    for cut in ("nobody", "solver->nobody", "a->b->c", "->", "judge"):
        done = agentcomm("graph", team, "--cut", cut)
        assert done.code == 2, cut
        assert done.out == ""
        assert done.complaint
