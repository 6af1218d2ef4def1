"""Who is alive: heartbeats, and what their absence means. Pure.

A heartbeat is sent by the loop that serves, so silence means that nothing is served. Silence makes a worker suspect (no new
leases), and after a while a hung one, which the supervisor ends. A process that ended is seen elsewhere, by its handle.
"""

from __future__ import annotations

HEARTBEAT_INTERVAL = 1.0
SUSPECT_AFTER = 2.5
HUNG_AFTER = 5.0


class Liveness:
    """The heartbeats of workers, by epoch."""

    def __init__(self) -> None:
        self._last_seen: dict[int, float] = {}
        self._suspects: set[int] = set()
        self._hung: set[int] = set()

    def joined(self, epoch: int, now: float) -> None:
        """A worker said hello."""
        self._last_seen[epoch] = now

    def left(self, epoch: int) -> None:
        """A worker is gone."""
        self._last_seen.pop(epoch, None)
        self._suspects.discard(epoch)
        self._hung.discard(epoch)

    def beat(self, epoch: int, now: float) -> bool:
        """A heartbeat came; return whether it clears a suspicion."""
        if epoch not in self._last_seen:
            return False
        self._last_seen[epoch] = now
        was_suspect = epoch in self._suspects
        self._suspects.discard(epoch)
        self._hung.discard(epoch)
        return was_suspect

    def due(self, now: float) -> list[int]:
        """Return the workers that have become suspect."""
        silent = [
            epoch
            for epoch, seen in self._last_seen.items()
            if now - seen > SUSPECT_AFTER and epoch not in self._suspects
        ]
        self._suspects.update(silent)
        return silent

    def hung(self, now: float) -> list[int]:
        """Return the workers that have been silent for too long, each once."""
        silent = [
            epoch for epoch, seen in self._last_seen.items() if now - seen > HUNG_AFTER and epoch not in self._hung
        ]
        self._hung.update(silent)
        return silent

    def silence(self, epoch: int, now: float) -> float:
        """Return how long ago a worker was last heard, in seconds."""
        return now - self._last_seen.get(epoch, now)
