"""agentcomm tune: formats side by side on a real team, resumable, clear about what it can't do."""

import json
from pathlib import Path

import pytest

from agentcomm.dialogue.formats import POOL
from agentcomm.dialogue.play import Team, dialogue
from agentcomm.errors import TaskError
from agentcomm.ledger.rows import CallRow
from agentcomm.loading import load_graph, load_task
from tests.command import agentcomm

MODEL = {"by_role": {"JSON": "<A>x</A> in three words"}, "default": "<A>x</A>" + " word" * 30}
"""Says the same every time: much in natural language, little when told to write JSON."""

SMALL = ["--rungs", "2,3", "--calibrate", "2", "--accept", "3", "--min-tokens", "1", "--search", "json,code"]
TASK = ["-T", "specialists=2", "-T", "by=attribute", "-T", "hops=2"]


def test_a_search_prints_formats_side_by_side_and_continues_without_paying_twice(tmp_path: Path) -> None:
    script = tmp_path / "model.json"
    script.write_text(json.dumps(MODEL))
    command = ["tune", "information_exchange", "records", "--model", f"scripted/{script}", *SMALL, *TASK]
    first = agentcomm(*command, "--out", str(tmp_path / "f"))
    assert first.code == 0, first.err
    for word in ("natural", "json", "code", "reward", "final"):
        assert word in first.out
    # Nobody is right here, so shorter is better and no score is lost.
    assert "use json" in first.out and POOL["json"].instruction in " ".join(first.out.split())
    result = json.loads((tmp_path / "f" / "result.json").read_text())
    assert result["adopted"] == "json" and result["paid_tokens"] == result["spent"]
    again = agentcomm(*command, "--out", str(tmp_path / "f"), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["paid_tokens"] == result["paid_tokens"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["solver_critic_judge"], "takes the option instruction"),
        (["information_exchange", "--search", "morse"], "unknown formats morse"),
        (["information_exchange", "--rungs", "many"], "write numbers"),
        (["information_exchange", "-G", "instruction=x"], "leave it out"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    graph, *rest = arguments
    made = agentcomm("tune", graph, "records", "--model", "mock/echo", *SMALL, *TASK, *rest)
    assert made.code == 2 and says in " ".join(made.err.split())


def test_formats_are_not_chosen_on_items_to_score(tmp_path: Path) -> None:
    task = load_task("records", {"limit": 4, "split": "score"})
    with pytest.raises(TaskError, match="score"):
        Team(lambda i: load_graph("information_exchange"), task, task.items, (), "mock/echo", tmp_path)


def call(agent: str, round: int, **more: object) -> CallRow:
    base = {"id": f"{agent}{round}", "item": "i", "sample": 0, "round": round, "agent": agent, "attempt": 1}
    base |= {"phase": "learn", "model": "m", "request_id": "r", "started_at": 0.0, "reply_text": "hm"}
    return CallRow(**{**base, **more})  # type: ignore[arg-type]


def test_a_dialogue_counts_what_was_written_and_read_and_unknown_is_missing() -> None:
    turns = [
        call("a", 1, input_tokens=50, output_tokens=10, reasoning_tokens=4),
        call("b", 1, input_tokens=60, output_tokens=20, finish_reason="length"),
    ]
    made = dialogue(1.0, turns)
    assert made.tokens == {"completion": 30, "message": 26, "total": 140}
    assert [m.capped for m in made.messages] == [False, True]
    assert dialogue(1.0, [call("a", 1, output_tokens=5)]).tokens == {"completion": 5, "message": 5}
    assert dialogue(1.0, [call("a", 1)]).tokens == {}
