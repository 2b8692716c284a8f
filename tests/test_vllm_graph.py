"""A graph is evaluated through real vLLM, which the command starts and ends by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentcomm.evaluation.rundir import RunDir

MODEL = os.environ.get("AGENTCOMM_VLLM_MODEL", "")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not (MODEL and os.environ.get("AGENTCOMM_VLLM_PYTHON")),
        reason="set AGENTCOMM_VLLM_PYTHON and AGENTCOMM_VLLM_MODEL",
    ),
]


def servers() -> set[str]:
    """Command lines of vLLM servers for the model, of any process on this machine."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "vllm" in words and MODEL in words and "pytest" not in words and "agentcomm" not in words:
            found.add(words)
    return found


def test_eval_starts_vllm_runs_a_team_on_it_and_ends_it(tmp_path: Path) -> None:
    before = servers()
    command = [
        str(Path(sys.executable).parent / "agentcomm"), "eval", "records_team", "records",
        "--model", f"vllm/{MODEL}", "--limit", "4", "-T", "facts=3", "--out", str(tmp_path / "run"), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["scored"], summary["failed"], summary["calls"]) == (4, 0, 20)
    tokens = summary["tokens"]
    assert sum(tokens["by_part"].values()) == tokens["input"]
    assert tokens["cached"] is not None
    assert set(tokens["by_edge"]) == {
        f"s{i}->{reader}" for i in range(1, 5) for reader in [*(f"s{j}" for j in range(i + 1, 5)), "judge"]
    }
    with RunDir.open(tmp_path / "run").ledger() as ledger:
        calls = ledger.calls()
    assert not any(c.parts_estimated for c in calls)  # vLLM's own tokenizer gave the shares
    assert all(c.parts is not None and sum(c.parts.values()) == c.input_tokens for c in calls)
    assert servers() == before
