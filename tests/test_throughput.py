"""``eval/throughput.py`` on its fake server: the figures are there, and side by side beats one by one."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentcomm.evaluation import run
from agentcomm.evaluation.run import evaluate
from agentcomm.graph import Agent, AgentGraph
from agentcomm.task import Item, Score, Task

SCRIPT = Path(__file__).parents[1] / "eval" / "throughput.py"


def test_it_compares_a_graph_with_the_same_requests_and_with_a_loop(tmp_path: Path) -> None:
    words = (
        "--fake --latency 0.05 --concurrency 6 --items 12 --batch 1 --loop-items 3 --repeats 1 --max-tokens 8"
    )
    out = tmp_path / "throughput.json"
    command = [sys.executable, str(SCRIPT), *words.split(), "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=SCRIPT.parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    assert made == json.loads(done.stdout)
    (graph,), (direct,), (loop,) = (made["passes"][name] for name in ("graph", "direct", "loop"))
    assert (graph["requests"], direct["requests"], loop["requests"]) == (12 * 5, 12 * 5, 3 * 5)
    # The same prompts but for their mark, and replies of the same length.
    assert (direct["input_tokens"], direct["output_tokens"]) == (
        graph["input_tokens"],
        graph["output_tokens"],
    )
    assert 0 < made["graph_against_direct"] < 1.5
    assert made["graph_against_loop"] > 1.5
    assert made["reached"] == (made["graph_against_direct"] >= made["target"])


@pytest.mark.parametrize("words", [[], ["--fake", "--model", "openai/x"], ["--model", "openai/x"]])
def test_it_asks_for_a_server_or_the_fake_one(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert "--model and --base-url of a running server, or --fake" in capsys.readouterr().err


@pytest.mark.anyio
async def test_items_run_side_by_side_up_to_what_the_endpoint_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentcomm.backends.scripted import Echo

    seen: list[int] = []
    in_flight = run.in_flight

    def spied(calls: Any, graph: AgentGraph) -> int:
        seen.append(in_flight(calls, graph))
        return seen[-1]

    monkeypatch.setattr(run, "in_flight", spied)
    task = Task("t", [Item("q", "?")], lambda i, t: Score(1.0))
    for limit in (1, 48, 100):
        await evaluate(
            AgentGraph([Agent("a")], decision="a"), task, Echo(max_concurrency=limit), executor="plain"
        )
    assert seen == [1, 48, 100]
