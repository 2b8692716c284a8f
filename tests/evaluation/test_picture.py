"""The picture of who talked to whom."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from agentcomm import topologies
from agentcomm.evaluation.picture import WIDEST, Panel, draw
from agentcomm.graph import Agent, AgentGraph, Edge

SVG = "{http://www.w3.org/2000/svg}"


def widths(svg: str) -> list[float]:
    root = ElementTree.fromstring(svg)
    return [float(p.get("stroke-width", "0")) for p in root.iter(f"{SVG}path") if p.get("class") == "edge"]


def test_an_edge_is_as_wide_as_its_tokens_on_a_scale_shared_by_all_panels() -> None:
    graph = AgentGraph([Agent("a"), Agent("b"), Agent("c")], [("a", "c"), ("b", "c")], "c")
    svg = draw(
        [
            Panel("one", "", graph, {"a->c": 1000, "b->c": 500}),
            Panel("two", "", graph, {"a->c": 100, "b->c": 0}),
        ]
    )
    assert sorted(widths(svg)) == [1.0, 1.0, WIDEST / 2, WIDEST]


def test_what_is_pruned_is_drawn_grey_and_without_an_arrow_head() -> None:
    graph = AgentGraph([Agent("a"), Agent("b"), Agent("c")], [("a", "c"), ("b", "c")], "c")
    svg = draw([Panel("cut", "", graph, {"a->c": 10}, graph.topology(without_agents=["b"]))])
    assert svg.count('class="cut"') == 1 and svg.count('class="dead"') == 1
    assert svg.count("<polygon") == 1


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda s: s.strip() and "->" not in s and s != "judge"
))  # fmt: skip
def test_names_never_become_markup(name: str) -> None:
    graph = AgentGraph([Agent(name), Agent("judge")], [Edge(name, "judge")], "judge")
    root = ElementTree.fromstring(draw([Panel(name, name, graph, {f"{name}->judge": 3})]))
    assert {re.sub(r"\{.*\}", "", e.tag) for e in root.iter()} <= {
        "svg", "style", "rect", "g", "text", "path", "title", "polygon", "circle",
    }  # fmt: skip


def test_fifty_agents_with_temporal_edges_are_drawn() -> None:
    graph = topologies.mesh([f"a{i}" for i in range(50)], decision="judge", rounds=2)
    root = ElementTree.fromstring(draw([Panel("big", "", graph, {})]))
    assert len(list(root.iter(f"{SVG}circle"))) == 51
