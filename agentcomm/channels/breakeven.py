"""Break-even: when shortening a message costs more than it saves.

All in input tokens of the model that reads, at its plain input price. A message of n tokens that is read
in k calls costs, uncompressed::

    n (w + ρ (k − 1))              w: price of writing the prefix cache, ρ: of reading it

and compressed to m tokens by a model whose input costs a and output o::

    a n + o m + m (w + ρ (k − 1)) + s (w − ρ)

where s tokens of a cached prefix have to be written again because of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from agentcomm.errors import ConfigError


@dataclass(frozen=True)
class Economy:
    """Prices and habits of a reader, against which a channel weighs its own calls.

    Parameters
    ----------
    reads:
        Calls in which the message is read, k: more than 1 for a reader that remembers over rounds.
    write, read:
        w and ρ: 1.25 and 0.1, say, where writing the cache costs a quarter more and reading a tenth;
        without a prefix cache both are 1.
    input, output:
        a and o: the compressor's prices over the reader's input price; 0 for one that costs nothing.
    broken:
        s: tokens of the reader's cached prefix that a compressed message invalidates.

    Raises
    ------
    ConfigError
        If a number is negative, or there is less than one read.

    Examples
    --------
    >>> prices = Economy(reads=10, write=1.25, read=0.1, input=1, output=5)
    >>> prices.uncompressed(10_000), prices.compressed(10_000, 1_000)
    (21500.0, 17150.0)
    >>> prices.saving(10_000, 1_000, broken=20_000)
    -18650.0
    """

    reads: int = 1
    write: float = 1.0
    read: float = 1.0
    input: float = 0.0
    output: float = 0.0
    broken: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"economy: {f.name}={value!r}; it must be a number of 0 or more")
        if self.reads < 1:
            raise ConfigError(f"economy: reads={self.reads}; a message is read at least once")

    @classmethod
    def of(cls, given: Economy | Mapping[str, Any] | None) -> Economy | None:
        """From a mapping of its fields (a channel's configuration).

        Raises
        ------
        ConfigError
            If it has other fields, or a value can't be used.
        """
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, Mapping) or (strange := set(given) - {f.name for f in fields(cls)}):
            known = ", ".join(f.name for f in fields(cls))
            odd = (
                f"has no {', '.join(sorted(strange))}"
                if isinstance(given, Mapping)
                else f"can't be {given!r}"
            )
            raise ConfigError(f"economy {odd}; its fields are {known}")
        return cls(**given)

    def to_dict(self) -> dict[str, float]:
        """The fields that differ from their defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Economy, name)}

    @property
    def per_token(self) -> float:
        """What reading a token in all calls costs: w + ρ (k − 1)."""
        return self.write + self.read * (self.reads - 1)

    def uncompressed(self, n: int) -> float:
        """What a message of n tokens costs as it is."""
        return n * self.per_token

    def compressed(self, n: int, m: int, *, broken: int | None = None) -> float:
        """What it costs when it is shortened to m tokens; ``broken`` overrides the field."""
        rewritten = (self.broken if broken is None else broken) * (self.write - self.read)
        return self.input * n + self.output * m + m * self.per_token + rewritten

    def saving(self, n: int, m: int, *, broken: int | None = None) -> float:
        """Uncompressed less compressed: negative where shortening costs more than it saves."""
        return self.uncompressed(n) - self.compressed(n, m, broken=broken)

    def objection(self, n: int, m: int) -> str:
        """Why n tokens should not be shortened to m: ``net_cost_negative``, ``would_break_prefix``, or ''."""
        if self.saving(n, m) >= 0:
            return ""
        return "would_break_prefix" if self.saving(n, m, broken=0) >= 0 else "net_cost_negative"
