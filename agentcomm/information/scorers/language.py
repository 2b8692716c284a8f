"""What scorers with a language model share: token ids, costs, lengths and the start-up probe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.errors import ScorerError
from agentcomm.information.compressing import QUESTION, CompressPrompt
from agentcomm.information.score_matrix import Booleans, Row
from agentcomm.information.scorers.base import Ask, Capabilities, Cost, Scored, size
from agentcomm.information.scorers.probe import probe
from agentcomm.information.scorers.scorer import Scorer
from agentcomm.information.scorers.spans import Ids, Spans


class LanguageScorer(Scorer):
    """Sums of a language model's token log-probabilities.

    Parameters
    ----------
    prompt:
        What the model is told to have been asked; a message is its reply.
    probing:
        Whether :meth:`probe` tries the model before the first matrix. Leave it on.
    """

    kind = "language_model"

    def __init__(self, *, prompt: CompressPrompt = QUESTION, probing: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.prompt = prompt
        self.probing = probing
        self.prefilled = 0
        """Tokens that the model read since it was made, without padding; a probe's are not counted."""

    @property
    @abstractmethod
    def spans(self) -> Spans: ...

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Longest prompt and continuation, in tokens; ``None`` without a limit."""

    @property
    @abstractmethod
    def half_precision(self) -> bool:
        """Whether sums are good to 0.02 nats a token rather than to 0.001."""

    @abstractmethod
    def logprobs(self, ids: Ids, start: int) -> list[float]:
        """log p of ``ids[start:]``, each given all before it, in one go and from nothing.

        Raises
        ------
        ScorerError
            If there are none; :class:`~agentcomm.errors.ScorerUnsupported` if there never are.
        """

    @property
    def end_ids(self) -> Ids:
        """The end token, where it is scored."""
        return ()

    @property
    def prompt_id(self) -> str:
        return self.spans.id

    def capabilities(self) -> Capabilities:
        return Capabilities(
            prompt_logprobs=True,
            prefix_reuse=False,
            deterministic=False,
            discrete=True,
            null_context=True,
            exact_for=self.id,
        )

    def afresh(self, context: str | None, query: str, text: str) -> Scored:
        """One cell as a prompt of its own: what every faster way must equal."""
        try:
            before = self.spans.head(context) + self.spans.tail(query)
            ids = self.continuation(text)
            self.fits(len(before), len(ids))
            values = self.logprobs(before + ids, len(before))
        except ScorerError as error:
            return Scored.failed(text, str(error))
        return self.summed(text, values)

    def continuation(self, text: str) -> Ids:
        return self.spans.text(text) + self.end_ids

    def summed(self, text: str, values: Sequence[float]) -> Scored:
        # numpy sums pairwise: the order of additions does not depend on who asked.
        return Scored(float(np.sum(np.asarray(values, dtype=np.float64))), len(values), size(text))

    def fits(self, before: int, after: int) -> None:
        """Raises :class:`ScorerError` if the model can't read so much; nothing is ever cut off.

        The last token is predicted, not read.
        """
        if self.max_length is not None and before + after - 1 > self.max_length:
            raise ScorerError(
                f"prompt and message are {before + after:,} tokens, more than the model's {self.max_length:,}; "
                "take shorter contexts or a model that reads more"
            )

    def cost(self, contexts: Sequence[str], rows: Sequence[Row], wanted: Booleans) -> Cost | None:
        """By token ids; cells whose texts can't be tokenised cost nothing."""
        heads = np.array([self._tokens(self.spans.head, context) for context in contexts], dtype=np.int64)
        tails = np.array([self._tokens(self.spans.tail, row.query) for row in rows], dtype=np.int64)
        texts = np.array([self._tokens(self.continuation, row.text or "") for row in rows], dtype=np.int64)
        afresh = int(((heads[None, :] + (tails + texts)[:, None]) * wanted).sum())
        asked = {row.query: r for r, row in enumerate(rows)}
        tail_of = {query: int(tails[r]) for query, r in asked.items()}
        reuse = int((texts[:, None] * wanted).sum())
        for column in range(len(contexts)):
            queries = {rows[r].query for r in np.flatnonzero(wanted[:, column]).tolist()}
            if queries:
                reuse += int(heads[column]) + sum(tail_of[query] for query in queries)
        return Cost(int(wanted.sum()), afresh, reuse)

    @staticmethod
    def _tokens(ids: Any, text: str) -> int:
        try:
            return len(ids(text))
        except ScorerError:
            return 0

    def probe(self) -> None:
        if self.probing:
            before = self.prefilled
            probe(self)
            self.prefilled = before

    def readable(self, asks: Sequence[Ask]) -> tuple[dict[int, tuple[Ids, Ids]], dict[int, Scored]]:
        """Ids of tail and continuation by position, and the cells whose texts have none."""
        good: dict[int, tuple[Ids, Ids]] = {}
        failed: dict[int, Scored] = {}
        for i, ask in enumerate(asks):
            try:
                good[i] = self.spans.tail(ask.query), self.continuation(ask.text)
            except ScorerError as error:
                failed[i] = Scored.failed(ask.text, str(error))
        return good, failed


def weights_hash(folder: Path) -> str:
    """SHA-256 over the folder's weights, configuration and tokenizer."""
    digest = sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model") and path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + file_digest(file, "sha256").digest())
    return digest.hexdigest()
