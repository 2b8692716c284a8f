"""Standing: what a learning has paid and how its models do, as a manifest says it.

Deliberately absent: times. A manifest of a run that was interrupted equals that of one that wasn't.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentcomm.dialogue.played import READER, READS, Played, iteration_of, purpose_of
from agentcomm.dialogue.reward import RewardTerms
from agentcomm.evaluation.stats import mean_interval
from agentcomm.ledger.store import Ledger


def spent(ledger: Ledger) -> dict[int, dict[str, int]]:
    """Tokens paid by iteration and purpose, prompts and replies together; reading for likelihoods is ``score``.

    What a call cost that was never heard of again is not known and not in it.
    """
    found: dict[int, Counter[str]] = {}
    for call in ledger.calls(texts=False):
        if call.cache_hit or call.phase != "learn":
            continue
        purpose = READS if call.agent == READER else purpose_of(call.sample)
        tokens = (call.input_tokens or 0) + (call.output_tokens or 0)
        found.setdefault(iteration_of(call.sample), Counter())[purpose] += tokens
    return {iteration: dict(sorted(of.items())) for iteration, of in sorted(found.items())}


def standing(played: Sequence[Played]) -> dict[str, Any]:
    """How a model did: means over the dialogues that didn't fail."""
    terms = [p.terms for p in played if p.terms is not None]
    totals = [p.tokens["total"] for p in played if p.terms is not None and "total" in p.tokens]
    score = mean_interval([t.task for t in terms])
    return {
        "items": len(terms),
        "failed": len(played) - len(terms),
        "score": {"mean": score.mean, "low": score.low, "high": score.high},
        "marked": sum(p.marked for p in played if p.terms is not None),
        **means(terms),
        "total_tokens": float(np.mean(totals)) if totals and len(totals) == len(terms) else None,
    }


def means(terms: Sequence[RewardTerms]) -> dict[str, float | None]:
    """Each component's mean over the dialogues in which it is known."""
    found: dict[str, float | None] = {}
    for name in ("task", "tokens", "ratio", "nll", "task_term", "token_term", "loss_term", "total"):
        values = [v for t in terms if (v := getattr(t, name)) is not None and math.isfinite(v)]
        found[name] = float(np.mean(values)) if values else None
    return found


def by_format(played: Sequence[Played]) -> dict[str, dict[str, float | None]]:
    formats = sorted({p.ask.format for p in played})
    return {
        f: {
            "dialogues": float(sum(p.ask.format == f for p in played)),
            **means([p.terms for p in played if p.ask.format == f and p.terms is not None]),
        }
        for f in formats
    }
