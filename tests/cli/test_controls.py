"""``agentcomm eval --controls`` and ``agentcomm compare --controls``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import SUMS, agentcomm, write

VOTING = SUMS.replace(
    "for i in range(limit)], score)",
    "for i in range(limit)], score, extract=lambda item, text: text.split()[-1] if text.split() else None)",
)


@pytest.fixture
def voting(tmp_path: Path) -> Path:
    return write(tmp_path, "voting.py", VOTING)


def test_all_controls_run_beside_the_run_and_the_comparison_ends_it(team: Path, voting: Path) -> None:
    done = agentcomm("eval", team, voting, "-m", "mock/echo", "--out", "r/team", "--controls", "all")
    assert done.code == 0, done.err
    names = {p.name.removeprefix("team-") for p in Path("r").iterdir()}
    assert names == {
        "team", "single-solver", "single-critic", "single-judge", "self-consistency", "vote", "edgeless",
        "random-1", "random-2", "random-3",
    }  # fmt: skip
    assert "controls of team: single, self_consistency, vote, edgeless, random\n" in done.out
    assert "complete: not applicable: the team itself is complete" in done.out
    assert "team-random-3" in done.out and "lacks" not in done.out


def test_json_holds_the_controls_the_comparison_and_what_is_missing(team: Path, sums: Path) -> None:
    words = ("eval", team, sums, "-m", "mock/echo", "--out", "r/team", "--json")
    done = agentcomm(*words, "--controls", "vote,edgeless")
    assert (done.code, done.err) == (0, "")
    made = done.json["controls"]
    assert [r["control"] for r in made["runs"]] == ["edgeless"]
    assert set(made["not_applicable"]) == {"vote"}  # this task has no extract
    assert set(made["missing"]) == {"single", "self_consistency", "random", "complete"}
    assert not made["complete"]
    assert [r["run"] for r in made["comparison"]["runs"]] == ["team", "team-edgeless"]
    # Asked for more, it keeps what it has and pays for nothing again.
    more = agentcomm(*words, "--controls", "random").json["controls"]
    assert set(more["present"]) == {"edgeless", "random"}
    assert "controls" not in agentcomm(*words).json


def test_a_wrong_word_is_said_before_anything_runs(team: Path, sums: Path) -> None:
    done = agentcomm("eval", team, sums, "-m", "mock/echo", "--out", "r/team", "--controls", "singel")
    assert done.code == 2
    assert "unknown control 'singel'" in done.complaint
    assert not Path("r").exists()


def test_the_single_agent_of_a_task_with_splits_is_chosen_on_validate() -> None:
    done = agentcomm(
        "eval", "records_team", "records", "-m", "mock/echo", "--limit", "3", "--out", "r/t", "--controls", "single"
    )  # fmt: skip
    assert "single agent: s1, on 3 items of validate (s1 " in done.out
    assert {p.name for p in Path("r").iterdir()} == {"t", "t-single-s1", "t-validate-s1", "t-validate-judge"}


def test_compare_adds_the_controls_beside_the_first_run_and_names_the_missing(
    team: Path, voting: Path
) -> None:
    agentcomm("eval", team, voting, "-m", "mock/echo", "--out", "r/team", "--controls", "vote")
    done = agentcomm("compare", "r/team", "--controls")
    assert (done.code, done.err) == (1, "")
    assert "team-vote" in done.out
    assert "this report lacks mandatory controls" in done.out
    for name in ("single", "self_consistency", "edgeless", "random", "complete"):
        assert f"  {name}: not run" in done.out
    told = agentcomm("compare", "r/team", "r/team-vote", "--controls", "--json")
    made = told.json
    assert told.code == 1 and made["controls"]["present"] == {"vote": ["team-vote"]}
    assert len(made["runs"]) == 2
    assert "controls" not in agentcomm("compare", "r/team", "r/team-vote", "--json").json


def test_deleting_any_control_makes_the_comparison_fail(team: Path, voting: Path) -> None:
    agentcomm("eval", team, voting, "-m", "mock/echo", "--out", "r/team", "--controls", "all")
    assert agentcomm("compare", "r/team", "--controls").code == 0
    beside = sorted(p for p in Path("r").iterdir() if p.name.startswith("team-"))
    assert len(beside) == 9
    for path in beside:
        away = path.rename(Path("away"))
        done = agentcomm("compare", "r/team", "--controls")
        assert done.code == 1 and "lacks mandatory controls" in done.out, path
        away.rename(path)
    assert agentcomm("compare", "r/team", "--controls").code == 0


def test_compare_of_a_run_without_controls_says_how_to_get_them(team: Path, sums: Path) -> None:
    agentcomm("eval", team, sums, "-m", "mock/echo", "--out", "r/team")
    done = agentcomm("compare", "r/team", "--controls")
    assert done.code == 2
    assert "--out r/team --controls all" in done.complaint


def test_the_fixed_topology_is_named_with_how_it_was_chosen() -> None:
    words = (
        "eval", "records_team", "records", "-m", "mock/echo", "--limit", "2", "-G", "topology=edgeless",
        "--out", "r/t", "--controls", "fixed",
    )  # fmt: skip
    done = agentcomm(*words)
    assert "fixed topology: chain, on 2 items of validate (chain 0.00, star 0.00, tree 0.00, " in done.out
    assert {p.name for p in Path("r").iterdir()} == {
        "t", "t-fixed-chain", *(f"t-validate-fixed-{n}" for n in ("chain", "star", "tree", "layered", "complete")),
    }  # fmt: skip
    made = agentcomm(*words, "--json").json["controls"]
    assert made["fixed_chosen"].startswith("chain, on 2 items")
    assert [r["control"] for r in made["runs"]] == ["fixed"]
