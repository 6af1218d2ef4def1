"""Guesses which known name a misspelt name means. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_CUTOFF = 0.75
_LEAST_PREFIX = 3


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` most likely means, or None.

    Finds other case, prefixes, and a few wrong letters.
    """
    import difflib  # rarely needed

    by_letters = {_letters(candidate): candidate for candidate in known}
    letters = _letters(name)
    if letters in by_letters:
        return by_letters[letters]
    if len(letters) >= _LEAST_PREFIX:
        for candidate, original in by_letters.items():
            if candidate.startswith(letters):
                return original
    close = difflib.get_close_matches(letters, by_letters, n=1, cutoff=_CUTOFF)
    return by_letters[close[0]] if close else None


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
