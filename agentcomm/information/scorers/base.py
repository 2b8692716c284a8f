"""What a scorer says about itself, and about one cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

NO_DOCUMENT = "(No text is given.)"
"""Stands in the context's place for log r(z|q), the score without a context."""


class Ask(NamedTuple):
    """One row of a column: a text, and the query it was made for."""

    query: str
    text: str


@dataclass(frozen=True)
class Capabilities:
    """What a scorer can do.

    Attributes
    ----------
    prompt_logprobs:
        Whether its scores are sums of a language model's token log-probabilities. An offline critic's
        are not: no likelihoods, and to be tempered.
    prefix_reuse:
        Whether a context is computed once for all texts.
    deterministic:
        Whether the same cell gives the same bits again, on the same machine.
    discrete:
        Whether scores are of text, hence never above 0.
    null_context:
        Whether it can score without a context.
    exact_for:
        The compressor whose own likelihood this is, if its messages were sampled at temperature 1 from
        the same weights and prompt; ``None`` for a critic.
    """

    prompt_logprobs: bool
    prefix_reuse: bool
    deterministic: bool
    discrete: bool
    null_context: bool
    exact_for: str | None = None


@dataclass(frozen=True)
class Scored:
    """One cell.

    Attributes
    ----------
    sum_logprob:
        Nats, summed over the text's tokens; NaN if it failed.
    n_tokens:
        Tokens summed, ``None`` for a scorer without tokens.
    n_bytes:
        UTF-8 bytes of the text.
    reason:
        Why it failed; empty if it didn't.
    """

    sum_logprob: float
    n_tokens: int | None
    n_bytes: int
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason

    @classmethod
    def failed(cls, text: str, reason: str) -> Scored:
        return cls(math.nan, None, size(text), reason or "failed without a reason")


@dataclass(frozen=True)
class Cost:
    """Tokens that filling a matrix takes, by formula; Tx with the prompt around the context, Tq likewise.

    Attributes
    ----------
    cells:
        Cells to score, without empty and missing messages.
    afresh:
        Σ over cells of Tx + Tq + Tz: every pair as a prompt of its own.
    reuse:
        N·Tx + N·Σ Tq (distinct queries) + Σ over cells of Tz: every context once.
    """

    cells: int
    afresh: int
    reuse: int


def size(text: str) -> int:
    """UTF-8 bytes; a lone surrogate counts as what it would take."""
    return len(text.encode("utf-8", "surrogatepass"))
