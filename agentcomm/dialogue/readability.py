"""Readability: how likely each message is under a frozen language model, in mean nats per token.

    hf/FOLDER     a model in a folder, read in this process: the one that is trained, before training
    vllm/FOLDER   the same through a vLLM server
    ngram         a byte model without weights, in nats per byte: where nothing else can score
    off           nothing is scored, and the reward has no loss term

A message is scored alone, as the reply to an empty request under the model's chat template, whose own
tokens only condition (``dialogue.md`` section 2). The model stays the same through all iterations.

Deliberately absent: marks (taken off before, :func:`agentcomm.dialogue.marks.without_marks`) and what
a likelihood is worth (:mod:`agentcomm.dialogue.reward`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from agentcomm.errors import ConfigError
from agentcomm.information.compressing import CompressPrompt
from agentcomm.information.score_matrix import Row
from agentcomm.information.scorers import open_scorer
from agentcomm.information.scorers.base import size
from agentcomm.information.scorers.scorer import Scorer

OFF, NGRAM, AUTO = "off", "ngram", "auto"


class Read(NamedTuple):
    """Mean nats per token of each text, NaN where scoring failed, and the tokens that this took."""

    nlls: list[float]
    tokens: int


class Readability(Protocol):
    """Scores texts; blocks while it does."""

    @property
    def name(self) -> str: ...

    def read(self, texts: Sequence[str]) -> Read: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Off:
    """Scores nothing."""

    name: str = OFF

    def read(self, texts: Sequence[str]) -> Read:
        return Read([math.nan] * len(texts), 0)

    def close(self) -> None:
        """Nothing to close."""


class _Alone(CompressPrompt):
    """Asks for nothing: the message stands alone as the assistant's turn."""

    def head(self, context: str) -> str:
        return ""

    def tail(self, query: str) -> str:
        return ""


@dataclass(frozen=True)
class ByScorer:
    """Scores with one of :mod:`agentcomm.information.scorers`."""

    scorer: Scorer
    name: str

    def read(self, texts: Sequence[str]) -> Read:
        if not texts:
            return Read([], 0)
        before = getattr(self.scorer, "prefilled", 0)
        matrix = self.scorer.score_rows([""], [Row(0, "", text) for text in texts])
        critic = self.scorer.kind != "language_model"
        lengths = [size(t) for t in texts] if critic else [] if matrix.n_tokens is None else matrix.n_tokens
        found = [
            -float(logp) / int(n) if n > 0 else math.nan
            for logp, n in zip(matrix.logp[:, 0], lengths, strict=True)
        ]
        return Read(found, getattr(self.scorer, "prefilled", 0) - before)

    def close(self) -> None:
        self.scorer.close()


def open_readability(word: str, model: str | None = None, *, base_url: str | None = None) -> Readability:
    """What ``word`` names; ``auto`` is the model itself where it is a folder that can be read, else ``ngram``.

    Raises
    ------
    ConfigError
        For an unknown word, or a model that can't score.
    MissingExtraError
        If torch or transformers are not installed.
    """
    if word == AUTO:
        provider, _, folder = (model or "").partition("/")
        word = f"hf/{folder}" if provider == "hf" and Path(folder).is_dir() else NGRAM
    if word == OFF:
        return Off()
    if word == NGRAM:
        return ByScorer(open_scorer("offline/ngram"), NGRAM)
    if word.partition("/")[0] not in ("hf", "vllm"):
        raise ConfigError(f"readability {word!r}; use auto, off, ngram, hf/FOLDER or vllm/FOLDER")
    scorer = open_scorer(word, base_url=base_url, prompt=_Alone("alone", ""))
    return ByScorer(scorer, word)
