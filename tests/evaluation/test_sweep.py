"""Sweeps: what a file may say, which cells it makes, what is run again, and what the table says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, UserError
from agentcomm.evaluation.stats import holm, mcnemar, sign_flip
from agentcomm.evaluation.sweep import CellResult, Sweep, control_table, is_finished, run_sweep, table
from tests.command import CALLS_PER_ITEM, SUMS, TEAM, write

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.toml"

PLAIN = """
graphs = ["single", "team.py"]
tasks = ["sums.py"]
models = ["scripted/replies.json"]
seeds = [0, 1]
[run]
executor = "plain"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "team.py", TEAM)
    write(tmp_path, "sums.py", SUMS)
    # The judge's answer is right on two of the four items; the single agent's on one.
    replies = {"Judge.": "I say 0 or 2", "Solve.": "thinking", "Criticise.": "hm"}
    (tmp_path / "replies.json").write_text(json.dumps({"by_role": replies, "default": "I say 0"}))
    return tmp_path


def load(folder: Path, text: str = PLAIN) -> Sweep:
    return Sweep.load(write(folder, "sweep.toml", text), folder / "out")


# -- what a file may say -----------------------------------------------------------------------


def test_the_grid_has_a_cell_for_every_graph_task_model_and_seed(folder: Path) -> None:
    cells = load(folder).cells
    assert [(c.graph, c.seed) for c in cells] == [("single", 0), ("team", 0), ("single", 1), ("team", 1)]
    assert {(c.task, c.options.seed == c.seed, c.options.executor) for c in cells} == {
        ("sums", True, "plain")
    }
    assert [c.calls for c in cells] == [4, 4 * CALLS_PER_ITEM] * 2
    assert len({c.path for c in cells}) == 4


def test_entries_may_be_tables_with_options_of_their_own(folder: Path) -> None:
    text = """
    seeds = [3]
    graphs = ["single", {graph = "team.py", name = "short", options = {rounds = 1}, cut = ["critic"]}]
    tasks = [{task = "sums.py", name = "few", limit = 2}]
    [[models]]
    model = "scripted/replies.json"
    name = "warm"
    temperature = 0.5
    concurrency = 3
    [run]
    temperature = 0.1
    max_tokens = 7
    samples = 2
    item_limit = {calls = 9}
    retries = 2
    """
    single, short = load(folder, text).cells
    assert (short.graph, short.task, short.model, short.seed, short.samples) == ("short", "few", "warm", 3, 2)
    assert short.entry.graph.rounds == 1
    assert short.entry.topology is not None and not short.entry.topology.alive("critic", 1)
    assert single.entry.topology is None
    assert short.calls == 2 * 2 * 2  # solver and judge, two items, two samples
    o = short.options
    assert (o.temperature, o.max_tokens, o.max_concurrency, o.item_limits.calls) == (0.5, 7, 3, 9)
    assert o.retry.attempts == 2


def test_files_are_found_beside_the_sweeps_file_from_anywhere(folder: Path, monkeypatch: Any) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    file = write(folder, "sweep.toml", PLAIN)
    monkeypatch.chdir(elsewhere)
    assert len(Sweep.load(file, Path("out")).cells) == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [0, 1]", "seds = [0, 1]", "unknown keys: seds"),
        ("seeds = [0, 1]", "seeds = []", "write a list of whole numbers"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "one of them twice"),
        ("seeds = [0, 1]", "seeds = [0.5]", "write a list of whole numbers"),
        ('tasks = ["sums.py"]', "tasks = []", "tasks must be a list with at least one entry"),
        ('tasks = ["sums.py"]', "", "names no tasks"),
        ('tasks = ["sums.py"]', "tasks = [3]", "entry 1 of tasks is 3"),
        ('tasks = ["sums.py"]', 'tasks = [{task = "sums.py", limit = 0}]', "limit = 0"),
        ('tasks = ["sums.py"]', "tasks = [{limit = 2}]", "says not which task"),
        ('tasks = ["sums.py"]', 'tasks = [{task = "sums.py", options = {colour = 1}}]', "no option colour"),
        ('"team.py"', '"tem.py"', "entry 2 of graphs: no file"),
        ('"team.py"', '"nobody"', "entry 2 of graphs: no graph called 'nobody'"),
        ('"team.py"', '{graph = "team.py", cut = ["nobody"]}', "no agent 'nobody'"),
        ('"team.py"', '{graph = "team.py", colour = 1}', "unknown keys: colour"),
        ('"team.py"', '"single"', "two of the graphs are called 'single'"),
        ("scripted/replies.json", "gpt-5", "unknown model 'gpt-5'"),
        ("scripted/replies.json", "scripted/none.json", "can't be read"),
        ('executor = "plain"', 'executor = "ray"', "unknown executor 'ray'"),
        ('executor = "plain"', "temperature = -1", "temperature=-1"),
        ('executor = "plain"', 'temperature = "hot"', "temperature = 'hot'"),
        ('executor = "plain"', "max_tokens = 1.5", "max_tokens = 1.5"),
        ('executor = "plain"', "concurrency = true", "concurrency = True"),
        ('executor = "plain"', "samples = 0", "samples = 0"),
        ('executor = "plain"', "seed = 3", "unknown keys: seed"),
        ('executor = "plain"', "item_limit = {calls = -1}", "above 0"),
        ('executor = "plain"', "item_limit = 3", "write a table"),
        ("[run]", "[run", "is not TOML"),
        ("seeds = [0, 1]", 'controls = "singel"', "controls: unknown control 'singel'"),
        ("seeds = [0, 1]", "controls = []", "controls: no controls named"),
        ("seeds = [0, 1]", "controls = [3]", "controls = [3]"),
        ("seeds = [0, 1]", "controls = true", "controls = True"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_file_and_nothing_is_made(
    folder: Path, old: str, new: str, said: str
) -> None:
    assert old in PLAIN
    with pytest.raises(UserError) as caught:
        load(folder, PLAIN.replace(old, new))
    assert said in str(caught.value)
    assert "sweep.toml" in str(caught.value)
    assert "\n" not in str(caught.value).strip()
    assert not (folder / "out").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read .*nothing.toml"):
        Sweep.load(tmp_path / "nothing.toml", tmp_path / "out")


def test_without_models_every_agent_needs_one_of_its_own(folder: Path) -> None:
    with pytest.raises(ConfigError, match="names no models, and agent 'solo'"):
        load(folder, PLAIN.replace('models = ["scripted/replies.json"]', ""))
    own = "import agentcomm as ac\ngraph = ac.AgentGraph([ac.Agent('a', model='mock/echo')], decision='a')\n"
    write(folder, "own.py", own)
    text = 'graphs = ["own.py"]\ntasks = ["sums.py"]\n'
    (cell,) = load(folder, text).cells
    assert cell.string is None


def test_a_changed_setting_makes_a_new_cell_and_the_servers_place_does_not(folder: Path) -> None:
    before = {c.path for c in load(folder).cells}
    assert {c.path for c in load(folder).cells} == before
    for change in ("temperature = 0.5", "samples = 2"):
        assert before.isdisjoint(c.path for c in load(folder, PLAIN + change).cells)
    assert {c.path for c in load(folder, PLAIN + "timeout = 3").cells} == before
    write(folder, "team.py", TEAM.replace("Judge.", "Judge well."))
    changed = {c.path for c in load(folder).cells}
    assert len(changed & before) == 2  # the single agent's


# -- running -----------------------------------------------------------------------------------

pytestmark = pytest.mark.anyio


async def test_every_cell_is_a_run_and_differences_are_against_the_first_graph(folder: Path) -> None:
    grid = load(folder)
    results = await run_sweep(grid)
    assert all(r.ok for r in results)
    assert all(is_finished(c) for c in grid.cells)
    single, team = table(results)
    assert (single.graph, single.score.mean, single.difference) == ("single", 0.25, None)
    assert (team.graph, team.score.mean) == ("team", 0.5)
    assert team.difference is not None
    assert (team.difference.mean, team.difference.items) == (0.25, 4)  # two seeds of four items
    assert team.p_value == 1.0 and team.p_holm == 1.0
    assert (single.calls, team.calls) == (1.0, float(CALLS_PER_ITEM))
    assert team.tokens_saved is not None and team.tokens_saved < -3
    assert team.by_seed == {0: 0.5, 1: 0.5}
    assert json.loads(json.dumps(team.to_dict(), allow_nan=False))["difference"]["mean"] == 0.25


async def test_finished_cells_are_not_run_again_and_failed_ones_are(folder: Path) -> None:
    by_role = {"Judge.": {"error": "refused"}, "Solve.": "x", "Criticise.": "x"}
    script = folder / "replies.json"
    whole = script.read_text()
    script.write_text(json.dumps({"by_role": by_role, "default": "I say 0"}))
    first = await run_sweep(load(folder))
    assert [r.ok for r in first] == [True, False, True, False]
    (_, team) = table(first)
    assert team.failed == 8 and team.score.mean is None and team.p_value is None
    script.write_text(whole)
    asked: list[str] = []
    second = await run_sweep(load(folder), on_cell=lambda n, cell: asked.append(cell.graph))
    assert [r.ok for r in second] == [True] * 4
    for before, after in zip(first, second, strict=True):
        assert before.run is not None and after.run is not None
        if before.ok:
            assert after.run.usage.rows == before.run.usage.rows
        else:
            # What the solver and the critic had said was paid for once.
            answered = [r for r in after.run.usage.rows if r.error_kind is None]
            assert len(answered) == 4 * CALLS_PER_ITEM
    assert asked == ["single", "team", "single", "team"]


async def test_a_cell_that_cannot_run_does_not_stop_the_others(folder: Path) -> None:
    needs = TEAM.replace('role="Solve."', 'role="Solve.", view="secret"')
    write(folder, "team.py", needs)
    results = await run_sweep(load(folder))
    assert [r.ok for r in results] == [True, False, True, False]
    assert "no view 'secret'" in (results[1].error or "")
    single, team = table(results)
    assert single.score.mean == 0.25
    assert (team.score.mean, team.items, team.calls) == (None, 0, None)


async def test_p_values_are_corrected_over_the_whole_sweep(folder: Path) -> None:
    text = PLAIN.replace('"team.py"', '"team.py", {graph = "team.py", name = "one", options = {rounds = 1}}')
    text = text.replace(
        '"sums.py"', '{task = "sums.py", limit = 12}, {task = "sums.py", name = "more", limit = 9}'
    )
    rows = table(await run_sweep(load(folder, text)))
    assert [(r.task, r.graph) for r in rows] == [
        (task, graph) for task in ("sums", "more") for graph in ("single", "team", "one")
    ]
    compared = [r for r in rows if r.p_value is not None]
    assert len(compared) == 4
    assert [r.p_holm for r in compared] == list(holm([r.p_value for r in compared if r.p_value is not None]))
    assert {r.difference.items for r in rows[1:3] if r.difference} == {12}


async def test_the_seeds_of_an_item_are_one_cluster(folder: Path) -> None:
    many = PLAIN.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]")
    few, lots = [table(await run_sweep(load(folder, text)))[1] for text in (PLAIN, many)]
    # Six times the same four items are no more items: nothing gets surer.
    assert (few.score, few.p_value) == (lots.score, lots.p_value)
    assert few.difference is not None and lots.difference is not None
    assert (few.difference.low, few.difference.high) == (lots.difference.low, lots.difference.high)
    assert (lots.items, len(lots.by_seed)) == (4, 6)


async def test_a_failed_item_is_left_out_of_the_difference_and_counted(folder: Path) -> None:
    results = list(await run_sweep(load(folder)))
    broken = results[3]
    assert broken.run is not None
    episodes = tuple(
        dataclasses.replace(e, status="failed", score=None, answer=None) if e.item == "q001" else e
        for e in broken.run.episodes
    )
    results[3] = CellResult(broken.cell, dataclasses.replace(broken.run, episodes=episodes), None)
    team = table(results)[1]
    assert (team.left_out, team.failed) == (1, 1)
    # q001 still has the pair of the other seed.
    assert team.difference is not None and team.difference.items == 4


async def test_the_example_runs_offline(tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("limit = 10", "limit = 2")
    grid = Sweep.load(write(tmp_path, "sweep.toml", text), tmp_path / "out")
    results = await run_sweep(grid)
    assert all(r.ok for r in results) and len(results) == 12
    assert [r.graph for r in table(results)] == ["records_team", "chain", "without s3, s4", "single"]


# -- the test that the table uses --------------------------------------------------------------


def test_on_0_1_scores_the_sign_flip_test_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 2, 10), rng.integers(0, 2, 10)
        assert sign_flip(a, b, rng=rng) == pytest.approx(mcnemar(a, b).p_value)


def test_random_flips_agree_with_all_flips() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(12), rng.random(12) * 0.8
    exact = sign_flip(a, b, rng=rng)
    assert sign_flip(a, b, rng=rng, resamples=4000) == pytest.approx(exact, abs=0.03)
    assert sign_flip(a, a, rng=rng) == 1.0


def test_a_sign_flip_test_of_equals_is_rarely_significant_and_of_unequals_mostly() -> None:
    rng = np.random.default_rng(2)
    same = [sign_flip(rng.random(30), rng.random(30), rng=rng, resamples=300) for _ in range(200)]
    assert np.mean(np.array(same) <= 0.05) < 0.1
    other = [sign_flip(rng.random(30) + 0.5, rng.random(30), rng=rng, resamples=300) for _ in range(50)]
    assert np.mean(np.array(other) <= 0.05) > 0.95


def test_seeds_of_an_item_do_not_make_it_surer() -> None:
    rng = np.random.default_rng(3)
    a, b = [1, 1, 1, 0], [0, 0, 0, 0]
    once = sign_flip(a, b, rng=rng)
    assert sign_flip(a * 5, b * 5, clusters=list("abcd") * 5, rng=rng) == once == 0.25


# -- controls ----------------------------------------------------------------------------------

CONTROLLED = PLAIN.replace("[run]", 'controls = ["edgeless", "random", "complete", "vote"]\n[run]')


@pytest.mark.anyio
async def test_controls_run_beside_each_cell_and_are_compared_with_its_graph(folder: Path) -> None:
    heard: list[str] = []
    grid = load(folder, CONTROLLED)
    assert grid.cells[0].controls == ("vote", "edgeless", "random", "complete")
    results = await run_sweep(grid, on_control=lambda number, cell, title: heard.append(f"{number} {title}"))
    assert all(result.ok for result in results)
    by_graph = {(r.cell.graph, r.cell.seed): r.controls for r in results}
    alone, team = by_graph["single", 1], by_graph["team", 1]
    assert alone is not None and team is not None
    assert alone.runs == () and set(alone.not_applicable) == {"vote", "edgeless", "random", "complete"}
    assert [one.label for one, _ in team.runs] == ["edgeless", "random-1", "random-2", "random-3"]
    assert "is complete" in team.not_applicable["complete"]
    for one, run in team.runs:
        beside = next(r.cell.path for r in results if r.cell.graph == "team" and r.cell.seed == 1)
        assert run.path == beside.with_name(f"{beside.name}-{one.label}")
        assert run.config["options"]["seed"] == 1
    assert [line.split(":")[0] for line in heard] == [
        f"{n} {label}" for n in (1, 3) for label in ("edgeless", "random-1", "random-2", "random-3")
    ]

    rows = control_table(results)
    assert [(r.graph, r.control, r.items) for r in rows] == [
        ("team", label, 4) for label in ("edgeless", "random-1", "random-2", "random-3")
    ]
    edgeless = rows[0]
    assert set(edgeless.by_seed) == {0, 1}
    # The judge's reply depends on nothing: the same score, for fewer calls.
    assert edgeless.difference is not None and edgeless.difference.mean == 0.0
    assert edgeless.calls == 3 and edgeless.tokens_saved is not None and edgeless.tokens_saved > 0
    assert all(row.p_holm is not None for row in rows)
    # The table of the grid is what it is without them.
    assert [(r.graph, r.control) for r in table(results)] == [("single", None), ("team", None)]


def ledgers(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("ledger.sqlite")}


@pytest.mark.anyio
async def test_a_sweep_repeated_with_controls_pays_only_for_those(folder: Path) -> None:
    first = await run_sweep(load(folder))
    paths = [r.cell.path for r in first]
    assert all(is_finished(c) for c in load(folder).cells)
    assert not any(is_finished(c) for c in load(folder, CONTROLLED).cells)
    second = await run_sweep(load(folder, CONTROLLED))
    assert [r.cell.path for r in second] == paths
    before = ledgers(folder)
    third = await run_sweep(load(folder, CONTROLLED))
    assert all(is_finished(c) for c in load(folder, CONTROLLED).cells)
    assert ledgers(folder) == before
    assert [[r.usage.calls for r in result.runs] for result in third] == [
        [r.usage.calls for r in result.runs] for result in second
    ]


@pytest.mark.anyio
async def test_single_agents_and_fixed_topologies_are_chosen_on_validate_with_each_seed(
    folder: Path,
) -> None:
    text = """
    graphs = [{graph = "records_team", options = {specialists = 3, topology = "edgeless"}}]
    tasks = [{task = "records", limit = 2, options = {specialists = 3, facts = 2, relevant = 1}}]
    models = ["mock/echo"]
    seeds = [0, 1]
    controls = ["single", "fixed"]
    [run]
    executor = "plain"
    """
    results = await run_sweep(load(folder, text))
    assert all(result.ok for result in results)
    rows = control_table(results)
    assert [(r.control, sorted(r.by_seed)) for r in rows] == [("single", [0, 1]), ("fixed", [0, 1])]
    made = results[0].controls
    assert made is not None and made.chosen is not None and "2 items of validate" in made.chosen
    assert results[0].to_dict()["controls"]["single_chosen"] == made.chosen


@pytest.mark.anyio
async def test_a_control_that_fails_is_no_ok_cell_but_the_sweep_goes_on(folder: Path) -> None:
    script = {"by_role": {"Judge.": {"error": "refused", "message": "no"}}, "default": "I say 0"}
    (folder / "replies.json").write_text(json.dumps(script))
    text = CONTROLLED.replace('"edgeless", "random", "complete", "vote"', '"edgeless"')
    results = await run_sweep(load(folder, text.replace('["single", "team.py"]', '["team.py", "single"]')))
    assert [r.ok for r in results] == [False, True] * 2
    assert [len(r.runs) for r in results] == [2, 1] * 2
