"""How much of the standard price a provider asks for a run that it makes in its own time. Pure."""

from __future__ import annotations

_BATCH = 0.5
"""OpenAI, Anthropic and Google: half of the price, for prompts and answers."""
_BACKGROUND = {"2h": 0.7, "8h": 0.6}
"""Completion window of a background run of OpenAI → its share of the price."""


def price_share(window: str = "") -> float:
    """Return the share of the standard price. ``window``: that of a background run; empty: a batch."""
    return _BACKGROUND[window] if window else _BATCH
