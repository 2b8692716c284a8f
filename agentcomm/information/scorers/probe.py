"""The start-up probe: a scorer shows that it can do what a matrix needs, or is refused.

What it catches was seen: servers that give log-probabilities of generated tokens only (a naive client
then reads 0 everywhere, probability one), a log-probability too few or too many, values from a stale
cache, weights that were loaded wrong, a fast path that differs from the slow one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from agentcomm.errors import ScorerError, ScorerUnsupported
from agentcomm.information.scorers.base import Ask

if TYPE_CHECKING:
    from agentcomm.information.scorers.language import LanguageScorer

SENTENCE = "The capital of France is Paris, and the capital of Italy is Rome."
OTHER = "She put the bread on the table and went out to look for her brother."
PER_CELL, PER_TOKEN_HALF = 1e-3, 0.02
"""Nats by which two ways to the same number may differ: a cell in float32, a token in half precision."""
_ROUNDING = 1e-6

_CONTEXTS = ("Ada lives in Oslo. Ada has a pet cat.", "Ben lives in Rome.")
_ASKS = (
    Ask("Where does Ada live?", "Ada lives in Oslo."),
    Ask("Where does Ada live?", "No city is named."),
    Ask("What pet does Ada have?", "A cat"),
    Ask("Where does Ben live, and since when?", "Rome; it does not say since when."),
)


def probe(scorer: LanguageScorer) -> None:
    """Raises :class:`~agentcomm.errors.ScorerUnsupported` with the first thing that is wrong."""
    try:
        first = _values(scorer, SENTENCE)
        _sensible(scorer, first)
        _language(scorer, first)
        _repeats(scorer, first)
        if scorer.capabilities().prefix_reuse:
            _same_as_afresh(scorer)
    except ScorerError as error:
        raise ScorerUnsupported(f"{scorer.id} can't score: {error}") from error


def _values(scorer: LanguageScorer, text: str, *, backwards: bool = False) -> list[float]:
    ids = scorer.spans.text(text)
    if backwards:
        ids = ids[::-1]
    before = scorer.spans.tail("What is said?")
    values = scorer.logprobs(before + ids, len(before))
    if len(values) != len(ids):
        raise ScorerUnsupported(
            f"{scorer.id} gives {len(values)} log-probabilities for {len(ids)} tokens; it can't be scored with"
        )
    return values


def _sensible(scorer: LanguageScorer, values: list[float]) -> None:
    if not all(math.isfinite(v) and v <= _ROUNDING for v in values):
        raise ScorerUnsupported(f"{scorer.id} gives values that are no log-probabilities: {values[:3]}")
    if len(set(values)) == 1:
        raise ScorerUnsupported(
            f"{scorer.id} gives {values[0]:g} for every token: it does not score prompts; "
            "take hf/FOLDER, a vLLM server or an offline critic"
        )


def _language(scorer: LanguageScorer, values: list[float]) -> None:
    backwards = _values(scorer, SENTENCE, backwards=True)
    if not sum(values) > sum(backwards):
        raise ScorerUnsupported(
            f"to {scorer.id} a plain sentence is no more probable ({sum(values):.1f} nats) than its words "
            f"backwards ({sum(backwards):.1f}): its weights or its tokenizer are not what they should be"
        )


def _repeats(scorer: LanguageScorer, values: list[float]) -> None:
    _values(scorer, OTHER)
    again = _values(scorer, SENTENCE)
    allowed = tolerance(scorer, len(values))
    if abs(sum(again) - sum(values)) > allowed:
        raise ScorerUnsupported(
            f"{scorer.id} scores the same text as {sum(values):.4f} and, after another, as {sum(again):.4f} nats; "
            "switch off its prefix cache (vLLM: --no-enable-prefix-caching)"
        )


def _same_as_afresh(scorer: LanguageScorer) -> None:
    """Three random cells."""
    rng = np.random.default_rng(0)
    columns = {}
    for c in range(len(_CONTEXTS)):
        cells = dict(cell for batch in scorer.column(_CONTEXTS[c], _ASKS, ()) for cell in batch)
        columns[c] = [cells[i] for i in range(len(_ASKS))]
    for number in rng.choice(len(_CONTEXTS) * len(_ASKS), size=3, replace=False).tolist():
        c, a = divmod(number, len(_ASKS))
        fast, slow = columns[c][a], scorer.afresh(_CONTEXTS[c], *_ASKS[a])
        for cell in (fast, slow):
            if not cell.ok:
                raise ScorerUnsupported(f"{scorer.id} can't score: {cell.reason}")
        if abs(fast.sum_logprob - slow.sum_logprob) > tolerance(scorer, fast.n_tokens or 1):
            raise ScorerUnsupported(
                f"{scorer.id} gives {fast.sum_logprob:.4f} nats with the context computed once and "
                f"{slow.sum_logprob:.4f} afresh: its cache can't be reused"
            )


def tolerance(scorer: LanguageScorer, tokens: int) -> float:
    return PER_TOKEN_HALF * tokens if scorer.half_precision else PER_CELL
