"""What an estimate says, in nats and bits, and what may be concluded from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from agentcomm.information.intervals import Interval, Method
from agentcomm.information.score_matrix import Array, Design, Kind

QUANTITIES: dict[Design, str] = {
    "shared": "I(X;Z|Q=q)",
    "crossed": "I(X;Z|Q)",
    "own": "cross-context information",
}
"""What a design measures. Where each context has its own query, the other contexts are no draws of
p(x|q): the bound is on I(X;Z|Q) + I(X;Q), and must not be called I(X;Z|Q)."""

WARNINGS = {
    "critic_worse_than_chance": "the whole interval is below 0: the scorer is badly scaled, which says nothing about the compressor; see the tempered value",
    "saturated": "lower bound only: the estimate is at its cap; take more contexts",
    "ci_unreliable": "fewer than 10 contexts: the interval is not to be relied on",
    "no_interval": "too few contexts for an interval",
    "tempered_ci_unreliable": "fewer than 10 contexts were left to evaluate the tempered critic on",
    "not_tempered": "too few contexts, or sampled ones: the critic's scale could not be learned",
    "untempered_critic": "an offline critic's raw value depends on its arbitrary scale",
    "identical_samples": "all messages of a context are the same: one per context would do",
    "scores_above_zero": "some scores are above 0: log-densities, or a scorer's mistake",
    "prior_failed": "some scores without context failed and are left out of doe",
    "too_many_failures": "more than 10 % of the messages failed: no estimate",
}
"""What each word in ``warnings`` means."""

Status = Literal["ok", "too_many_failures"]


def bits(nats: float | None) -> float | None:
    """Nats in bits; unknown stays unknown."""
    return None if nats is None else nats / math.log(2)


@dataclass(frozen=True, eq=False)
class MIEstimate:
    """How much messages say about their contexts. All is in nats, where no other unit is named.

    Attributes
    ----------
    status:
        ``"ok"``, or ``"too_many_failures"``: then every value is ``None``.
    mc_nats:
        The estimate (InfoNCE), raw: it may be below 0. A lower bound on ``quantity``.
    interval, ci_method, level:
        Its interval, or ``None`` where there is none (fewer than 3 contexts).
    loo_nats, doe_nats:
        Leave-one-out and null-context values: upper bounds only if ``exact``, else diagnostics. ``loo``
        is infinite if no other context could have given a message.
    nwj_nats:
        Another lower bound, if asked for.
    tempered_nats, tempered_interval, alpha, tempered_n:
        The lower bound of the critic α·log q, on ``tempered_n`` contexts that did not choose α. The
        jackknife interval, like the bound, is for this α; another calibration half gives another.
    top1, fano_nats:
        Share of messages whose own context scores highest, ties shared, and the lower bound it gives
        at 95 % confidence.
    log_n:
        The cap: ``log N``, or log K where each row had K candidates.
    saturation, saturated:
        ``mc_nats / log_n``; at 0.9 and above the estimate is only a lower bound. ``None`` at N = 1.
    N, M:
        Contexts that compete, and messages of one context for one query (the most, where they
        differ). After a failure N counts the contexts left; without a value, those of the matrix.
    n_contexts_scored, n_contexts_dropped, n_distinct_contexts:
        Contexts with a row left; dropped because most of their column failed; different by content
        (``None`` if not known).
    n_rows, n_rows_dropped, n_empty:
        Rows of the matrix, those left out, and empty messages among the rest.
    n_failed, failures, n_prior_failed:
        Cells that failed, the same by reason, and failed scores without context.
    row_nats:
        Shape (rows,): log N plus log-share of the own context, for each row of the matrix; NaN where
        dropped.
    context_nats:
        Shape (contexts,): the mean of each context's rows; NaN where it has none.
    seed:
        Decides the split of the contexts for ``tempered`` and ``nwj``, and the bootstrap.

    Other fields are the matrix's.
    """

    status: Status
    mc_nats: float | None
    interval: Interval | None
    ci_method: Method | None
    level: float
    loo_nats: float | None
    doe_nats: float | None
    nwj_nats: float | None
    tempered_nats: float | None
    tempered_interval: Interval | None
    alpha: float | None
    tempered_n: int | None
    top1: float | None
    fano_nats: float | None
    log_n: float
    N: int
    M: int
    n_contexts_scored: int
    n_contexts_dropped: int
    n_distinct_contexts: int | None
    n_rows: int
    n_rows_dropped: int
    n_empty: int
    n_failed: int
    failures: dict[str, int]
    n_prior_failed: int
    design: Design
    kind: Kind
    exact: bool
    include_eos: bool
    reference_set: str
    scorer_id: str
    prompt_id: str
    seeds: tuple[int, ...]
    seed: int
    warnings: tuple[str, ...]
    row_nats: Array = field(repr=False)
    context_nats: Array = field(repr=False)

    @property
    def saturation(self) -> float | None:
        return None if self.mc_nats is None or self.log_n == 0 else self.mc_nats / self.log_n

    @property
    def saturated(self) -> bool:
        return self.saturation is not None and self.saturation >= 0.9

    @property
    def quantity(self) -> str:
        """What the estimate is a lower bound on, as it must be printed."""
        return QUANTITIES[self.design]

    @property
    def mc_bits(self) -> float | None:
        return bits(self.mc_nats)

    @property
    def mi_bits(self) -> float | None:
        """The same as ``mc_bits``."""
        return bits(self.mc_nats)

    @property
    def mi_bits_clipped(self) -> float | None:
        """``mc_bits``, but not below 0."""
        return None if self.mc_nats is None else max(0.0, self.mc_nats / math.log(2))

    @property
    def ci_bits(self) -> Interval | None:
        if self.interval is None:
            return None
        return Interval(self.interval.low / math.log(2), self.interval.high / math.log(2))

    @property
    def loo_bits(self) -> float | None:
        return bits(self.loo_nats)

    @property
    def doe_bits(self) -> float | None:
        return bits(self.doe_nats)

    @property
    def nwj_bits(self) -> float | None:
        return bits(self.nwj_nats)

    @property
    def tempered_bits(self) -> float | None:
        return bits(self.tempered_nats)

    @property
    def fano_bits(self) -> float | None:
        return bits(self.fano_nats)

    @property
    def log2_n_bits(self) -> float:
        return self.log_n / math.log(2)

    @property
    def upper_label(self) -> Literal["upper bound", "diagnostic"]:
        """What ``loo`` and ``doe`` are."""
        return "upper bound" if self.exact else "diagnostic"

    def facts(self) -> dict[str, Any]:
        """Every field and derived value but the per-row ones, as JSON can hold it: an infinite value
        is the text ``"inf"``."""
        skip = ("row_nats", "context_nats")
        names = [name for name in self.__dataclass_fields__ if name not in skip]
        names += [name for name, value in vars(type(self)).items() if isinstance(value, property)]
        return {name: _plain(getattr(self, name)) for name in names}

    def __str__(self) -> str:
        counts = f"N = {self.N}, M = {self.M}"
        if self.n_failed:
            counts += f", {self.n_failed} cells failed ({self.n_rows_dropped} of {self.n_rows} rows left out)"
        if self.mc_nats is None or self.mi_bits_clipped is None or self.mc_bits is None:
            return f"{self.quantity} unknown: {WARNINGS['too_many_failures']} ({counts})"
        line = f"{self.quantity} ≥ {self.mc_bits:.2f} bits raw, {self.mi_bits_clipped:.2f} clipped"
        if self.ci_bits is not None:
            line += f", {self.level:.0%} interval [{self.ci_bits.low:.2f}, {self.ci_bits.high:.2f}]"
        line += f"; cap {self.log2_n_bits:.2f} ({counts})"
        return "\n".join([line, *(f"{word}: {WARNINGS[word]}" for word in self.warnings)])


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
