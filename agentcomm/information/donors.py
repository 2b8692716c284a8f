"""Donors: whose message each example reads in the mismatched arm.

Every example gives its message to exactly one other (a derangement), of another document, so that all
differences in length together are as small as they can be. Ties are broken by the seed: where all
messages are of one length it is a random derangement.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from agentcomm.errors import UserError


def donors(lengths: Sequence[int], documents: Sequence[Hashable], seed: int) -> list[int | None]:
    """For each example the one whose message it reads; ``None`` where no other document is left.

    Raises
    ------
    UserError
        If there are not two documents.

    Examples
    --------
    >>> donors([10, 900, 12, 880], ["a", "b", "c", "d"], seed=0)
    [2, 3, 0, 1]
    >>> donors([10, 10, 99], ["a", "a", "b"], seed=0).count(None)
    1
    """
    n = len(lengths)
    if len(documents) != n:
        raise UserError(f"{n} lengths need as many documents, not {len(documents)}")
    index: dict[Hashable, int] = {}
    document = np.array([index.setdefault(d, len(index)) for d in documents])
    if len(index) < 2:
        raise UserError(
            f"the {n} examples are of one document: nobody has another's message to read; take more items"
        )
    length = np.asarray(lengths, dtype=np.float64)
    ties = np.random.default_rng(seed).random((n, n)) / (n + 1)  # all together below one character
    same = document[:, None] == document[None, :]
    forbidden = (float(np.ptp(length)) + 1) * n
    cost = np.where(same, forbidden, np.abs(length[:, None] - length[None, :])) + ties
    chosen = linear_sum_assignment(cost)[1]
    return [None if same[i, j] else int(j) for i, j in enumerate(chosen)]
