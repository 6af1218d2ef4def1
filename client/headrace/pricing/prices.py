"""Computes the cost of a run from its usage and a dated table of prices. No guesses: an unknown model has no cost.

Reads the file of prices once, when the first price is needed. Pure otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.pricing.price_file import PRICES, price_names, read_prices
from headrace.types import Usage

_FILE = PRICES
_PER = 1_000_000
_REMEMBERED = 4096
"""Models whose prices are remembered. A program may make up names without end."""
_DIGITS = 12  # decimals of a dollar: enough for one token of the cheapest model, without rounding noise


Dollars = Annotated[float, Meta(ge=0, le=1_000_000, extra={"unit": "dollars"})]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The price of a model, in US dollars per million tokens. ``None``: the same as ``input``."""

    input: Dollars
    output: Dollars = 0.0
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None


class OwnPrice(Price, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A price from a file found in the current directory. It counts only for the provider that its name begins with."""


class _ListedPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A price in the file. ``long`` is the price of a whole run with more than ``long_above`` input tokens."""

    input: float
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None
    long_above: int | None = None
    long: Price | None = None


class _PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    as_of: str
    models: dict[str, _ListedPrice]


# msgspec crashes if several threads use a type for the first time at once. So use it here, at import.
msgspec.json.Decoder(_PriceFile)


class PriceTable:
    """Prices by model (``gpt-4o``), or by provider and model (``groq/openai/gpt-oss-20b``).

    ``overrides`` come before the file.
    """

    def __init__(self, overrides: Mapping[str, Price] = {}) -> None:
        self._overrides = overrides
        self._is_loaded = False
        # By provider and model.
        self._found: dict[tuple[str, str], Price | _ListedPrice | None] = {}

    @property
    def as_of(self) -> str:
        """The date of the prices that ship with Headrace, as ``2026-11-23``."""
        return _shipped().as_of

    def load(self) -> None:
        """Read the file now, unless it was read.

        If that fails, for example because no descriptor is free, the next price tries again.
        """
        if not self._is_loaded:
            with contextlib.suppress(OSError):
                _shipped()
                self._is_loaded = True

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return the cost of a run in US dollars, or None if its price or its usage is unknown."""
        if usage.source == "none":
            return None
        try:
            price = self._price(provider, model, usage.input_tokens)
        except OSError:  # a file that cannot be read must not make a run fail
            return None
        return None if price is None else _cost(price, usage)

    def has(self, provider: str, model: str) -> bool:
        """Return whether a model has a price; true also if the file of prices cannot be read now."""
        try:
            return self._price(provider, model, 0) is not None
        except OSError:
            return True

    def _price(self, provider: str, model: str, input_tokens: int) -> Price | _ListedPrice | None:
        """Return the price of a run with so many tokens. Raises OSError if the file cannot be read."""
        try:
            price = self._found[provider, model]
        except KeyError:
            price = self._find(provider, model)
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[provider, model] = price
        if isinstance(price, _ListedPrice) and price.long_above is not None and input_tokens > price.long_above:
            return price.long
        return price

    def _find(self, provider: str, model: str) -> Price | _ListedPrice | None:
        listed = _shipped().models
        for name in price_names(provider, model):
            if (override := self._overrides.get(name)) is not None and _counts(override, name, provider):
                return override
            if (price := listed.get(name)) is not None:
                return price
        return None


def _counts(price: Price, name: str, provider: str) -> bool:
    """Return whether a price counts for a provider.

    A model's name may have a slash, too: ``meta-llama/llama-3.3-70b``.
    """
    return not isinstance(price, OwnPrice) or name.startswith(f"{provider}/")


def _cost(price: Price | _ListedPrice, usage: Usage) -> float:
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    plain = max(usage.input_tokens - cached - written, 0)
    dollars = (
        plain * price.input
        + cached * (price.input if price.cached_input is None else price.cached_input)
        + written * (price.input if price.cache_write is None else price.cache_write)
        + usage.output_tokens * price.output
    )
    return round(dollars / _PER, _DIGITS)


@cache
def _shipped() -> _PriceFile:
    return msgspec.convert(read_prices(_FILE), type=_PriceFile)


def run_cost(prices: PriceTable, provider: str, asked: str, answered: str, usage: Usage) -> float | None:
    """Return a run's cost in US dollars, by the requested model, else by the model that answered.

    None if neither has a price.
    """
    cost = prices.cost(provider, asked, usage)
    return prices.cost(provider, answered, usage) if cost is None and answered and answered != asked else cost
