"""Takes a provider's key out of what the provider says: some quote the key that they refuse. Pure.

A real key never gets through. The dummies that servers without keys are given ("mock", "none", "x") are words, or parts of
words, and these stay whole: such a key is taken out only where it stands alone.
"""

from __future__ import annotations

import re

MASK = "[key]"
"""What stands where a key was."""

_SHORT = 8
"""No provider gives a key of fewer characters."""
_LONG = 20
"""A word of so many letters is no word."""
_LEAST_OF_KEY = 6
"""A key's beginning that is shorter says nothing of it."""


def without_key(text: str, key: str | None) -> str:
    """Return the text without the key, and without the key's beginning where the text is cut short in the middle of it."""
    if not key or not text:
        return text
    if not _is_wordlike(key):
        return _without_cut_key(text.replace(key, MASK), key)
    alone = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
    text = alone.sub(MASK, text)
    return _without_cut_key(text, key) if text.endswith("…") else text


def _is_wordlike(key: str) -> bool:
    return len(key) < _SHORT or (key.isalpha() and len(key) < _LONG)


def _without_cut_key(text: str, key: str) -> str:
    said = text.removesuffix("…")
    for length in range(min(len(key) - 1, len(said)), _LEAST_OF_KEY - 1, -1):
        if said.endswith(key[:length]):
            return said[:-length] + MASK + text[len(said) :]
    return text
