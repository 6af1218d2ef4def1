"""Makes addresses (URLs) safe to show: without user name, password, query and fragment.

Pure. Safe with malformed addresses.

A cut at the wrong place would show a part of the password. If an address can be read in two ways, only its scheme is
shown.
"""

from __future__ import annotations

import re

HIDDEN = "…"
"""The text in place of a hidden part."""

_KNOWN_SCHEMES = frozenset(
    {"http", "https", "socks4", "socks4a", "socks5", "socks5h", "ws", "wss", "grpc", "tcp", "redis", "rediss", "unix"}
)
"""Any other word before ``://`` may be a part of a password."""
_AUTHORITY_END = re.compile(r"[/?#\\]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.~-]+)?\]|[\w.-]*)(:[0-9]{0,5})?")


def without_password(url: str) -> str:
    """Return the address without its secret parts: ``https://user:word@host/v1?key=x`` becomes ``https://…@host/v1?…``.

    Raises nothing, for any text.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    elif scheme.lower() not in _KNOWN_SCHEMES:
        return f"{HIDDEN}://{HIDDEN}"
    end = _AUTHORITY_END.search(rest)
    cut = end.start() if end else len(rest)
    authority, behind = rest[:cut], rest[cut:]
    # An "@" in the path may be the end of a password that contains "/", "?" or "#". Show nothing then.
    if "@" in behind:
        return f"{scheme}{separator}{HIDDEN}"
    user, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host):
        return f"{scheme}{separator}{HIDDEN}"
    path = re.split(r"[?#]", behind, maxsplit=1)
    left_out = behind[len(path[0])] + HIDDEN if len(path) > 1 and path[1] else ""
    return f"{scheme}{separator}{HIDDEN if user else ''}{at}{host}{path[0]}{left_out}"
