"""Which proxy of the environment (or of macOS's settings) carries requests to an origin, if one does. Opens nothing."""

from __future__ import annotations

import ipaddress
import re
import urllib.request

from headrace.settings.http_values import names_a_host

_SCHEMES = ("http", "https", "socks5", "socks5h")
_REFUSED_SCHEMES = ("ftp", "ftps", "file", "socks", "socks4", "socks4a", "tcp", "ws", "wss")
_AUTHORITY_END = re.compile(r"[/?#]")
_NOT_IN_ADDRESS = re.compile(r"[^!-~]")


def proxy_of(scheme: str, host: str, port: int) -> str | None:
    """Return the proxy's address; raise ValueError, which names the variable and quotes no password, for one that is none."""
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    address = proxies.get(kind)
    if not address or _is_bypassed(host, port, proxies.get("no", "")):
        return None
    address = address if ":/" in address else f"http://{address}"
    if (problem := _problem(address)) is not None:
        raise ValueError(f"the proxy of the environment ({kind}_proxy or {kind.upper()}_PROXY) {problem}")
    return address


def _is_bypassed(host: str, port: int, excepted: str) -> bool:
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
    """Return whether an entry stands for a host: ``*`` for all, ``*.test`` as ``.test`` for ``test`` and what is below it.

    urllib takes ``*`` alone, and a star in front of a name for a letter.
    """
    if entry == "*":
        return True
    suffix = entry.removeprefix("*.").strip(".")
    return bool(suffix) and any(name == suffix or name.endswith(f".{suffix}") for name in names)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the addresses that an entry of no_proxy stands for, which urllib takes for a name; None for a name."""
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _problem(address: str) -> str | None:
    scheme, _, rest = address.partition("://")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if rest.count("@") > 1 or authority.count("@") < rest.count("@"):
        return "has a password or a user name in which a character is not percent-encoded, such as @, /, ? or #"
    if not names_a_host(address) or _NOT_IN_ADDRESS.search(address):
        return "is no address; it takes one such as http://HOST:PORT"
    if scheme.lower() not in _SCHEMES:
        # Another word may be a part of a password: it is not quoted.
        begins = f"begins with {scheme}://" if scheme.lower() in _REFUSED_SCHEMES else "begins with another scheme"
        return f"{begins}; it takes {', '.join(f'{known}://' for known in _SCHEMES)}"
    return None
