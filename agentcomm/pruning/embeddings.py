"""Embeddings: texts of roles and questions as vectors that learners can compare.

What is computed has an :attr:`Embedder.id`, which a policy stores: vectors of another embedding
would silently mean something else, so a policy refuses them. :func:`embedder` makes one from a
word; models and servers live in files of their own, which are imported when they are needed.

Deliberately absent: what is done with the vectors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.pruning.pool import FloatArray

if TYPE_CHECKING:
    from agentcomm.calls import Retry


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

    ``notes`` say why it was taken where a model was wanted; they are no part of its ``id``.
    """

    dimensions: int = 384
    notes: tuple[str, ...] = ()

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

    @property
    def notes(self) -> tuple[str, ...]:
        return notes_of(self.embedder)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        if fresh := [t for t in dict.fromkeys(texts) if t not in self._known]:
            for text, vector in zip(fresh, self.embedder.embed(fresh), strict=True):
                self._known[text] = vector
        return np.array([self._known[t] for t in texts]).reshape(len(texts), self.dimensions)


def cached(embedder: Embedder) -> Embedder:
    """``embedder``, asked about each text once."""
    return embedder if isinstance(embedder, Cached) else Cached(embedder)


def notes_of(embedder: Embedder) -> tuple[str, ...]:
    """What whoever uses vectors of ``embedder`` should know: for a policy's card."""
    return tuple(getattr(embedder, "notes", ()))


HASHED = "no embedder was given, so questions are compared by hashed words: no meaning is compared"


def or_hashed(given: Embedder | None) -> Embedder:
    """``given``, or hashed words, whose ``notes`` say that nothing was given."""
    return given if given is not None else HashEmbedder(notes=(HASHED,))


NO_MODEL = (
    "questions and roles are compared by hashed words, without a sense of meaning, since {why}; "
    "for embeddings by a model: {remedy}"
)


def embedder(
    spec: str | Path | None = None,
    *,
    base_url: str | None = None,
    api_key_env: str | None = "OPENAI_API_KEY",
    timeout_s: float = 60.0,
    retry: Retry | None = None,
    note: Callable[[str], None] | None = None,
) -> Embedder:
    """The embedder that ``spec`` names, asked about each text once.

    Nothing is loaded or asked before the first text, except that a name on the hub is looked up.

    Parameters
    ----------
    spec:
        ``"hash"`` (built in), ``"minilm"`` (all-MiniLM-L6-v2 from an installed package that carries
        it, else from the hub), the folder of a sentence-transformers model, a hub name such as
        ``"BAAI/bge-small-en-v1.5"``, or ``"openai/MODEL"`` for an OpenAI-compatible server. ``None``
        takes MiniLM where a package carries it, else hashed words, which is said: to ``note``, and
        in :func:`notes_of` the embedder.
    base_url, api_key_env, timeout_s, retry:
        Of a server, as for chats.
    note:
        Hears what the user should know.

    Raises
    ------
    ConfigError
        If there is no such embedder, or what it needs is not installed.
    """
    word = "" if spec is None else str(spec)
    if word.startswith("openai/") and not Path(word).is_dir():
        from agentcomm.backends.openai_embeddings import OpenAIEmbeddings
        from agentcomm.pruning.embedding_server import ServerEmbedder

        if not (model := word.partition("/")[2]):
            raise ConfigError("the embedding 'openai/' names no model; write openai/MODEL")
        server = OpenAIEmbeddings(model, base_url=base_url, api_key_env=api_key_env, timeout_s=timeout_s)
        return cached(ServerEmbedder(server, retry=retry))
    if base_url is not None:
        raise ConfigError(f"the embedding {word!r} has no server; a base URL goes with openai/MODEL")
    if spec is None:
        return cached(_usual(note))
    if word == "hash":
        return cached(HashEmbedder())
    from agentcomm.pruning import sentence_model as models

    if word == "minilm":
        folder = models.carried_minilm()
        return cached(models.SentenceModel(folder) if folder else models.from_hub(models.MINILM))
    if Path(word).is_dir():
        return cached(models.SentenceModel(word))
    if isinstance(spec, Path) or not _HUB_NAME.fullmatch(word):
        raise ConfigError(
            f"no embedding {word!r}: there is no such folder; write hash, minilm, a folder, a hub name such as "
            f"{models.MINILM}, or openai/MODEL"
        )
    return cached(models.from_hub(word))


_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def embedder_with_id(wanted: str) -> Embedder | None:
    """The embedder whose ``id`` is ``wanted``, if it can be made without being told where it is."""
    if match := re.fullmatch(r"hash-v1-([1-9]\d{0,5})", wanted):
        return HashEmbedder(int(match[1]))
    from agentcomm.pruning import sentence_model as models

    folder = models.carried_minilm()
    if folder is None or not models.library_installed():
        return None
    model = models.SentenceModel(folder)
    return cached(model) if model.id == wanted else None


def _usual(note: Callable[[str], None] | None) -> Embedder:
    """MiniLM where it lies ready, else hashed words, said aloud."""
    from agentcomm.pruning import sentence_model as models

    folder = models.carried_minilm()
    lacks = [] if models.library_installed() else [("sentence-transformers is not installed", models.INSTALL)]
    lacks += [] if folder else [("no installed package carries all-MiniLM-L6-v2", models.CARRIED)]
    if folder and not lacks:
        return models.SentenceModel(folder)
    why, remedies = " and ".join(w for w, _ in lacks), " && ".join(r for _, r in lacks)
    said = NO_MODEL.format(why=why, remedy=remedies)
    if note is not None:
        note(said)
    return HashEmbedder(notes=(said,))
