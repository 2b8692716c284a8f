"""OpenAIEmbeddings: texts to vectors by any server that speaks OpenAI's ``/v1/embeddings``.

One :meth:`OpenAIEmbeddings.embed` is one request; what goes wrong becomes a :class:`BackendError`
as :mod:`agentcomm.backends.openai` has it. A reply with another number of vectors than texts, with
vectors that aren't finite numbers, or of other lengths than before is an error, never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import openai
from numpy.typing import NDArray

from agentcomm.backends.openai import OpenAI
from agentcomm.errors import BackendError


class Embedded(NamedTuple):
    """``vectors`` [texts, dimensions], and the input tokens that the server counted (``None``: unknown)."""

    vectors: NDArray[np.float64]
    input_tokens: int | None


class OpenAIEmbeddings:
    """An embedding model on an OpenAI-compatible server; parameters as :class:`OpenAI` has them."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: float = 60.0,
    ) -> None:
        # The same server, key and failures as for chats.
        self._server = OpenAI(model, base_url=base_url, api_key_env=api_key_env, timeout_s=timeout_s)
        self._client: openai.OpenAI | None = None

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def shown_url(self) -> str:
        return self._server.shown_url

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The vectors of ``texts`` as the server gives them.

        Raises
        ------
        BackendError
            If the server fails, refuses, or answers with something else.
        """
        failure: BackendError
        try:
            answer = self._open().embeddings.with_raw_response.create(
                model=self._server.model, input=list(texts), encoding_format="float"
            )
            return self._read(answer.content, len(texts))
        except openai.NotFoundError as error:
            failure = BackendError(
                f"{self.shown_url} has no model {self._server.model!r} or no embeddings at that address: "
                f"{self._server._clean(str(error))}; check the model's name and the base URL (it ends in /v1 "
                f"as a rule)",
                kind="refused",
                status=404,
                fatal=True,
            )
        except openai.OpenAIError as error:
            failure = self._server._failure(error)
        # Raised out here, so that no traceback shows the SDK's own error: servers put keys into it.
        raise failure

    def close(self) -> None:
        """Close the connections. A later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> openai.OpenAI:
        if self._client is None:
            plain = (
                openai.DefaultHttpxClient(trust_env=False, verify=False) if self._server._is_plain else None
            )
            self._client = openai.OpenAI(
                api_key=self._server._key or "none",
                base_url=self._server.base_url,
                timeout=self._server.timeout_s,
                max_retries=0,
                http_client=plain,
            )
        return self._client

    def _read(self, data: bytes, count: int) -> Embedded:
        try:
            reply: Any = json.loads(data.decode("utf-8"))
            entries = reply["data"]
            vectors = [entry["embedding"] for entry in sorted(entries, key=lambda e: e.get("index", 0))]
            places = sorted(entry.get("index", at) for at, entry in enumerate(entries))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._server._broken(f"is no list of embeddings: {self._server._excerpt(data)}") from None
        if len(vectors) != count or places != list(range(count)):
            raise self._server._broken(f"has {len(vectors)} embeddings, of {count} texts")
        lengths = {len(v) if isinstance(v, list) else 0 for v in vectors}
        if len(lengths) > 1 or 0 in lengths:
            raise self._server._broken(
                f"has embeddings of lengths {sorted(lengths)}: they must be equal lists"
            )
        try:
            made = np.array(vectors, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._server._broken("has embeddings with something else than numbers") from None
        if not np.isfinite(made).all() or not np.linalg.norm(made, axis=1).all():
            raise self._server._broken("has an embedding that is NaN, infinite or all zeros")
        usage = reply.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Embedded(made, tokens if type(tokens) is int and tokens >= 0 else None)
