"""Overwrites keys, and ids of accounts, in what is recorded: with ``X``, at equal length. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from headrace.settings.known_secrets import address_secrets, header_secrets, request_secrets
from headrace.text.secret_mask import SecretMask

_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie")
_KEPT_REQUEST_HEADERS = frozenset({"accept", "content-type", "anthropic-version", "anthropic-beta", "openai-beta"})
_KEPT_RESPONSE_HEADERS = re.compile(
    r"content-type|retry-after(-ms)?|x-should-retry|(x|anthropic)-ratelimit-[\w-]+|(x-)?request-id"
    r"|openai-(version|processing-ms)|x-(ms|envoy)-[\w-]*time[\w-]*"
)
_ACCOUNT = re.compile(rb"(?<![\w-])(?:org-|org_|proj_|proj-|acct_|user-)((?=[A-Za-z]*[0-9])[0-9A-Za-z]{16,})")
_QUERY_KEY = re.compile(r"(?<=[?&]key=)[^&]+")


class RequestSecrets:
    """The secrets of one request. They are overwritten in the request, and in its answer."""

    def __init__(self, headers: Mapping[str, str], address: str, body: object) -> None:
        named = {name: value for name, value in headers.items() if name.lower() in _KEY_HEADERS}
        found = [*header_secrets(named), *address_secrets(f"https://provider{address}")]
        if isinstance(body, dict):
            found += request_secrets([], body)
        # Of "Bearer KEY" only KEY: what stands before a key elsewhere is not the key's.
        found = [secret for secret in found if not any(secret.endswith(f" {other}") for other in found)]
        spellings = {spelling for secret in found for spelling in (secret, _in_json(secret), quote(secret, safe=""))}
        self._mask = SecretMask(spellings)

    def overwritten(self, data: bytes) -> bytes:
        """Return ``data`` with each secret and each account's id overwritten. The length stays the same."""
        changed = bytearray(data)
        for start, end in [*self._mask.places(data), *(found.span(1) for found in _ACCOUNT.finditer(data))]:
            changed[start:end] = b"X" * (end - start)
        return bytes(changed)

    def overwritten_text(self, text: str) -> str:
        """Return a text with each secret and each account's id overwritten."""
        return self.overwritten(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def overwritten_path(self, path: str) -> str:
        """Return a path with its query, without keys."""
        return _QUERY_KEY.sub(lambda key: "X" * len(key[0]), self.overwritten_text(path))

    def request_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a request that say what it asks for."""
        return {
            name.lower(): self.overwritten_text(value)
            for name, value in headers.items()
            if name.lower() in _KEPT_REQUEST_HEADERS
        }

    def response_headers(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of a response that a client reads. No header can name an account or set a cookie."""
        return [
            (name, self.overwritten_text(value))
            for name, value in headers
            if _KEPT_RESPONSE_HEADERS.fullmatch(name.lower())
        ]


def decoded(body: bytes) -> Any:
    """Return the JSON value of a body; None if it is no JSON."""
    try:
        return json.loads(body)  # keeps integers of any size
    except (ValueError, RecursionError):
        return None


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
