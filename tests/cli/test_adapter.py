"""``agentcomm eval --adapter``: the adapter's own name is asked for, and what can't have one is told so."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import CALLS_PER_ITEM, agentcomm
from tests.servers import CountingServer


def adapter(folder: Path, below: list[list[str]] | None = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "agentcomm.json").write_text(json.dumps({"trained_on": "x", "below": below or []}))
    return folder


def test_a_server_with_the_adapter_answers_as_it(team: Path, sums: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "iter1")
    words = ("eval", team, sums, "-T", "limit=1", "--model", "vllm/m", "--adapter", one, "--json")
    with CountingServer(model="m", adapters={"terse": "iter1"}) as server:  # a path as its command had it
        done = agentcomm(*words, "--out", "run", "--base-url", server.url)
        assert done.code == 0, done.err
        asked = [s.request["model"] for s in server.served if not s.request.get("logprobs")]
        assert asked == ["terse"] * CALLS_PER_ITEM
    assert done.json["model"] == f"vllm/m+{one}"
    assert json.loads(Path("run", "config.json").read_text())["model"] == f"vllm/m+{one}"
    with CountingServer(model="m") as server:
        refused = agentcomm(*words, "--out", "other", "--base-url", server.url)
    assert refused.code == 2 and "--enable-lora" in refused.complaint and not server.served


def test_what_can_not_have_an_adapter_is_told_so(team: Path, sums: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "iter1")
    for model in ("mock/echo", "local/smollm2"):
        done = agentcomm("eval", team, sums, "--model", model, "--adapter", one)
        assert done.code == 2 and "--model hf/FOLDER or vllm/FOLDER" in done.complaint
    none = agentcomm("eval", team, sums, "--model", "hf/x", "--adapter", tmp_path)
    assert none.code == 2 and "no adapter of agentcomm train" in none.complaint
    gone = adapter(tmp_path / "iter2", [["../iter0", str(tmp_path / "iter0")]])
    lost = agentcomm("eval", team, sums, "--model", "hf/x", "--adapter", gone)
    assert lost.code == 2 and "keep the adapters of all iterations together" in lost.complaint
