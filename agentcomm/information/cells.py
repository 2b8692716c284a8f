"""The part of a score matrix that was scored, and what became of the rest.

A failure is counted and left out; it is never a number. In this order:

a. a context under which more than half of the rows failed is dropped, with its own rows;
b. a row with any failure left is dropped;
c. if more than a tenth of the rows went that way, there is no estimate: what remains is no longer
   the sample that was asked for;
d. a context left without rows stays: it is still a negative of the others.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from agentcomm.information.score_matrix import Array, Booleans, Integers, ScoreMatrix

_ROUNDING = 1e-6
"""Nats by which a sum of log-probabilities may exceed 0 in half precision without being a bug."""


@dataclass(frozen=True)
class Dropped:
    """What is left out of an estimate.

    Attributes
    ----------
    contexts, rows:
        Masks over columns and rows; the rows include those of dropped contexts.
    reasons:
        Failed cells by reason.
    """

    contexts: Booleans
    rows: Booleans
    reasons: dict[str, int]

    @property
    def n_failed(self) -> int:
        return sum(self.reasons.values())

    @property
    def too_many(self) -> bool:
        """Whether more than 10 % of the rows are gone."""
        return 10 * int(self.rows.sum()) > len(self.rows)


@dataclass(frozen=True)
class Cells:
    """Scores without failures.

    Attributes
    ----------
    logp:
        Shape (rows, N), nats. −inf where impossible, and where a cell was not a candidate.
    own:
        Shape (rows,): the column of each row's own context.
    block:
        Shape (rows,): the query's number where queries are crossed with contexts; else 0.
    k:
        Shape (rows,): candidates of each row, N unless they were sampled.
    prior:
        Shape (rows,) or ``None``: log r(z|q).
    rank:
        Shape (N,): the contexts' order by content, where that is known, so that a random split does
        not depend on the order in which they were given.
    """

    logp: Array
    own: Integers
    block: Integers
    k: Integers
    prior: Array | None
    rank: Integers

    @property
    def n(self) -> int:
        return int(self.logp.shape[1])

    @property
    def diagonal(self) -> Array:
        """Each message's score under its own context."""
        values: Array = self.logp[np.arange(len(self.own)), self.own]
        return values

    def groups(self) -> tuple[Integers, Integers, Integers]:
        """Rows of one context and query belong together: each row's group, and each group's block
        and context."""
        key = self.block * self.n + self.own
        distinct, group = np.unique(key, return_inverse=True)
        return group.astype(np.intp), distinct // self.n, distinct % self.n

    def weights(self) -> Array:
        """What each row counts for: queries equally, in each its contexts equally, in each its rows."""
        group, block, _ = self.groups()
        rows = np.bincount(group)
        contexts = np.unique(block, return_counts=True)
        per_block = dict(zip(contexts[0].tolist(), contexts[1].tolist(), strict=True))
        of_group = np.array([per_block[b] for b in block.tolist()], dtype=np.float64)
        weights: Array = 1 / (len(per_block) * of_group[group] * rows[group])
        return weights

    def mean(self, values: Array) -> float:
        """Mean of one number per row in which all contexts weigh the same; summed without rounding, so
        that equal numbers have themselves for a mean."""
        group, block, _ = self.groups()
        of_group = np.bincount(group, weights=values) / np.bincount(group)
        of_block = [_mean(of_group[block == b]) for b in np.unique(block)]
        return _mean(np.array(of_block))

    def by_context(self, values: Array) -> tuple[Integers, Array]:
        """The contexts that have rows, and one number for each; their mean is :meth:`mean`."""
        sums = np.bincount(self.own, weights=self.weights() * values, minlength=self.n)
        scored = np.unique(self.own)
        return scored, np.asarray(sums[scored] * len(scored), dtype=np.float64)

    def select(self, contexts: Integers) -> Cells:
        """Some of the contexts: their columns and their rows."""
        place = np.full(self.n, -1, dtype=np.intp)
        place[contexts] = np.arange(len(contexts))
        rows = place[self.own] >= 0
        logp = self.logp[np.ix_(rows, contexts)]
        return Cells(
            logp=logp,
            own=place[self.own[rows]],
            block=self.block[rows],
            k=np.full(len(logp), len(contexts), dtype=np.intp),
            prior=None if self.prior is None else self.prior[rows],
            rank=self.rank[contexts],
        )

    def scaled(self, alpha: float) -> Cells:
        """The critic α·log q; α = 0 is the critic that knows nothing."""
        return replace(self, logp=np.zeros_like(self.logp) if alpha == 0 else alpha * self.logp)


def _mean(values: Array) -> float:
    return math.fsum(values.tolist()) / len(values)


def find_failures(matrix: ScoreMatrix) -> Dropped:
    """Which cells failed, and what must be left out because of them."""
    logp, own = matrix.logp, matrix.row_context
    wanted = np.ones(logp.shape, dtype=np.bool_) if matrix.candidates is None else matrix.candidates
    diagonal = np.zeros(logp.shape, dtype=np.bool_)
    diagonal[np.arange(len(own)), own] = True

    missing = wanted & np.isnan(logp)
    infinite = wanted & ~missing & (np.isposinf(logp) | (diagonal & np.isneginf(logp)))
    above_one = wanted & ~missing & ~infinite & (logp > _ROUNDING) & (matrix.kind == "language_model")
    reasons = Counter(matrix.reasons.get((int(r), int(c)), "missing") for r, c in np.argwhere(missing))
    reasons["infinite"] += int(infinite.sum())
    reasons["probability above 1"] += int(above_one.sum())

    bad = missing | infinite | above_one
    contexts = 2 * bad.sum(axis=0) > wanted.sum(axis=0)
    rows = contexts[own] | (bad & ~contexts).any(axis=1)
    return Dropped(contexts, rows, {reason: count for reason, count in sorted(reasons.items()) if count})


def survivors(matrix: ScoreMatrix, dropped: Dropped) -> Cells:
    """The matrix without what was dropped."""
    columns, rows = np.flatnonzero(~dropped.contexts), np.flatnonzero(~dropped.rows)
    place = np.cumsum(~dropped.contexts) - 1
    logp = matrix.logp[np.ix_(rows, columns)]
    k = np.full(len(rows), len(columns), dtype=np.intp)
    if matrix.candidates is not None:
        wanted = matrix.candidates[np.ix_(rows, columns)]
        logp = np.where(wanted, logp, -np.inf)
        k = wanted.sum(axis=1)
    hashes = matrix.context_hashes
    order = np.argsort(np.array(hashes)[columns], kind="stable") if hashes else np.arange(len(columns))
    rank = np.empty(len(columns), dtype=np.intp)
    rank[order] = np.arange(len(columns))
    return Cells(
        logp=logp,
        own=place[matrix.row_context[rows]].astype(np.intp),
        block=matrix.blocks[rows],
        k=k.astype(np.intp),
        prior=None if matrix.prior is None else matrix.prior[rows],
        rank=rank,
    )
