"""Scorer: fills score matrices, column by column.

    matrix = scorer.score_matrix(contexts, queries, compressions)

An engine says how to score texts under *one* context (:meth:`Scorer.column`); everything that all
engines share is here: each distinct (query, text) is scored once a context, with the row's own query
in every column; missing messages are failures and empty ones are not sent anywhere; cells come from
and go to a store, so an interrupted matrix resumes; and what is going to be spent is said before.

An engine's batches depend on the column alone, not on what the store already has, and a batch that
has a cell missing is computed whole. So a resumed matrix has the bits of one that wasn't interrupted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from agentcomm.errors import ConfigError, ScorerError, UserError
from agentcomm.information.score_matrix import Array, Booleans, Kind, Row, ScoreMatrix, digest, rows_of
from agentcomm.information.scorers.base import NO_DOCUMENT, Ask, Capabilities, Cost, Scored, size
from agentcomm.information.scorers.store import CellStore, cell_key

Note = Callable[[str], None]


class Scorer(ABC):
    """Scores of texts under contexts. Use it as a context manager, or close it.

    Parameters
    ----------
    cells:
        Where scored cells are kept: a file, a store (yours to close), or nowhere.
    include_eos:
        Whether the end token's score belongs to a text's. Needed for ``exact`` only.
    ceiling:
        Most tokens that a matrix may take; a larger one is refused before it starts.
    note:
        Hears what a matrix is going to cost, and how far it is.
    """

    kind: Kind = "language_model"

    def __init__(
        self,
        *,
        cells: str | Path | CellStore | None = None,
        include_eos: bool = False,
        ceiling: int | None = None,
        note: Note | None = None,
    ) -> None:
        if ceiling is not None and ceiling < 1:
            raise ConfigError(f"ceiling={ceiling} tokens; it must be at least 1")
        self.include_eos = include_eos
        self.ceiling = ceiling
        self._note = note or (lambda text: None)
        self._cells = cells
        self._checked = False

    # -- what an engine says ------------------------------------------------------------------

    @property
    @abstractmethod
    def id(self) -> str:
        """What computes the numbers: engine and version, weights' hash, dtype."""

    @property
    @abstractmethod
    def prompt_id(self) -> str:
        """The text around context, query and continuation."""

    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        """Score ``asks`` under one context, ``None`` for none, batch after batch.

        Yields (position in ``asks``, cell) and may leave out positions in ``known``. A
        :class:`~agentcomm.errors.ScorerError` fails what has not been yielded.
        """

    def cost(self, contexts: Sequence[str], rows: Sequence[Row], wanted: Booleans) -> Cost | None:
        """What the ``wanted`` cells (shape (rows, N)) will take, ``None`` for an engine without tokens."""
        return None

    def fit(self, contexts: Sequence[str], rows: Sequence[Row]) -> None:
        """Hears what is going to be scored, before anything is."""
        return

    def probe(self) -> None:
        """Make sure that it can give what a matrix needs.

        Raises
        ------
        ScorerUnsupported
            If not, with what was wrong.
        """
        return

    def close(self) -> None:
        """Let go of what it holds."""
        return

    # -- what all engines do ------------------------------------------------------------------

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """:meth:`probe`, once."""
        if not self._checked:
            self.probe()
            self._checked = True

    def score(self, context: str | None, query: str, text: str) -> Scored:
        """One cell; a failure is in its ``reason``."""
        self.check()
        if empty := self._empty(text):
            return empty
        for _, cell in self._column(context, [Ask(query, text)], ()):
            return cell
        return Scored.failed(text, "the scorer gave no value")

    def score_matrix(
        self,
        contexts: Sequence[str],
        queries: str | Sequence[str],
        compressions: Sequence[Sequence[str | None]],
        *,
        reference_set: str | None = None,
        prior: bool = False,
        exact: bool = False,
        candidates: Booleans | None = None,
        seeds: Sequence[int] = (),
    ) -> ScoreMatrix:
        """log q(z_ij | x_l, q_i) for every message and context.

        Parameters
        ----------
        contexts:
            N texts.
        queries:
            One for all contexts, or one per context.
        compressions:
            The messages of each context; ``None`` where the compressor failed.
        reference_set:
            Name of the set the contexts were drawn from; default: a hash of these contexts, so that
            only estimates over the same ones can be compared.
        prior:
            Also score without a context, for ``doe``.
        exact:
            That the messages were sampled by this scorer: same weights and prompt, temperature 1, no
            top-p or top-k, no cut-off. Needs ``include_eos``.
        candidates:
            Cells to score, all if not given (:func:`~agentcomm.information.draw_candidates`).
        seeds:
            The compressor's, to be recorded.

        Raises
        ------
        UserError
            If the arguments don't fit together, the scorer can't do it, or it would take more than
            ``ceiling`` tokens. What fails in a cell is in the matrix, as NaN with a reason.
        """
        if len(compressions) != len(contexts):
            raise UserError(f"{len(contexts)} contexts need messages for each, not {len(compressions)} lists")
        return self.score_rows(
            contexts,
            rows_of(queries, compressions),
            reference_set=reference_set,
            prior=prior,
            exact=exact,
            candidates=candidates,
            seeds=seeds,
        )

    def score_rows(
        self,
        contexts: Sequence[str],
        rows: Sequence[Row],
        *,
        reference_set: str | None = None,
        prior: bool = False,
        exact: bool = False,
        candidates: Booleans | None = None,
        seeds: Sequence[int] = (),
    ) -> ScoreMatrix:
        """The same for rows, where a context has messages for several queries."""
        contexts, rows = list(contexts), [Row(*row) for row in rows]
        _validate(contexts, rows)
        can = self.capabilities()
        if exact and not (can.exact_for and self.include_eos):
            raise UserError(
                "exact=True needs a language model's scorer with include_eos=True: without the end token "
                "the scores are not those of whole messages"
            )
        if prior and not can.null_context:
            raise UserError(f"{self.id} can't score without a context; leave prior=True out")
        self.check()
        self.fit(contexts, rows)
        wanted = self._wanted(contexts, rows, candidates)
        self._announce(contexts, rows, wanted)
        store, own = self._open()
        try:
            logp, reasons, lengths = self._fill(contexts, rows, wanted, candidates, store)
            no_context = self._fill_prior(rows, store) if prior else None
        finally:
            store.close() if own else store.commit()
        return ScoreMatrix(
            logp=logp,
            row_context=np.array([row.context for row in rows], dtype=np.intp),
            reference_set=reference_set or _name_of(contexts),
            prior=no_context,
            n_tokens=np.array(lengths, dtype=np.intp) if can.prompt_logprobs else None,
            n_bytes=np.array([-1 if row.text is None else size(row.text) for row in rows], dtype=np.intp),
            context_hashes=tuple(map(digest, contexts)),
            query_hashes=tuple(digest(row.query) for row in rows),
            text_hashes=tuple("" if row.text is None else digest(row.text) for row in rows),
            candidates=candidates,
            reasons=reasons,
            kind=self.kind,
            exact=exact,
            include_eos=self.include_eos,
            scorer_id=self.id,
            prompt_id=self.prompt_id,
            seeds=tuple(seeds),
        )

    def _empty(self, text: str) -> Scored | None:
        """An empty message has probability one under every context, unless its end is scored."""
        return Scored(0.0, 0, 0) if text == "" and not self.include_eos else None

    def _wanted(self, contexts: list[str], rows: list[Row], candidates: Booleans | None) -> Booleans:
        asked = np.array([row.text is not None and self._empty(row.text) is None for row in rows])
        wanted: Booleans = np.repeat(asked[:, None], len(contexts), axis=1)
        if candidates is None:
            return wanted
        if candidates.shape != wanted.shape:
            raise UserError(f"candidates has the shape {candidates.shape}, {wanted.shape} is needed")
        return wanted & candidates

    def _announce(self, contexts: list[str], rows: list[Row], wanted: Booleans) -> None:
        cost = self.cost(contexts, rows, wanted)
        if cost is None:
            self._note(f"{int(wanted.sum()):,} cells")
            return
        taken = cost.reuse if self.capabilities().prefix_reuse else cost.afresh
        self._note(
            f"{cost.cells:,} cells: {cost.reuse:,} tokens with every context read once, "
            f"{cost.afresh:,} afresh"
            + ("" if self.capabilities().prefix_reuse else " (as this engine reads them)")
        )
        if self.ceiling is not None and taken > self.ceiling:
            raise ConfigError(
                f"scoring takes {taken:,} tokens, more than the ceiling of {self.ceiling:,}; take fewer "
                "contexts or samples, draw candidates, or raise the ceiling"
            )

    def _open(self) -> tuple[CellStore, bool]:
        if isinstance(self._cells, CellStore):
            return self._cells, False
        return CellStore(self._cells), True

    def _fill(
        self,
        contexts: list[str],
        rows: list[Row],
        wanted: Booleans,
        candidates: Booleans | None,
        store: CellStore,
    ) -> tuple[Array, dict[tuple[int, int], str], list[int]]:
        logp: Array = np.full(wanted.shape, np.nan)
        reasons: dict[tuple[int, int], str] = {}
        lengths = [-1] * len(rows)
        for r, row in enumerate(rows):
            columns = range(len(contexts)) if candidates is None else np.flatnonzero(candidates[r]).tolist()
            if row.text is None:
                reasons.update({(r, column): "compressor_error" for column in columns})
            elif (empty := self._empty(row.text)) is not None:
                logp[r, list(columns)] = empty.sum_logprob
                lengths[r] = 0
        total, done = int(wanted.sum()), 0
        for column, context in enumerate(contexts):
            places: dict[Ask, list[int]] = {}
            for r in np.flatnonzero(wanted[:, column]).tolist():
                places.setdefault(Ask(rows[r].query, rows[r].text or ""), []).append(r)
            for ask, cell in zip(places, self._stored(context, list(places), store), strict=True):
                for r in places[ask]:
                    if cell.ok:
                        logp[r, column] = cell.sum_logprob
                        lengths[r] = -1 if cell.n_tokens is None else cell.n_tokens
                    else:
                        reasons[r, column] = cell.reason
                done += len(places[ask])
            if places:
                self._note(f"{done:,} of {total:,} cells, context {column + 1} of {len(contexts)}")
        return logp, reasons, lengths

    def _fill_prior(self, rows: list[Row], store: CellStore) -> Array:
        asks = list(dict.fromkeys(Ask(row.query, row.text) for row in rows if row.text))
        if self.include_eos:
            asks = list(dict.fromkeys(Ask(row.query, row.text) for row in rows if row.text is not None))
        values = {
            ask: cell.sum_logprob for ask, cell in zip(asks, self._stored(None, asks, store), strict=True)
        }
        found = [math.nan if row.text is None else values.get(Ask(row.query, row.text), 0.0) for row in rows]
        return np.array(found, dtype=np.float64)

    def _stored(self, context: str | None, asks: list[Ask], store: CellStore) -> list[Scored]:
        """A column: what the store has, and the rest from the engine, kept batch by batch."""
        keys = [self._key(context, ask) for ask in asks]
        kept = store.find(keys)
        cells: dict[int, Scored] = {i: kept[key] for i, key in enumerate(keys) if key in kept}
        if len(cells) == len(asks):
            return [cells[i] for i in range(len(asks))]
        known = frozenset(cells)
        for i, cell in self._column(context, asks, known):
            store.put([(keys[i], cell)], self.id)
            cells[i] = cell
        return [cells[i] for i in range(len(asks))]

    def _column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[tuple[int, Scored]]:
        """The engine's column with its failures as cells; every position that isn't known comes once."""
        missing = {i: ask for i, ask in enumerate(asks) if i not in known}
        reason = "the scorer gave no value"
        try:
            for batch in self.column(context, asks, known):
                for i, cell in batch:
                    if missing.pop(i, None) is not None:
                        yield i, _sound(cell, asks[i].text)
        except ScorerError as error:
            reason = str(error)
        for i, ask in missing.items():
            yield i, Scored.failed(ask.text, reason)

    def _key(self, context: str | None, ask: Ask) -> str:
        return cell_key(
            scorer=self.id,
            prompt=self.prompt_id,
            include_eos=self.include_eos,
            context_hash=f"none:{digest(NO_DOCUMENT)}" if context is None else digest(context),
            query_hash=digest(ask.query),
            text_hash=digest(ask.text),
        )


def _sound(cell: Scored, text: str) -> Scored:
    """A value that is no number is a failure; −inf is one under some other context at least."""
    if cell.ok and (math.isnan(cell.sum_logprob) or cell.sum_logprob == math.inf):
        return Scored.failed(text, f"the score is {cell.sum_logprob}")
    return cell


def _validate(contexts: list[str], rows: list[Row]) -> None:
    if not contexts:
        raise UserError("no contexts: there is nothing to score under")
    if not rows:
        raise UserError("no messages: there is nothing to score")
    for number, context in enumerate(contexts):
        if not isinstance(context, str):
            raise UserError(f"context {number} is a {type(context).__name__}, not a text")
    for number, row in enumerate(rows):
        if not 0 <= row.context < len(contexts):
            raise UserError(
                f"row {number} belongs to context {row.context}, but columns are 0 to {len(contexts) - 1}"
            )
        if not isinstance(row.query, str) or not isinstance(row.text, str | None):
            raise UserError(f"row {number}: the query and the message must be texts")


def _name_of(contexts: list[str]) -> str:
    return f"contexts {digest(chr(10).join(sorted(map(digest, contexts))))[:12]}"
