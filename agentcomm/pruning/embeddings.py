"""Embeddings: texts of roles and questions as vectors that learners can compare.

What is computed has an :attr:`Embedder.id`, which a policy stores: vectors of another embedding
would silently mean something else, so a policy refuses them.

Deliberately absent: what is done with the vectors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.pruning.pool import FloatArray


class Embedder(Protocol):
    """Texts as vectors of unit length."""

    @property
    def id(self) -> str:
        """Names what is computed: the model and its weights."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """[texts, dimensions]; each row has length 1, or 0 for a text without any word."""
        ...


_WORD = re.compile(r"\w+|[^\w\s]", re.UNICODE)


@dataclass(frozen=True)
class HashEmbedder:
    """A hashed bag of words and word pairs: no model, no download, and no sense of meaning.

    Each word adds +1 or -1 at a place that its CRC-32 names, each pair of neighbours half of that
    (feature hashing, Weinberger et al. 2009, with signs). Texts about the same thing in other words
    are strangers to it.
    """

    dimensions: int = 384

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ConfigError(f"an embedding of {self.dimensions} dimensions; it needs at least 1")

    @property
    def id(self) -> str:
        return f"hash-v1-{self.dimensions}"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        out = np.zeros((len(texts), self.dimensions))
        for row, text in zip(out, texts, strict=True):
            words = _WORD.findall(text.casefold())
            pairs = [f"{a} {b}" for a, b in pairwise(words)]
            for tokens, weight in ((words, 1.0), (pairs, 0.5)):
                for token in tokens:
                    code = zlib.crc32(token.encode())
                    row[(code >> 1) % self.dimensions] += weight if code & 1 else -weight
            if length := float(np.linalg.norm(row)):
                row /= length
        return out


@dataclass
class Cached:
    """An embedder that asks another one about each text once."""

    embedder: Embedder
    _known: dict[str, FloatArray] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        return self.embedder.id

    @property
    def dimensions(self) -> int:
        return self.embedder.dimensions

    def embed(self, texts: Sequence[str]) -> FloatArray:
        if fresh := [t for t in dict.fromkeys(texts) if t not in self._known]:
            for text, vector in zip(fresh, self.embedder.embed(fresh), strict=True):
                self._known[text] = vector
        return np.array([self._known[t] for t in texts]).reshape(len(texts), self.dimensions)


def cached(embedder: Embedder) -> Embedder:
    """``embedder``, asked about each text once."""
    return embedder if isinstance(embedder, Cached) else Cached(embedder)
