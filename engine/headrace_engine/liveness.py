"""Who is alive: heartbeats, and what their absence means. Pure.

A heartbeat is sent by the loop that serves, so silence means that nothing is served. Silence makes a worker suspect (no new
leases), and after a while a hung one, which the supervisor ends. So is a process that runs and never says hello, or not to a broker
that came after another. A process that ended is seen elsewhere, by its handle.

Who was away itself has heard nobody: after all processes were frozen for a while (a paused container, Ctrl-Z) nobody is to blame.
"""

from __future__ import annotations

from collections.abc import Mapping

HEARTBEAT_INTERVAL = 1.0
SUSPECT_AFTER = 2.5
HUNG_AFTER = 5.0
START_WITHIN = 30.0
"""Seconds that a worker may take from its start to its hello."""
_AWAY_AFTER = 1.5
"""Seconds between two looks, normally half a second apart, after which the one who looks was away."""


class Liveness:
    """The heartbeats of workers, by epoch."""

    def __init__(self) -> None:
        self._last_seen: dict[int, float] = {}
        self._suspects: set[int] = set()
        self._hung: set[int] = set()
        # When those were last heard whose connections have ended. Their processes may run, and come back.
        self._left: dict[int, float] = {}
        # Those that run and are not here: since when that is known, and for how long they may.
        self._absent: dict[int, tuple[float, float]] = {}
        self._looked_at: float | None = None

    def joined(self, epoch: int, now: float) -> None:
        """A worker said hello."""
        self._begin(now)
        self._last_seen[epoch] = now
        self._left.pop(epoch, None)
        self._absent.pop(epoch, None)

    def expected(self, running: Mapping[int, bool], now: float) -> None:
        """These workers run, by their supervisor's word; the value tells whether a broker has heard of one before."""
        self._begin(now)
        self._absent = {
            epoch: self._absent.get(epoch)
            or (self._left.get(epoch, now), HUNG_AFTER if has_served or epoch in self._left else START_WITHIN)
            for epoch, has_served in running.items()
            if epoch not in self._last_seen
        }
        self._hung &= running.keys() | self._last_seen.keys()
        self._left = {epoch: seen for epoch, seen in self._left.items() if epoch in running}

    def left(self, epoch: int) -> None:
        """A worker's connection has ended, and its process perhaps."""
        if epoch in self._last_seen:
            self._left[epoch] = self._last_seen.pop(epoch)
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
        """Return the workers that have become suspect. To be called before :meth:`hung`."""
        self._excuse(now)
        silent = [
            epoch
            for epoch, seen in self._last_seen.items()
            if now - seen > SUSPECT_AFTER and epoch not in self._suspects
        ]
        self._suspects.update(silent)
        return silent

    def hung(self, now: float) -> list[int]:
        """Return the workers that have been silent for too long, each once."""
        silent = [epoch for epoch, seen in self._last_seen.items() if now - seen > HUNG_AFTER]
        silent += [epoch for epoch, (since, allowed) in self._absent.items() if now - since > allowed]
        found = [epoch for epoch in silent if epoch not in self._hung]
        self._hung.update(found)
        return found

    def silence(self, epoch: int, now: float) -> float:
        """Return how long ago a worker was last heard, in seconds."""
        since, _ = self._absent.get(epoch, (now, 0.0))
        return now - self._last_seen.get(epoch, since)

    def _begin(self, now: float) -> None:
        """From the first that is heard on, looks are due."""
        if self._looked_at is None:
            self._looked_at = now

    def _excuse(self, now: float) -> None:
        """Let the time count for nobody in which we were away."""
        away = now - self._looked_at if self._looked_at is not None else 0.0
        self._looked_at = now
        if away > _AWAY_AFTER:
            for epoch, seen in self._last_seen.items():
                self._last_seen[epoch] = min(seen + away, now)
            for epoch, (since, allowed) in self._absent.items():
                self._absent[epoch] = (min(since + away, now), allowed)
