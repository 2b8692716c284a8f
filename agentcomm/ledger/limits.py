"""Limits on tokens, calls, cost and time, as scopes that lie within each other.

A run has a scope, each item one within it, each agent one within its item. Usage is charged to
the leaf and all its ancestors; checks run from the root down, so the error names the widest
scope that is full.

What is exact and what can overshoot:

* **calls** is exact. :meth:`Scope.admit` checks and counts in one step, before the call, so calls
  in flight are already counted. Every attempt counts, retries included.
* **tokens** and **cost** are known only when a call has ended. A call is refused once what has
  *ended* reaches the limit; calls in flight at that moment still finish and are charged. The
  overshoot is at most what the calls in flight cost: with n in flight, n calls of up to the
  longest prompt and ``max_tokens``.
* **seconds** is wall time on a monotonic clock, since the scope was made; a resumed run starts
  anew. It is checked before a call; a call in flight is not cut off (its backend's timeout does
  that).
* A call whose tokens or cost nobody reported can't be charged. It is counted in
  ``unknown_calls`` of every scope it is in; token and cost limits don't see it. Limit calls as
  well where a server reports no usage. A cost limit on a model without a known price is refused
  before the first call by :meth:`Scope.require_price`.

A scope is used from one event loop: nothing here waits, so checks and charges are atomic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.message import Usage

if TYPE_CHECKING:
    from agentcomm.ledger.prices import PriceBook
    from agentcomm.ledger.rows import CallRow


@dataclass(frozen=True)
class Limits:
    """What a scope may use; ``None`` is no limit.

    Parameters
    ----------
    tokens:
        Input and output tokens together, cached ones included.
    calls:
        Attempts at model calls.
    cost:
        US dollars.
    seconds:
        Wall time since the scope was made.

    Raises
    ------
    ConfigError
        If a limit is negative or not a number.
    """

    tokens: int | None = None
    calls: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"limit {f.name}={value!r}; it must be 0 or more, or None for no limit")


@dataclass
class Scope:
    """What was used under a set of limits; ``name`` is ``"run"``, ``"item"`` or ``"agent NAME"``."""

    name: str
    limits: Limits = Limits()
    parent: Scope | None = None
    tokens: int = 0
    calls: int = 0
    cost: float = 0.0
    unknown_calls: int = 0
    """Calls whose tokens or cost are unknown, so that no limit but that of calls counts them."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def seconds(self) -> float:
        """Wall time since the scope was made."""
        return self.clock() - self._began

    def check(self) -> None:
        """Ask whether one more call may be made, without counting it.

        Raises
        ------
        LimitExceeded
            If a limit of this scope or of one around it is reached; the widest is named.
        """
        for scope in reversed(list(self._outwards())):
            scope._check_own()

    def admit(self) -> None:
        """Check, and count a call that is now being made, here and in every scope around.

        Raises
        ------
        LimitExceeded
            As :meth:`check`; nothing is counted then.
        """
        self.check()
        for scope in self._outwards():
            scope.calls += 1

    def release(self) -> None:
        """Take an admitted call back that was never sent, or that a cache answered."""
        for scope in self._outwards():
            scope.calls -= 1

    def charge(self, usage: Usage | None, cost: float | None, calls: int = 0) -> None:
        """Charge a call that has ended, here and in every scope around.

        ``calls`` is 0 for one that :meth:`admit` has counted, 1 for one it has not. ``usage`` is
        ``None`` for an attempt that nobody reported anything about (it failed).
        """
        known_in = usage.input_tokens if usage else None
        known_out = usage.output_tokens if usage else None
        unknown = known_in is None or known_out is None
        for scope in self._outwards():
            scope.calls += calls
            scope.tokens += (known_in or 0) + (known_out or 0)
            scope.cost += cost or 0.0
            # Without a cost limit an unknown price is no news: local models have none.
            scope.unknown_calls += unknown or (cost is None and scope.limits.cost is not None)

    def charge_past(self, row: CallRow) -> None:
        """Charge a call of the ledger: what a run paid before it was resumed counts."""
        if not row.cache_hit:
            self.charge(Usage(row.input_tokens, row.output_tokens), row.cost, calls=1)

    def charge_again(self, row: CallRow, *, below: Scope) -> None:
        """Charge a reply that a resumed run reuses to this scope and those around it, up to ``below``.

        ``below`` itself was charged by :meth:`charge_past`. Without this an item or agent would
        have its whole limit again each time the run is repeated.
        """
        if row.cache_hit:
            return
        for scope in self._outwards():
            if scope is below:
                return
            scope.calls += 1
            scope.tokens += (row.input_tokens or 0) + (row.output_tokens or 0)
            scope.cost += row.cost or 0.0
            scope.unknown_calls += row.input_tokens is None or row.output_tokens is None

    def require_price(self, model: str, prices: PriceBook | None) -> None:
        """Refuse a model without a known price if this scope or one around it limits cost.

        Raises
        ------
        ConfigError
            It names the model and the scope, and says how to give a price.
        """
        for scope in self._outwards():
            if scope.limits.cost is not None and (prices is None or not prices.knows(model)):
                raise ConfigError(
                    f"the {scope.name} has a cost limit of ${scope.limits.cost:g}, but the price of {model!r} is "
                    "unknown; give it in a prices file (per million tokens: input, cached, output), or limit "
                    "tokens or calls instead"
                )

    def _outwards(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def _check_own(self) -> None:
        limits = self.limits
        if limits.calls is not None and self.calls >= limits.calls:
            self._refuse("calls", f"{self.calls} of {limits.calls} calls made")
        if limits.tokens is not None and self.tokens >= limits.tokens:
            self._refuse("tokens", f"{self.tokens} of {limits.tokens} tokens used")
        if limits.cost is not None and self.cost >= limits.cost:
            self._refuse("cost", f"${self.cost:.4f} of ${limits.cost:.4f} spent")
        if limits.seconds is not None and self.seconds >= limits.seconds:
            self._refuse("seconds", f"{self.seconds:.1f} of {limits.seconds:g} seconds passed")

    def _refuse(self, limit: str, used: str) -> None:
        more = f" ({self.unknown_calls} more calls of unknown size)" if self.unknown_calls else ""
        raise LimitExceeded(
            f"the {self.name} has reached its limit of {limit}: {used}{more}; raise the limit to go on",
            scope=self.name,
            limit=limit,
        )
