"""Refuses what would send a user's keys elsewhere in a ``headrace.toml`` that was only found in the current directory. Pure.

Whoever clones a repository gets its ``headrace.toml`` with it. Such a file may define providers of its own, with keys of their own. It
may neither move a provider that exists already nor name a variable that holds the key of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from headrace.provider_table import BUILT_IN

_VENDORS = tuple({variable.partition("_")[0] for _, _, variables in BUILT_IN.values() for variable in variables})
"""OPENAI_ADMIN_KEY, MY_ANTHROPIC_TOKEN: a variable with a word that begins with a vendor's name is taken to hold its key."""


class KnownProvider(msgspec.Struct, frozen=True):
    """A provider that exists without the found file. ``variables`` may hold its key."""

    base_url: str
    variables: tuple[str, ...]

    def __repr__(self) -> str:
        return f"KnownProvider(variables={self.variables!r})"  # the address may have a password in it

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown."""
        return [("variables", self.variables)]


def refusals(found: Mapping[str, Any], known: Mapping[str, KnownProvider], other_keys: Iterable[str]) -> Iterator[str]:
    """Yield what of a found file's tables is refused, as the setting and the reason.

    ``other_keys`` are variables that the user's own file names, for sinks too. The tables have passed the check of their types.
    """
    keys = _Keys(known, other_keys)
    for name, table in found.get("providers", {}).items():
        where = f"providers.{name}"
        base_url, variables = table["base_url"].rstrip("/"), names_of(table.get("api_key_env"))
        if (own := known.get(name)) is not None:
            if base_url != own.base_url.rstrip("/"):
                yield f"{where}.base_url would send what is meant for {name}, and its key, to another address"
            elif not set(variables) <= set(own.variables):
                yield f"{where}.api_key_env would send another key to {name}"
        elif secret := next((one for one in variables if not keys.may_go(one, base_url)), None):
            yield f"{where}.api_key_env would send the key in {secret} to an address of the file's own"
    for name, table in found.get("sinks", {}).items():
        variable = table.get("api_key_env", "")
        if variable and not keys.may_go(variable, None):
            yield f"sinks.{name}.api_key_env would send the key in {variable} to an address of the file's own"


def names_of(api_key_env: str | list[str] | None) -> tuple[str, ...]:
    """Return the variables that a provider's ``api_key_env`` names."""
    return (api_key_env,) if isinstance(api_key_env, str) else tuple(api_key_env or ())


class _Keys:
    """The variables that hold keys of known providers, and where each may go."""

    def __init__(self, known: Mapping[str, KnownProvider], other_keys: Iterable[str]) -> None:
        self._places: dict[str, set[str]] = {variable.upper(): set() for variable in other_keys}
        for provider in known.values():
            for variable in provider.variables:
                self._places.setdefault(variable.upper(), set()).add(provider.base_url.rstrip("/"))

    def may_go(self, variable: str, base_url: str | None) -> bool:
        """Return whether a found file may send the variable's value to ``base_url`` (``None``: to a sink)."""
        places = self._places.get(variable.upper())
        if places is not None:
            return base_url in places
        return not any(word.startswith(_VENDORS) for word in variable.upper().split("_"))
