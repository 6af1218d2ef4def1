"""Sorts the keys that a caller gave in a message, part or tool: known ones, a provider's own, and slips. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from headrace.arguments.plain_values import path_to, plain, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.text.similar_names import meant


class KnownKeys(msgspec.Struct, frozen=True):
    """The keys of one kind of dict.

    ``read`` are the keys that Headrace reads. ``passed_on`` are keys of providers which are spelled almost like those, and
    are no slips. ``slips`` says what other words mean. ``fields`` are names that a further key must not have, in ``extra``
    neither. Without ``guesses`` any other key is taken as it is.
    """

    read: frozenset[str]
    passed_on: frozenset[str] = frozenset()
    slips: dict[str, str] = {}
    fields: frozenset[str] = frozenset()
    guesses: bool = True

    def slip(self, key: str) -> str | None:
        """Return which key was meant by one that is not known, or None for a key of the provider's own."""
        if not self.guesses or key in self.passed_on:
            return None
        return self.slips.get(key) or meant(key, self.read - {"extra"})


def further_keys(argument: str, given: Mapping[Any, Any], known: KnownKeys) -> dict[str, Any] | None:
    """Return what is given beside the known keys, made plain; ``None`` as a value counts as not given.

    Raises InvalidRequestError for a key that is a slip of a known one, naming both.
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
    """Return all of several dicts of further keys; raises InvalidRequestError where two differ in the value of a key."""
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
            raise InvalidRequestError("is a key of its own, and does not belong in extra", path_to(argument, key))
    return given
