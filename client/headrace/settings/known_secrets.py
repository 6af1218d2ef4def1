"""What is secret in the settings and the environment: providers' keys, sinks' headers and tokens, passwords in addresses. Pure.

Values are returned to be looked for (:mod:`headrace.text.secret_mask`), and to be shown nowhere. A key or a token that is a word ("mock",
"none") is a dummy: it is no secret, and would blot out words of other runs and of log lines. So those of a process leave it out. A
password may well be a word, and is never left out.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from headrace.settings.found_file_rules import key_variables
from headrace.settings.provider_table import BASE_URL_ENV
from headrace.settings.settings import Settings
from headrace.text.secret_mask import MASK, is_word
from headrace.types import Tool

_PROXY = re.compile(r"[a-z0-9+.]+_proxy", re.IGNORECASE)
_SECRET_NAME = re.compile(r"key|token|secret|sig|pass|pwd|auth|code|cred", re.IGNORECASE)
_CREDENTIAL = re.compile(
    r"(proxy)?authorization(token)?|cookie|secret|passwd"
    r"|.*(password|apikey(string)?|(access|auth|bearer)token|clientsecret|(secret|private|account)key|connectionstring)"
)
"""What a value that opens something is called, in small letters, and without what stands between words."""
_HOLDERS = ("headers", "authentication")
"""In these a shorter name says it too, such as ``token``."""
_MOST_VALUES = 10_000
"""Of a request's options are looked at: a request of millions must not hold a worker up."""
_QUERY = re.compile(r"[?&#;]([^=?&#;]{1,100})=([^&#;]*)")


def provider_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the keys that the environment has for the providers of ``settings``, and what is secret in their addresses."""
    variables = [name for config in settings.providers.values() for name in key_variables(config.api_key_env)]
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


def request_secrets(tools: Iterable[Tool], options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a run's own request has to open other servers with, as for MCP: headers, tokens and keys, told by their names."""
    given = [tool.extra for tool in tools if tool.extra]
    if options:
        given.append(dict(options))
    found = [secret for holder, name in _credentials(given) for secret in header_secrets({name: holder[name]})]
    return tuple(_unique(found))


def without_credentials(tools: list[Tool]) -> list[Tool]:
    """Return tools as a span may keep them: without what opens other servers."""
    return [tool if next(_credentials([tool.extra]), None) is None else _hidden(tool) for tool in tools]


def _hidden(tool: Tool) -> Tool:
    try:
        copy = msgspec.json.decode(msgspec.json.encode(tool.extra))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.structs.replace(tool, extra=None)
    for holder, name in _credentials([copy]):
        holder[name] = MASK
    return msgspec.structs.replace(tool, extra=copy)


def _credentials(given: list[Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the dicts of some options that have a credential in them, each with the name of it."""
    waiting = [("", value) for value in given if value]
    left = _MOST_VALUES
    while waiting and left > 0:
        called, value = waiting.pop()
        pairs = value.items() if isinstance(value, dict) else ((called, item) for item in value)
        for name, item in itertools.islice(pairs, left):
            left -= 1
            if isinstance(item, dict | list):
                waiting.append((name, item))
            elif isinstance(item, str) and isinstance(value, dict) and _is_credential(name, called):
                yield value, name


def _is_credential(name: str, holder: str) -> bool:
    letters = re.sub(r"[^a-z]", "", name.lower()[:100])
    return _CREDENTIAL.fullmatch(letters) is not None or (holder in _HOLDERS and _SECRET_NAME.search(name) is not None)


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
