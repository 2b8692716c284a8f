"""Critics without a model: how well a text fits a context, by counting.

Any critic fixed beforehand gives a lower bound on the information, so these are legitimate; but none
is a language model's likelihood. Their scale is arbitrary and must be learned on held-out contexts
(the estimate's *tempered* value), and ``loo`` and ``doe`` stay diagnostics at best. The query is not
looked at.

``codelength``
    −8·ln 2·(bytes(C(x⊕z)) − bytes(C(x))): what a compressor that has read x needs more for z. zlib
    while context and text fit its window of 32 KiB, else lzma; one of them for a whole matrix.
``ngram``
    A byte model of order 4: λ·(statistics of x) + (1−λ)·(statistics of a background text).
``bm25``
    BM25 of the text's words in the context (Robertson & Zaragoza 2009), inverse document frequencies
    from the background. It has no unit: no likelihood is reported.

The background is text from outside the evaluated set: by default what Python's own help says about
its topics, which every installation carries and which is about nothing in particular.
"""

from __future__ import annotations

import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from agentcomm.errors import ConfigError
from agentcomm.information.score_matrix import Row, digest
from agentcomm.information.scorers.base import Ask, Capabilities, Scored, size
from agentcomm.information.scorers.scorer import Scorer

ZLIB_WINDOW = 32 * 1024
ORDER = 4
STRENGTH = 4.0
"""Counts that the shorter history's prediction is worth."""
K1, B = 1.2, 0.75
BACKGROUND_BYTES = 100_000
_DOCUMENT = 1_000
"""Characters of one document of the background."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


class Offline(Scorer):
    """A critic; :meth:`value` is all there is to it."""

    def capabilities(self) -> Capabilities:
        return Capabilities(
            prompt_logprobs=False,
            prefix_reuse=False,
            deterministic=True,
            discrete=False,
            null_context=self.kind == "critic",
        )

    @property
    def prompt_id(self) -> str:
        return "none"

    def value(self, context: str, text: str) -> float:
        """The cell, in nats where the critic has a unit; ``context`` is empty for no context."""
        raise NotImplementedError

    def column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        for i, ask in enumerate(asks):
            if i not in known:
                yield [(i, Scored(self.value(context or "", ask.text), None, size(ask.text)))]


class Codelength(Offline):
    """Conditional codelength."""

    kind = "critic"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.method = "zlib"

    @property
    def id(self) -> str:
        return f"offline/codelength:{self.method}"

    def fit(self, contexts: Sequence[str], rows: Sequence[Row]) -> None:
        longest = max(map(size, contexts)) + max((size(row.text or "") for row in rows), default=0)
        self.method = "zlib" if longest < ZLIB_WINDOW else "lzma"

    def value(self, context: str, text: str) -> float:
        x, z = _bytes(context), _bytes(text)
        return -8 * math.log(2) * (self._length(x + z) - self._of_context(x))

    def _of_context(self, x: bytes) -> int:
        return _length(self.method, x)

    def _length(self, data: bytes) -> int:
        return len(_compress(self.method, data))


class NGram(Offline):
    """A byte model whose statistics are half the context's."""

    kind = "critic"

    def __init__(self, *, weight: float = 0.5, background: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < weight < 1:
            raise ConfigError(f"weight={weight} of the context's statistics; it lies between 0 and 1")
        self.weight = weight
        self.background = default_background() if background is None else background

    @property
    def id(self) -> str:
        return f"offline/ngram:order={ORDER},weight={self.weight:g},background={digest(self.background)[:12]}"

    def value(self, context: str, text: str) -> float:
        z = _bytes(text)
        general = _byte_probabilities(self.background, z)
        if not context:
            return math.fsum(map(math.log, general))
        own = _statistics(context).probabilities(z)
        mixed = (self.weight * p + (1 - self.weight) * q for p, q in zip(own, general, strict=True))
        return math.fsum(map(math.log, mixed))


class BM25(Offline):
    """Relevance of a context to a text's words."""

    kind = "relevance"

    def __init__(self, *, background: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.background = default_background() if background is None else background

    @property
    def id(self) -> str:
        return f"offline/bm25:k1={K1},b={B},background={digest(self.background)[:12]}"

    def value(self, context: str, text: str) -> float:
        found = _words_of(context)
        documents, having, average = _frequencies(self.background)
        length = sum(found.values())
        total = 0.0
        for word, times in Counter(words(text)).items():
            tf = found[word]
            rare = math.log(1 + (documents - having[word] + 0.5) / (having[word] + 0.5))
            total += times * rare * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / average))
        return total


CRITICS: dict[str, type[Offline]] = {"codelength": Codelength, "ngram": NGram, "bm25": BM25}


def critic(name: str, **options: Any) -> Offline:
    """The critic called ``name``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in CRITICS:
        raise ConfigError(f"no offline critic {name!r}; there are: {', '.join(CRITICS)}")
    return CRITICS[name](**options)


def words(text: str) -> list[str]:
    """Lower-case words; scripts that don't part them give single characters.

    >>> words("Ada's 2 cats, 東京")
    ['ada', 's', '2', 'cats', '東', '京']
    """
    return re.findall(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+", text.lower())


@cache
def default_background() -> str:
    """Text about nothing in particular: the help topics that Python carries.

    Raises
    ------
    ConfigError
        If this Python was installed without them.
    """
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        raise ConfigError(
            "this Python has no help topics (pydoc_data) to serve as background; pass background= a text of your own"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))[:BACKGROUND_BYTES]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _compress(method: str, data: bytes) -> bytes:
    if method == "zlib":
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)  # raw: no header to count
        return packer.compress(data) + packer.flush()
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_FILTERS)


@lru_cache(maxsize=1024)
def _length(method: str, data: bytes) -> int:
    return len(_compress(method, data))


@lru_cache(maxsize=256)
def _words_of(context: str) -> Counter[str]:
    return Counter(words(context))


@lru_cache(maxsize=4)
def _frequencies(background: str) -> tuple[int, Counter[str], float]:
    """Documents, how many have each word, and their mean length in words."""
    documents = [
        words(background[at : at + _DOCUMENT]) for at in range(0, max(len(background), 1), _DOCUMENT)
    ]
    having: Counter[str] = Counter()
    for document in documents:
        having.update(set(document))
    return len(documents), having, max(1.0, sum(map(len, documents)) / len(documents))


class _Statistics:
    """Counts of what follows each history of up to ORDER bytes."""

    def __init__(self, data: bytes) -> None:
        self._seen: Counter[bytes] = Counter()
        self._total: Counter[bytes] = Counter()
        for length in range(ORDER + 1):
            self._seen.update(data[at - length : at + 1] for at in range(length, len(data)))
            self._total.update(data[at - length : at] for at in range(length, len(data)))

    def probabilities(self, data: bytes) -> list[float]:
        """Each byte's after those before it: p_k = (count + s·p_{k−1}) / (total + s), p_{−1} uniform."""
        found = []
        for at in range(len(data)):
            p = 1 / 256
            for length in range(min(at, ORDER) + 1):
                total = self._total.get(data[at - length : at])
                if total is None:
                    break
                p = (self._seen.get(data[at - length : at + 1], 0) + STRENGTH * p) / (total + STRENGTH)
            found.append(p)
        return found


@lru_cache(maxsize=128)
def _statistics(text: str) -> _Statistics:
    return _Statistics(_bytes(text))


@lru_cache(maxsize=4096)
def _byte_probabilities(background: str, data: bytes) -> tuple[float, ...]:
    return tuple(_statistics(background).probabilities(data))
