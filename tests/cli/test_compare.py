"""``agentcomm compare``: what pruning saved, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import agentcomm


@pytest.fixture
def runs(team: Path, sums: Path) -> list[str]:
    assert agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "whole").code == 0
    assert agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "cut", "--cut", "critic").code == 0
    return ["whole", "cut"]


def test_json_prints_one_object_with_every_run(runs: list[str]) -> None:
    done = agentcomm("compare", *runs, "--json")
    assert (done.code, done.err) == (0, "")
    text = str(done.json)
    assert "whole" in text
    assert "cut" in text


def test_a_person_sees_both_runs_and_what_was_saved(runs: list[str]) -> None:
    done = agentcomm("compare", *runs)
    assert done.code == 0
    assert "whole" in done.out
    assert "cut" in done.out
    assert "%" in done.out


def test_runs_that_can_not_be_compared_are_refused(runs: list[str], team: Path, sums: Path) -> None:
    assert agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "fewer", "--limit", "2").code == 0
    for words in (
        ["whole", "nowhere"],
        ["whole"],
        ["whole", "fewer"],
        [*runs, "--margin", "-1"],
        [*runs, "--level", "7"],
    ):
        done = agentcomm("compare", *words, "--json")
        assert done.code == 2, words
        assert done.out == ""
        assert "Traceback" not in done.err
    assert agentcomm("compare", "whole", "fewer", "--common", "--json").code == 0
