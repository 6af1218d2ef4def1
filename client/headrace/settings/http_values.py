"""Checks HTTP addresses and headers of the settings. Pure. An error never quotes the value, which may be a secret."""

from __future__ import annotations

import functools
import ipaddress
import re
from urllib.parse import urlsplit

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_NOT_IN_BASE_URL = re.compile(r"[^!-~]|[\"<>\\^`{|}]")
_BARE_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::[0-9]+)?(?:[/?]|$)")
_LIKELY_HOST = re.compile(
    r"localhost\b|\[|[0-9A-Za-z-]{1,40}(\.[0-9A-Za-z-]{1,40}){1,5}(?::|/|$)|[0-9A-Za-z-]{1,40}:[0-9]+(?:/|$)"
)
"""Text that is likely a host. Other text may be a key that was written in the place of an address."""
_LOCAL_HOST = re.compile(r"localhost|127\..*|0\.0\.0\.0|\[.*\]|10\..*|192\.168\..*|[^.]+")
_LABEL = re.compile(r"[0-9A-Za-z_-]{1,63}")
_LONGEST_HOST = 253
_LONGEST_KEY = 16_384
"""Characters. Servers refuse longer headers."""
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")


def url_problem(url: str) -> str | None:
    """Return what is wrong with an address, or None. The text is the end of a sentence that begins with the setting's name."""
    if not names_a_host(url) or urlsplit(url).scheme not in ("http", "https") or _NOT_IN_URL.search(url):
        return "must be an http:// or https:// address"
    return None


@functools.lru_cache(maxsize=256)  # asked for each run, of a few addresses
def base_url_problem(url: str) -> str | None:
    """Return what is wrong with a provider's address, or None. The text is the end of a sentence that begins with the setting's name."""
    if _NOT_IN_BASE_URL.search(url):
        return "has a blank, a line end or another character that is not allowed in an address"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "must be an http:// or https:// address; its host or its port cannot be used"
    if parts.scheme not in ("http", "https"):
        return f"must begin with http:// or https://{_likely_scheme(url)}"
    if not is_host(parts.hostname or "") or port == 0:
        return "must be an http:// or https:// address; its host or its port cannot be used"
    if parts.username is not None or parts.password is not None:
        return "has a user name or a password in it; a key belongs in the provider's environment variable"
    if parts.fragment or url.endswith("#"):
        return "has a # in it; the text after a # is never sent to a server"
    return None


def key_problem(key: str) -> str | None:
    """Return why a key cannot be sent, or None. The text is the end of a sentence that begins with the key's name."""
    if key != key.strip():
        return "has a blank or a line end before or after the key"
    if not (key.isascii() and key.isprintable()):
        return "has a line end or another character that is not allowed in an HTTP header"
    if len(key) > _LONGEST_KEY:
        return f"has more than {_LONGEST_KEY:_} characters; it is not a key"
    return None


def names_a_host(url: str) -> bool:
    """Return whether an address is well-formed and has a host. Its port, if it has one, must not be 0."""
    try:
        parts = urlsplit(url)
        return is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """Return whether ``host`` is a possible host: an IP address, or labels of letters, digits, hyphens and underscores."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        return False
    return len(name) <= _LONGEST_HOST and all(map(_LABEL.fullmatch, name.removesuffix(".").split(".")))


def _likely_scheme(url: str) -> str:
    """Return a question that suggests a scheme, for an address without one; an empty string if the address may hold a secret."""
    host = _BARE_HOST.match(url)
    if host is None or "@" in url or not _LIKELY_HOST.match(url):
        return ""
    scheme = "http" if _LOCAL_HOST.fullmatch(host[1]) else "https"
    return f"; did you mean {scheme}://{url.partition('?')[0]}?"


def header_problem(name: str, value: str) -> str | None:
    """Return what is wrong with a header, or None."""
    if not _NAME.fullmatch(name):
        return "a header's name has characters that HTTP does not allow"
    if not _VALUE.fullmatch(value):
        return f"header {name} has characters that HTTP does not allow"
    return None
