"""Graphs and tasks by name: paths first, then what is shipped; what is wrong is said in one sentence."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from agentcomm import loading
from agentcomm.dialogue import stopping
from agentcomm.errors import GraphError, TaskError
from agentcomm.graph import Agent, AgentGraph
from agentcomm.loading import load_graph, load_task, shipped
from agentcomm.research.digest import from_spec
from agentcomm.schedule import Schedule

GRAPH = "import agentcomm as ac\ndef graph(n: int = 1):\n    return ac.AgentGraph([ac.Agent(f'a{n}')], decision=f'a{n}')\n"


@pytest.mark.parametrize("name", sorted(shipped("graphs")))
def test_every_shipped_graph_builds_and_has_a_schedule(name: str) -> None:
    graph = load_graph(name)
    assert Schedule.of(graph).waves[-1].agents == (graph.decision,)
    functions = {a.name: a.act for a in graph.agents if a.act is not None}
    again = AgentGraph.from_dict(
        graph.to_dict(), functions=functions, channels=from_spec, stops=stopping.from_spec
    )
    assert again == graph


def test_a_path_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "debate").write_text(GRAPH)
    (tmp_path / "debate.py").write_text(GRAPH)
    monkeypatch.chdir(tmp_path)
    assert load_graph("debate.py").names == ("a1",)


def test_options_reach_the_graph_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(GRAPH)
    assert load_graph(file, {"n": 3}).names == ("a3",)
    with pytest.raises(GraphError, match="has no option m; it has: n"):
        load_graph(file, {"m": 3})


def test_a_graph_object_takes_no_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import agentcomm as ac\ngraph = ac.AgentGraph([ac.Agent('a')], decision='a')\n")
    assert load_graph(file).names == ("a",)
    with pytest.raises(GraphError, match="takes no options"):
        load_graph(file, {"n": 3})


@pytest.mark.parametrize("text", ["nope", '{"agents": 3}', "\udcff"])
def test_a_json_file_that_holds_no_graph_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "g.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(GraphError, match=rf"{file.name}: "):
        load_graph(file)


def test_a_json_graph_is_loaded(tmp_path: Path) -> None:
    graph = AgentGraph([Agent("a"), Agent("b")], [("a", "b")], decision="b")
    file = tmp_path / "g.json"
    file.write_text(graph.to_json())
    assert load_graph(file) == graph


def test_an_entry_point_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "agentcomm.topologies:single", "agentcomm.graphs")
    monkeypatch.setattr(loading.importlib.metadata, "entry_points", lambda group: [point])
    assert load_graph("theirs", {"agent": "a"}).names == ("a",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "defines no `graph`"),
        ("graph = 3", "is a int, not an AgentGraph"),
        ("def graph(): return 3", "is a int, not an AgentGraph"),
        ("import nothing_like_this", "line 1: ModuleNotFoundError"),
        ("\n\ndef graph(: pass", "SyntaxError"),
        ("def graph():\n    return 1 / 0", "line 2: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_in_a_graph_file_is_said_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(GraphError) as caught:
        load_graph(file)
    assert says in str(caught.value)
    assert "mine.py" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(GraphError, match="no graph called 'debat'.*debate"):
        load_graph("debat")
    with pytest.raises(TaskError, match="no task called 'record'.*records"):
        load_task("record")
    with pytest.raises(GraphError, match=r"no file mine\.py"):
        load_graph("mine.py")
