"""The file of prices that ships with Headrace, ``prices.toml``: its text as tables, and the names under which a model's price is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PRICES = Path(__file__).with_name("prices.toml")
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6}|00\d)$")
"""How OpenAI, Anthropic and Google name the dated releases of a model: ``-2024-08-06``, ``-20250929``, ``-001``."""


def read_prices(path: Path = PRICES) -> dict[str, Any]:
    """Return the file's tables; raises OSError where it cannot be read now."""
    # Not by msgspec's own toml module: it asks for the class of dates, which freezegun replaces, and the file has none.
    import tomllib

    return tomllib.loads(path.read_text("utf-8"))


def undated(model: str) -> str:
    """Return the name of a model without the date of its release."""
    return _DATE.sub("", model)


def price_names(provider: str, model: str) -> Iterator[str]:
    """Yield what a model may be listed as, the most exact first."""
    yield f"{provider}/{model}"
    yield model
    if (name := undated(model)) != model:
        yield f"{provider}/{name}"
        yield name
