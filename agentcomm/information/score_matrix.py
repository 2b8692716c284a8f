"""A score matrix: how probable is each message under each context?

Row r is one message (a compression z of one context, made for one query); column l is one context.
The cell holds log q(z_r | x_l, q_r) in nats: the row's *own* query in every column. Scoring column l
with the query of context l would let the query alone give the context away, and the estimate would
reach log N with contexts that are all the same.

A cell that could not be scored is NaN with a reason, never 0: zero reads as probability one. A
message the compressor failed to make is a row of failures; an *empty* message is a legal one.

What no matrix here can do: score the positive a second time. The numerator is the matrix's own cell,
so that no row can exceed log N.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentcomm.errors import ScorerError, UserError

Array = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]

Design = Literal["shared", "crossed", "own"]
Kind = Literal["language_model", "density", "critic", "relevance"]

UNNAMED = "unnamed"
"""The reference set of a bare array, about which nothing is known."""


class Row(NamedTuple):
    """One message: which context it condenses, for which query, and its text.

    ``text`` is ``None`` if the compressor failed; that is a failure, an empty text is not.
    """

    context: int
    query: str
    text: str | None


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of every message under every context, and where they come from.

    Attributes
    ----------
    logp:
        Shape (rows, N), nats, float64. NaN where scoring failed; off its own context a row may hold
        −inf (impossible under that context).
    row_context:
        Shape (rows,): the column of each row's own context.
    reference_set:
        Name of the set the contexts were drawn from, fixed before scoring. Estimates over different
        sets can't be compared: unrelated contexts are told apart by anything that names its subject.
    prior:
        Shape (rows,): log r(z|q), the same prompt with a fixed "no document" sentence for a context.
    n_tokens, n_bytes:
        Shape (rows,): tokens summed and UTF-8 bytes of each message.
    context_hashes, query_hashes, text_hashes:
        SHA-256 of each column's context, and of each row's query and text (:func:`digest`).
    candidates:
        Shape (rows, N): which cells were to be scored, where fewer than all were
        (:func:`draw_candidates`). Each row's own context is among them.
    reasons:
        Why a cell failed, by (row, column).
    kind:
        ``"language_model"``: log-probabilities of text, so that a value above 0 is a failure.
        ``"density"``: log-densities or scores of any sign, as of a channel known exactly.
        ``"critic"``: an offline critic in nats that is no normalised likelihood (a codelength).
        ``"relevance"``: a critic without unit (BM25), for which no likelihood is reported.
    exact:
        Whether the scorer *is* the compressor: same weights and prompt, temperature 1, no top-p or
        top-k, end token included, no cut-off. Only then are ``loo`` and ``doe`` bounds.
    include_eos:
        Whether the end token is in the sums.
    scorer_id, prompt_id, seeds:
        Recorded as they are; ``seeds`` are those of the compressor.

    Raises
    ------
    UserError
        If shapes don't fit, or a row's context doesn't exist.
    """

    logp: Array
    row_context: Integers
    reference_set: str
    prior: Array | None = None
    n_tokens: Integers | None = None
    n_bytes: Integers | None = None
    context_hashes: tuple[str, ...] | None = None
    query_hashes: tuple[str, ...] | None = None
    text_hashes: tuple[str, ...] | None = None
    candidates: Booleans | None = None
    reasons: Mapping[tuple[int, int], str] = field(default_factory=dict)
    kind: Kind = "language_model"
    exact: bool = False
    include_eos: bool = False
    scorer_id: str = ""
    prompt_id: str = ""
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        logp: Array = _frozen("logp", self.logp, np.float64)
        if logp.ndim != 2 or 0 in logp.shape:
            raise UserError(f"a score matrix has rows and columns, not the shape {logp.shape}")
        rows, n = logp.shape
        own: Integers = _frozen("row_context", self.row_context, np.intp)
        if own.shape != (rows,):
            raise UserError(f"{rows} rows need {rows} contexts of their own, not {own.shape}")
        strange = np.flatnonzero((own < 0) | (own >= n))
        if len(strange):
            raise UserError(
                f"row {strange[0]} belongs to context {own[strange[0]]}, but columns are 0 to {n - 1}"
            )
        if not self.reference_set:
            raise UserError("name the set the contexts come from: reference_set may not be empty")
        object.__setattr__(self, "logp", logp)
        object.__setattr__(self, "row_context", own)
        self._check_rows("prior", np.float64)
        self._check_rows("n_tokens", np.intp)
        self._check_rows("n_bytes", np.intp)
        for name, length in (("context_hashes", n), ("query_hashes", rows), ("text_hashes", rows)):
            hashes = getattr(self, name)
            if hashes is not None:
                object.__setattr__(self, name, tuple(hashes))
                if len(hashes) != length:
                    raise UserError(f"{name}: {len(hashes)} given, {length} needed")
        if self.candidates is not None:
            candidates: Booleans = _frozen("candidates", self.candidates, np.bool_)
            if candidates.shape != logp.shape:
                raise UserError(f"candidates has the shape {candidates.shape}, logp {logp.shape}")
            if not candidates[np.arange(rows), own].all():
                raise UserError("each row's own context must be among its candidates")
            object.__setattr__(self, "candidates", None if candidates.all() else candidates)

    def _check_rows(self, name: str, dtype: type) -> None:
        values = getattr(self, name)
        if values is None:
            return
        array = _frozen(name, values, dtype)
        if array.shape != (len(self.logp),):
            raise UserError(f"{name} has the shape {array.shape}, but there are {len(self.logp)} rows")
        object.__setattr__(self, name, array)

    @classmethod
    def from_array(
        cls,
        logp: ArrayLike,
        rows: ArrayLike | None = None,
        *,
        queries: Sequence[Hashable] | None = None,
        prior: ArrayLike | None = None,
        reference_set: str = UNNAMED,
        kind: Kind = "density",
        exact: bool = False,
    ) -> ScoreMatrix:
        """A matrix from bare numbers, as from a channel whose probabilities are known.

        Parameters
        ----------
        logp:
            Shape (N·M, N): row i·M+j holds the natural-log probabilities of the j-th message of
            context i under every context.
        rows:
            Each row's own context, where rows are not in that order or contexts have unequal numbers
            of messages.
        queries:
            A label per row. Without them each context is taken to have its own query, about which
            the least may be claimed.

        Raises
        ------
        UserError
            If the rows can't be shared out equally among the columns and ``rows`` is not given.

        Examples
        --------
        >>> import numpy as np
        >>> ScoreMatrix.from_array(np.log([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])).row_context
        array([0, 0, 1, 1])
        """
        try:
            array = np.asarray(logp, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError("a score matrix is an array of numbers of shape (rows, contexts)") from None
        if array.ndim != 2 or 0 in array.shape:
            raise UserError(f"a score matrix has rows and columns, not the shape {array.shape}")
        own = _whole_numbers(rows) if rows is not None else _in_order(*array.shape)
        labels = None if queries is None else tuple(digest(repr(query)) for query in queries)
        return cls(
            logp=array,
            row_context=own,
            reference_set=reference_set,
            prior=None if prior is None else np.asarray(prior, dtype=np.float64),
            query_hashes=labels,
            kind=kind,
            exact=exact,
        )

    @property
    def n_contexts(self) -> int:
        """Contexts, N: the columns."""
        return int(self.logp.shape[1])

    @property
    def sampled(self) -> bool:
        """Whether rows were scored under some of the contexts only."""
        return self.candidates is not None

    @property
    def offline(self) -> bool:
        """Whether the scorer is a critic without a model, whose scale must be learned first."""
        return self.kind in ("critic", "relevance")

    @property
    def blocks(self) -> Integers:
        """Shape (rows,): which query a row belongs to, if each query was put to every context; else 0."""
        if self.design != "crossed" or self.query_hashes is None:
            return np.zeros(len(self.logp), dtype=np.intp)
        return np.unique(self.query_hashes, return_inverse=True)[1].astype(np.intp)

    @property
    def design(self) -> Design:
        """Which queries were asked, read off the rows.

        ``"shared"``: one query for all. ``"crossed"``: each query put to every context. ``"own"``:
        anything else; also where the queries are not known.
        """
        if self.query_hashes is None:
            return "own"
        asked = set(self.query_hashes)
        if len(asked) == 1:
            return "shared"
        pairs = set(zip(self.row_context.tolist(), self.query_hashes, strict=True))
        return "crossed" if len(pairs) == len(asked) * self.n_contexts else "own"


def digest(text: str) -> str:
    """SHA-256 of the exact UTF-8 bytes; lone surrogates are kept, nothing is normalised."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def rows_of(queries: str | Sequence[str], compressions: Sequence[Sequence[str | None]]) -> list[Row]:
    """Rows in the order i·M+j.

    Parameters
    ----------
    queries:
        One query for all contexts, or one per context.
    compressions:
        The messages of each context.

    Examples
    --------
    >>> rows_of("who?", [["Ann", "Ann B."], ["Bob"]])[1:]
    [Row(context=0, query='who?', text='Ann B.'), Row(context=1, query='who?', text='Bob')]
    """
    asked = [queries] * len(compressions) if isinstance(queries, str) else list(queries)
    if len(asked) != len(compressions):
        raise UserError(f"{len(compressions)} contexts need as many queries, not {len(asked)}")
    return [Row(i, asked[i], text) for i, texts in enumerate(compressions) for text in texts]


def fill(
    score: Callable[[str, str, str], float],
    contexts: Sequence[str],
    rows: Sequence[Row],
    *,
    reference_set: str,
    prior: Callable[[str, str], float] | None = None,
    candidates: Booleans | None = None,
    kind: Kind = "language_model",
    scorer_id: str = "",
    prompt_id: str = "",
) -> ScoreMatrix:
    """The matrix of a scorer that takes one cell at a time.

    Engines that reuse a context's computation fill theirs faster; what they return must equal this.

    Parameters
    ----------
    score:
        ``score(context, query, text)`` in nats. A :class:`~agentcomm.errors.ScorerError` makes the
        cell a failure, with the message as its reason; anything else it raises is a bug and stays one.
    contexts, rows:
        Columns and rows.
    prior:
        ``prior(query, text)``: the score without a context.
    candidates:
        Cells to score (:func:`draw_candidates`); all, if not given.

    Examples
    --------
    >>> common = lambda context, query, text: -1.0 - sum(word not in context for word in text.split())
    >>> fill(common, ["a b", "c"], rows_of("?", [["a"], ["c"]]), reference_set="letters").logp
    array([[-1., -2.],
           [-2., -1.]])
    """
    logp = np.full((len(rows), len(contexts)), np.nan)
    no_context = np.full(len(rows), np.nan)
    reasons: dict[tuple[int, int], str] = {}
    for r, row in enumerate(rows):
        for column, context in enumerate(contexts):
            if candidates is not None and not candidates[r, column]:
                continue
            if row.text is None:
                reasons[r, column] = "compressor_error"
                continue
            try:
                logp[r, column] = score(context, row.query, row.text)  # the row's own query: rule 1
            except ScorerError as error:
                reasons[r, column] = str(error)
        if prior is not None and row.text is not None:
            try:
                no_context[r] = prior(row.query, row.text)
            except ScorerError:
                no_context[r] = np.nan
    return ScoreMatrix(
        logp=logp,
        row_context=np.array([row.context for row in rows], dtype=np.intp),
        reference_set=reference_set,
        prior=None if prior is None else no_context,
        n_bytes=np.array([-1 if row.text is None else _size(row.text) for row in rows], dtype=np.intp),
        context_hashes=tuple(digest(context) for context in contexts),
        query_hashes=tuple(digest(row.query) for row in rows),
        # No text has the hash "", so a failed message is never taken for an empty one.
        text_hashes=tuple("" if row.text is None else digest(row.text) for row in rows),
        candidates=candidates,
        reasons=reasons,
        kind=kind,
        scorer_id=scorer_id,
        prompt_id=prompt_id,
    )


def draw_candidates(row_context: ArrayLike, n_contexts: int, k: int, rng: np.random.Generator) -> Booleans:
    """Which cells to score when N contexts are too many: the positive and k−1 uniform negatives a row.

    The estimate then can't exceed log k.

    Examples
    --------
    >>> import numpy as np
    >>> draw_candidates([0, 1, 2], 5, 3, np.random.default_rng(0)).sum(axis=1)
    array([3, 3, 3])
    """
    if not 1 <= k <= n_contexts:
        raise UserError(f"k candidates of {n_contexts} contexts: k lies between 1 and {n_contexts}, not {k}")
    own = _whole_numbers(row_context)
    chosen = np.zeros((len(own), n_contexts), dtype=np.bool_)
    for r, context in enumerate(own):
        negatives = rng.choice(n_contexts - 1, size=k - 1, replace=False)
        chosen[r, negatives + (negatives >= context)] = True
        chosen[r, context] = True
    return chosen


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _frozen(name: str, values: ArrayLike, dtype: type) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.array(values, dtype=dtype)
    except (TypeError, ValueError):
        raise UserError(f"{name}: not an array of numbers") from None
    array.setflags(write=False)
    return array


def _whole_numbers(rows: ArrayLike) -> Integers:
    try:
        array = np.asarray(rows)
        own = array.astype(np.intp)
    except (TypeError, ValueError):
        raise UserError("rows: one column number per row is needed") from None
    if own.ndim != 1 or not np.array_equal(own, array):
        raise UserError("rows: one column number per row is needed")
    return own


def _in_order(rows: int, n: int) -> Integers:
    if rows % n:
        raise UserError(
            f"{rows} rows can't be shared out equally among {n} contexts: give each row's own context as rows"
        )
    return np.repeat(np.arange(n, dtype=np.intp), rows // n)
