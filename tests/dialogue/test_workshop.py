"""Workshop: adapters put into a running vLLM, what trainers print kept off stdout, what can't be trained."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentcomm.backends.adapters import ModelRef
from agentcomm.dialogue.export import TrainConfig
from agentcomm.dialogue.workshop import Elsewhere, TrlWorkshop, _Log, require_trainable
from agentcomm.errors import ConfigError


@pytest.fixture
def vllm() -> Iterator[tuple[str, list[Any]]]:
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = asked["lora_name"] in [h[1]["lora_name"] for h in heard]
            heard.append((self.path, asked))
            broken = "broken" in asked["lora_name"]
            self.send_response(500 if broken else 400 if known else 200)
            self.end_headers()
            self.wfile.write(
                b"no such thing" if broken else b"it has already been loaded" if known else b"Success"
            )

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", heard
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_adapter_is_put_into_a_running_vllm_and_may_be_there_already(
    vllm: tuple[str, list[Any]], tmp_path: Path
) -> None:
    url, heard = vllm
    shop = TrlWorkshop("vllm", base_url=url)
    assert shop.serve(ModelRef("base")) == "vllm/base" and heard == []
    adapter = str(tmp_path / "iter1")
    for _ in range(2):
        assert shop.serve(ModelRef("base", (adapter,))) == f"vllm/base+{adapter}"
    assert heard == [("/v1/load_lora_adapter", {"lora_name": adapter, "lora_path": adapter})] * 2
    with pytest.raises(ConfigError, match="--enable-lora"):
        shop.serve(ModelRef("base", ("broken",)))
    with pytest.raises(ConfigError, match="can't be reached"):
        TrlWorkshop("vllm", base_url="http://127.0.0.1:9/v1").serve(ModelRef("base", ("x",)))


def test_a_merged_model_is_made_once_and_only_for_servers_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("trl")
    made: list[ModelRef] = []

    def save(ref: ModelRef, out: Path) -> ModelRef:
        made.append(ref)
        out.mkdir()
        return ModelRef(str(out))

    monkeypatch.setattr("agentcomm.dialogue.training.save_merged", save)
    shop = TrlWorkshop("vllm", merge=True)
    ref = ModelRef("base", (str(tmp_path / "iter1"),))
    names = [shop.serve(ref), shop.serve(ref)]
    assert names == [f"vllm/{tmp_path / 'iter1-merged'}"] * 2 and made == [ref]
    assert shop.serve(ModelRef("base")) == "vllm/base"
    for wrong in ({"provider": "hf"}, {"provider": "vllm", "base_url": "http://127.0.0.1:1/v1"}):
        with pytest.raises(ConfigError, match="merged models are for vllm/ servers"):
            TrlWorkshop(merge=True, **wrong)  # type: ignore[arg-type]


def test_a_model_in_this_process_is_named_with_its_adapters() -> None:
    assert TrlWorkshop().serve(ModelRef("base", ("one",))) == "hf/base+one"


def test_a_trainers_losses_are_passed_on_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr("agentcomm.dialogue.workshop.time.monotonic", lambda: next(clock))
    said: list[str] = []
    log = _Log(said.append)
    for text in (
        "{'loss': '9'}",
        "{'loss': '2.5', 'grad_norm': '1', 'epoch': '0.5'}",
        "tqdm 50%",
        "{'loss': '1'}",
    ):
        assert log.write(text) == len(text)
    assert said == ["training: loss: 2.5, epoch: 0.5"]


def test_what_is_trained_elsewhere_is_not_trained_here(tmp_path: Path) -> None:
    shop = Elsewhere("mock/echo")
    assert shop.serve(ModelRef("anything")) == "mock/echo" and shop.report(tmp_path) == {}
    with pytest.raises(ConfigError, match="--export"):
        shop.train([], ModelRef("b"), TrainConfig(), tmp_path)
    with pytest.raises(ConfigError, match="--export"):
        shop.publish(ModelRef("b"), tmp_path)


def test_a_report_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert TrlWorkshop().report(tmp_path) == {}


@pytest.mark.parametrize(
    ("folder", "device", "says"), [("nowhere", "cpu", "no folder"), (".", "tpu", "auto")]
)
def test_what_cannot_be_trained_is_said_at_once(folder: str, device: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        require_trainable(folder, device)
