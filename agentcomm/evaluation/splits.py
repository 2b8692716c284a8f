"""Splits: which items a learner may see, which choose between learners, which are scored.

An item's split follows from its content alone: a hash of the question, its options and its
context, normalised so that spacing, case and the order of options or rows don't matter. It is
therefore the same on every machine, for every order of the file, and whatever else is loaded.

    no official split     20 % learn, 10 % validate, 70 % score
    an official train     train gives learn and validate (80/20 by hash), test is scored whole
    score only            HumanEval, ARC's test file: nothing to learn on

Which rule a set uses is said in its task file. ``split="all"`` takes every item, for looking at a
set or for a number that is compared with the literature; a learner refuses it.

Items come in an order given by a hash of the seed and the content, never in file order, so that
``limit`` takes an unbiased sample, a larger limit contains a smaller one with the same seed, and
an interrupted run is a sample too. With strata (MMLU's subjects) every limit holds each stratum
in proportion.

Sources: ``pruning.md`` sections 2.5 and 8; MinHash: Broder 1997.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from agentcomm.errors import TaskError
from agentcomm.task import Item

Split = Literal["learn", "validate", "score"]
SPLITS: tuple[Split, ...] = get_args(Split)
ALL = "all"


class Shares(NamedTuple):
    """Shares of the items of one file that go to each split; they sum to 1."""

    learn: float
    validate: float
    score: float


HASHED = Shares(0.2, 0.1, 0.7)
"""For a set without an official split."""
TRAIN = Shares(0.8, 0.2, 0.0)
"""For an official train file beside a test file."""
LEARN = Shares(1.0, 0.0, 0.0)
VALIDATE = Shares(0.0, 1.0, 0.0)
SCORE = Shares(0.0, 0.0, 1.0)


def normalise(text: str) -> str:
    """Unicode NFKC, case-folded, whitespace collapsed.

    >>> normalise("  How\\u00a0MANY\\r\\nｄａｙｓ? ")
    'how many days?'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def content_hash(question: str, options: Iterable[str] = (), context: str = "") -> str:
    """SHA-256 (hex) of an item's normalised content; options in any order.

    >>> content_hash("Which?", ["a", "b"]) == content_hash("which? ", ["b", "A"])
    True
    """
    parts = [normalise(question), sorted(map(normalise, options)), normalise(context)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def hash_of(item: Item) -> str:
    """The hash its loader gave the item, or that of its question, options, context and views.

    The loader's is preferred because the question an agent sees also carries the request for an
    answer format, which must not move an item to another split when its wording changes.
    """
    if isinstance(known := item.metadata.get("hash"), str):
        return known
    shown = "\n".join([item.context, *(item.views[name] for name in sorted(item.views))])
    return content_hash(item.question, map(str, item.metadata.get("options", ())), shown)


def assign(content: str, shares: Shares = HASHED) -> Split:
    """The split of a content hash under the given shares."""
    position = int(content[:16], 16) / 2**64
    if position < shares.learn:
        return "learn"
    return "validate" if position < shares.learn + shares.validate else "score"


def split_of(item: Item) -> Split:
    """The split an item says it belongs to.

    Raises
    ------
    TaskError
        If it says none: unknown is not ``learn``.
    """
    split = item.metadata.get("split")
    if split not in SPLITS:
        raise TaskError(
            f"item {item.id!r} does not say which split it belongs to; set metadata['split'] to "
            f"{', '.join(SPLITS)} (agentcomm.evaluation.splits.assign gives one by hash)"
        )
    return split  # type: ignore[no-any-return]  # one of SPLITS, checked above


def take(items: Iterable[Item], split: str, limit: int | None = None, seed: int = 0) -> tuple[Item, ...]:
    """The items of a split in sampling order, the first ``limit`` of them.

    Items are grouped by ``metadata["stratum"]``. The k-th of the n items of a stratum, in the order
    of the hash of (seed, content), gets the place ``(k + u) / n`` with ``u`` from the hash of
    (seed, stratum); items are ordered by place. Every item is equally likely to be within a limit.

    Raises
    ------
    TaskError
        For an unknown split or a limit that is not a positive whole number.
    """
    check_split(split)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise TaskError(f"limit must be a positive whole number of items, not {limit!r}")
    strata: dict[str, list[tuple[str, str, Item]]] = defaultdict(list)
    for item in items:
        if split in (ALL, item.metadata.get("split")):
            key = _digest(seed, hash_of(item))
            strata[str(item.metadata.get("stratum", ""))].append((key, item.id, item))
    placed: list[tuple[float, str, str, Item]] = []
    for stratum, members in strata.items():
        members.sort(key=lambda m: m[:2])
        offset = int(_digest(seed, "stratum " + stratum)[:16], 16) / 2**64
        placed += [((k + offset) / len(members), *m) for k, m in enumerate(members)]
    placed.sort(key=lambda p: p[:3])
    return tuple(p[3] for p in placed[:limit])


def check_split(split: str) -> None:
    """Refuse what is no split and not ``"all"``."""
    if split not in (*SPLITS, ALL):
        raise TaskError(f"unknown split {split!r}; choose one of {', '.join((*SPLITS, ALL))}")


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


# ------------------------------------------------------------------------------ guarding


def require_learn(items: Iterable[Item], *, validate: bool = False) -> None:
    """Refuse items a learner may not see: call it at the top of everything that learns.

    Parameters
    ----------
    items:
        What the learner is about to run or train on.
    validate:
        Whether ``validate`` items are allowed too: for calibration and model selection only.

    Raises
    ------
    TaskError
        For the first item of another split, or of none.
    """
    allowed = ("learn", "validate") if validate else ("learn",)
    for item in items:
        if (split := split_of(item)) not in allowed:
            raise TaskError(
                f"item {item.id!r} belongs to split {split!r}, which a learner must not see; "
                f"load the task with split={' or '.join(map(repr, allowed))}"
            )


@dataclass(frozen=True)
class SplitGuard:
    """The content hashes of each split of an experiment, checked wherever items change hands.

    The miner calls :meth:`mine`, the trainer :meth:`train`, the evaluator :meth:`evaluate`; there is
    no way to switch it off.

    Raises
    ------
    TaskError
        On construction, if two splits share a hash.
    """

    learn: frozenset[str]
    validate: frozenset[str] = frozenset()
    score: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for a, b in (("learn", "validate"), ("learn", "score"), ("validate", "score")):
            if common := getattr(self, a) & getattr(self, b):
                raise TaskError(
                    f"splits {a} and {b} share {len(common)} items (the first is {min(common)[:12]}); "
                    f"remove them from {a}"
                )

    @classmethod
    def of(cls, items: Iterable[Item]) -> SplitGuard:
        """A guard over items of any splits."""
        hashes: dict[Split, set[str]] = {split: set() for split in SPLITS}
        for item in items:
            hashes[split_of(item)].add(hash_of(item))
        return cls(**{split: frozenset(found) for split, found in hashes.items()})

    def mine(self, items: Iterable[Item]) -> None:
        """Refuse to explore on anything that is not known to be a ``learn`` item."""
        for item in items:
            if hash_of(item) not in self.learn:
                raise TaskError(
                    f"item {item.id!r} is not among the learn items of this experiment; don't mine on it"
                )

    def confirm(self, items: Iterable[Item]) -> None:
        """Refuse to confirm what was learned on anything that is not known to be a ``validate`` item."""
        for item in items:
            if hash_of(item) not in self.validate:
                raise TaskError(
                    f"item {item.id!r} is not among the validate items of this experiment; don't confirm on it"
                )

    def train(self, hashes: Iterable[str]) -> None:
        """Refuse training records whose item belongs to ``validate`` or ``score``."""
        for split in ("validate", "score"):
            if touched := getattr(self, split).intersection(hashes := list(hashes)):
                raise TaskError(
                    f"{len(touched)} training records belong to split {split} (the first is "
                    f"{min(touched)[:12]}); mine them again with split='learn'"
                )

    def evaluate(self, items: Iterable[Item], learned_from: Iterable[str]) -> None:
        """Refuse to score items that something under test has learned from."""
        seen = set(learned_from)
        if touched := [item.id for item in items if hash_of(item) in seen]:
            raise TaskError(
                f"{len(touched)} items were used for learning (the first is {touched[0]!r}); "
                f"score on items the learner has not seen (split='score')"
            )

    def to_dict(self) -> dict[str, list[str]]:
        """Sorted hashes by split, for JSON."""
        return {split: sorted(getattr(self, split)) for split in SPLITS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Iterable[str]]) -> SplitGuard:
        """The reverse of :meth:`to_dict`."""
        return cls(**{split: frozenset(data.get(split, ())) for split in SPLITS})


# ------------------------------------------------------------------------ near-duplicates


class Pair(NamedTuple):
    """Two items that say nearly the same, and the Jaccard similarity of their word triples."""

    a: Item
    b: Item
    similarity: float

    def __str__(self) -> str:
        return f"{self.a.id} ({_split(self.a)}) ~ {self.b.id} ({_split(self.b)}): {self.similarity:.2f}"


PERMUTATIONS, BAND = 96, 3
"""Bands of 3 rows: a pair at Jaccard 0.7 is missed with probability (1 - 0.7^3)^32 = 1e-6."""


def near_duplicates(
    a: Sequence[Item], b: Sequence[Item] | None = None, threshold: float = 0.7
) -> tuple[Pair, ...]:
    """Pairs of items of different splits that are nearly the same, most similar first.

    Similarity is the Jaccard index of the sets of three consecutive words of question and options
    (metadata ``"asked"`` and ``"options"``, else the question shown). Candidates come from MinHash
    bands and are then compared exactly, so nothing below the threshold is reported.

    Parameters
    ----------
    a, b:
        Two lists to compare with each other; without ``b``, the items of ``a`` whose splits differ.
    threshold:
        In (0, 1]. Problems that differ only in one number of forty words are at about 0.85.
    """
    items = [*a, *(b or ())]
    side = [0] * len(a) + [1] * len(b) if b is not None else [_split(item) for item in a]
    shingles = [_shingles(item) for item in items]
    pairs: dict[tuple[int, int], float] = {}
    for bucket in _buckets(_signatures(shingles)):
        for n, i in enumerate(bucket):
            for j in bucket[n + 1 :]:
                if side[i] != side[j] and (i, j) not in pairs:
                    pairs[i, j] = _jaccard(shingles[i], shingles[j])
    found = [Pair(items[i], items[j], s) for (i, j), s in pairs.items() if s >= threshold]
    return tuple(sorted(found, key=lambda p: (-p.similarity, p.a.id, p.b.id)))


def report(pairs: Sequence[Pair], limit: int = 5) -> str:
    """One line per near-duplicate, the first ``limit``, under a line that counts them."""
    if not pairs:
        return "no near-duplicates across splits"
    more = [f"... and {len(pairs) - limit} more"] if len(pairs) > limit else []
    return "\n".join([f"{len(pairs)} near-duplicates across splits:", *map(str, pairs[:limit]), *more])


def _split(item: Item) -> str:
    return str(item.metadata.get("split", "no split"))


def _shingles(item: Item) -> NDArray[np.uint32]:
    """Sorted distinct hashes of the item's word triples; crc32, not hash(), which varies by process."""
    text = str(item.metadata.get("asked", item.question))
    words = normalise(" ".join([text, *sorted(map(str, item.metadata.get("options", ())))])).split()
    triples = [" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))]
    return np.unique(
        np.fromiter((zlib.crc32(t.encode()) for t in triples), dtype=np.uint32, count=len(triples))
    )


def _signatures(shingles: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """MinHash signatures, shape [items, PERMUTATIONS]."""
    if not shingles:
        return np.zeros((0, PERMUTATIONS), dtype=np.uint32)
    rng = np.random.default_rng(0)
    flat = np.concatenate(shingles).astype(np.uint64)
    starts = np.cumsum([0, *(len(s) for s in shingles[:-1])])
    out = np.empty((len(shingles), PERMUTATIONS), dtype=np.uint32)
    for k in range(PERMUTATIONS):
        # Multiply-shift: a 2-universal family on 32-bit keys, in arithmetic modulo 2^64.
        factor, shift = (rng.integers(1, 2**63, dtype=np.uint64) for _ in range(2))
        hashed = (flat * (factor | np.uint64(1)) + shift) >> np.uint64(32)
        out[:, k] = np.minimum.reduceat(hashed, starts).astype(np.uint32)
    return out


def _buckets(signatures: NDArray[np.uint32]) -> Iterable[list[int]]:
    """Lists of items that agree in a whole band."""
    for band in range(0, PERMUTATIONS, BAND):
        found: dict[bytes, list[int]] = defaultdict(list)
        for i, row in enumerate(signatures[:, band : band + BAND]):
            found[row.tobytes()].append(i)
        yield from (bucket for bucket in found.values() if len(bucket) > 1)


def _jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)
