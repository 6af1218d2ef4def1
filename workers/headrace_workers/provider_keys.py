"""Holds the API keys of a worker: those of the ``[keys.NAME]`` tables, and the hashes by which the broker names keys.

The files of the tables are read once, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import ConfigurationError
from headrace.settings.found_file_rules import key_variables
from headrace.settings.http_values import key_problem
from headrace.settings.provider_keys import read_keys
from headrace.settings.settings import Settings
from headrace.text.secret_mask import is_word
from headrace.wire.accounts import short_hash


class ProviderKeys:
    """The keys of one worker. ``environ`` is its environment."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._tables: dict[str, dict[str, str]] = {}
        """Provider → short hash of a key → the key, in the order of the settings."""
        self._problems: dict[str, str] = {}
        """Provider → why its table cannot be used."""
        for name, config in settings.keys.items():
            try:
                self._tables[name] = {short_hash(key): key for key in read_keys(name, config, environ)}
            except ConfigurationError as error:
                self._problems[name] = str(error)
        self._of_environment = {
            name: hashes
            for name, config in settings.providers.items()
            if name not in settings.keys and (hashes := _hashes(key_variables(config.api_key_env), environ))
        }

    def of_table(self, provider: str, chosen: str) -> str | None:
        """Return the key of the provider's table whose short hash is ``chosen``; its first key if there is no such key.

        Return None if the provider has no table. Raises ConfigurationError if its table cannot be used.
        """
        keys = self._tables.get(provider)
        if keys is not None:
            return keys.get(chosen) or next(iter(keys.values()))
        if (problem := self._problems.get(provider)) is not None:
            raise ConfigurationError(problem)
        return None

    def hashes(self) -> dict[str, list[str]]:
        """Return provider → the short hashes of its keys, for all providers with a key: of a table, or of the environment."""
        return {**self._of_environment, **{name: list(keys) for name, keys in self._tables.items()}}

    def secrets(self) -> list[str]:
        """Return the keys of all tables, to be masked. A dummy key that is a word is left out."""
        return [key for keys in self._tables.values() for key in keys.values() if not is_word(key)]


def _hashes(variables: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Return the short hash of the key in the first variable that is set, or nothing if there is no key that can be used."""
    key = next((key for variable in variables if (key := environ.get(variable))), "")
    return [short_hash(key)] if key and key_problem(key) is None else []
