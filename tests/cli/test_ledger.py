"""``agentcomm ledger``: who paid for what in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import CALLS_PER_ITEM, agentcomm
from tests.servers import CountingServer, status

CALL_KEYS = {
    "item", "round", "agent", "attempt", "input_tokens", "output_tokens", "cached_tokens", "parts", "error",
}  # fmt: skip


@pytest.fixture
def run(team: Path, sums: Path) -> Path:
    """A run of four items in which one call was tried twice."""
    with CountingServer() as server:
        server.script(status(500, retry_after="0"))
        done = agentcomm(
            "eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "run"
        )
        assert done.code == 0, done.err
    return Path("run")


def test_by_call_is_a_list_with_one_object_an_attempt(run: Path) -> None:
    done = agentcomm("ledger", run, "--by", "call", "--json")
    assert (done.code, done.err) == (0, "")
    calls = done.json
    assert len(calls) == 4 * CALLS_PER_ITEM + 1
    assert all(set(call) >= CALL_KEYS for call in calls)
    failed = [c for c in calls if c["error"]]
    assert [c["attempt"] for c in failed] == [1]
    assert failed[0]["input_tokens"] is None
    assert failed[0]["parts"] is None
    for call in calls:
        if not call["error"]:
            assert sum(call["parts"].values()) == call["input_tokens"]
    order = [(c["item"], c["round"], c["agent"], c["attempt"]) for c in calls]
    assert order == sorted(order)


def test_every_grouping_sums_to_the_runs_total(run: Path) -> None:
    calls = agentcomm("ledger", run, "--by", "call", "--json").json
    total = sum(c["input_tokens"] or 0 for c in calls)
    for by in ("agent", "round", "phase"):
        groups = agentcomm("ledger", run, "--by", by, "--json").json
        assert sum(g["input"] for g in groups.values()) == total
        assert sum(g["calls"] for g in groups.values()) == len(calls)
    parts = agentcomm("ledger", run, "--by", "part", "--json").json
    assert sum(parts.values()) == total
    edges = agentcomm("ledger", run, "--json").json
    assert sum(edges.values()) == parts["messages"]


@pytest.mark.parametrize("by", ["edge", "agent", "round", "phase", "part", "call"])
def test_a_person_sees_a_table_and_what_it_leaves_out(by: str, run: Path) -> None:
    done = agentcomm("ledger", run, "--by", by)
    assert done.code == 0
    assert "1 attempts are of unknown cost" in done.out
    expected = {"edge": "solver->critic", "agent": "solver", "round": "2", "phase": "evaluate", "part": "template",
                "call": "q003"}[by]  # fmt: skip
    assert expected in done.out


def test_reading_changes_nothing(run: Path) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    agentcomm("ledger", run)
    after = {p.name: p.read_bytes() for p in run.iterdir()}
    assert after == before


def test_what_is_no_run_is_refused(tmp_path: Path, team: Path) -> None:
    for where in ("nowhere", team, tmp_path):
        done = agentcomm("ledger", where, "--json")
        assert (done.code, done.out) == (2, "")
        assert "no run at" in done.complaint


def test_a_damaged_ledger_is_told_in_one_sentence(run: Path) -> None:
    for path in run.glob("ledger.sqlite*"):
        path.write_bytes(b"this is not a database, but long enough to be looked at as one" * 100)
    done = agentcomm("ledger", run)
    assert done.code in (1, 2)
    assert "ledger.sqlite" in done.complaint


def test_a_grouping_that_is_none_is_refused(run: Path) -> None:
    done = agentcomm("ledger", run, "--by", "colour")
    assert done.code == 2
    assert "colour" in done.err
