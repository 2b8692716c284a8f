"""eval/dialogue.py: what was measured stays in the file, and its table and picture are made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EVAL = Path(__file__).resolve().parents[2] / "eval"
INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6}
SIDE = {"items": 9, "score": INTERVAL, "written_ratio": {"ratio": 0.5, "low": 0.4, "high": 0.6}}
POINT = {"items": 9, "failed": 0, "score": INTERVAL, "written": INTERVAL, "total": INTERVAL}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EVAL))
    sys.modules.pop("dialogue", None)
    import dialogue  # type: ignore[import-not-found]

    monkeypatch.setattr(dialogue, "results", lambda study: {"points": study.points})
    return dialogue


def study(script: Any, out: Path, seed: int, points: dict[str, Any], **more: Any) -> Any:
    return SimpleNamespace(
        name="one_hop", seed=seed, notes={"weights": "w"}, points=points,
        a=SimpleNamespace(model="hf/small", method="isft", results=out, iterations=1),
        setting=script.SETTINGS["one_hop"]._replace(**more),
        score=SimpleNamespace(items=()), learn=SimpleNamespace(items=()),
    )  # fmt: skip


def test_seeds_beside_each_other_keep_what_the_others_wrote_and_other_sizes_are_refused(
    script: Any, tmp_path: Path
) -> None:
    out = tmp_path / "r" / "dialogue.json"
    script.write(study(script, out, 0, {"natural": POINT}))
    script.write(study(script, out, 1, {"natural": POINT, "reward-1": POINT}))
    (entry,) = json.loads(out.read_text()).values()
    assert {k: list(s["points"]) for k, s in entry["seeds"].items()} == {
        "0": ["natural"],
        "1": ["natural", "reward-1"],
    }
    with pytest.raises(SystemExit, match="seed 0 of 'one_hop small isft' was measured with other sizes"):
        script.write(study(script, out, 1, {}, samples=99))
    assert json.loads(out.read_text()) == {"one_hop small isft": entry}


def test_nothing_is_written_before_there_is_a_point(script: Any) -> None:
    class Waiting(script.Study):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.runs, self.deadline = {}, 0.0

    with pytest.raises(script.OutOfTime):  # and no attribute of a study that writing would need
        Waiting().on_time()


def test_the_picture_leaves_out_seeds_without_points_and_the_table_has_both_baselines(script: Any) -> None:
    versus = {**POINT, "against_natural": SIDE, "against_format": SIDE}
    entry = {
        "setting": "one_hop", "model": "small", "method": "isft", "iterations": 1,
        "seeds": {"0": {"points": {}}, "1": {"points": {"natural": POINT, "reward-1": versus}}},
    }  # fmt: skip
    made = script.picture("one_hop small isft", entry)
    assert made.count("<polyline") == 2 and made.endswith("</svg>\n")
    row = script.table({"k": entry}).splitlines()[-1]
    assert row.count("50% [40%, 60%]") == 2 and row.count("+50.0 points [+40, +60]") == 2
