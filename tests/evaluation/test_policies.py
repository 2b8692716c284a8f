"""A policy under evaluation: teams that the graph lacks, held-out items, its controls, its cost and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.cli.compare import paid_back
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.compare import Comparison, compare
from agentcomm.evaluation.control_runs import check_controls, control_paths, run_controls
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.evaluation.splits import hash_of
from agentcomm.graph import Agent, AgentGraph, Edge, Topology
from agentcomm.message import EdgeKey
from agentcomm.options import RunOptions
from agentcomm.pruning.policy import Card, Policy, StaticPolicy
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.task import Item, Score, Task
from tests.evaluation.test_report import report

TEAM = AgentGraph(
    [
        Agent("ann", role="Be bold."),
        Agent("bob", role="Be brief."),
        Agent("cy", role="Count."),
        Agent("judge"),
    ],
    [Edge("ann", "bob"), Edge("bob", "cy"), Edge("ann", "judge"), Edge("bob", "judge"), Edge("cy", "judge")],
    "judge",
    rounds=2,
)
KEEPS = {"even": (("cy", "ann"),), "odd": (("bob", "ann"), ("bob", "cy"))}
"""By item, the edges among the pool: the graph has none of them this way round but one."""


class ByItem(Policy):
    """Two teams, neither a part of the graph: cy->ann for even items, everybody under bob for odd ones."""

    kind = "by-item-of-tests"

    def propose(self, item: Item) -> EdgeProbabilities:
        names = self.pool.index
        edges = KEEPS["even" if int(item.id[1:]) % 2 == 0 else "odd"]
        keep, p = [0.0] * len(self.pool), [[0.0] * len(self.pool) for _ in self.pool.names]
        temporal = [[0.0] * len(self.pool) for _ in self.pool.names]
        for a, b in edges:
            keep[names[a]] = keep[names[b]] = p[names[a]][names[b]] = temporal[names[b]][names[a]] = 1.0
        return EdgeProbabilities.of(keep, p, temporal)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    @classmethod
    def restore(cls, *given: Any) -> Any:
        raise NotImplementedError


def policy(learned_from: frozenset[str] = frozenset(), **spent: Any) -> ByItem:
    card = Card("by-item", learned_from=learned_from, spent={"tokens": 3000, "rollouts": 9, **spent})
    return ByItem(Pool(TEAM, "complete"), card)


def numbers(n: int = 6) -> Task:
    items = [Item(f"q{i}", f"Say {i}.", answer=str(i)) for i in range(n)]
    return Task(
        "numbers",
        items,
        lambda item, answer: Score(float(answer.strip() == item.answer)),
        extract=lambda item, text: text.strip() or None,
    )


def saying(request: ChatRequest) -> str:
    asked = next(m.content for m in request.messages if "Say " in m.content)
    return asked.split("Say ")[1].split(".")[0]


def run(path: Path | None, topology: Any = None, task: Task | None = None, model: Any = None) -> Run:
    async def go() -> Run:
        return await evaluate(
            TEAM, task or numbers(), model or Scripted(saying), out=path, topology=topology, executor="plain"
        )

    return anyio.run(go)


def test_a_policy_runs_teams_that_the_graph_does_not_have(tmp_path: Path) -> None:
    model = Scripted(saying)
    done = run(tmp_path / "p", policy(), model=model)
    assert done.failed == 0 and done.summary()["score"]["mean"] == 1.0
    calls = {name: group.calls for name, group in done.usage.by_agent().items()}
    # Two rounds; three even items with ann and cy, three odd ones with all; the judge speaks once.
    assert calls == {"ann": 12, "bob": 6, "cy": 12, "judge": 6}
    assert set(done.usage.by_edge()) == {
        "ann->judge", "bob->judge", "cy->judge", "cy->ann", "ann->cy", "bob->ann", "bob->cy", "ann->bob", "cy->bob",
    }  # fmt: skip
    kept = [json.loads(e.topology or "")["masks"][0]["agents"] for e in done.episodes]
    assert kept[:2] == [["ann", "cy", "judge"], ["ann", "bob", "cy", "judge"]]
    asked = len(model.requests)
    again = run(tmp_path / "p", policy(), model=model)
    assert len(model.requests) == asked and again.summary()["scored"] == 6
    with pytest.raises(ConfigError, match="topology.spent.tokens was 3000, now 4000"):
        run(tmp_path / "p", policy(tokens=4000))


def test_items_that_a_policy_has_learned_from_are_never_scored(tmp_path: Path) -> None:
    task = numbers()
    model = Scripted(saying)
    with pytest.raises(TaskError, match="1 items were used for learning .the first is 'q3'"):
        run(tmp_path / "p", policy(frozenset({hash_of(task.items[3])})), model=model)
    assert not model.requests and not (tmp_path / "p").exists()
    assert run(None, policy(frozenset({"another"}))).failed == 0


@pytest.mark.anyio
async def test_its_controls_are_run_and_a_random_team_is_as_large_on_every_item(tmp_path: Path) -> None:
    task, model, options = numbers(4), Scripted(saying), RunOptions(executor="plain")
    one = policy()
    done = await evaluate(TEAM, task, model, out=tmp_path / "p", topology=one, options=options)
    words = ("single", "self_consistency", "vote", "edgeless", "random", "complete", "fixed", "untrained")
    controlled = await run_controls(done, TEAM, task, model, words, topology=one, options=options)
    assert "no initial weights" in controlled.not_applicable["untrained"]
    random = [(c, r) for c, r in controlled.runs if c.name == "random"]
    assert len(random) == 3
    for control, ran in random:
        assert ran.failed == 0
        for item, row in zip(task.items, ran.episodes, strict=True):
            theirs, ours = Topology.from_dict(json.loads(row.topology or "")), one(item)
            assert _size(theirs) == _size(ours)
        assert control.graph.rounds == 2
    complete = next(r for c, r in controlled.runs if c.name == "complete")
    assert complete.usage.calls == 7 * 4  # the whole team, whatever the policy says
    told = check_controls([tmp_path / "p", *control_paths(tmp_path / "p")])
    assert {"random", "complete", "edgeless", "vote"} <= set(told.present)
    assert "untrained" not in told.missing
    net = compare([tmp_path / "p", *control_paths(tmp_path / "p")])
    assert [row["tokens"]["learning"] for row in net.rows] == [3000] + [0] * (len(net.rows) - 1)


def _size(topology: Topology) -> tuple[int, int, int, int]:
    (mask,) = topology.masks
    among = [e for e in mask.edges if e.reader != "judge"]
    return (
        len(mask.agents),
        sum(e.kind == "spatial" for e in among),
        sum(e.kind == "temporal" for e in among),
        len(mask.edges) - len(among),
    )


# -- gross and net


def compared(tmp_path: Path, spent: Any, **options: Any) -> Comparison:
    run(tmp_path / "whole")
    cut = StaticPolicy(
        Pool(TEAM),
        Card("tiny", spent=spent),
        EdgeProbabilities.of_topology(Pool(TEAM), TEAM.topology(without_agents=["cy"])),
    )
    run(tmp_path / "cut", cut)
    return compare([tmp_path / "whole", tmp_path / "cut"], **options)


def test_net_tokens_spread_learning_over_items_and_break_even_is_where_it_is_paid_back(
    tmp_path: Path,
) -> None:
    told = compared(tmp_path, {"tokens": 9000})
    whole, cut = (row["tokens"] for row in told.rows)
    assert (whole["learning"], whole["net"]) == (0, whole["gross"])
    assert (cut["learning"], cut["net"]) == (9000, cut["gross"] + 9000 * 6 // 1000)
    (against,) = told.against
    assert against.break_even == pytest.approx(9000 / ((whole["gross"] - cut["gross"]) / 6))
    assert against.net_saved == pytest.approx(1 - cut["net"] / whole["net"])
    assert against.tokens_saved is not None and against.net_saved is not None
    assert against.tokens_saved > against.net_saved
    assert told.to_dict()["against"][0]["break_even"] == against.break_even
    soon = compare([tmp_path / "whole", tmp_path / "cut"], amortise=10)
    assert soon.rows[1]["tokens"]["net"] == cut["gross"] + 5400
    assert soon.to_dict()["amortise"] == 10
    line = paid_back(told.rows[1], {"cut": against}, "whole") or ""
    assert "9,000 tokens" in line and f"after {against.break_even:,.0f} items" in line
    assert paid_back(told.rows[0], {}, "whole") is None
    with pytest.raises(ConfigError, match="0 items"):
        compare([tmp_path / "whole", tmp_path / "cut"], amortise=0)


def test_what_learning_took_may_be_unknown_and_is_then_no_zero(tmp_path: Path) -> None:
    told = compared(tmp_path, {"rollouts": 9, "tokens": None})
    assert (told.rows[1]["tokens"]["learning"], told.rows[1]["tokens"]["net"]) == (None, None)
    assert (told.against[0].net_saved, told.against[0].break_even) == (None, None)
    assert "unknown" in (paid_back(told.rows[1], {}, "whole") or "")


def test_a_policy_that_saves_nothing_is_never_paid_back(tmp_path: Path) -> None:
    run(tmp_path / "a")
    pool = Pool(TEAM)
    same = StaticPolicy(
        pool, Card("none", spent={"tokens": 50}), EdgeProbabilities.of_topology(pool, TEAM.topology())
    )
    run(tmp_path / "b", same)
    told = compare([tmp_path / "a", tmp_path / "b"])
    assert told.against[0].break_even is None
    assert "never paid back" in (paid_back(told.rows[1], {a.run: a for a in told.against}, "a") or "")


# -- the report


def test_the_report_greys_what_a_policy_cut_and_has_what_it_added(tmp_path: Path) -> None:
    run(tmp_path / "p", policy())
    (facts,) = report(tmp_path / "p").facts["runs"]
    names = [a["name"] for a in facts["agents"]]
    edges = {(names[e["sender"]], names[e["reader"]], e["kind"]): e for e in facts["edges"]}
    assert facts["topology"] == "chosen for each item"
    assert {a["name"]: a["alive"] for a in facts["agents"]} == {"ann": 1, "bob": 0.5, "cy": 1, "judge": 1}
    assert edges["ann", "bob", "spatial"]["alive"] == 0 and not edges["ann", "bob", "spatial"]["added"]
    added = {k for k, e in edges.items() if e["added"]}
    assert added == {
        ("cy", "ann", "spatial"), ("bob", "ann", "spatial"),
        ("ann", "cy", "temporal"), ("ann", "bob", "temporal"), ("cy", "bob", "temporal"),
    }  # fmt: skip
    assert edges["cy", "ann", "spatial"]["alive"] == edges["bob", "cy", "spatial"]["alive"] == 0.5
    assert all(edges[k]["tokens"] > 0 and edges[k]["messages"] > 0 for k in added)
    talk = report(tmp_path / "p").conversation(0)
    assert talk is not None
    cut = {
        tuple(names[facts["edges"][i][end]] for end in ("sender", "reader")) for i in talk["runs"][0]["cut"]
    }
    assert cut == {("ann", "bob"), ("bob", "cy"), ("bob", "judge")}  # what it never had was not cut


def test_one_cut_for_all_items_is_told_from_one_chosen_for_each(tmp_path: Path) -> None:
    pool = Pool(TEAM)
    cut = EdgeProbabilities.of_topology(pool, TEAM.topology(without_edges=[EdgeKey("ann", "bob")]))
    run(tmp_path / "p", StaticPolicy(pool, Card("tiny"), cut))
    (facts,) = report(tmp_path / "p").facts["runs"]
    assert facts["topology"] == "cut"
    assert [e["alive"] for e in facts["edges"]] == [0, 1, 1, 1, 1]
