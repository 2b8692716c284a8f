"""``agentcomm rate`` and ``agentcomm allocate``: tables, one JSON object, a folder that continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import agentcomm

SMALL = ("--limit", "4", "--executor", "plain")


def test_rate_shows_points_costs_and_curves_without_a_model(tmp_path: Path) -> None:
    out = tmp_path / "r"
    words = ("rate", "records", "-c", "extract", "-c", "truncate", "-p", "mock/echo", "--budgets", "8,16,24,32",
             "--shape", "mock/echo=1e9,10,64", *SMALL, "--out", out)  # fmt: skip
    done = agentcomm(*words)
    assert done.code == 0, done.err
    for said in ("full context", "no context", "against full", "saved", "generation", "total", "R in tokens of",
                 "rate-distortion.svg", "4 items about 4 texts"):  # fmt: skip
        assert said in done.out
    facts = agentcomm(*words, "--json").json
    assert facts == json.loads((out / "rate.json").read_text())
    assert [c["compressor"] for c in facts["curves"]] == ["extract", "truncate"]
    for point in facts["curves"][0]["points"]:
        assert point["got"] <= point["asked"]
        assert point["flops"]["total"] > point["flops"]["generation"] > 0


def test_allocate_spreads_and_checks_a_budget(tmp_path: Path) -> None:
    out = tmp_path / "a"
    words = ("allocate", "records_team", "records", "--total", "60", "--budgets", "8,16", "--edges",
             "s1->judge,s2->judge", "-m", "mock/echo", *SMALL, "--out", out)  # fmt: skip
    done = agentcomm(*words)
    assert done.code == 0, done.err
    for said in ("s1->judge", "spread evenly", "together", "verbatim", "allocated against spread evenly"):
        assert said in done.out
    facts = agentcomm(*words, "--json").json
    assert facts == json.loads((out / "allocation.json").read_text())
    assert facts["tokens"] <= 60
    assert facts["assumes"] == "losses of edges add up"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("rate", "records", "-c", "nonsense", "-p", "mock/echo"), "extract, truncate, rules"),
        (("rate", "records", "-c", "extract", "-p", "nonsense"), "unknown model"),
        (("rate", "records", "-c", "extract", "-p", "mock/echo", "--budgets", "0,4"), "--budgets"),
        (("rate", "records", "-c", "extract", "-p", "mock/echo", "--shape", "x"), "--shape"),
        (("allocate", "records_team", "records", "--total", "-1"), "--total"),
        (("allocate", "single", "records", "--total", "9", "-m", "mock/echo"), "no edges"),
    ],
)
def test_what_only_the_user_can_mend_is_one_sentence(words: Any, complaint: str) -> None:
    done = agentcomm(*words)
    assert done.code == 2
    assert complaint in done.complaint
