"""Allocating: edges are measured alone, the best spread is found, and it is checked on other texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import GraphError, TaskError, UserError
from agentcomm.information.allocating import Allocated, allocate_budget
from agentcomm.information.ways import Way

pytestmark = pytest.mark.anyio
LONG = "Nothing happened there on that day. " * 6


def team() -> ac.AgentGraph:
    """Two who report; the fact stands at the end of the first one's report."""

    async def knower(turn: ac.Turn) -> str:
        return f"{LONG}The answer is {1000 + int(turn.item.id[1:])}."

    async def talker(turn: ac.Turn) -> str:
        return f"{LONG}That is all."

    return ac.AgentGraph(
        [ac.Agent("knower", act=knower), ac.Agent("talker", act=talker), ac.Agent("judge", context=False)],
        [ac.Edge("knower", "judge"), ac.Edge("talker", "judge")],
        decision="judge",
    )


def says_what_it_reads(request: ChatRequest) -> str:
    _, found, rest = request.messages[-1].content.partition("The answer is ")
    return rest[:4] if found else "no idea"


def work(items: int = 12) -> ac.Task:
    made = [
        ac.Item(f"q{i}", f"Which number, {i}?", f"{1000 + i}", context=f"Text {i}.") for i in range(items)
    ]
    return ac.Task("numbers", made, lambda item, text: ac.Score(float(item.answer in text)))


async def spread(out: Path | None, total: float, **more: Any) -> tuple[Allocated, Scripted]:
    model = Scripted(says_what_it_reads, name="scripted/judge")
    found = await allocate_budget(
        more.pop("graph", team()),
        more.pop("task", work()),
        model,
        Way.parse("truncate"),
        (8, 16),
        total,
        out=out,
        executor="plain",
        **more,
    )
    return found, model


async def test_the_edge_that_carries_the_fact_gets_the_tokens_and_that_holds_on_other_texts(
    tmp_path: Path,
) -> None:
    out = tmp_path / "a"
    found, _ = await spread(out, 70)
    assert found.allocation.budgets == {
        "knower->judge": None,
        "talker->judge": 16,
    } or found.allocation.budgets == {
        "knower->judge": None,
        "talker->judge": 8,
    }
    assert found.allocation.chosen.loss == 0
    assert found.allocation.even.loss == 1, "half of the budget is too little for the fact"
    by_name = {c.name: c for c in found.checked}
    assert by_name["allocated"].score.mean == by_name["verbatim"].score.mean == 1.0
    assert by_name["spread evenly"].score.mean == 0.0
    assert found.against_even is not None and found.against_even.mean == 1.0
    for c in found.checked:
        assert c.items == 6 == found.measured_items
    allocated, verbatim = by_name["allocated"], by_name["verbatim"]
    assert allocated.read is not None and allocated.read <= 70
    assert verbatim.read is not None and verbatim.read > 70
    assert allocated.saved is not None and allocated.saved.mean is not None
    assert allocated.saved.mean == pytest.approx(verbatim.read - allocated.read)
    assert json.loads((out / "allocation.json").read_text()) == json.loads(json.dumps(found.facts()))
    again, model = await spread(out, 70)
    assert again.facts() == found.facts()
    assert not model.requests, "nothing is paid twice"


async def test_a_total_that_is_too_small_says_what_is_needed() -> None:
    with pytest.raises(UserError, match="too few: the smallest options of these 2 edges take"):
        await spread(None, 3)


async def test_edges_that_are_not_named_stay_as_they_are(tmp_path: Path) -> None:
    found, _ = await spread(tmp_path / "a", 25, edges=["talker -> judge"])
    assert list(found.allocation.budgets) == ["talker->judge"]
    assert found.checked[1].score.mean == 1.0


async def test_what_can_not_be_spread_is_refused() -> None:
    with pytest.raises(GraphError, match="no edge x->judge"):
        await spread(None, 50, edges=["x->judge"])
    alone = ac.AgentGraph([ac.Agent("a")], decision="a")
    with pytest.raises(GraphError, match="has no edges"):
        await spread(None, 50, graph=alone)
    same = [ac.Item(f"q{i}", f"{i}?", "1", context="One text.") for i in range(4)]
    with pytest.raises(TaskError, match="all about one text"):
        await spread(None, 50, task=ac.Task("same", same, lambda item, text: ac.Score(0.0)))
