"""ServerEmbedder: embeddings by a server, asked in batches, with retries."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import tenacity

from agentcomm.backends.openai_embeddings import Embedded, OpenAIEmbeddings
from agentcomm.calls import Retry
from agentcomm.errors import BackendError
from agentcomm.pruning.pool import FloatArray

BATCH = 64
"""Texts in one request at most."""


class ServerEmbedder:
    """Texts embedded by an OpenAI-compatible server's ``/v1/embeddings``.

    Its ``id`` is the model's name: a server doesn't show its weights, so two that call different
    models alike can't be told apart. Texts longer than the model's window are the server's affair: most
    refuse them (an error here), some cut them.

    Parameters
    ----------
    server:
        Where, and which model.
    retry:
        How often and how patiently a failed request is repeated.

    Attributes
    ----------
    input_tokens:
        What the server counted so far; ``None`` once a reply didn't say.
    """

    def __init__(self, server: OpenAIEmbeddings, *, retry: Retry | None = None) -> None:
        self._server = server
        self._retry = retry or Retry()
        self._dimensions: int | None = None
        self.input_tokens: int | None = 0

    @property
    def id(self) -> str:
        return self._server.name

    @property
    def dimensions(self) -> int:
        """Found by asking once."""
        if self._dimensions is None:
            self._ask(["dimensions"])
        assert self._dimensions is not None
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """[texts, dimensions], rows of length 1; 0 for blank texts, which servers refuse.

        Raises
        ------
        BackendError
            If the server keeps failing, or answers with what are no embeddings of these texts.
        """
        asked = [at for at, text in enumerate(texts) if text.strip()]
        rows = [self._ask([texts[at] for at in asked[i : i + BATCH]]) for i in range(0, len(asked), BATCH)]
        out = np.zeros((len(texts), self.dimensions))
        if asked:
            out[asked] = np.concatenate(rows)
        return out

    def _ask(self, texts: list[str]) -> FloatArray:
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retry.attempts),
            retry=tenacity.retry_if_exception(self._retry.again),
            wait=lambda state: self._retry.wait(
                state.attempt_number, state.outcome.exception() if state.outcome else None
            ),
            sleep=time.sleep,
            reraise=True,
        )
        try:
            answer: Embedded = attempts(self._server.embed, texts)
        finally:
            self._server.close()  # an embedder has no end at which its connections could be closed
        vectors, tokens = answer
        if self._dimensions is None:
            self._dimensions = vectors.shape[1]
        elif vectors.shape[1] != self._dimensions:
            raise BackendError(
                f"{self._server.shown_url} gave embeddings of {vectors.shape[1]} dimensions after ones of "
                f"{self._dimensions}: another model answers there now; use one model throughout",
                kind="broken_reply",
                fatal=True,
            )
        known = self.input_tokens is not None and tokens is not None
        self.input_tokens = (self.input_tokens or 0) + (tokens or 0) if known else None
        unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit
