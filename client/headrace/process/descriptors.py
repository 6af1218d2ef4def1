"""How many descriptors this process may open, and how it shares them out. A descriptor that is missing stops more than one run."""

from __future__ import annotations

import contextlib
import resource

import msgspec

_ENOUGH = 65_536
_OWN = 64
"""What a process needs besides its peers and its exchanges: sockets, pipes, log files, name resolution."""


class Shares(msgspec.Struct, frozen=True):
    """Connections of peers, each with a handle on its process, and exchanges with providers."""

    peers: int
    exchanges: int


def raise_limit() -> int:
    """Raise this process's soft limit as far as it may; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def broker_shares(limit: int) -> Shares:
    """Return what a broker does with ``limit`` descriptors."""
    return Shares(peers=_spare(limit) // 3, exchanges=0)


def worker_shares(limit: int) -> Shares:
    """Return what a worker does with ``limit`` descriptors."""
    return Shares(peers=_spare(limit) // 6, exchanges=_spare(limit) // 3)


def _spare(limit: int) -> int:
    return max(limit - _OWN, 32)
