"""Makes the ids of runs and traces: random, but ids of the same moment begin alike, so that a database stores them side by side.

With wholly random ids each row changes other pages of an index: of 100,000 spans that cost more than half of what storing them costs.
"""

from __future__ import annotations

import os
import random
from time import monotonic

_WINDOW = 1 / 16
"""Seconds in which a process's ids begin alike. The first quarter of the digits is shared, the rest is 48 random bits."""


class IdSource:
    """Makes ids for one process. Safe with threads. A forked child calls :meth:`begin`: else its ids are those of its parent."""

    __slots__ = ("_random", "_shared")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Make other ids from now on."""
        # Unique, but not secret. Not the generator of the ``random`` module: a program may give that one a fixed seed.
        self._random = random.Random()  # noqa: S311
        self._shared = (0.0, "")  # until when, and the digits

    def new_id(self, prefix: str) -> str:
        """Return a new id, which begins with ``prefix``."""
        return f"{prefix}{self._beginning()}{self._random.randbytes(6).hex()}"

    def new_run_ids(self) -> tuple[str, str]:
        """Return a new id of a run, and a new id of a trace."""
        beginning, digits = self._beginning(), self._random.randbytes(12).hex()
        return f"sp_{beginning}{digits[:12]}", f"tr_{beginning}{digits[12:]}"

    def _beginning(self) -> str:
        now = monotonic()
        until, digits = self._shared
        if now >= until:
            digits = self._random.randbytes(2).hex()
            self._shared = now + _WINDOW, digits
        return digits


_of_process = IdSource()
os.register_at_fork(after_in_child=_of_process.begin)
new_id = _of_process.new_id
"""Makes ids for this process."""
new_run_ids = _of_process.new_run_ids
"""Makes both ids of a run for this process."""
