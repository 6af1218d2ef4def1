"""Finds the secrets of a process: keys of providers, headers and tokens of sinks, passwords in addresses. Pure.

:mod:`headrace.text.secret_mask` takes the returned values out of texts. They are shown nowhere. A key or a token that is a word
("mock", "none") is a dummy, not a secret: it is left out, because masking it would remove that word from all spans and log lines. A
password may be a word; it is never left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Names of values that are credentials: in small letters, without the characters between words."""
_HOLDERS = ("headers", "authentication")
"""Objects in which a shorter name is enough, such as ``token``."""
_MOST_VALUES = 10_000
_SHALLOW = 4
_PLAIN = frozenset({bool, float, int, type(None)})
"""Types of values that hold no credential."""
"""Values of a request's options that are looked at: a request with millions of values must not hold up a worker."""
_QUERY = re.compile(r"[?&#;]([^=?&#;]{1,100})=([^&#;]*)")


def provider_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the keys of the providers of ``settings``, from the environment, and the secrets in the providers' addresses.

    Keys in files are not among them: only workers have these (:mod:`headrace.settings.provider_keys`).
    """
    variables = [name for config in settings.providers.values() for name in key_variables(config.api_key_env)]
    variables += [name for keys in settings.keys.values() for name in keys.env]
    addresses = [config.base_url for config in settings.providers.values()]
    addresses += [environ.get(variable, "") for variable in BASE_URL_ENV.values()]
    return _unique([*_real(environ.get(name, "") for name in variables), *_of_addresses(addresses)])


def sink_secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the values of the sinks' headers, the sinks' tokens, and the secrets in their addresses."""
    found: list[str] = []
    for sink in settings.sinks.values():
        found += header_secrets(sink.headers)
        found += _real([environ.get(sink.api_key_env, "")] if sink.api_key_env else [])
    return _unique([*found, *_of_addresses(sink.url for sink in settings.sinks.values())])


def budget_secrets(settings: Settings) -> list[str]:
    """Return the secrets in the address of the store that counts for several engines."""
    return _unique(_of_addresses([settings.budget.url]))


def header_secrets(headers: Mapping[str, str]) -> list[str]:
    """Return the secrets in headers: the values, the token after ``Bearer``, and the password after ``Basic``."""
    found: list[str] = []
    for value in headers.values():
        scheme, _, rest = value.strip().rpartition(" ")
        found += _real([value, rest])
        if scheme.lower() == "basic":
            found += _of_basic(rest)
    return _unique(found)


def request_secrets(tools: Sequence[Tool], options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the credentials in a run's own request, such as those for MCP servers: headers, tokens and keys, found by their names."""
    given: list[Mapping[str, Any]] = [tool.extra for tool in tools if tool.extra] if tools else []
    if options and _may_hold_text(options, _SHALLOW):
        given.append(options)
    if not given or not (found := list(_credentials(given))):
        return ()
    return tuple(_unique(secret for holder, name in found for secret in header_secrets({name: holder[name]})))


def _may_hold_text(values: Mapping[str, Any], room: int) -> bool:
    """Return whether some options may hold a text. False is sure. ``room``: levels of nesting that are looked through."""
    for item in values.values():
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is not dict or not room or _may_hold_text(item, room - 1):
            return True
    return False


def without_credentials(tools: list[Tool]) -> list[Tool]:
    """Return tools as a span may keep them: without credentials."""
    return [tool if next(_credentials([tool.extra]), None) is None else _hidden(tool) for tool in tools]


def _hidden(tool: Tool) -> Tool:
    try:
        copy = msgspec.json.decode(msgspec.json.encode(tool.extra))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.structs.replace(tool, extra=None)
    for holder, name in _credentials([copy]):
        holder[name] = MASK
    return msgspec.structs.replace(tool, extra=copy)


def _credentials(given: Sequence[Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each credential in some options: the dict that holds it, and its name in that dict."""
    waiting = [("", value) for value in given if value]
    left = _MOST_VALUES
    while waiting:
        called, value = waiting.pop()
        is_dict = isinstance(value, dict)
        for name, item in value.items() if is_dict else ((called, item) for item in value):
            if left <= 0:
                return
            left -= 1
            if type(item) in _PLAIN:
                continue
            if isinstance(item, dict | list):
                waiting.append((name, item))
            elif is_dict and isinstance(item, str) and _is_credential(name, called):
                yield value, name


def _is_credential(name: str, holder: str) -> bool:
    letters = re.sub(r"[^a-z]", "", name.lower()[:100])
    return _CREDENTIAL.fullmatch(letters) is not None or (holder in _HOLDERS and _SECRET_NAME.search(name) is not None)


def proxy_secrets(environ: Mapping[str, str]) -> list[str]:
    """Return the secrets in the addresses of the environment's proxies."""
    return _unique(_of_addresses(value for name, value in environ.items() if is_proxy_variable(name)))


def is_proxy_variable(name: str) -> bool:
    """Return whether an environment variable names a proxy (``http_proxy``), or the hosts that need none (``no_proxy``)."""
    return _PROXY.fullmatch(name) is not None


def address_secrets(url: str) -> list[str]:
    """Return the secrets in an address: a password, a token in the place of a user name, a key in the query. The address may be malformed."""
    return _unique([*_login_secrets(url), *_query_secrets(url)])


def _login_secrets(url: str) -> list[str]:
    login, at, _ = url.partition("://")[2].rpartition("@") if "://" in url else url.rpartition("@")
    if not at:
        return []
    user, colon, password = login.partition(":")
    if colon and password:
        # ``Authorization: Basic`` has the whole login in base64.
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
    """Return the keys without the dummies."""
    return [key for key in keys if not is_word(key)]


def _unique(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in dict.fromkeys(secrets) if secret]
