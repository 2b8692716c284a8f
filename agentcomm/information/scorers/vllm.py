"""Vllm: ``prompt_logprobs`` of a vLLM server, running or started for the scorer.

A server that we start has its prefix cache off: scoring does not profit from it, and values read
through it were seen to be stale and to depend on the order of requests. A running server that says in
its metrics that the cache is on is refused.

How a server is found and started is :mod:`agentcomm.backends.vllm`'s business (``AGENTCOMM_VLLM_URL``,
``AGENTCOMM_VLLM_PYTHON``, ``AGENTCOMM_VLLM_ARGS``). A folder of float32 weights is loaded as bfloat16
unless ``AGENTCOMM_VLLM_ARGS`` says ``--dtype float32``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx

from agentcomm.backends.base import VLLM_KEY_ENV, BackendOptions
from agentcomm.backends.openai import OpenAI
from agentcomm.backends.vllm import Vllm
from agentcomm.errors import BackendError, ConfigError, ScorerUnsupported
from agentcomm.information.scorers.language import weights_hash
from agentcomm.information.scorers.server import ServerScorer

NO_PREFIX_CACHE = "--no-enable-prefix-caching"

T = TypeVar("T")


class VllmScorer(ServerScorer):
    """A model on a vLLM server.

    Raises
    ------
    MissingExtraError, ConfigError
        If a server must be started and vLLM is nowhere, or it doesn't start.
    """

    name_of_engine = "vllm"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = VLLM_KEY_ENV,
        timeout_s: float = 300.0,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        backend_options = BackendOptions(
            base_url=base_url,
            api_key_env=api_key_env,
            timeout_s=timeout_s,
            server_args=(NO_PREFIX_CACHE,),
            note=note,
        )
        self._backend = Vllm.from_options(model, backend_options)
        self.folder = model
        self._ours = self._backend.settings is not None
        try:
            client = _run(self._served_by)
        except BackendError as error:
            _run(self._backend.aclose)
            raise ConfigError(str(error)) from error
        super().__init__(
            client.model,
            base_url=client.base_url,
            api_key_env=None if self._ours else api_key_env,
            timeout_s=timeout_s,
            note=note,
            **options,
        )

    async def _served_by(self) -> OpenAI:
        client = await self._backend.client()
        await client.aclose()  # its connections belong to this event loop, which ends here
        return client

    def close(self) -> None:
        super().close()
        _run(self._backend.aclose)

    def _served(self) -> str:
        """What computes the numbers: for our own server its arguments, not the port it happens to have."""
        settings = self._backend.settings
        if settings is None:
            return super()._served()
        local = Path(settings.model)
        weights = weights_hash(local)[:12] if local.is_dir() else "hub"
        args = sha256(" ".join(settings.args).encode()).hexdigest()[:8]
        return f"{weights},args:{args}"

    @property
    def id(self) -> str:
        if not self._ours:
            return super().id
        if not hasattr(self, "_id_known"):
            self._id_known = self._served()
        return f"vllm/{Path(self.folder).name}@{self._id_known}{self._version}"

    def probe(self) -> None:
        self._refuse_prefix_cache()
        super().probe()

    def _refuse_prefix_cache(self) -> None:
        try:
            metrics = self._http.get(f"{self.root}/metrics").text
        except httpx.HTTPError:
            return  # the probe's repeated request has to do
        found = re.search(r'enable_prefix_caching="(True|False)"', metrics)
        if found is not None and found.group(1) == "True":
            raise ScorerUnsupported(
                f"the vLLM server at {self.root} has its prefix cache on, through which scores can be stale; "
                f"start it with {NO_PREFIX_CACHE}, or let vllm/FOLDER start one"
            )


def _run(call: Callable[[], Awaitable[T]]) -> T:
    """An async call from code that isn't, whether or not an event loop runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, call).result()
