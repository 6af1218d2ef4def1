"""Reads several API keys of one provider: the ``[keys.NAME]`` tables, their environment variables and their files.

Only a worker keeps the keys. The supervisor reads them to check them, and forgets them. An error never quotes a key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from headrace.errors import ConfigurationError
from headrace.files.private_files import open_to_read
from headrace.settings.http_values import key_problem
from headrace.settings.limit_settings import KeyConfig
from headrace.settings.settings import Settings, with_file_name

MAX_KEYS = 1000
"""Keys of one provider."""
_MAX_FILE_BYTES = 1024 * 1024


def read_keys(provider: str, config: KeyConfig, environ: Mapping[str, str]) -> list[str]:
    """Return the keys of one table, each once: those in variables first, then those in the file.

    Raises ConfigurationError, which names the setting, if a variable or the file has no key, or one that cannot be used.
    """
    where = f"keys.{provider}"
    keys = [*_from_variables(where, config.env, environ), *(_from_file(where, config.file) if config.file else ())]
    found = list(dict.fromkeys(keys))
    if not found:
        raise ConfigurationError(f"{where} needs env or file: the variables or the file that hold the keys")
    if len(found) > MAX_KEYS:
        raise ConfigurationError(f"{where} has more than {MAX_KEYS:_} keys")
    return found


def check_keys(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError, which names the file and the setting, for keys that cannot be used."""
    for provider, config in settings.keys.items():
        try:
            read_keys(provider, config, environ)
        except ConfigurationError as error:
            raise with_file_name(error, "keys", provider, environ) from None


def _from_variables(where: str, variables: list[str], environ: Mapping[str, str]) -> Iterator[str]:
    for number, variable in enumerate(variables):
        # A name that is not in capitals may be a key that was written there by mistake.
        name = f"{where}.env[{number}]" + (f": {variable}" if variable.isupper() else "")
        key = environ.get(variable)
        if not key:
            raise ConfigurationError(
                f"{name} is empty or not set where the engine starts; set it, or take it out of the list"
            )
        if (problem := key_problem(key)) is not None:
            raise ConfigurationError(f"{name} {problem}")
        yield key


def _from_file(where: str, named: str) -> Iterator[str]:
    path = os.path.expanduser(named)
    name = f"{where}.file: {path}"
    try:
        lines = _content(path, name).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text") from None
    is_empty = True
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if (problem := key_problem(key)) is not None:
            raise ConfigurationError(f"{name}, line {number} {problem}")
        is_empty = False
        yield key
    if is_empty:
        raise ConfigurationError(f"{name} has no key in it; it takes one key in each line")


def _content(path: str, name: str) -> bytes:
    with open(open_to_read(path, follows_links=True), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"{name} is not a regular file")
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{name} has more than {_MAX_FILE_BYTES} bytes; it takes one key in each line")
    return content
