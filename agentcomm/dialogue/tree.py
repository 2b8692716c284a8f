"""DialogueTree: many dialogues about one item, grown where they are promising.

The root is the item, a node is one message, a path to a leaf is a complete dialogue; a node's value
is the mean reward of the complete dialogues through it. Growing is best-first search with a random
choice, not MCTS: no exploration bonus (Optima, arXiv 2410.08115, Algorithms 3-5; ``dialogue.md``
section 4).

    candidates   the root, and nodes with a grandchild; not those that say nearly the same as a node
                 that was expanded already (edit distance over the longer length below ``distinct``)
    choice       of the ``best`` highest values one, drawn by softmax
    simulation   three dialogues to their end, made by whoever uses this
    merging      a message nearly equal to a sibling's (below ``merge``) is the same node, but never
                 one with another answer or another end
    backup       the reward goes to every node on the path

Deliberately absent: models. The tree is told what was said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from agentcomm.dialogue.marks import last_mark
from agentcomm.errors import ConfigError

ROOT = 0


class Said(NamedTuple):
    """A message in a tree."""

    agent: str
    text: str


@dataclass
class Node:
    """One message; ``total`` is the sum of the rewards of the ``visits`` complete dialogues through it.

    ``endings`` of them end here. ``expanded`` says whether dialogues were continued from here on
    purpose.
    """

    id: int
    parent: int | None
    said: Said | None
    children: list[int] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    endings: int = 0
    expanded: bool = False

    @property
    def value(self) -> float:
        """Mean reward; NaN before the first dialogue."""
        return self.total / self.visits if self.visits else float("nan")


@dataclass
class DialogueTree:
    """Dialogues about one item.

    Parameters
    ----------
    distinct, merge:
        Relative edit distances: at least the first to be expanded, below the second to be merged.
    best:
        From how many of the highest values one is drawn.
    temperature:
        Of that draw.
    """

    item: str = ""
    distinct: float = 0.25
    merge: float = 0.1
    best: int = 10
    temperature: float = 1.0
    nodes: list[Node] = field(default_factory=lambda: [Node(ROOT, None, None)])
    exhausted: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.merge <= 1 and 0 <= self.distinct <= 1 and self.best >= 1 and self.temperature > 0):
            raise ConfigError(
                f"a dialogue tree with distinct={self.distinct}, merge={self.merge}, best={self.best}, "
                f"temperature={self.temperature}; distances lie in 0..1, the others above 0"
            )

    @property
    def root(self) -> Node:
        return self.nodes[ROOT]

    def path(self, node: int) -> tuple[Said, ...]:
        """What was said up to a node, first message first."""
        found: list[Said] = []
        at: int | None = node
        while at is not None:
            if (said := self.nodes[at].said) is not None:
                found.append(said)
            at = self.nodes[at].parent
        return tuple(reversed(found))

    # -- growing -----------------------------------------------------------------------------

    def candidates(self) -> list[int]:
        """Nodes that may be expanded, in the order in which they came."""
        if not self.root.expanded:
            return [ROOT]
        expanded = [n for n in self.nodes if n.expanded and n.said is not None]
        return [
            node.id
            for node in self.nodes[1:]
            if not node.expanded
            and any(self.nodes[child].children for child in node.children)
            and all(_distance(node, other) >= self.distinct for other in expanded)
        ]

    def choose(self, rng: np.random.Generator) -> int | None:
        """The node to expand next, marked as expanded; ``None`` when there is none left."""
        found = self.candidates()
        if not found:
            self.exhausted = True
            return None
        ranked = sorted(found, key=lambda i: (-self.nodes[i].value, i))[: self.best]
        chances = softmax([self.nodes[i].value for i in ranked], self.temperature)
        chosen = ROOT if ranked == [ROOT] else ranked[int(rng.choice(len(ranked), p=chances))]
        self.nodes[chosen].expanded = True
        return chosen

    def add(self, start: int, messages: Sequence[Said], reward: float) -> int:
        """A complete dialogue that goes on from ``start``; returns the node of its last message.

        Raises
        ------
        ConfigError
            For an unknown node, a reward that is no number, or a dialogue without any message.
        """
        if not 0 <= start < len(self.nodes) or not np.isfinite(reward):
            raise ConfigError(
                f"a dialogue from node {start} with reward {reward} can't be added to this tree"
            )
        if not messages and start == ROOT:
            raise ConfigError("a dialogue without any message can't be added to a tree")
        at = start
        for place, said in enumerate(messages):
            ends = place == len(messages) - 1
            known = self._nearest(at, said, ends)
            if known is None:
                known = len(self.nodes)
                self.nodes.append(Node(known, at, Said(*said)))
                self.nodes[at].children.append(known)
            at = known
        self.nodes[at].endings += 1
        up: int | None = at
        while up is not None:
            self.nodes[up].visits += 1
            self.nodes[up].total += reward
            up = self.nodes[up].parent
        return at

    def _nearest(self, parent: int, said: Said, ends: bool) -> int | None:
        """The child of ``parent`` that says nearly the same, if there is one: the nearest, then the first."""
        best: tuple[float, int] | None = None
        for child in self.nodes[parent].children:
            node = self.nodes[child]
            assert node.said is not None
            if (
                node.said.agent != said.agent
                or bool(node.endings) != ends
                or last_mark(node.said.text) != last_mark(said.text)
            ):
                continue
            distance = Levenshtein.normalized_distance(node.said.text, said.text)
            if (distance < self.merge or distance == 0) and (best is None or distance < best[0]):
                best = distance, child
        return None if best is None else best[1]

    # -- as data -----------------------------------------------------------------------------

    def parents(self) -> Iterator[Node]:
        """Nodes with at least two children, in the order in which they came."""
        return (n for n in self.nodes if len(n.children) >= 2)

    def to_dict(self) -> dict[str, Any]:
        return {
            "item": self.item,
            "distinct": self.distinct,
            "merge": self.merge,
            "best": self.best,
            "temperature": self.temperature,
            "exhausted": self.exhausted,
            "nodes": [
                [n.parent, list(n.said) if n.said else None, n.visits, n.total, n.endings, n.expanded]
                for n in self.nodes
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DialogueTree:
        """The reverse of :meth:`to_dict`."""
        try:
            nodes = [
                Node(i, parent, Said(*said) if said else None, [], visits, total, endings, expanded)
                for i, (parent, said, visits, total, endings, expanded) in enumerate(data["nodes"])
            ]
            for node in nodes[1:]:
                nodes[node.parent or ROOT].children.append(node.id)
            return cls(**{**data, "nodes": nodes})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"not a dialogue tree: {type(error).__name__}: {error}") from error


def softmax(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Chances proportional to exp(value / temperature).

    >>> [round(p, 3) for p in softmax([0.9, 0.6, 0.9])]
    [0.365, 0.27, 0.365]
    """
    scaled = np.asarray(values, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return [float(w) for w in weights / weights.sum()]


def _distance(a: Node, b: Node) -> float:
    assert a.said is not None and b.said is not None
    return float(Levenshtein.normalized_distance(a.said.text, b.said.text))
