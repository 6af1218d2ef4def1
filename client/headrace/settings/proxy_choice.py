"""Chooses the proxy for requests to an origin, from the environment or from macOS's settings. Opens no connection."""

from __future__ import annotations

import ipaddress
import os
import re
import sys

from headrace.settings.http_values import names_a_host

_SCHEMES = ("http", "https", "socks5", "socks5h")
_REFUSED_SCHEMES = ("ftp", "ftps", "file", "socks", "socks4", "socks4a", "tcp", "ws", "wss")
_AUTHORITY_END = re.compile(r"[/?#]")
_NOT_IN_ADDRESS = re.compile(r"[^!-~]")


def proxy_of(scheme: str, host: str, port: int) -> str | None:
    """Return the address of the proxy for an origin, or None if no proxy is used.

    Raises ValueError if the address cannot be used. The error names the variable and quotes no password.
    """
    proxies = _proxies()
    kind = scheme if proxies.get(scheme) else "all"
    address = proxies.get(kind)
    if not address or _is_bypassed(host, port, proxies.get("no", "")):
        return None
    address = address if ":/" in address else f"http://{address}"
    if (problem := _problem(address)) is not None:
        raise ValueError(f"the proxy of the environment ({kind}_proxy or {kind.upper()}_PROXY) {problem}")
    return address


def _proxies() -> dict[str, str]:
    """Return the addresses of proxies by scheme. The entry ``no`` has the hosts that need none."""
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    import urllib.request  # here: its import takes 15 ms, at the start of each worker

    return urllib.request.getproxies()


def _is_bypassed(host: str, port: int, excepted: str) -> bool:
    import urllib.request

    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if any(urllib.request.proxy_bypass(name) for name in (at, host)):
        return True
    entries = [entry for entry in re.split(r"[\s,]+", excepted.lower()) if entry]
    name = host.lower().removesuffix(".")
    if any(_is_named(entry, (name, f"{name}:{port}")) for entry in entries):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in map(_network, entries) if network is not None)


def _is_named(entry: str, names: tuple[str, str]) -> bool:
    """Return whether an entry of ``no_proxy`` means a host: ``*`` means all; ``*.test`` and ``.test`` mean ``test`` and its subdomains.

    urllib understands ``*`` only if it stands alone.
    """
    if entry == "*":
        return True
    suffix = entry.removeprefix("*.").strip(".")
    return bool(suffix) and any(name == suffix or name.endswith(f".{suffix}") for name in names)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the addresses that an entry of ``no_proxy`` means; None if the entry is a name. urllib takes every entry for a name."""
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _problem(address: str) -> str | None:
    scheme, _, rest = address.partition("://")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if rest.count("@") > 1 or authority.count("@") < rest.count("@"):
        return "has a password or a user name with a character that must be percent-encoded: @, /, ? or #"
    if not names_a_host(address) or _NOT_IN_ADDRESS.search(address):
        return "is not an address; write one such as http://HOST:PORT"
    if scheme.lower() not in _SCHEMES:
        # An unknown word may be a part of a password: do not quote it.
        begins = f"begins with {scheme}://" if scheme.lower() in _REFUSED_SCHEMES else "has an unknown scheme"
        return f"{begins}; it takes {', '.join(f'{known}://' for known in _SCHEMES)}"
    return None
