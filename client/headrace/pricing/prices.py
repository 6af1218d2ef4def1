"""What a run costs: from its usage and a dated table of prices, which ships with Headrace. Never a guess: unknown models have no cost.

Reads its own file once, when the first price is asked for; otherwise pure.
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
_DIGITS = 12  # of a dollar: a single token of the cheapest model is seen, the noise of binary fractions is not


Dollars = Annotated[float, Meta(ge=0, le=1_000_000, extra={"unit": "dollars"})]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model costs, in US dollars per million tokens; ``None`` means the price of plain input."""

    input: Dollars
    output: Dollars = 0.0
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None


class OwnPrice(Price, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A price of a file that is only found in the current directory. It counts for runs at the provider that its name begins with."""


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A price in the file: a :class:`Price`, and the one that holds for a whole run with more than ``long_above`` input tokens."""

    input: float
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None
    long_above: int | None = None
    long: Price | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    as_of: str
    models: dict[str, _Listed]


# msgspec crashes where a type is first used in several threads at once: so it is used here, at the import.
msgspec.json.Decoder(_File)


class PriceTable:
    """Prices by model (``gpt-4o``) or provider and model (``groq/openai/gpt-oss-20b``): ``overrides``, and those of the file."""

    def __init__(self, overrides: Mapping[str, Price] = {}) -> None:
        self._overrides = overrides

    @property
    def as_of(self) -> str:
        """The day (``2026-11-23``) of the prices that ship with Headrace."""
        return _shipped().as_of

    def load(self) -> None:
        """Read the file now, if it has not been read yet. Where that fails, as for want of a descriptor, the next price tries again."""
        with contextlib.suppress(OSError):
            _shipped()

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return what a run cost in US dollars; ``None`` where its price, or all of its usage, is unknown."""
        if usage.source == "none":
            return None
        try:
            price = self._price(provider, model, usage.input_tokens)
        except OSError:  # the file cannot be read now; that costs no run its result
            return None
        return None if price is None else _cost(price, usage)

    def _price(self, provider: str, model: str, input_tokens: int) -> Price | _Listed | None:
        listed = _shipped().models
        for name in price_names(provider, model):
            if (override := self._overrides.get(name)) is not None and _counts(override, name, provider):
                return override
            if (price := listed.get(name)) is not None:
                is_long = price.long_above is not None and input_tokens > price.long_above
                return price.long if is_long else price
        return None


def _counts(price: Price, name: str, provider: str) -> bool:
    """Return whether a price counts for a provider. Models have slashes in their names too: ``meta-llama/llama-3.3-70b``."""
    return not isinstance(price, OwnPrice) or name.startswith(f"{provider}/")


def _cost(price: Price | _Listed, usage: Usage) -> float:
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
def _shipped() -> _File:
    return msgspec.convert(read_prices(_FILE), type=_File)


def run_cost(prices: PriceTable, provider: str, asked: str, answered: str, usage: Usage) -> float | None:
    """Return a run's cost in US dollars, ``None`` where neither name has a price."""
    cost = prices.cost(provider, asked, usage)
    return prices.cost(provider, answered, usage) if cost is None and answered and answered != asked else cost
