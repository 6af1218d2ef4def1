"""Addresses (URLs) as they may be shown: without user name, password, query and fragment. Pure, and safe with malformed addresses.

A cut at the wrong place would show a part of the password. So where an address can be read in two ways, nothing but its scheme is shown.
"""

from __future__ import annotations

import re

HIDDEN = "…"
"""What stands where something was left out."""

_KNOWN_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h", "ws", "wss", "grpc", "tcp"})
"""Another word in front of ``://`` may be a part of a password."""
_AUTHORITY_END = re.compile(r"[/?#\\]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.~-]+)?\]|[\w.-]*)(:[0-9]{0,5})?")


def without_password(url: str) -> str:
    """Return the address without what may be secret in it: ``https://user:word@host/v1?key=x`` as ``https://…@host/v1?…``.

    Never raises, whatever the text is.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    elif scheme.lower() not in _KNOWN_SCHEMES:
        return f"{HIDDEN}://{HIDDEN}"
    end = _AUTHORITY_END.search(rest)
    cut = end.start() if end else len(rest)
    authority, behind = rest[:cut], rest[cut:]
    # A password with "/", "?" or "#" in it ends in what looks like the path; a path with "@" in it looks the same.
    if "@" in behind:
        return f"{scheme}{separator}{HIDDEN}"
    user, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host):
        return f"{scheme}{separator}{HIDDEN}"
    path = re.split(r"[?#]", behind, maxsplit=1)
    left_out = behind[len(path[0])] + HIDDEN if len(path) > 1 and path[1] else ""
    return f"{scheme}{separator}{HIDDEN if user else ''}{at}{host}{path[0]}{left_out}"
