"""``agentcomm value``: the table to prune by, its last line, its warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import SUMS, agentcomm, write

REPLIES = {"by_role": {"Judge.": "4", "Solve.": "4", "Criticise.": "5"}}


@pytest.fixture
def scripted(tmp_path: Path) -> str:
    return f"scripted/{write(tmp_path, 'replies.json', json.dumps(REPLIES))}"


def test_the_table_ends_with_the_cut_to_try_next_and_that_cut_runs(
    team: Path, sums: Path, scripted: str
) -> None:
    words = ("value", team, sums, "-m", scripted, "--executor", "plain", "--out", "v")
    done = agentcomm(*words)
    assert done.code == 0, done.err
    for name in ("solver", "critic", "critic->solver", "solver->judge"):
        assert f"\n {name} " in done.out
    assert "can't be left out: it gives the answer" in done.out
    last = done.out.strip().splitlines()[-1]
    assert last.startswith('next: --cut "') and "an item (" in last and "saves" in last
    cut = last.split('"')[1]
    pruned = agentcomm("eval", team, sums, "-m", scripted, "--cut", cut, "--out", "pruned", "--json")
    assert pruned.code == 0
    found = agentcomm(*words, "--json").json
    row = next(p for p in found["parts"] if p["name"] == cut)
    tokens = pruned.json["tokens"]
    assert found["tokens"] - row["saved"] == pytest.approx((tokens["input"] + tokens["output"]) / 4)


def test_json_is_one_object_with_every_part_and_what_it_took(team: Path, sums: Path, scripted: str) -> None:
    done = agentcomm("value", team, sums, "-m", scripted, "--executor", "plain", "--out", "v", "--json")
    made = done.json
    assert (made["graph"], made["task"], made["method"], made["items"]) == ("team", "sums", "ablation", 4)
    assert {p["name"] for p in made["parts"]} == {
        "solver", "critic", "judge", "solver->critic", "solver->judge", "critic->judge", "critic->solver",
    }  # fmt: skip
    assert made["paid"]["runs"] == 7 and made["paid"]["replayed"] > 0
    assert json.loads(Path("v/ablation.json").read_text())["parts"] == made["parts"]


def test_regression_and_a_choice_of_parts(team: Path, sums: Path, scripted: str) -> None:
    done = agentcomm(
        "value", team, sums, "-m", scripted, "--executor", "plain", "--method", "regression", "--samples", "2",
        "--edges", "critic->judge, solver->critic", "--edges", "critic", "--limit", "12", "--out", "v", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {p["name"] for p in done.json["parts"]} == {"critic", "critic->judge", "solver->critic"}
    assert done.json["paid"]["runs"] == 3
    assert "random sub-teams" in done.json["what"]


def test_values_are_found_on_validate_unless_told_otherwise_and_score_is_warned_about() -> None:
    words = ("value", "records_team", "records", "-m", "mock/echo", "--limit", "2", "--edges", "s1->s2")
    words = (*words, "--executor", "plain", "--json")
    done = agentcomm(*words, "--out", "a")
    assert (done.code, done.err) == (0, "")
    assert json.loads(Path("a/whole/config.json").read_text())["task"]["config"]["split"] == "validate"
    done = agentcomm(*words, "--out", "b", "--split", "score")
    assert done.code == 0 and done.err.startswith("warning: these are score items")
    assert agentcomm(*words, "--out", "c", "--split", "learn").err == ""
    assert "learn, validate or score" in agentcomm(*words, "--out", "d", "--split", "sometime").complaint


def test_a_task_without_splits_is_taken_whole_with_a_warning(team: Path, sums: Path) -> None:
    done = agentcomm("value", team, sums, "-m", "mock/echo", "--edges", "critic", "--out", "v", "--json")
    assert done.code == 0 and done.err.startswith("warning: the task's items name no split")


def test_a_task_whose_validate_items_are_missing_is_an_error_and_not_scored_instead(
    team: Path, tmp_path: Path
) -> None:
    only_score = SUMS.replace("limit: int = 4", "limit: int = 4, split: str = 'score'").replace(
        "str(2 * i))", "str(2 * i), metadata={'split': 'score'})"
    )
    only_score = only_score.replace(
        "    return ac.Task",
        "    if split != 'score':\n        raise ac.UserError('no validate items')\n    return ac.Task",
    )
    file = write(tmp_path, "scored.py", only_score)
    done = agentcomm("value", team, file, "-m", "mock/echo", "--out", "v")
    assert done.code == 2 and "no validate items" in done.complaint
    assert not Path("v").exists()


def test_what_cannot_be_is_said_in_a_sentence(team: Path, sums: Path) -> None:
    words = ("value", team, sums, "-m", "mock/echo", "--out", "v")
    assert "no agent or edge 'critc'" in agentcomm(*words, "--edges", "critc").complaint
    assert "unknown method 'guess'" in agentcomm(*words, "--method", "guess").complaint
    assert "nothing can be left out" in agentcomm("value", "single", sums, "-m", "mock/echo").complaint


def test_a_run_limit_stops_all_runs_together_and_the_same_command_goes_on(
    team: Path, sums: Path, scripted: str
) -> None:
    words = ("value", team, sums, "-m", scripted, "--executor", "plain", "--out", "v")
    done = agentcomm(*words, "--run-limit", "calls=25")
    assert done.code == 1
    assert "stopped early: without " in done.err and "not measured" in done.out
    assert agentcomm(*words).code == 0


def test_an_adversary_shows_in_its_value(team: Path, sums: Path, scripted: str) -> None:
    done = agentcomm(
        "value", team, sums, "-m", scripted, "--adversary", "+critic", "--executor", "plain", "--out", "v", "--json"
    )  # fmt: skip
    assert "critic2->judge" in {p["name"] for p in done.json["parts"]}
