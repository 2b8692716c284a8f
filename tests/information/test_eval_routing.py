"""eval/routing.py: on made-up runs whose messages tell their worth, routing by information beats chance."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger

EVAL = Path(__file__).resolve().parents[2] / "eval"
ITEMS = 24


def calls(folder: Path, ids: tuple[str, ...], model: str, n_in: int, n_out: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    async def record() -> None:
        with Ledger.open(folder / "ledger.sqlite") as ledger:
            for i in ids:
                row = CallRow(
                    i, i, 0, 1, "a", 1, "evaluate", model, i, 1.0, input_tokens=n_in, output_tokens=n_out
                )
                await ledger.finish_call(row)

    anyio.run(record)


def planted(runs: Path, ids: tuple[str, ...], contexts: tuple[str, ...]) -> None:
    """The small compressor quotes every other context and talks about nothing of the rest; the predictor
    is right where it reads something."""
    useful = [k % 2 == 0 for k in range(len(ids))]
    texts = {
        "qwen0.5b-int8-48": [c[:150] if u else "I can help." for c, u in zip(contexts, useful, strict=True)],
        "qwen1.5b-int8-48": [c[:200] if u else "Sure thing." for c, u in zip(contexts, useful, strict=True)],
    }
    for name, made in texts.items():
        model, _, budget = name.rpartition("-")
        calls(runs / name, ids, model, 400, 40)
        facts = {
            "compressor": {"name": model, "method": "model", "budget": int(budget)},
            "texts": [[t] for t in made],
            "weights_sha256": "0" * 64,
        }
        (runs / name / "messages.json").write_text(json.dumps(facts))
    for title, right, read in (
        ("full", [True] * len(ids), 400),
        *((name, useful, 60) for name in texts),
    ):
        calls(runs / f"answers-{title}", ids, "qwen1.5b-int8", read, 10)
        answered = {
            "scores": dict(zip(ids, map(float, right), strict=True)),
            "model": "qwen1.5b-int8",
            "weights_sha256": "0" * 64,
        }
        (runs / f"answers-{title}.json").write_text(json.dumps(answered))


def test_a_study_of_routing_reads_runs_and_finds_what_information_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EVAL))
    for name in ("compression", "routing"):
        sys.modules.pop(name, None)
    import compression  # type: ignore[import-not-found]
    import routing  # type: ignore[import-not-found]

    monkeypatch.setattr(compression, "ITEMS", ITEMS)
    monkeypatch.setattr(routing, "RESAMPLES", 200)
    material, _ = compression.sources("records", None)
    planted(tmp_path / "records", material.ids, material.contexts)
    words = ["--runs", str(tmp_path), "--out", str(tmp_path / "out.json"), "--docs", str(tmp_path)]
    routing.main(words)
    result: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    (pair,) = result["tasks"]["records"]["pairs"]
    assert pair["items"] == pair["documents"] == ITEMS
    # The critic tells quotations from talk, and talk is what costs score.
    assert pair["signal"]["pointwise"]["local"]["score"]["low"] > 0.5
    gain = pair["sweep"]["pointwise, flops"]["mean_advantage"]
    assert gain["random"]["low"] > 0.05 and gain["length"]["low"] > 0.05
    ends = pair["sweep"]["pointwise, flops"]["points"]
    always = pair["always"]["flops"]
    assert ends[0]["policies"]["router"] == always["never compress"]
    assert ends[-1]["policies"]["router"]["score"] == always["always local"]["score"]
    # 2·P·n_in and the rest, of both models: 0.5B reads 400, 1.5B reads 60.
    assert always["always local"]["cost"] == pytest.approx(2 * 0.494 * 440 + 2 * 1.54 * 70, rel=0.05)
    assert pair["always"]["predictor"]["always local"]["cost"] == 70
    assert (tmp_path / "routing-records.svg").read_text().startswith("<svg")
    assert "qwen0.5b-int8-48" in capsys.readouterr().out and str(tmp_path) not in json.dumps(result)
    # Cut short and called again: what is done is not done anew.
    monkeypatch.setattr(routing, "study", None)
    routing.main(words)
    assert json.loads((tmp_path / "out.json").read_text())["tasks"] == result["tasks"]


def test_a_folder_without_answers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EVAL))
    import routing

    with pytest.raises(SystemExit):
        routing.main(["--runs", str(tmp_path)])
    assert f"no answers in {tmp_path}" in capsys.readouterr().err
