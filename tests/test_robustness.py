"""``eval/robustness.py`` and ``eval/value.py``, small: the figures are there, and they go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EVAL = Path(__file__).parents[1] / "eval"


def run(script: str, out: Path, *words: str) -> Any:
    command = [sys.executable, str(EVAL / script), "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=EVAL.parent, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_what_misleaders_cost_is_told_for_each_method_and_is_continued(tmp_path: Path) -> None:
    out = tmp_path / "robustness.json"
    small = ("--rollouts", "64", "--methods", "none")
    first = run("robustness.py", out, *small, "--seeds", "0", "1")
    assert set(first["summary"]) == {"oracle", "none"}
    assert set(first["summary"]["none"]) == {"0", "1", "2", "3", "4"}
    whole = first["summary"]["none"]
    # The whole team keeps every misleader and loses more the more there are; the best team loses nothing.
    assert whole["4"]["misled"]["mean"] == 1.0 and "misled" not in whole["0"]
    assert whole["4"]["score"]["mean"] < whole["1"]["score"]["mean"] < whole["0"]["score"]["mean"]
    assert whole["4"]["score_lost"]["mean"] > 0.1
    assert first["summary"]["oracle"]["4"]["score_lost"]["mean"] == 0.0
    assert all(c["rollouts"] <= 64 for c in first["cells"].values() if "rollouts" in c)
    more = run("robustness.py", out, *small, "--seeds", "0", "1", "2")
    assert {k: v for k, v in more["cells"].items() if v["seed"] < 2} == first["cells"]
    assert more["summary"]["none"]["4"]["score"]["seeds"] == 3
    # Nothing is begun after the time is up.
    assert run("robustness.py", out, *small, "--seeds", "3", "--minutes", "0")["cells"].keys() == {
        *more["cells"],
        "oracle 0 3",
    }


def test_the_cost_of_finding_values_is_set_beside_what_it_tells(tmp_path: Path) -> None:
    made = run("value.py", tmp_path / "value.json", "--agents", "4", "--repeats", "2")["4 agents"]
    assert made["parts"] == 14
    ablation, regression = made["ablation, 100 items"], made["regression, 100 items, 4 sub-teams each"]
    assert (ablation["episodes"], regression["episodes"]) == (1500, 500)
    for figures in (ablation, regression):
        assert 0.7 <= figures["coverage"] <= 1 and 0 < figures["rmse"] < figures["width"] < 1
