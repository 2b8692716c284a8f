"""Clusters: kinds of questions, found in their embeddings alone.

Questions of one kind may need one team, questions of another kind another. Nobody says which kinds
there are, so they are found by spherical k-means on the embeddings of the questions, and *whether*
there are any is asked first: the silhouette (Rousseeuw 1987; cosine distance) of the best division
has to show clusters that are apart. Texts that form no clusters stay one.

Deliberately absent: outcomes. Whether kinds differ in the team they need is for
:mod:`agentcomm.pruning.team_value` to find out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentcomm.pruning.pool import FloatArray, IntArray


class Clusters(NamedTuple):
    """Kinds of questions.

    Parameters
    ----------
    centres:
        [C, dimensions], unit vectors.
    silhouette:
        Mean over the questions they were found in, from -1 to 1; 0 where there is one cluster.
    """

    centres: FloatArray
    silhouette: float

    def of(self, vectors: FloatArray) -> IntArray:
        """The nearest centre of each vector [B, dimensions]."""
        nearest: IntArray = np.argmax(vectors @ self.centres.T, axis=1).astype(np.int64)
        return nearest


def find_clusters(
    vectors: FloatArray,
    rng: np.random.Generator,
    *,
    most: int = 12,
    smallest: int = 4,
    separation: float = 0.15,
    starts: int = 4,
) -> Clusters:
    """The division of ``vectors`` [B, dimensions], unit length, with the largest silhouette.

    Parameters
    ----------
    most:
        Clusters at most.
    smallest:
        Members that every cluster must have.
    separation:
        The silhouette that a division needs; without one that has it, all are one cluster.
    starts:
        Random starts (k-means++) for each number of clusters.

    >>> e = np.eye(3)
    >>> len(find_clusters(np.repeat(e, 5, axis=0), np.random.default_rng(0)).centres)
    3
    """
    if len(vectors) > 1500:  # the silhouette looks at every pair
        vectors = vectors[rng.choice(len(vectors), 1500, replace=False)]
    best = Clusters(_unit(vectors.mean(axis=0, keepdims=True)), 0.0)
    apart = 1.0 - vectors @ vectors.T
    for k in range(2, min(most, len(vectors) // smallest) + 1):
        found = max((_k_means(vectors, k, rng) for _ in range(starts)), key=lambda f: f.fit)
        sizes = np.bincount(found.labels, minlength=k)
        if sizes.min() < smallest:
            continue
        silhouette = _silhouette(apart, found.labels, sizes)
        if silhouette >= separation and silhouette > best.silhouette:
            best = Clusters(found.centres, silhouette)
    return best


class _Division(NamedTuple):
    centres: FloatArray
    labels: IntArray
    fit: float


def _k_means(vectors: FloatArray, k: int, rng: np.random.Generator) -> _Division:
    centres = vectors[[int(rng.integers(len(vectors)))]]
    while len(centres) < k:
        far = np.maximum(1.0 - (vectors @ centres.T).max(axis=1), 0.0)
        total = float(far.sum())
        chosen = (
            int(rng.choice(len(vectors), p=far / total)) if total > 0 else int(rng.integers(len(vectors)))
        )
        centres = np.vstack([centres, vectors[chosen]])
    labels = np.full(len(vectors), -1)
    for _ in range(100):
        near = vectors @ centres.T
        fresh = near.argmax(axis=1)
        if (fresh == labels).all():
            break
        labels = fresh
        centres = _unit(
            np.array(
                [vectors[labels == c].sum(axis=0) if (labels == c).any() else centres[c] for c in range(k)]
            )
        )
    return _Division(centres, labels.astype(np.int64), float((vectors @ centres.T).max(axis=1).sum()))


def _silhouette(apart: FloatArray, labels: IntArray, sizes: IntArray) -> float:
    """Mean of (b - a) / max(a, b): a to the own cluster's others, b to the nearest other cluster's."""
    member = np.eye(len(sizes))[labels]
    sums = apart @ member
    own = sums[np.arange(len(labels)), labels] / np.maximum(sizes[labels] - 1, 1)
    others = np.where(member > 0, np.inf, sums / sizes)
    nearest = others.min(axis=1)
    wider = np.maximum(np.maximum(own, nearest), 1e-12)
    return float(np.where(sizes[labels] > 1, (nearest - own) / wider, 0.0).mean())


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: FloatArray = rows / np.where(length > 0, length, 1.0)
    return found
