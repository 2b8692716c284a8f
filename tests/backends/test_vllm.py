"""Starting, sharing and ending a vLLM server, with a stand-in for vLLM (fake_vllm.py)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentcomm.backends import BackendOptions, resolve, vllm
from agentcomm.backends.base import ChatRequest
from agentcomm.errors import BackendError, ConfigError
from agentcomm.message import ChatMessage
from tests.servers import CountingServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX"),
]

ROOT = Path(__file__).parents[2]
REQUEST = ChatRequest("vllm/m", (ChatMessage("user", "hi there"),))


class Fake:
    def __init__(self, folder: Path) -> None:
        self.notes_path = folder / "notes.jsonl"
        self.python = folder / "venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(
            f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_vllm.py")} "$@"\n'
        )
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)

    @property
    def notes(self) -> list[dict[str, Any]]:
        if not self.notes_path.exists():
            return []
        return [json.loads(line) for line in self.notes_path.read_text().splitlines()]

    @property
    def pids(self) -> list[int]:
        return [pid for note in self.notes for pid in note["pids"]]

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if _alive(pid)]

    def all_gone(self, within_s: float = 20.0) -> bool:
        end = time.monotonic() + within_s
        while self.alive() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.alive()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake(tmp_path)
    monkeypatch.setenv("AGENTCOMM_VLLM_PYTHON", str(made.python))
    monkeypatch.setenv("FAKE_VLLM_NOTES", str(made.notes_path))
    for name in ("AGENTCOMM_VLLM_URL", "AGENTCOMM_VLLM_ARGS", "AGENTCOMM_VLLM_START_S", "FAKE_VLLM"):
        monkeypatch.delenv(name, raising=False)
    yield made
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)


async def test_a_server_is_started_shared_and_ended_with_its_last_user(fake: Fake) -> None:
    notes: list[str] = []
    first = resolve("vllm/m", BackendOptions(note=notes.append))
    second = resolve("vllm/m")
    async with anyio.create_task_group() as group:
        for backend in (first, first, second):
            group.start_soon(backend.chat, REQUEST)
    assert len(fake.notes) == 1
    assert first.endpoint == second.endpoint
    assert (await first.chat(REQUEST)).text == "You said: hi there"
    assert await second.count_tokens("one two") == 2  # type: ignore[attr-defined]
    assert "starting vLLM for m" in notes[0]
    assert "serves m" in notes[-1]
    await first.aclose()
    assert len(fake.alive()) == 2
    assert (await second.chat(REQUEST)).text
    await second.aclose()
    assert fake.all_gone()
    assert vllm._servers == {}


async def test_the_cpu_wheel_gets_the_module_and_what_a_cpu_needs(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    openmp = fake.python.parent.parent / "lib" / "libiomp5.so"
    monkeypatch.setenv("AGENTCOMM_VLLM_ARGS", "--dtype 'float32'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-to-be-handed-on")
    backend = resolve(f"vllm/{tmp_path}", BackendOptions(context_tokens=512, server_args=("--x",)))
    await backend.check()  # type: ignore[attr-defined]
    await backend.aclose()
    note = fake.notes[0]
    assert note["argv"][:5] == [
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(tmp_path),
        "--enforce-eager",
    ]
    assert note["argv"][-5:] == ["--max-model-len", "512", "--x", "--dtype", "float32"]
    assert note["env"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert note["env"]["HF_HUB_OFFLINE"] == "1"
    assert "OPENAI_API_KEY" not in note["env"]
    settings = vllm.Settings(str(fake.python), "m")
    assert "HF_HUB_OFFLINE" not in vllm.environment_of(settings)
    openmp.parent.mkdir()
    openmp.touch()
    assert vllm.environment_of(settings)["LD_PRELOAD"].split(":")[0] == str(openmp)


def test_the_full_distribution_gets_vllm_serve(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM_DIST", "vllm")
    settings = vllm.Settings(str(fake.python), "org/m")
    command = vllm.command_of(settings, 1234)
    assert command[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "org/m"]
    assert "--enforce-eager" not in command
    assert command[command.index("--port") + 1] == "1234"
    assert "VLLM_CPU_KVCACHE_SPACE" not in vllm.environment_of(settings)


async def test_a_server_that_dies_says_how_its_log_ended(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM", "dies")
    backend = resolve("vllm/m")
    with pytest.raises(BackendError, match=r"no config\.json in the folder") as caught:
        await backend.chat(REQUEST)
    assert caught.value.fatal
    assert "exit code 3" in str(caught.value)
    await backend.aclose()


async def test_a_server_that_is_never_healthy_is_given_up_and_ended(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "never")
    monkeypatch.setenv("AGENTCOMM_VLLM_START_S", "1.5")
    monkeypatch.setattr(vllm, "NOTE_EVERY_S", 0.2)
    notes: list[str] = []
    backend = resolve("vllm/m", BackendOptions(note=notes.append))
    with pytest.raises(BackendError, match=r"not healthy after 1\.5 s") as caught:
        await backend.check()  # type: ignore[attr-defined]
    assert caught.value.fatal
    assert any("it says: loading weights" in note for note in notes)
    await backend.aclose()
    assert fake.all_gone()


async def test_a_server_that_dies_in_use_ends_the_run_with_its_log(fake: Fake) -> None:
    backend = resolve("vllm/m")
    await backend.chat(REQUEST)
    os.kill(fake.pids[0], signal.SIGKILL)
    await anyio.to_thread.run_sync(backend._server._keeper.wait, 20)  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="ended while it was in use") as caught:
        await backend.chat(REQUEST)
    assert caught.value.fatal
    assert "loading weights" in str(caught.value)
    await backend.aclose()
    assert fake.all_gone()
    other = resolve("vllm/m")
    assert (await other.chat(REQUEST)).text
    await other.aclose()


async def test_a_server_that_ignores_the_polite_request_is_killed(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "stubborn")
    monkeypatch.setattr(vllm, "END_S", 0.5)
    backend = resolve("vllm/m")
    await backend.chat(REQUEST)
    await backend.aclose()
    assert fake.all_gone()


@pytest.mark.parametrize("end", ["exit", "exception", "kill -9"])
def test_a_server_ends_with_the_process_that_started_it(fake: Fake, end: str) -> None:
    code = f"""
import anyio, os, sys
from agentcomm.backends import resolve
from agentcomm.backends.base import ChatRequest
from agentcomm.message import ChatMessage
async def main():
    await resolve("vllm/m").chat(ChatRequest("vllm/m", (ChatMessage("user", "hi"),)))
anyio.run(main)
end = {end!r}
if end == "kill -9":
    os.kill(os.getpid(), 9)
if end == "exception":
    raise SystemExit("boom")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == {"exit": 0, "exception": 1, "kill -9": -9}[end], done.stderr
    assert len(fake.pids) == 2
    assert fake.all_gone()


async def test_a_running_server_is_used_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with CountingServer(model="m") as server:
        monkeypatch.setenv("AGENTCOMM_VLLM_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-only-123456")
        backend = resolve("vllm/m")
        await backend.check()  # type: ignore[attr-defined]
        assert (await backend.chat(REQUEST)).text == "You said: hi there"
        assert server.url in backend.endpoint
        assert "sk-openai" not in json.dumps(server.served[0].headers)
        await backend.aclose()
        assert (await backend.chat(REQUEST)).text
        await backend.aclose()
        other = resolve("vllm/other")
        with pytest.raises(ConfigError, match="it offers: m"):
            await other.check()  # type: ignore[attr-defined]
        await other.aclose()


async def test_a_running_server_may_offer_a_folder_under_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with CountingServer(model="short", root="/models/long") as server:
        backend = resolve("vllm//models/long", BackendOptions(base_url=server.url))
        await backend.check()  # type: ignore[attr-defined]
        await backend.chat(REQUEST)
        assert server.served[0].request["model"] == "short"
        await backend.aclose()


# ----------------------------------------------------------------------------- adapters


def adapter(folder: Path, rank: int = 9) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


async def test_a_server_that_we_start_is_given_the_adapter_and_asked_for_it(
    fake: Fake, tmp_path: Path
) -> None:
    one = adapter(tmp_path / "iter1")
    backend = resolve(f"vllm/org/m+{one}")
    assert (await backend.chat(REQUEST)).text
    argv = fake.notes[0]["argv"]
    assert argv[argv.index("--model") + 1] == "org/m"
    at = argv.index("--enable-lora")
    assert argv[at:] == ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"{one}={one}"]
    plain = resolve("vllm/org/m")
    assert plain.endpoint != backend.endpoint
    await backend.aclose()


async def test_a_server_that_does_not_apply_the_adapter_is_found_out(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = adapter(tmp_path / "iter1")
    monkeypatch.setenv("FAKE_VLLM", "deaf")
    backend = resolve(f"vllm/org/m+{one}")
    with pytest.raises(ConfigError, match="changes nothing"):
        await backend.check()  # type: ignore[attr-defined]
    await backend.aclose()
    assert fake.all_gone()


async def test_a_running_server_is_asked_for_the_adapter_by_its_own_name(tmp_path: Path) -> None:
    one = adapter(tmp_path / "iter1")
    with CountingServer(model="base", root="/models/m", adapters={"terse": str(one)}) as server:
        options = BackendOptions(base_url=server.url)
        backend = resolve(f"vllm//models/m+{one}", options)
        await backend.check()  # type: ignore[attr-defined]
        assert [s.request["model"] for s in server.served] == ["terse", "base"]  # the probe
        await backend.chat(REQUEST)
        assert server.served[-1].request["model"] == "terse" and "logprobs" not in server.served[-1].request
        await backend.aclose()
        other = resolve(f"vllm//models/m+{adapter(tmp_path / 'iter2')}", options)
        with pytest.raises(
            ConfigError, match="does not serve the adapter .*iter2.*offers: base, terse.*--enable-lora"
        ):
            await other.check()  # type: ignore[attr-defined]
        await other.aclose()


async def test_adapters_that_vllm_can_not_serve_are_refused_at_once(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no readable adapter_config.json"):
        resolve(f"vllm/org/m+{tmp_path}")
    with pytest.raises(ConfigError, match="rank 600, and vLLM serves 512"):
        resolve(f"vllm/org/m+{adapter(tmp_path / 'wide', 600)}")
    with pytest.raises(ConfigError, match="one adapter on a model"):
        resolve(f"vllm/org/m+{adapter(tmp_path / 'a')}+{adapter(tmp_path / 'b')}")
    assert not fake.notes


async def test_an_adapter_of_other_weights_is_refused_before_a_server_is_started(
    fake: Fake, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    one = adapter(tmp_path / "iter1")
    (one / "agentcomm.json").write_text(json.dumps({"trained_on": "other", "below": []}))
    backend = resolve(f"vllm/{base}+{one}")
    with pytest.raises(ConfigError, match="trained on another base model"):
        await backend.check()  # type: ignore[attr-defined]
    assert not fake.notes
    await backend.aclose()
