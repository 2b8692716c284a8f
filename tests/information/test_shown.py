"""``agentcomm view`` of what rate, mi and audit left: their pictures and verdicts, with the runs they made."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agentcomm.errors import ConfigError
from agentcomm.information.shown import findings
from tests.command import agentcomm
from tests.reports import SINGLE, Opened, answering, make, numbers

SMALL = ("--limit", "3", "--executor", "plain")


def opened(html: Path) -> tuple[Opened, list[dict[str, Any]]]:
    page = Opened(html)
    return page, json.loads(page.scripts["findings"])


def svg(finding: dict[str, Any]) -> str:
    head, _, data = finding["image"].partition(",")
    assert head == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def test_a_folder_of_rate_shows_its_curves_beside_the_runs_it_made(tmp_path: Path) -> None:
    out = tmp_path / "r"
    made = agentcomm(
        "rate", "records", "-c", "extract", "-p", "mock/echo", "--budgets", "8,16", *SMALL, "--out", out
    )
    assert made.code == 0, made.err
    done = agentcomm("view", out)
    assert done.code == 0, done.complaint
    assert Path(done.out.strip()) == out / "report.html"
    page, found = opened(out / "report.html")
    assert [f["title"].partition(":")[0] for f in found] == ["Rate-distortion", "Score against tokens"]
    assert svg(found[0]) == (out / "rate-distortion.svg").read_text()
    # Both ends and two budgets: their scores stand against their tokens in the page's own chart.
    assert len(page.facts["runs"]) == 4
    assert all(r["point"]["tokens"] > 0 for r in page.facts["runs"])
    assert "img-src data:;" in page.html and "<img" not in page.html


def test_mi_is_drawn_over_length_and_over_the_score_of_the_same_compressor(tmp_path: Path) -> None:
    rate, mi = tmp_path / "rate", [tmp_path / "mi8", tmp_path / "mi16"]
    words = ("-c", "extract", "-p", "mock/echo", "--budgets", "8,16", *SMALL, "--out", rate)
    assert agentcomm("rate", "records", *words).code == 0
    for folder, budget in zip(mi, (8, 16), strict=True):
        done = agentcomm(
            "mi",
            "records",
            "-c",
            f"extract:{budget}",
            "-s",
            "offline/codelength",
            "-n",
            "12",
            "--out",
            folder,
        )
        assert done.code == 0, done.err
    done = agentcomm("view", *mi, "--out", tmp_path / "mi.html")
    assert done.code == 0, done.complaint
    page, found = opened(tmp_path / "mi.html")
    assert page.facts["runs"] == []
    (one,) = found  # two compressions of one task under one scorer: one picture
    assert "extract, 8: " in one["words"] and "extract, 16: " in one["words"] and " bits" in one["words"]
    assert svg(one).count("<title>extract") == 2
    assert agentcomm("view", rate, *mi, "--out", tmp_path / "all.html").code == 0
    _, found = opened(tmp_path / "all.html")
    both = next(f for f in found if f["title"].startswith("Information against score"))
    assert svg(both).count("<title>extract, ") == 2


def test_an_audits_verdict_is_shown_with_its_arms(tmp_path: Path) -> None:
    make(tmp_path / "audit" / "true", SINGLE, numbers(3), answering(lambda i: True))
    sentence = "the messages' content raises the score by 12 points </script>"
    (tmp_path / "audit" / "audit.json").write_text(json.dumps({"sentence": sentence}))
    assert agentcomm("view", tmp_path / "audit").code == 0
    page, found = opened(tmp_path / "audit" / "report.html")
    assert found == [{"title": "Audit: audit", "words": sentence, "image": None}]
    assert [r["name"] for r in page.facts["runs"]] == ["true"]


def test_runs_without_curves_have_no_section_of_them(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(2), answering(lambda i: True))
    assert agentcomm("view", run).code == 0
    assert opened(run / "report.html")[1] == []


def test_a_folder_that_is_neither_run_nor_result_is_named_with_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = agentcomm("view", tmp_path / "empty").complaint
    assert str(tmp_path / "empty") in said and "rate.json" in said and "agentcomm eval" in said


@pytest.mark.parametrize("text", ["{}", '{"task": 3, "predictor": "p"}'])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "rate.json").write_text(text)
    with pytest.raises(ConfigError, match=r"rate\.json is not what its command wrote"):
        findings([tmp_path])
