"""Raises the limit of open descriptors of a process, and divides the descriptors between connections to peers and to providers."""

from __future__ import annotations

import contextlib
import resource

import msgspec

_ENOUGH = 65_536
"""Descriptors that are enough for any process of an engine."""
_OWN = 64
"""Descriptors for everything else: listening sockets, pipes, log files, name resolution."""


class DescriptorShares(msgspec.Struct, frozen=True):
    """How the descriptors are divided."""

    peers: int
    """Connections of peers. Each needs a second descriptor for the handle of the peer's process."""
    exchanges: int
    """Connections to providers, one for each run."""


def raise_limit() -> int:
    """Raise the soft limit of this process as far as the hard limit allows. Return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def broker_shares(limit: int) -> DescriptorShares:
    """Return how a broker or a collector divides ``limit`` descriptors."""
    return DescriptorShares(peers=_spare(limit) // 3, exchanges=0)


def worker_shares(limit: int) -> DescriptorShares:
    """Return how a worker divides ``limit`` descriptors."""
    return DescriptorShares(peers=_spare(limit) // 6, exchanges=_spare(limit) // 3)


def _spare(limit: int) -> int:
    return max(limit - _OWN, 32)
