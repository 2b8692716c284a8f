"""Runs of an older agentcomm: read, compared with new ones, shown, continued.

version1/ is a run that agentcomm made (at dd128ac) when its ledger had format 1; the database is kept as SQL.
"""

import shutil
import sqlite3
from pathlib import Path

import pytest

from agentcomm.evaluation.compare import compare
from agentcomm.evaluation.report import write_report
from agentcomm.evaluation.run import evaluate
from agentcomm.ledger.schema import MIGRATIONS
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_graph, load_task

pytestmark = pytest.mark.anyio


@pytest.fixture
def old(tmp_path: Path) -> Path:
    run = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "version1", run)
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.executescript((run / "ledger.sql").read_text(encoding="utf-8"))
        db.execute("PRAGMA user_version = 1")
        db.execute("PRAGMA application_id = 1634167857")
    db.close()
    (run / "ledger.sql").unlink()
    return run


def version(run: Path) -> int:
    db = sqlite3.connect(run / "ledger.sqlite")
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


async def new(path: Path) -> None:
    await evaluate(load_graph("records_team"), load_task("records", {"limit": 3}), "mock/echo", out=path)


async def test_a_ledger_of_format_1_is_read_whole_and_brought_up_to_date(old: Path) -> None:
    assert version(old) == 1 < len(MIGRATIONS)
    with Ledger.open(old / "ledger.sqlite") as ledger:
        usage = ledger.usage()
        assert (usage.calls, usage.input_tokens, usage.output_tokens) == (15, 983, 110)
        assert usage.by_edge()["s1->judge"] == 31 and usage.by_part()["messages"] == 310
        assert len(ledger.episodes()) == 3 and ledger.channels() == []
    assert version(old) == len(MIGRATIONS)


async def test_runs_of_both_formats_stand_in_one_comparison_and_one_report(old: Path, tmp_path: Path) -> None:
    await new(tmp_path / "new")
    made = compare([old, tmp_path / "new"])
    assert made.items == 3
    assert [r["tokens"]["input"] for r in made.rows] == [983, 983]
    write_report([old, tmp_path / "new"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "records_team" in page and "old" in page


async def test_a_run_of_format_1_goes_on_with_the_same_command_and_pays_nothing_twice(old: Path) -> None:
    with sqlite3.connect(old / "ledger.sqlite") as db:  # as if it had been cut off before its last episode
        db.execute("DELETE FROM episodes WHERE n = (SELECT max(n) FROM episodes)")
    db.close()
    run = await evaluate(
        load_graph("records_team"),
        load_task("records", {"limit": 3}),
        "mock/echo",
        out=old,
        name="records_team",
        executor="plain",
        max_tokens=1024,
    )
    assert len(run.episodes) == 3 and run.usage.calls == 15
