"""PriceBook: US dollars of a call, from the user's own prices or a public snapshot.

The user's file (TOML) goes first. It names model strings as they are written elsewhere, quoted,
with US dollars per million tokens::

    ["openai/gpt-4o-mini"]
    input = 0.15
    cached = 0.075        # optional: without it cached input costs as much as any other
    output = 0.60

Then, for ``openai/`` models at OpenAI itself or at another provider known by its URL, the
snapshot inside the package genai-prices: it is read from the installed files, never fetched.
Anything else, and all that we serve ourselves (``local/``, ``vllm/``, ``mock/``...), has no
known price: ``None``, which is not zero.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentcomm.errors import ConfigError
from agentcomm.message import Usage

PER = 1_000_000
_FIELDS = ("input", "cached", "output")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; ``cached=None``: cached input costs like the rest."""

    input: float
    output: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """US dollars of ``usage``; ``None`` if input or output is unknown.

        Unknown cached tokens are priced as if nothing was cached: an upper bound.
        """
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = min(usage.cached_tokens or 0, usage.input_tokens)
        cached_rate = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - cached
        return (fresh * self.input + cached * cached_rate + usage.output_tokens * self.output) / PER


class PriceBook:
    """Prices by model string. Made by :meth:`load`."""

    def __init__(self, own: Mapping[str, Price] | None = None, *, base_url: str | None = None) -> None:
        self._own = dict(own or {})
        self._base_url = base_url
        self._known: dict[str, bool] = {}

    @classmethod
    def load(cls, path: Path | str | None = None, *, base_url: str | None = None) -> PriceBook:
        """The prices in ``path`` (if given) over the public snapshot.

        ``base_url`` is where ``openai/`` models are asked: public prices then hold only if it is a
        known provider's address, so a model served on a machine of one's own has none.

        Raises
        ------
        ConfigError
            If the file can't be read or a price isn't a number of 0 or more.
        """
        return cls(_read(Path(path)) if path is not None else {}, base_url=base_url)

    def knows(self, model: str) -> bool:
        """Whether a call of ``model`` (``"provider/name"``) can be priced."""
        if model in self._own:
            return True
        if model not in self._known:
            self._known[model] = self._public(model, Usage(1, 1, 0)) is not None
        return self._known[model]

    def cost(self, model: str, usage: Usage) -> float | None:
        """US dollars of a call; ``None`` if the price, the input or the output is unknown."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        own = self._own.get(model)
        if own is not None:
            return own.cost(usage)
        return self._public(model, usage) if self.knows(model) else None

    def _public(self, model: str, usage: Usage) -> float | None:
        provider, _, name = model.partition("/")
        if provider != "openai" or not name:
            return None
        # A quarter of a second to import: only who asks for a public price pays it.
        import genai_prices

        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=min(usage.cached_tokens or 0, usage.input_tokens or 0),
        )
        try:
            if self._base_url is not None:
                price = genai_prices.calc_price(tokens, name, provider_api_url=self._base_url)
            else:
                price = genai_prices.calc_price(tokens, name, provider_id="openai")
        except (LookupError, ValueError):  # not in the snapshot, or in units we have no counts for
            return None
        # Image, audio and embedding models have no price for one of our two buckets: a sum over the
        # other alone would be too low.
        if price.model_price.input_mtok is None or price.model_price.output_mtok is None:
            return None
        return float(price.total_price)


def _read(path: Path) -> dict[str, Price]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read the prices file {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise ConfigError(
            f"the prices file {path} is not TOML: {error}; see the example in the docs"
        ) from error
    return {model: _price(path, model, entry) for model, entry in data.items()}


def _price(path: Path, model: str, entry: Any) -> Price:
    shape = f'write ["{model}"] with input, output and optionally cached, in US dollars per million tokens'
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: {model!r} is not a table; {shape}")
    if any(isinstance(value, dict) for value in entry.values()):
        raise ConfigError(
            f'{path}: the model name at {model!r} isn\'t quoted; write it like ["openai/gpt-4.1"]'
        )
    if strange := sorted(set(entry) - set(_FIELDS)):
        raise ConfigError(f"{path}: {model!r} has unknown {', '.join(strange)}; {shape}")
    for name in ("input", "output"):
        if name not in entry:
            raise ConfigError(f"{path}: {model!r} has no {name!r}; {shape}")
    for name, value in entry.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{path}: {model!r} has {name} = {value!r}; it must be a number of 0 or more")
    return Price(**{name: float(value) for name, value in entry.items()})
