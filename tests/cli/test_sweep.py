"""``agentcomm sweep``: what it prints, how it ends, and that mistakes cost nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.command import agentcomm, finish, start, wait_until, write

GRID = """
graphs = ["single", "team.py"]
tasks = ["sums.py"]
models = ["mock/echo"]
seeds = [0, 1]
"""


@pytest.fixture
def grid(tmp_path: Path, team: Path, sums: Path) -> Path:
    return write(tmp_path, "grid.toml", GRID)


def test_it_ends_with_one_table_and_shows_each_cell_on_the_way(grid: Path) -> None:
    done = agentcomm("sweep", grid)
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if line]
    assert [line.split(":")[0] for line in lines] == [
        "[1/4] single on sums, mock/echo, seed 0",
        "[2/4] team on sums, mock/echo, seed 0",
        "[3/4] single on sums, mock/echo, seed 1",
        "[4/4] team on sums, mock/echo, seed 1",
    ]
    table = [line.split() for line in done.out.splitlines()]
    assert sum(row[:1] in (["single"], ["team"]) for row in table) == 2
    assert "Holm" in done.out and "against single" in done.out
    assert len(list(Path("runs/grid").iterdir())) == 4


def test_json_prints_one_object_with_the_table_and_every_cell(grid: Path) -> None:
    done = agentcomm("sweep", grid, "--out", "cells", "--json")
    assert (done.code, done.err) == (0, "")
    made = done.json
    assert (made["reference"], made["out"]) == ("single", "cells")
    assert [row["graph"] for row in made["table"]] == ["single", "team"]
    assert made["table"][1]["p_holm"] == 1.0
    assert [(c["graph"], c["seed"], c["ok"]) for c in made["cells"]] == [
        ("single", 0, True),
        ("team", 0, True),
        ("single", 1, True),
        ("team", 1, True),
    ]
    for cell in made["cells"]:
        assert Path(cell["path"], "results.json").is_file()
        assert cell["summary"]["failed"] == 0


def test_a_dry_run_lists_the_cells_and_makes_nothing(grid: Path) -> None:
    done = agentcomm("sweep", grid, "--dry-run")
    assert done.code == 0
    assert "4 cells, 4 to run: at most 48 model calls" in done.out
    assert not Path("runs").exists()
    agentcomm("sweep", grid, "--json")
    again = agentcomm("sweep", grid, "--dry-run", "--json").json
    assert (again["calls"], [c["finished"] for c in again["cells"]]) == (0, [True] * 4)


def test_the_same_command_again_runs_only_what_is_new(grid: Path, tmp_path: Path) -> None:
    first = agentcomm("sweep", grid, "--json").json
    write(tmp_path, "grid.toml", GRID.replace("[0, 1]", "[0, 1, 2]"))
    second = agentcomm("sweep", grid, "--json").json
    old = {c["path"]: c["summary"]["calls"] for c in first["cells"]}
    new = {c["path"]: c["summary"]["calls"] for c in second["cells"]}
    assert old.items() < new.items() and len(new) == 6


def test_a_mistake_is_one_sentence_and_code_2(grid: Path, tmp_path: Path) -> None:
    write(tmp_path, "grid.toml", GRID.replace('"team.py"', '"teem.py"'))
    done = agentcomm("sweep", grid)
    assert done.code == 2
    assert "entry 2 of graphs: no file" in done.complaint
    assert done.out == "" and not Path("runs").exists()


def test_a_model_that_fails_is_named_and_ends_with_1_but_the_table_comes(grid: Path, tmp_path: Path) -> None:
    script = {"by_role": {"Judge.": {"error": "refused", "message": "not today"}}, "default": "ok"}
    (tmp_path / "replies.json").write_text(json.dumps(script))
    write(tmp_path, "grid.toml", GRID.replace("mock/echo", "scripted/replies.json"))
    done = agentcomm("sweep", grid)
    assert done.code == 1
    assert "team (8 failed)" in done.out
    assert "failed: team on sums, scripted/replies.json, seed 1: 4 items, the first q000" in done.err
    assert "not today" in done.err


def test_a_server_that_is_not_there_fails_its_cells_with_the_reason(grid: Path, tmp_path: Path) -> None:
    text = GRID.replace('models = ["mock/echo"]', "") + (
        '[[models]]\nmodel = "openai/m"\nbase_url = "http://127.0.0.1:9/v1"\n[[models]]\nmodel = "mock/echo"\n'
    )
    write(tmp_path, "grid.toml", text)
    done = agentcomm("sweep", grid, "--json")
    assert done.code == 1
    assert [c["ok"] for c in done.json["cells"]] == [False] * 4 + [True] * 4
    assert done.err.count("failed: ") == 4 and "127.0.0.1:9" in done.err
    assert [row["score"]["mean"] for row in done.json["table"]][:2] == [None, None]


def test_ctrl_c_says_how_to_continue_and_continuing_pays_for_nothing_again(
    grid: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow.json").write_text(json.dumps({"default": "ok", "latency_s": 0.2}))
    write(tmp_path, "grid.toml", GRID.replace("mock/echo", "scripted/slow.json"))
    process = start("sweep", grid, "--out", "cells", cwd=tmp_path)
    wait_until(lambda: any((tmp_path / "cells").glob("*single*/results.json")), process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert "the same command with --out cells continues" in done.err
    assert "Traceback" not in done.err
    assert len(list((tmp_path / "cells").iterdir())) < 4
    (tmp_path / "slow.json").write_text(json.dumps({"default": "ok"}))
    again = agentcomm("sweep", grid, "--out", "cells", "--json")
    assert again.code == 0
    # Calls cut off by Ctrl-C were sent; everything answered was asked for once.
    summaries = [c["summary"] for c in again.json["cells"]]
    assert [s["calls"] - s["failed_calls"] for s in summaries] == [4, 20, 4, 20]


def test_controls_in_the_file_have_a_table_of_their_own_and_the_reasons_of_those_that_cannot_be(
    grid: Path, tmp_path: Path
) -> None:
    write(tmp_path, "grid.toml", 'controls = ["edgeless", "vote", "complete"]\n' + GRID)
    plan = agentcomm("sweep", grid, "--dry-run")
    assert "not counted are the controls of each cell: vote, edgeless, complete" in plan.out
    done = agentcomm("sweep", grid)
    assert (done.code, [line for line in done.err.splitlines() if line.startswith("failed")]) == (0, [])
    assert "[2/4] team on sums, mock/echo, seed 0: edgeless: " in done.err
    rows = [line.split()[:2] for line in done.out.splitlines()]
    assert ["team", "edgeless"] in rows
    assert "against its graph" in done.out and "against single" in done.out
    assert "team on sums: no complete: the team itself is complete" in done.out
    assert done.out.count("team on sums: no vote:") == 1  # for all seeds
    made = agentcomm("sweep", grid, "--json").json
    assert [(r["graph"], r["control"]) for r in made["controls"]] == [("team", "edgeless")]
    assert [r["control"] for r in made["cells"][1]["controls"]["runs"]] == ["edgeless"]
    write(tmp_path, "grid.toml", GRID)
    assert "controls" not in agentcomm("sweep", grid, "--json").json
