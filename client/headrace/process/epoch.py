"""Draws an epoch: the number that tells a process from all others that had, or will have, the same name."""

from __future__ import annotations

import os


def new_epoch() -> int:
    """Return a random number from 1 to 2³¹."""
    return (int.from_bytes(os.urandom(4), "big") >> 1) + 1  # secrets.randbits imports hashlib: 6 ms for each process
