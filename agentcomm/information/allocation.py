"""Allocation: one budget of tokens for a whole team, spread over its edges.

Every edge has options: a budget for its messages (or none: verbatim), what the reader then pays an item,
and the score that is expected to be lost. One option an edge is chosen so that all together lose the
least within the budget: a multiple-choice knapsack. It is solved exactly by dynamic programming over
the edges, which keeps every combination that no other beats in both tokens and loss; numbers needn't be
whole. (Nemhauser & Ullmann 1969; for the multiple-choice form, Kellerer, Pferschy & Pisinger 2004,
section 11.5. The combinations kept can grow exponentially in theory; on measured numbers they stay few,
Beier & Vöcking 2004.)

**It assumes that losses add up**: that compressing an edge costs the same whatever is done to the
others, and that an edge's tokens don't depend on what happens upstream. Where two edges carry the same
fact either may be cut, not both; so check what was chosen by running it
(:mod:`agentcomm.information.allocating` does, on other items). Losses are measured with noise, and the
least of many noisy numbers is too good: the expected loss is optimistic for the same reason.

No model is called here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentcomm.errors import UserError
from agentcomm.graph import AgentGraph
from agentcomm.information.score_matrix import Array
from agentcomm.information.ways import Way
from agentcomm.ledger.usage import ARROW

SLACK = 1e-9
"""Sums of the same tokens may differ in their last bits."""


@dataclass(frozen=True)
class Option:
    """What an edge may be given.

    Attributes
    ----------
    budget:
        Tokens of a message; ``None``: as it is.
    tokens:
        What its reader pays for the edge's messages, an item.
    loss:
        Score lost on average, against verbatim; below 0 where compressing helped.
    low, high:
        Interval of the loss, where it was measured.
    """

    budget: int | None
    tokens: float
    loss: float
    low: float | None = None
    high: float | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "budget": self.budget,
            "tokens": self.tokens,
            "loss": self.loss,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True)
class EdgeOptions:
    """An edge as ``"sender->reader"`` (both kinds of edge between the two), and its options."""

    edge: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if ARROW not in self.edge:
            raise UserError(f"edge {self.edge!r}: write SENDER->READER")
        if not self.options:
            raise UserError(f"edge {self.edge} has no options: give it at least one budget")
        for option in self.options:
            if not (math.isfinite(option.tokens) and option.tokens >= 0 and math.isfinite(option.loss)):
                raise UserError(f"edge {self.edge}: {option} holds an unknown number; leave it out")


class Chosen(NamedTuple):
    """One option for every edge, in the order of the edges."""

    options: tuple[Option, ...]

    @property
    def tokens(self) -> float:
        return sum(option.tokens for option in self.options)

    @property
    def loss(self) -> float:
        return sum(option.loss for option in self.options)


@dataclass(frozen=True)
class Allocation:
    """A budget spread over edges.

    Attributes
    ----------
    total:
        Tokens an item that were to be spread.
    edges:
        In the order of ``chosen`` and ``even``.
    chosen:
        What loses least within ``total``.
    even:
        The same budget spread evenly: each edge takes the best that fits ``total / edges`` tokens;
        where nothing fits, its smallest option (``even.tokens`` may then exceed ``total``).
    compressor:
        What ``apply`` puts on edges: a model string or a channel's words without a budget.
    """

    total: float
    edges: tuple[EdgeOptions, ...]
    chosen: Chosen
    even: Chosen
    compressor: str = "extract"

    @property
    def budgets(self) -> dict[str, int | None]:
        """Tokens of a message on every edge; ``None``: verbatim."""
        return {edge.edge: o.budget for edge, o in zip(self.edges, self.chosen.options, strict=True)}

    def apply(self, graph: AgentGraph, *, even: bool = False, way: Way | None = None) -> AgentGraph:
        """The graph with each edge's budget on it; edges that stay verbatim keep the channel they have.

        ``even`` applies the even spread instead; ``way`` is a compressor with settings that its words
        don't say (whether it sees the question, its temperature).

        Raises
        ------
        GraphError
            If the graph lacks one of the edges.
        """
        way = way or Way.parse(self.compressor)
        for edge, option in zip(self.edges, (self.even if even else self.chosen).options, strict=True):
            if option.budget is not None:
                sender, _, reader = edge.edge.partition(ARROW)
                graph = graph.with_channel(way.at(option.budget), [(sender, reader)])
        return graph

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "total": self.total,
            "compressor": self.compressor,
            "assumes": "losses of edges add up",
            "tokens": self.chosen.tokens,
            "expected_loss": self.chosen.loss,
            "even_tokens": self.even.tokens,
            "even_expected_loss": self.even.loss,
            "edges": [
                {
                    "edge": e.edge,
                    "chosen": a.facts(),
                    "even": b.facts(),
                    "options": [o.facts() for o in e.options],
                }
                for e, a, b in zip(self.edges, self.chosen.options, self.even.options, strict=True)
            ],
        }


def allocate(edges: Sequence[EdgeOptions], total: float, *, compressor: str = "extract") -> Allocation:
    """Spread ``total`` tokens an item so that the expected loss is least; ties take fewer tokens.

    Raises
    ------
    UserError
        If even the smallest options together take more, or there are no edges.

    Examples
    --------
    >>> a = EdgeOptions("a->c", (Option(16, 16, 0.3), Option(64, 64, 0.0)))
    >>> b = EdgeOptions("b->c", (Option(16, 16, 0.02), Option(64, 64, 0.0)))
    >>> made = allocate([a, b], 80)
    >>> made.budgets, round(made.chosen.loss, 2), round(made.even.loss, 2)
    ({'a->c': 64, 'b->c': 16}, 0.02, 0.32)
    """
    kept = frontier(edges)
    within = [chosen for chosen in kept if chosen.tokens <= total + SLACK * max(1.0, abs(total))]
    if not within:
        raise UserError(
            f"{total:g} tokens are too few: the smallest options of these {len(edges)} edges take "
            f"{kept[0].tokens:.1f} together; raise the total or add smaller budgets"
        )
    return Allocation(total, tuple(edges), within[-1], evenly(edges, total), compressor)


def allocate_for_loss(
    edges: Sequence[EdgeOptions], loss: float, *, compressor: str = "extract"
) -> Allocation:
    """The fewest tokens whose expected loss is at most ``loss``; ``total`` is then what they take.

    Raises
    ------
    UserError
        If no options lose so little.
    """
    kept = frontier(edges)
    for chosen in kept:
        if chosen.loss <= loss + SLACK:
            return Allocation(chosen.tokens, tuple(edges), chosen, evenly(edges, chosen.tokens), compressor)
    raise UserError(f"no options of these edges lose at most {loss:g}; the least is {kept[-1].loss:.3g}")


def evenly(edges: Sequence[EdgeOptions], total: float) -> Chosen:
    """Every edge the best option within an equal share; where none fits, its smallest."""
    _known(edges)
    share = total / len(edges)

    def best(edge: EdgeOptions) -> Option:
        fits = [o for o in edge.options if o.tokens <= share + SLACK * max(1.0, share)]
        if not fits:
            return min(edge.options, key=lambda o: (o.tokens, o.loss))
        return min(fits, key=lambda o: (o.loss, o.tokens))

    return Chosen(tuple(best(edge) for edge in edges))


def frontier(edges: Sequence[EdgeOptions]) -> tuple[Chosen, ...]:
    """All choices that no other beats in tokens and loss, from the fewest tokens to the least loss.

    Raises
    ------
    UserError
        Without edges, or with one named twice.
    """
    _known(edges)
    tokens, loss = np.zeros(1), np.zeros(1)
    came: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for edge in edges:
        own_tokens = np.array([o.tokens for o in edge.options])
        own_loss = np.array([o.loss for o in edge.options])
        all_tokens = (tokens[:, None] + own_tokens[None]).ravel()
        all_loss = (loss[:, None] + own_loss[None]).ravel()
        kept = _undominated(all_tokens, all_loss)
        tokens, loss = all_tokens[kept], all_loss[kept]
        came.append((kept // len(own_tokens), kept % len(own_tokens)))
    return tuple(_traced(edges, came, at) for at in range(len(tokens)))


def _undominated(tokens: Array, loss: Array) -> NDArray[np.intp]:
    """Places of what nothing else beats, by ascending tokens and falling loss; of equal ones the first."""
    order = np.lexsort((np.arange(len(tokens)), loss, tokens))
    least = np.minimum.accumulate(loss[order])
    better = np.concatenate(([True], loss[order][1:] < least[:-1]))
    found: NDArray[np.intp] = order[better]
    return found


def _traced(
    edges: Sequence[EdgeOptions], came: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]], at: int
) -> Chosen:
    options: list[Option] = []
    for edge, (before, option) in zip(reversed(edges), reversed(came), strict=True):
        options.append(edge.options[option[at]])
        at = int(before[at])
    return Chosen(tuple(reversed(options)))


def _known(edges: Sequence[EdgeOptions]) -> None:
    if not edges:
        raise UserError("there are no edges to spread a budget over")
    names = [edge.edge for edge in edges]
    if len(set(names)) < len(names):
        raise UserError("an edge is listed twice; put its options together")
