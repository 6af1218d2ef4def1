"""What is secret in the settings and the environment: providers' keys, sinks' headers and tokens, passwords in addresses. Pure.

Values are returned to be looked for (:mod:`headrace.secret_mask`), and to be shown nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from headrace.provider_table import BASE_URL_ENV
from headrace.secret_mask import is_word
from headrace.settings import Settings
from headrace.settings_trust import names_of

_PROXY = re.compile(r"[a-z0-9+.]+_proxy", re.IGNORECASE)
_SECRET_NAME = re.compile(r"key|token|secret|sig|pass|pwd|auth|code|cred", re.IGNORECASE)
_QUERY = re.compile(r"[?&#;]([^=?&#;]{1,100})=([^&#;]*)")


def provider_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the keys that the environment has for the providers of ``settings``, and what is secret in their addresses."""
    variables = [name for config in settings.providers.values() for name in names_of(config.api_key_env)]
    addresses = [config.base_url for config in settings.providers.values()]
    addresses += [environ.get(variable, "") for variable in BASE_URL_ENV.values()]
    return _unique([*(environ.get(name, "") for name in variables), *_of_addresses(addresses)])


def sink_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the values of the sinks' headers, their tokens, and what is secret in their addresses."""
    found: list[str] = []
    for sink in settings.sinks.values():
        found += [part for value in sink.headers.values() for part in (value, value.rpartition(" ")[2])]
        found += [environ.get(sink.api_key_env, "")] if sink.api_key_env else []
        found += address_secrets(sink.url)
    return _unique(found)


def proxy_secrets(environ: Mapping[str, str]) -> list[str]:
    """Return what is secret in the addresses of the environment's proxies."""
    return _unique(_of_addresses(value for name, value in environ.items() if is_proxy_variable(name)))


def is_proxy_variable(name: str) -> bool:
    """Return whether an environment variable names a proxy, or what no proxy is for."""
    return _PROXY.fullmatch(name) is not None


def address_secrets(url: str) -> list[str]:
    """Return what is secret in an address, which may be malformed: a password, a token in its place, a key in the query."""
    found: list[str] = []
    login, at, _ = url.partition("://")[2].rpartition("@") if "://" in url else url.rpartition("@")
    if at:
        user, colon, password = login.partition(":")
        # The whole is what ``Authorization: Basic`` has in base64.
        found += [password, unquote(password), f"{unquote(user)}:{unquote(password)}"] if colon and password else []
        found += [] if is_word(user) or password else [user, unquote(user)]
    for name, value in _QUERY.findall(url):
        if _SECRET_NAME.search(name):
            found += [value, unquote(value)]
    return _unique(found)


def _of_addresses(addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        yield from address_secrets(address)


def _unique(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in dict.fromkeys(secrets) if secret]
