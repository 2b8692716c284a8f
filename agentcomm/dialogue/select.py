"""Selection: which dialogues, and which pairs of messages, are learned from (``dialogue.md`` section 4).

Selectors are words, and ``random`` is among them: it draws as many from what passed the
thresholds. No selector is called useful unless it beats that.

Deliberately absent: rewards (:mod:`agentcomm.dialogue.reward`) and rows
(:mod:`agentcomm.dialogue.rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from agentcomm.dialogue.reward import RewardTerms
from agentcomm.dialogue.tree import DialogueTree, Node, Said
from agentcomm.errors import ConfigError

Order = Literal["paper", "code"]
RowSelector = Literal["reward", "random"]
PairSelector = Literal["q", "gap", "random"]


class Choice(NamedTuple):
    """A dialogue that was chosen: its item's place, its sample, and its reward."""

    item: int
    sample: int
    terms: RewardTerms


@dataclass(frozen=True)
class Funnel:
    """How many were there after each step of a selection."""

    items: int
    selectable: int
    passed: int
    kept: int


def best_of(group: Sequence[RewardTerms]) -> int | None:
    """The sample with the highest reward among those that may be learned from; ``None`` without any.

    Ties go to fewer tokens, then to the earlier sample.
    """
    allowed = [i for i, terms in enumerate(group) if terms.selectable]
    return min(allowed, key=lambda i: (-group[i].total, group[i].tokens, i), default=None)


def select(
    groups: Sequence[Sequence[RewardTerms]],
    *,
    threshold: float = 0.5,
    share: int = 70,
    order: Order = "paper",
    drop_best: int = 0,
    selector: RowSelector = "reward",
    rng: np.random.Generator | None = None,
) -> tuple[list[Choice], Funnel]:
    """The dialogues to fine-tune on: the best of each item, above a threshold, the top share of them.

    Parameters
    ----------
    groups:
        Rewards of the samples of each item.
    threshold:
        Strict.
    share:
        Percent that stays, at least one dialogue: ``max(1, n * share // 100)``.
    order:
        ``"paper"``: threshold, then share; ``"code"``: the reverse.
    drop_best:
        Percent of the best that is dropped too (the released recipe for MATH: 10, with a share of 70).
    selector, rng:
        ``"random"`` draws the same number from what passed the threshold.

    Returns
    -------
    The choices, best first (by item where they are random), and how many there were on the way.
    Nothing above the threshold is an empty list: a result.

    Raises
    ------
    ConfigError
        For shares outside 0..100, an unknown word, or ``random`` without a generator.
    """
    if order not in ("paper", "code") or selector not in ("reward", "random"):
        raise ConfigError(
            f"order={order!r}, selector={selector!r}; orders: paper, code; selectors: reward, random"
        )
    if not (0 < share <= 100 and 0 <= drop_best < 100):
        raise ConfigError(f"share={share}, drop_best={drop_best}; percentages, the first above 0")
    if selector == "random" and rng is None:
        raise ConfigError("selector 'random' needs rng=, a numpy generator")
    best = [
        Choice(item, sample, group[sample])
        for item, group in enumerate(groups)
        if (sample := best_of(group)) is not None
    ]
    ranked = sorted(best, key=lambda c: (-c.terms.total, c.terms.tokens, c.item))

    def top(found: list[Choice]) -> list[Choice]:
        if not found:
            return []
        first = len(found) * drop_best // 100
        return found[first : first + max(1, len(found) * share // 100)]

    def above(found: list[Choice]) -> list[Choice]:
        return [c for c in found if c.terms.total > threshold]

    passed = above(ranked)
    kept = top(passed) if order == "paper" else above(top(ranked))
    if selector == "random" and rng is not None:
        drawn = rng.permutation(len(passed))[: len(kept)]
        kept = [passed[int(i)] for i in drawn]
        kept.sort(key=lambda c: c.item)
    return kept, Funnel(len(groups), len(best), len(passed), len(kept))


class Pair(NamedTuple):
    """Two ways to go on from the same history, the better one first.

    ``history`` is what was said before, ``gap`` the difference of the values.
    """

    history: tuple[Said, ...]
    chosen: Said
    rejected: Said
    value: float
    gap: float
    parent: int


def select_pairs(
    tree: DialogueTree,
    *,
    least: float = 0.4,
    gap: float = 0.2,
    share: int = 50,
    selector: PairSelector = "q",
    rng: np.random.Generator | None = None,
) -> tuple[list[Pair], Funnel]:
    """The preference pairs of a tree: at each parent its best child against its worst.

    Parameters
    ----------
    least, gap:
        A pair is kept if its better value is above ``least`` and the difference above ``gap``; strict.
    share:
        Percent of them that stays, at least one.
    selector:
        ``"q"``: highest value first; ``"gap"``: largest difference first; ``"random"``: as many at random.

    Raises
    ------
    ConfigError
        As :func:`select`.
    """
    if selector not in ("q", "gap", "random"):
        raise ConfigError(f"selector={selector!r}; there are q, gap, random")
    if not 0 < share <= 100:
        raise ConfigError(f"share={share}; a percentage above 0")
    if selector == "random" and rng is None:
        raise ConfigError("selector 'random' needs rng=, a numpy generator")
    parents = list(tree.parents())
    found = []
    for parent in parents:
        children = [tree.nodes[i] for i in parent.children]
        best = max(children, key=lambda n: (n.value, -n.id))
        worst = min(children, key=lambda n: (n.value, n.id))
        if best.value > least and best.value - worst.value > gap:
            found.append(_pair(tree, parent, best, worst))
    count = max(1, len(found) * share // 100) if found else 0
    if selector == "random" and rng is not None:
        kept = [found[i] for i in sorted(rng.permutation(len(found))[:count].tolist())]
    else:
        by = (lambda p: (-p.gap, p.parent)) if selector == "gap" else (lambda p: (-p.value, p.parent))
        kept = sorted(found, key=by)[:count]
    return kept, Funnel(1, len(parents), len(found), len(kept))


def _pair(tree: DialogueTree, parent: Node, best: Node, worst: Node) -> Pair:
    assert best.said is not None and worst.said is not None
    return Pair(tree.path(parent.id), best.said, worst.said, best.value, best.value - worst.value, parent.id)
