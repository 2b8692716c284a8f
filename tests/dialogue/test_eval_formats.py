"""eval/formats.py: a planted terse format is found on items in HotpotQA's format, resumed and written down."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[2] / "eval"


def rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "_id": f"q{n}",
            "question": f"Who leads town {n}?",
            "answer": "Ann Lee",
            "type": "bridge",
            "supporting_facts": [[f"Town {n}", 0], [f"Leaders {n}", 0]],
            "context": [[t, ["Text."]] for t in (f"Town {n}", f"Leaders {n}", "Cats", "Dogs")],
        }
        for n in range(count)
    ]


def test_formats_on_hotpotqa_end_in_tokens_and_f1_against_natural_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EVAL))
    monkeypatch.delenv("AGENTCOMM_DATA", raising=False)
    sys.modules.pop("formats", None)
    import formats  # type: ignore[import-not-found]

    data = tmp_path / "hotpotqa"
    data.mkdir()
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows(400))))
    script = tmp_path / "model.json"
    terse = {"Write one line of JSON": "Ann Lee leads, so <A>Ann Lee</A> here"}
    script.write_text(json.dumps({"by_role": terse, "default": "I think <A>Ann Lee</A>." + " well" * 40}))
    words = [
        "--model", f"scripted/{script}", "--data", str(data), "--runs", str(tmp_path / "runs"),
        "--out", str(tmp_path / "formats.json"), "--formats", "json,code", "--calibrate", "3", "--rungs", "2,2",
        "--accept", "32", "--answer", "marked",
    ]  # fmt: skip
    formats.main(words)
    result = json.loads((tmp_path / "formats.json").read_text())
    assert result["adopted"] == "json" and result["items"] == 32 and result["failed"] == 0
    assert result["json"]["f1"]["mean"] == result["natural"]["f1"]["mean"] == 1.0
    # Equal on 32 items is not yet known to be equal within 0.05.
    assert result["f1_difference"]["mean"] == 0 and not result["not_worse"]
    assert result["tokens_ratio"]["message"]["high"] < 0.5 and set(result["tokens_ratio"]) == {
        "message",
        "total",
    }
    assert result["break_even_items"] > 0 and result["learn_tokens"] > 0
    assert "| json | 1.000" in capsys.readouterr().out
    formats.main(words)  # continues: the same, nothing paid
    again = json.loads((tmp_path / "formats.json").read_text())
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_the_defaults_fit_into_what_the_file_says() -> None:
    sys.path.insert(0, str(EVAL))
    try:
        import formats
    finally:
        sys.path.remove(str(EVAL))
    from agentcomm.dialogue.search import SearchPlan

    plan = SearchPlan(16, (8, 16), 48)
    assert (
        plan.most(1 + len(formats.FORMATS.split(","))) == 256 and "at most 256 dialogues" in formats.__doc__
    )
