"""Finds the API key and the address for a run in the program's environment. Pure: the environment is an argument.

With an embedded engine, each run uses the environment at the start of the run, not at the start of the engine. Keys
stay in a :class:`ProviderAccess`, which does not show them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.settings.http_values import base_url_problem, key_problem
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.settings import ProviderConfig

NO_KEY = ""
"""In place of a key: the caller's environment has none, and the worker must not use its own key."""


class ProviderAccess(msgspec.Struct, frozen=True):
    """The key and the address of a run.

    None: the worker uses the key of its environment, or the address of its settings.
    """

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        return "ProviderAccess()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: none. The address may have a password in it."""
        return []


def access_from(
    environ: Mapping[str, str],
    provider: str,
    configured: Mapping[str, ProviderConfig],
    api_key: str | None,
    has_engine_keys: Collection[str] = (),
) -> ProviderAccess:
    """Return the key and the address of ``provider`` for a run. ``api_key`` is the caller's, and comes first.

    ``configured`` are the providers in ``headrace.toml``. Their address is sent with the key, so that a key goes only
    to the address in the same file. Raises ConfigurationError, which names the variable, for a value that cannot be
    used.

    ``has_engine_keys``: the providers with a table of keys. Without a key of the caller, the engine's keys and its
    address count for them.
    """
    if not api_key and provider in has_engine_keys:
        return ProviderAccess()
    base_url = None
    if (own := configured.get(provider)) is not None:
        named = own.api_key_env or []
        variables = [named] if isinstance(named, str) else named
        # Take the address from the same file as the variables: the engine may have read another file.
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
