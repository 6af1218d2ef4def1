"""Sorts the keys of a caller's message, part or tool: known keys, keys of a provider, and misspelt keys. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from headrace.arguments.plain_values import path_to, plain, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.text.similar_names import meant


class KnownKeys(msgspec.Struct, frozen=True):
    """The keys of one kind of dict.

    ``read``: the keys that Headrace reads. ``passed_on``: keys of providers that look like misspelt ones, and are not.
    ``slips``: wrong key → the key that was meant. ``fields``: names that no further key may have, also not in
    ``extra``. ``guesses``: False accepts every other key, without a guess whether it is misspelt.
    """

    read: frozenset[str]
    passed_on: frozenset[str] = frozenset()
    slips: dict[str, str] = {}
    fields: frozenset[str] = frozenset()
    guesses: bool = True

    def slip(self, key: str) -> str | None:
        """Return the known key that the caller meant by ``key``, or None if it is a key of the provider."""
        if not self.guesses or key in self.passed_on:
            return None
        return self.slips.get(key) or meant(key, self.read - {"extra"})


def further_keys(argument: str, given: Mapping[Any, Any], known: KnownKeys) -> dict[str, Any] | None:
    """Return the keys that are not known, with plain values. A key with the value None counts as absent.

    Raises InvalidRequestError for a misspelt key, and names the key that was meant.
    """
    further: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise InvalidRequestError(f"takes str keys, not {shown(key)}", argument)
        if key in known.read or value is None:
            continue
        path = path_to(argument, key)
        slip = known.slip(key)
        if slip is not None or key in known.fields:
            raise InvalidRequestError(f"there is no such key{f'; did you mean {slip!r}?' if slip else ' here'}", path)
        further[plain_text(path, key)] = plain(path, value)
    if (extra := given.get("extra")) is not None:
        further |= _extra(f"{argument}.extra", extra, {*known.fields, *further})
    return further or None


def joined(argument: str, *found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return several dicts of further keys as one.

    Raises InvalidRequestError if two have different values for one key.
    """
    result: dict[str, Any] = {}
    for keys in found:
        for key, value in (keys or {}).items():
            if key in result and result[key] != value:
                raise InvalidRequestError("is given twice, with different values", path_to(argument, key))
            result[key] = value
    return result or None


def _extra(argument: str, extra: object, taken: Collection[str]) -> dict[str, Any]:
    given = plain_dict(argument, extra)
    for key in given:
        if key in taken:
            raise InvalidRequestError("is a key of its own: give it beside extra, not in extra", path_to(argument, key))
    return given
