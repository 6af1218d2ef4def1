"""Finds workers that are silent or hung, by their heartbeats. Pure.

A worker sends its heartbeats from the loop that serves, so a silent worker serves nobody. A silent worker is suspect at
first, and gets no new leases. After a longer silence it counts as hung, and the supervisor ends it. A process that runs
and never says hello counts as hung too. This module does not notice that a process has ended: the supervisor does.

A broker that was stopped itself has heard nobody meanwhile. After all processes were frozen for a while (a paused
container, Ctrl-Z) no worker is to blame.

On a machine with too much work, a process may be silent only because it waits for a processor. This time does not count
as silence, up to ``STARVED_FOR``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

SUSPECT_AFTER = 2.5
"""Seconds of silence after which a worker is suspect.

A worker sends a heartbeat each second (``transport/link.py``).
"""
HUNG_AFTER = 5.0
"""Seconds of silence after which a worker counts as hung."""
START_WITHIN = 30.0
"""Seconds that a worker may take from its start to its hello."""
STARVED_FOR = 30.0
"""Seconds of waiting for a processor that do not count as silence, at most, from one heartbeat to the next."""
_LOOK_INTERVAL = 1.0
"""Seconds between two looks while a worker is suspect or absent: a shorter stop of the broker itself is not noticed."""
_AWAY_AFTER = 1.0
"""Seconds by which a look is late if the broker itself was stopped."""


class Liveness:
    """The heartbeats of workers, by epoch. Times are in seconds on the monotonic clock."""

    def __init__(self) -> None:
        # When each connected worker was heard last, in this order.
        self._last_seen: dict[int, float] = {}
        self._suspects: set[int] = set()
        self._hung: set[int] = set()
        # Workers whose connection has ended: when they were heard last. Their processes may run, and come back.
        self._left: dict[int, float] = {}
        # Workers that run but have not connected: epoch → (absent since, seconds allowed).
        self._absent: dict[int, tuple[float, float]] = {}
        # Workers in doubt: how long each has waited for a processor since its start, and how much of that was excused.
        self._waits: dict[int, tuple[float, float]] = {}
        self._looked_at: float | None = None
        self._look_by: float | None = None

    def joined(self, epoch: int, now: float) -> None:
        """A worker has said hello."""
        self._begin(now)
        self._heard(epoch, now)
        self._left.pop(epoch, None)
        self._absent.pop(epoch, None)
        self._hung.discard(epoch)
        self._waits.pop(epoch, None)

    def expected(self, running: Mapping[int, bool], now: float) -> None:
        """The supervisor says which workers run. The value says whether a broker has heard of the worker before."""
        self._begin(now)
        self._absent = {
            epoch: self._absent.get(epoch)
            or (self._left.get(epoch, now), HUNG_AFTER if has_served or epoch in self._left else START_WITHIN)
            for epoch, has_served in running.items()
            if epoch not in self._last_seen
        }
        self._hung &= running.keys() | self._last_seen.keys()
        self._left = {epoch: seen for epoch, seen in self._left.items() if epoch in running}
        if self._waits:
            self._waits = {epoch: waits for epoch, waits in self._waits.items() if epoch in running}

    def left(self, epoch: int) -> None:
        """A worker's connection has ended.

        Its process may have ended too. A hung worker stays hung: it is being ended.
        """
        if epoch in self._last_seen:
            self._left[epoch] = self._last_seen.pop(epoch)
        self._suspects.discard(epoch)

    def beat(self, epoch: int, now: float) -> bool:
        """A heartbeat came. Return whether the worker was suspect until now."""
        if epoch not in self._last_seen:
            return False
        self._heard(epoch, now)
        was_suspect = epoch in self._suspects
        self._suspects.discard(epoch)
        self._hung.discard(epoch)
        self._waits.pop(epoch, None)
        return was_suspect

    def next_deadline(self) -> float | None:
        """Return when :meth:`due` or :meth:`hung` has something to tell next; ``None`` for never."""
        first = min(self._deadlines(), default=None)
        if first is None or self._looked_at is None:
            return first
        are_in_doubt = self._suspects - self._hung or self._absent.keys() - self._hung
        return min(first, self._looked_at + _LOOK_INTERVAL) if are_in_doubt else first

    def look_by(self, when: float | None) -> None:
        """The caller will call :meth:`due` at this time. If it does so much later, it was stopped itself."""
        self._look_by = when

    def due(self, now: float) -> list[int]:
        """Return the workers that have become suspect. Call it before :meth:`hung`."""
        self._excuse(now)
        silent = [
            epoch
            for epoch, seen in self._last_seen.items()
            if seen + SUSPECT_AFTER <= now and epoch not in self._suspects
        ]
        self._suspects.update(silent)
        return silent

    def in_doubt(self) -> list[int]:
        """Return the workers that are suspect or absent, and not hung yet."""
        return [epoch for epoch in (*self._suspects, *self._absent) if epoch not in self._hung]

    def waited(self, epoch: int, seconds: float | None) -> None:
        """A worker in doubt has waited for a processor for so long since its start; None if that is not known.

        Call it for each worker that is :meth:`in_doubt` between :meth:`due` and :meth:`hung`.
        """
        if seconds is None:
            return
        before, excused = self._waits.get(epoch, (seconds, 0.0))
        more = min(seconds - before, STARVED_FOR - excused)
        self._waits[epoch] = seconds, excused + more
        if epoch in self._last_seen:
            self._last_seen[epoch] += more
        elif epoch in self._absent:
            since, allowed = self._absent[epoch]
            self._absent[epoch] = since + more, allowed

    def hung(self, now: float) -> list[int]:
        """Return the workers that have become hung. Each is told once."""
        silent = [epoch for epoch, seen in self._last_seen.items() if seen + HUNG_AFTER <= now]
        silent += [epoch for epoch, (since, allowed) in self._absent.items() if since + allowed <= now]
        found = [epoch for epoch in silent if epoch not in self._hung]
        self._hung.update(found)
        return found

    def silence(self, epoch: int, now: float) -> float:
        """Return how long ago a worker was heard last, in seconds."""
        since, _ = self._absent.get(epoch, (now, 0.0))
        return now - self._last_seen.get(epoch, since)

    def _deadlines(self) -> Iterator[float]:
        if not self._suspects and not self._hung:
            for seen in self._last_seen.values():  # the first was heard before all others
                yield seen + SUSPECT_AFTER
                break
        else:
            for epoch, seen in self._last_seen.items():
                if epoch not in self._hung:
                    yield seen + (HUNG_AFTER if epoch in self._suspects else SUSPECT_AFTER)
        for epoch, (since, allowed) in self._absent.items():
            if epoch not in self._hung:
                yield since + allowed

    def _heard(self, epoch: int, now: float) -> None:
        self._last_seen.pop(epoch, None)
        self._last_seen[epoch] = now  # at the end

    def _begin(self, now: float) -> None:
        """Count the time from the first worker that is heard of."""
        if self._looked_at is None:
            self._looked_at = now

    def _excuse(self, now: float) -> None:
        """If this look is late, let the time since the last look count against no worker."""
        is_late = self._look_by is not None and now > self._look_by + _AWAY_AFTER
        away = now - self._looked_at if is_late and self._looked_at is not None else 0.0
        self._looked_at = now
        self._look_by = None
        if away:
            for epoch, seen in self._last_seen.items():
                self._last_seen[epoch] = min(seen + away, now)
            for epoch, (since, allowed) in self._absent.items():
                self._absent[epoch] = (min(since + away, now), allowed)
