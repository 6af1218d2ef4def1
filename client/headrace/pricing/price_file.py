"""Reads ``prices.toml``, the prices that ship with Headrace, and says under which names it may list a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PRICES = Path(__file__).with_name("prices.toml")
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6}|00\d)$")
"""The end of a dated model name of OpenAI, Anthropic or Google: ``-2024-08-06``, ``-20250929``, ``-001``."""


def read_prices(path: Path = PRICES) -> dict[str, Any]:
    """Return the tables of the file. Raises OSError if it cannot be read."""
    # msgspec's own toml module fails if a test has replaced the class of dates with freezegun's.
    import tomllib

    return tomllib.loads(path.read_text("utf-8"))


def undated(model: str) -> str:
    """Return a model's name without the date of its release."""
    return _DATE.sub("", model)


def price_names(provider: str, model: str) -> Iterator[str]:
    """Yield the names under which a price list may have a model, the most exact first."""
    yield f"{provider}/{model}"
    yield model
    if (name := undated(model)) != model:
        yield f"{provider}/{name}"
        yield name
