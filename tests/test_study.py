"""``eval/study.py``: one command, and no report where a mandatory control is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentcomm.errors import ConfigError
from agentcomm.evaluation.controls import LEARNED, MANDATORY

STUDY = Path(__file__).parents[1] / "eval" / "study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study", STUDY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["study"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study.main(["--quick", "--out", str(out)])
    return out


def told(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_one_command_gives_every_control_interval_seed_phase_and_the_curve(
    study: ModuleType, small: Path
) -> None:
    report = told(small)
    assert [row["team"] for row in report["rows"]] == ["learned", *MANDATORY, *LEARNED]
    assert report["seeds"] == [0, 1, 2] and report["not_applicable"] == {}
    for row in report["rows"]:
        assert row["score"]["low"] <= row["score"]["mean"] <= row["score"]["high"]
        assert len(row["seeds"]["each"]) == 3
        assert row["seeds"]["min"] <= row["seeds"]["mean"] <= row["seeds"]["max"]
        assert row["tokens"]["input"] > 0 and row["failed"] == 0
    for row in report["rows"][1:]:
        d = row["learned_minus_this"]
        assert d["low"] <= d["mean"] <= d["high"] and 0 <= d["p"] <= d["p_holm"] <= 1
    runs = {row["team"]: row["runs"] for row in report["rows"]}
    assert runs["random"] == 9 and runs["complete"] == 3  # at least three draws a seed
    assert report["phases"]["learn"]["total"] > 0 and report["phases"]["evaluate"]["input"] > 0
    assert report["phases"]["learn"]["rollouts"] <= 3 * 700
    tokens = [p["tokens"] for p in report["curve"]]
    assert len(tokens) >= 5 and tokens == sorted(tokens)
    assert 0 < report["resolvable_difference"] <= 1
    text = study.shown(report)
    for word in ("learned", *MANDATORY, *LEARNED, "tokens by phase", "accuracy against tokens", "paid back"):
        assert word in text


def test_deleting_any_control_a_curve_or_a_draw_makes_the_report_fail(
    study: ModuleType, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(small, out)
    assert study.report(out)["rows"]
    controls = [p for p in sorted(out.iterdir()) if p.name.startswith("seed-1-") and "validate" not in p.name]
    named = {json.loads((p / "config.json").read_text())["control"]["name"] for p in controls}
    assert named == {*MANDATORY, *LEARNED}
    for path in controls:
        away = path.rename(tmp_path / "away")
        with pytest.raises(ConfigError, match="seed 1 lacks mandatory controls"):
            study.report(out)
        with pytest.raises(SystemExit) as end:
            study.main(["--report", str(out)])
        assert str(end.value).startswith("error: seed 1 lacks") and "goes on" in str(end.value)
        away.rename(path)
    (out / "curve-2.json").unlink()
    with pytest.raises(ConfigError, match="no accuracy-token curve"):
        study.report(out)


def test_the_same_command_makes_what_is_missing_and_another_study_is_refused(
    study: ModuleType, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(small, out)
    before = told(out)
    shutil.rmtree(out / "seed-0-random-2")
    (out / "curve-0.json").unlink()
    study.main(["--quick", "--out", str(out)])
    assert told(out)["rows"] == before["rows"] and told(out)["curve"] == before["curve"]
    with pytest.raises(SystemExit, match="holds another study"):
        study.main(["--quick", "--world", "1", "--out", str(out)])
    with pytest.raises(SystemExit, match="holds no study"):
        study.main(["--report", str(tmp_path / "nothing")])


@pytest.mark.slow
def test_agp_on_the_standard_world_beats_its_controls(study: ModuleType, tmp_path: Path) -> None:
    """Acceptance test 20 of the specification, at full size."""
    study.main(["--out", str(tmp_path), "--items", "100"])
    report = told(tmp_path)
    rows = {row["team"]: row for row in report["rows"]}
    assert set(rows) == {"learned", *MANDATORY, *LEARNED}
    for seed in report["by_seed"]:
        assert seed["exact"]["regret"] < seed["exact"]["matched_regret"] - 0.3
    for name in ("random", "complete", "untrained", "edgeless", "single"):
        assert rows[name]["learned_minus_this"]["low"] > 0, name
    learned = [p for p in report["curve"] if p["node_threshold"] == 0.5]
    assert learned and learned[0]["correct"] > 0.6
