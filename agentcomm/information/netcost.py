"""Net cost: what compressing saves once everything that it took is counted.

:mod:`agentcomm.channels.breakeven` says of one message whether shortening it can pay; here is what runs
cost in money and time. Unknown prices give unknown costs, never 0, and a saving that is negative is shown
as it is.

    cost = Σ calls (p_in · uncached + p_read · read + p_write · written + p_out · output)
           + scoring + fees + GPU-seconds · rate

Retries and failed calls are calls; output includes reasoning. Compressors' calls are calls of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agentcomm.channels.breakeven import Economy
from agentcomm.errors import UserError
from agentcomm.information.intervals import Interval, cluster_t

__all__ = ["CacheCall", "CachePrice", "Economy", "Latency", "NetSaving", "cost", "net_saving"]

PER = 1_000_000


@dataclass(frozen=True)
class CachePrice:
    """US dollars per million tokens. ``write`` and ``read`` are those of a prefix cache; ``None``: unknown."""

    input: float | None
    output: float | None
    read: float | None = None
    write: float | None = None


@dataclass(frozen=True)
class CacheCall:
    """Tokens of one call: plain input, read from and written to the prefix cache, output (with reasoning)."""

    uncached: int
    output: int
    read: int = 0
    written: int = 0


def cost(
    calls: Iterable[tuple[CacheCall, CachePrice]],
    *,
    fees: float | None = 0.0,
    gpu_seconds: float = 0.0,
    gpu_rate: float | None = None,
) -> float | None:
    """US dollars of calls, fees and GPU time; ``None`` as soon as a price that is needed is unknown.

    Parameters
    ----------
    fees:
        Of searches and the like; ``None`` where they are unknown.
    gpu_seconds, gpu_rate:
        Time on machines of one's own, and US dollars a second.

    Examples
    --------
    Writing 8,000 tokens into the cache costs a quarter more than reading them plainly would:

    >>> price = CachePrice(input=3.0, output=15.0, read=0.3, write=3.75)
    >>> round(cost([(CacheCall(1_000, 200, written=8_000), price), (CacheCall(500, 100, read=8_000), price)]), 6)
    0.0414
    >>> cost([(CacheCall(1_000, 200, written=8_000), CachePrice(3.0, 15.0))]) is None
    True
    """
    if fees is None or (gpu_seconds and gpu_rate is None):
        return None
    total = fees + gpu_seconds * (gpu_rate or 0.0)
    for call, price in calls:
        for tokens, rate in (
            (call.uncached, price.input),
            (call.read, price.read),
            (call.written, price.write),
            (call.output, price.output),
        ):
            if tokens and rate is None:
                return None
            total += tokens * (rate or 0.0) / PER
    return total


@dataclass(frozen=True)
class NetSaving:
    """Baseline − compressed, an item; below 0 where compressing cost more.

    ``share`` is of the baseline; ``left_out`` items have an unknown cost in one of the two.
    """

    mean: float | None
    interval: Interval | None
    share: float | None
    items: int
    left_out: int


def net_saving(
    baseline: Sequence[float | None], compressed: Sequence[float | None], *, level: float = 0.95
) -> NetSaving:
    """What compressing saves on the same items, paired, with Student's t over them.

    Parameters
    ----------
    baseline, compressed:
        What each item cost, in any one unit; ``None`` or NaN where unknown.

    Examples
    --------
    >>> net_saving([10.0, 12.0, None], [12.0, 13.0, 9.0]).mean
    -1.5
    """
    if len(baseline) != len(compressed):
        raise UserError(f"{len(baseline)} items before and {len(compressed)} after: pair them item by item")
    pairs = [
        (a, b)
        for a, b in zip(baseline, compressed, strict=True)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]
    left_out = len(baseline) - len(pairs)
    if not pairs:
        return NetSaving(None, None, None, 0, left_out)
    before = sum(a for a, _ in pairs)
    saved = np.array([a - b for a, b in pairs])
    share = float(saved.sum()) / before if before else None
    return NetSaving(float(saved.mean()), cluster_t(saved, level), share, len(pairs), left_out)


@dataclass(frozen=True)
class Latency:
    """Seconds of a message: what the compressor takes against what its reader is spared.

    Parameters
    ----------
    prefill, decode:
        Tokens a second that the reader reads and writes.
    """

    prefill: float
    decode: float

    def saving(self, seconds: float, tokens: int, output: int = 0) -> float:
        """Seconds saved by ``tokens`` fewer to read and ``output`` fewer to write; negative where it is slower.

        >>> Latency(prefill=4_000, decode=50).saving(2.0, 9_000)
        0.25
        """
        return tokens / self.prefill + output / self.decode - seconds

    def break_even(self, tokens: int, output: int = 0) -> float:
        """Seconds that the compressor may take."""
        return self.saving(0.0, tokens, output)
