"""Order: does a conversation make more sense to a scorer as it was held than shuffled?

A check that needs no answers. Each message is scored given those before it; the cost of a conversation
is the sum, in bits a byte. If messages build on one another, other orders of the same messages cost
more. If they don't, the order held is one like any other, and the mean difference is 0 whatever the
scorer: it is a random order among random orders. Done again with the messages as their readers read
them, it says whether a channel keeps what makes them a conversation.

    gain = mean over other orders of their cost − cost of the order held         (bits a byte)

Intervals are Student's t over conversations, the difference after − before paired.

Every scorer of :mod:`agentcomm.information.scorers` will do. Critics that count see little: what two
messages share is counted once in either order, so only lopsided dependence shows (a message that names
things which later ones use again and again). A gain of 0 by a critic is no proof that order is
meaningless; ask a language model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcomm.errors import UserError
from agentcomm.information.compressing import CompressPrompt
from agentcomm.information.intervals import Interval, cluster_t
from agentcomm.information.score_matrix import Row
from agentcomm.message import content_id

if TYPE_CHECKING:
    from agentcomm.information.scorers import Scorer

Talk = Sequence[tuple[str, str]]
"""A conversation: (speaker, text) in the order of speaking."""

CONVERSATION = CompressPrompt(
    "conversation",
    "Above is a conversation so far, which may be empty. Write the next message in it, and nothing else.",
)
"""What a language model is asked when it scores the next message."""

LABELS = {"language_model": "a language model", "critic": "an offline critic, which sees little of order"}


@dataclass(frozen=True)
class OrderGain:
    """What the order held saves.

    Attributes
    ----------
    gain_bits:
        Mean over conversations, bits a byte; ``None`` if none could be scored.
    interval:
        Student's t; ``None`` below two conversations, or where all are alike: that shows no spread.
    held_bits, shuffled_bits:
        Mean cost in the order held, and in other orders.
    conversations:
        Scored.
    too_short:
        Left out: fewer than two messages that differ.
    failed:
        Left out: the scorer failed on a message.
    """

    gain_bits: float | None
    interval: Interval | None
    held_bits: float | None
    shuffled_bits: float | None
    conversations: int
    too_short: int
    failed: int

    @property
    def matters(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval is not None and self.interval.low > 0


@dataclass(frozen=True)
class OrderCheck:
    """Before a channel, and after it where there is one; ``change`` is after − before, paired."""

    before: OrderGain
    after: OrderGain | None
    change_bits: float | None
    change_interval: Interval | None
    scorer_id: str
    label: str
    permutations: int

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        if self.before.gain_bits is None:
            return "whether the order of the messages matters is unknown: no conversation could be scored"
        word = "is" if self.before.matters else "is not shown to be"
        said = (
            f"a conversation {word} easier to predict in its order than shuffled: "
            f"{_told(self.before.gain_bits, self.before.interval)} bits a byte"
        )
        if self.after is not None and self.after.gain_bits is not None:
            said += f"; as it was read, {_told(self.after.gain_bits, self.after.interval)}"
        return f"{said} (by {self.label})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "sentence": self.sentence}


def check_order(
    conversations: Sequence[Talk],
    scorer: Scorer,
    *,
    after: Sequence[Talk] | None = None,
    permutations: int = 8,
    seed: int = 0,
    level: float = 0.95,
) -> OrderCheck:
    """Whether conversations make more sense in their order.

    Parameters
    ----------
    conversations:
        As they were said.
    after:
        The same as they were read: equally many, each with as many messages. A message of which
        nothing was left counts as not said.
    permutations:
        Other orders of each, drawn by ``seed`` from its texts; all, where there are fewer.

    Raises
    ------
    UserError
        If the two don't fit together, there are no permutations, or the scorer is a relevance.
    """
    if permutations < 1:
        raise UserError(f"permutations={permutations}; it must be at least 1")
    if scorer.kind not in LABELS:
        raise UserError(
            f"{scorer.id} has no unit, so costs don't add up; take offline/ngram, hf/FOLDER or vllm/FOLDER"
        )
    if after is not None and [len(t) for t in after] != [len(t) for t in conversations]:
        raise UserError("conversations after a channel need the same messages as before it, one for one")
    orders = [_orders(talk, permutations, seed) for talk in conversations]
    before = _Measured.of(conversations, orders, scorer)
    later = None if after is None else _Measured.of(after, orders, scorer)
    change: list[float] = []
    if later is not None:
        both = [
            (a, b) for a, b in zip(later.gains, before.gains, strict=True) if a is not None and b is not None
        ]
        change = [a - b for a, b in both]
    return OrderCheck(
        before.summary(level),
        None if later is None else later.summary(level),
        float(np.mean(change)) if change else None,
        cluster_t(np.array(change), level) if change and np.ptp(change) > 0 else None,
        scorer.id,
        LABELS[scorer.kind],
        permutations,
    )


@dataclass(frozen=True)
class _Measured:
    """Each conversation's cost held and shuffled; both ``None`` where it was left out."""

    held: list[float | None]
    shuffled: list[float | None]
    too_short: int
    failed: int

    @property
    def gains(self) -> list[float | None]:
        pairs = zip(self.held, self.shuffled, strict=True)
        return [None if h is None or s is None else s - h for h, s in pairs]

    @classmethod
    def of(cls, talks: Sequence[Talk], orders: Sequence[list[tuple[int, ...]]], scorer: Scorer) -> _Measured:
        held: list[float | None] = []
        shuffled: list[float | None] = []
        too_short = failed = 0
        for talk, others in zip(talks, orders, strict=True):
            said = _as_said(talk, range(len(talk)))
            ways = [way for order in others if _texts(way := _as_said(talk, order)) != _texts(said)]
            costs = _costs([said, *ways], scorer) if ways else []
            too_short += not ways
            if not costs or not all(map(math.isfinite, costs)):
                failed += bool(ways)
                held.append(None)
                shuffled.append(None)
                continue
            size = sum(len(text.encode("utf-8", "surrogatepass")) for _, text in said)
            held.append(costs[0] / size)
            shuffled.append(sum(costs[1:]) / len(ways) / size)
        return cls(held, shuffled, too_short, failed)

    def summary(self, level: float) -> OrderGain:
        gains = np.array([g for g in self.gains if g is not None])
        if not len(gains):
            return OrderGain(None, None, None, None, 0, self.too_short, self.failed)
        return OrderGain(
            float(gains.mean()),
            cluster_t(gains, level) if np.ptp(gains) > 0 else None,
            float(np.mean([h for h in self.held if h is not None])),
            float(np.mean([s for s in self.shuffled if s is not None])),
            len(gains),
            self.too_short,
            self.failed,
        )


def _orders(talk: Talk, permutations: int, seed: int) -> list[tuple[int, ...]]:
    """Other orders of a conversation's messages; those that weren't said stay out of the count."""
    said = [i for i, (_, text) in enumerate(talk) if text.strip()]
    held = tuple(said)
    number = math.factorial(len(said)) - 1 if len(said) < 8 else math.inf
    rng = random.Random(content_id("orders", seed, [text for _, text in talk]))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(permutations, number):
        order = tuple(rng.sample(said, len(said)))
        if order != held:
            found[order] = None
    return list(found)


def _as_said(talk: Talk, order: Sequence[int]) -> tuple[tuple[str, str], ...]:
    return tuple((talk[i][0], talk[i][1].strip()) for i in order if talk[i][1].strip())


def _texts(said: Sequence[tuple[str, str]]) -> list[str]:
    return [text for _, text in said]


def _costs(ways: Sequence[tuple[tuple[str, str], ...]], scorer: Scorer) -> list[float]:
    """Bits of each order; NaN where the scorer failed. Equal beginnings are scored once."""
    contexts: dict[str, int] = {}
    cells: dict[tuple[int, str], int] = {}
    places: list[list[int]] = []
    for way in ways:
        before, places_of_way = "", []
        for speaker, text in way:
            context = contexts.setdefault(before, len(contexts))
            places_of_way.append(cells.setdefault((context, text), len(cells)))
            before += f"{speaker}:\n{text}\n\n"
        places.append(places_of_way)
    rows = [Row(context, "", text) for context, text in cells]
    wanted = np.zeros((len(rows), len(contexts)), dtype=np.bool_)
    own = np.array([row.context for row in rows])
    wanted[np.arange(len(rows)), own] = True
    matrix = scorer.score_rows(list(contexts), rows, candidates=wanted)
    bits = -matrix.logp[np.arange(len(rows)), own] / math.log(2)
    return [float(bits[list(cells_of_way)].sum()) for cells_of_way in places]


def _told(gain: float, interval: Interval | None) -> str:
    return f"{gain:.3f}" + ("" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]")
