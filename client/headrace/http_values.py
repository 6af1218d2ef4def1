"""What may be an HTTP address or a header in the settings. Pure; says what is wrong without quoting the value, which may be a secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")


def url_problem(url: str) -> str | None:
    """Return what is wrong with an address, as what follows its name; None where nothing is."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or _NOT_IN_URL.search(url):
        return "must be an http:// or https:// address"
    return None


def header_problem(name: str, value: str) -> str | None:
    """Return what is wrong with a header; None where nothing is."""
    if not _NAME.fullmatch(name):
        return "a header's name has characters that HTTP does not allow"
    if not _VALUE.fullmatch(value):
        return f"header {name} has characters that HTTP does not allow"
    return None
