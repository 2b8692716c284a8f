"""Readability: how likely each message is under a frozen language model, in mean nats per token.

    hf/FOLDER     a model in a folder, read in this process: the one that is trained, before training
    vllm/FOLDER   the same through a vLLM server; openai/NAME through another that scores prompts
    ngram         a byte model without weights, in nats per byte: where nothing else can score
    off           nothing is scored, and the reward has no loss term

A message is scored alone, as the reply to an empty request under the model's chat template, whose own
tokens only condition (``dialogue.md`` section 2). The model stays the same through all iterations.

Deliberately absent: marks (taken off before, :func:`agentcomm.dialogue.marks.without_marks`) and what
a likelihood is worth (:mod:`agentcomm.dialogue.reward`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from agentcomm.backends.adapters import ModelRef
from agentcomm.errors import ConfigError
from agentcomm.information.compressing import CompressPrompt
from agentcomm.information.score_matrix import Row
from agentcomm.information.scorers import open_scorer
from agentcomm.information.scorers.base import size
from agentcomm.information.scorers.scorer import Scorer

log = logging.getLogger(__name__)

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


def open_readability(
    word: str,
    model: str | None = None,
    *,
    base_url: str | None = None,
    note: Callable[[str], None] = log.warning,
) -> Readability:
    """What ``word`` names.

    ``auto`` is the model itself, without its adapters, where its folder is on this machine, else ``ngram``;
    the embedded llama.cpp and hosted chat servers can't score given text.

    Parameters
    ----------
    note:
        Hears what is lost by a fallback.

    Raises
    ------
    ConfigError
        For an unknown word, or a model that can't score.
    MissingExtraError
        If torch or transformers are not installed.
    """
    if word == AUTO:
        word = _own(model) or NGRAM
        if word == NGRAM:
            note(
                f"{model or 'this model'} can't score given text, so readability is a byte model's, in nats per "
                "byte; --readability hf/FOLDER takes a language model"
            )
    if word == OFF:
        note("readability is off: nothing in the reward speaks against messages that only look like text")
        return Off()
    if word == NGRAM:
        return ByScorer(open_scorer("offline/ngram"), NGRAM)
    engine, _, name = word.partition("/")
    if engine not in ("hf", "vllm", "openai") or not name:
        raise ConfigError(f"readability {word!r}; use auto, off, ngram, hf/FOLDER or vllm/FOLDER")
    scorer = open_scorer(word, base_url=base_url, prompt=_Alone("alone", ""))
    return ByScorer(scorer, word)


def _own(model: str | None) -> str | None:
    """The frozen base of a model whose folder is here, as a scorer's name."""
    provider, _, name = (model or "").partition("/")
    if provider not in ("hf", "vllm") or not name:
        return None
    base = ModelRef.of(name).base
    return f"hf/{base}" if (Path(base) / "config.json").is_file() else None
