"""What is secret in the settings and the environment: providers' keys, sinks' headers and tokens, passwords in addresses. Pure.

Values are returned to be looked for (:mod:`headrace.secret_mask`), and to be shown nowhere. A key or a token that is a word ("mock",
"none") is a dummy: it is no secret, and would blot out words of other runs and of log lines. So those of a process leave it out. A
password may well be a word, and is never left out.
"""

from __future__ import annotations

import base64
import binascii
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
    return _unique([*_real(environ.get(name, "") for name in variables), *_of_addresses(addresses)])


def sink_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the values of the sinks' headers, their tokens, and what is secret in their addresses."""
    found: list[str] = []
    for sink in settings.sinks.values():
        found += header_secrets(sink.headers)
        found += _real([environ.get(sink.api_key_env, "")] if sink.api_key_env else [])
    return _unique([*found, *_of_addresses(sink.url for sink in settings.sinks.values())])


def header_secrets(headers: Mapping[str, str]) -> list[str]:
    """Return what is secret in headers: their values, what stands behind ``Bearer``, and the password behind ``Basic``."""
    found: list[str] = []
    for value in headers.values():
        scheme, _, rest = value.strip().rpartition(" ")
        found += _real([value, rest])
        if scheme.lower() == "basic":
            found += _of_basic(rest)
    return _unique(found)


def proxy_secrets(environ: Mapping[str, str]) -> list[str]:
    """Return what is secret in the addresses of the environment's proxies."""
    return _unique(_of_addresses(value for name, value in environ.items() if is_proxy_variable(name)))


def is_proxy_variable(name: str) -> bool:
    """Return whether an environment variable names a proxy, or what no proxy is for."""
    return _PROXY.fullmatch(name) is not None


def address_secrets(url: str) -> list[str]:
    """Return what is secret in an address, which may be malformed: a password, a token in its place, a key in the query."""
    return _unique([*_login_secrets(url), *_query_secrets(url)])


def _login_secrets(url: str) -> list[str]:
    login, at, _ = url.partition("://")[2].rpartition("@") if "://" in url else url.rpartition("@")
    if not at:
        return []
    user, colon, password = login.partition(":")
    if colon and password:
        # The whole is what ``Authorization: Basic`` has in base64.
        return [password, unquote(password), f"{unquote(user)}:{unquote(password)}"]
    return _real([user, unquote(user)])


def _query_secrets(url: str) -> list[str]:
    found = [value for name, value in _QUERY.findall(url) if _SECRET_NAME.search(name)]
    return [spelling for value in found for spelling in (value, unquote(value))]


def _of_basic(encoded: str) -> list[str]:
    try:
        login = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return []
    return [login, login.partition(":")[2]] if ":" in login else []


def _of_addresses(addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        yield from _login_secrets(address)
        yield from _real(_query_secrets(address))


def _real(keys: Iterable[str]) -> list[str]:
    """Return the keys that are no dummies."""
    return [key for key in keys if not is_word(key)]


def _unique(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in dict.fromkeys(secrets) if secret]
