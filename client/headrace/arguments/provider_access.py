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


class _Values(tuple[Any, ...]):
    """The values of some variables. A traceback that shows local variables does not show them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "_Values()"


class RememberedAccess:
    """Finds the same as :func:`access_from` for a client's runs, and remembers it while the environment is the same."""

    def __init__(self, configured: Mapping[str, ProviderConfig], has_engine_keys: Collection[str] = ()) -> None:
        self._configured = configured
        self._has_engine_keys = has_engine_keys
        self._encoded_names: dict[str, list[Any]] = {}
        """Provider → the names of the variables on which its access depends, as the environment encodes them."""
        self._found: dict[tuple[str, str | None], tuple[_Values, ProviderAccess]] = {}
        """Provider and key of the caller → the values of the variables, and the access that they give."""

    def __reduce__(self) -> tuple[type[RememberedAccess], tuple[object, object]]:
        """Remember nothing in a copy of a client: a pickled one must not carry the keys of this environment to another."""
        return RememberedAccess, (self._configured, self._has_engine_keys)

    def of(self, environ: Mapping[str, str], provider: str, api_key: str | None) -> ProviderAccess:
        """Return the key and the address of ``provider`` for a run. Raises the errors of :func:`access_from`."""
        values = self._values(environ, provider)
        found = self._found.get((provider, api_key))
        if found is not None and found[0] == values:
            return found[1]
        access = access_from(environ, provider, self._configured, api_key, self._has_engine_keys)
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[provider, api_key] = values, access
        return access

    def _values(self, environ: Mapping[str, str], provider: str) -> _Values:
        # os.environ encodes the name and decodes the value for each question, which takes most of the time.
        data: Any = getattr(environ, "_data", None)
        encode: Any = getattr(environ, "encodekey", None)
        if data is None or encode is None:
            return _Values(map(environ.get, _variables(provider, self._configured)))
        names = self._encoded_names.get(provider)
        if names is None:
            names = self._encoded_names[provider] = list(map(encode, _variables(provider, self._configured)))
        return _Values(map(data.get, names))


_REMEMBERED = 256
"""Keys of callers that are remembered. A program may give each run a key of its own."""


def _variables(provider: str, configured: Mapping[str, ProviderConfig]) -> list[str]:
    """Return the variables on which the access of a provider depends."""
    if (own := configured.get(provider)) is not None:
        named = own.api_key_env or []
        return [named] if isinstance(named, str) else list(named)
    if provider in BUILT_IN:
        return [*BUILT_IN[provider][2], BASE_URL_ENV.get(provider, "")]
    return []


def _key(environ: Mapping[str, str], variables: list[str]) -> str:
    for variable in variables:
        if key := environ.get(variable):
            if (problem := key_problem(key)) is not None:
                raise ConfigurationError(f"{variable} {problem}")
            return key
    return NO_KEY
