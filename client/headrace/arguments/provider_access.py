"""From a program's environment to the key and the address that a run is sent with. Pure: the environment is an argument.

An embedded engine is a part of its program: each run uses the environment as it is at the run's start, whatever it was when the
engine started. Keys stay in a :class:`ProviderAccess`, which shows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.settings.http_values import base_url_problem, key_problem
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.settings import ProviderConfig

NO_KEY = ""
"""Instead of a key: the caller's environment holds none, and the worker must not use its own."""


class ProviderAccess(msgspec.Struct, frozen=True):
    """The key and the address of a run. Without a key (None) the worker takes its environment's, without an address its settings'."""

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        return "ProviderAccess()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: neither the key nor the address, which may have a password in it."""
        return []


def access_from(
    environ: Mapping[str, str], provider: str, configured: Mapping[str, ProviderConfig], api_key: str | None
) -> ProviderAccess:
    """Return the key and the address of a provider as ``environ`` says; a key that the caller gave goes before.

    ``configured`` are the providers of ``headrace.toml``: their addresses are sent along, as a key goes only where the file that
    names it says. Raises ConfigurationError,
    naming the variable, for a value that cannot be used.
    """
    base_url = None
    if (own := configured.get(provider)) is not None:
        named = own.api_key_env or []
        variables = [named] if isinstance(named, str) else named
        # Of the same reading as the variables: the engine may have read another file since, in another directory.
        base_url = own.base_url
    elif provider in BUILT_IN:
        _, base_url, built_in_variables = BUILT_IN[provider]
        variables = list(built_in_variables)
        variable = BASE_URL_ENV.get(provider, "")
        if said := environ.get(variable):
            if (problem := base_url_problem(said)) is not None:
                raise ConfigurationError(f"{variable} {problem}")
            base_url = said
    else:
        return ProviderAccess(api_key)
    return ProviderAccess(api_key or _key(environ, variables), base_url)


def _key(environ: Mapping[str, str], variables: list[str]) -> str:
    for variable in variables:
        if key := environ.get(variable):
            if (problem := key_problem(key)) is not None:
                raise ConfigurationError(f"{variable} {problem}")
            return key
    return NO_KEY
