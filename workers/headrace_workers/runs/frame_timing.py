"""When a worker rests between two turns of its loop, so that many chunks are read in one turn and leave in one frame. Pure.

All that becomes ready for a client in one turn leaves in one frame, at the end of the turn. Under load, a worker that looked at
its providers' sockets all the time would find one chunk at each look, and each chunk would wake the worker and the client. So
after a turn in which frames have left, the worker does not look at them until :data:`INTERVAL` after the turn's begin. A client
that says something ends the rest. A worker without load never rests, and a worker that needs all of its time does not either.
"""

from __future__ import annotations

INTERVAL = 0.002
"""Seconds from the begin of one turn to the begin of the next, under load."""
_SHORTEST = 0.0002
"""Seconds. Shorter rests are left out."""
_LONGEST_IDLE = 0.05
"""Seconds of idle time in one turn that count at most."""
_SMOOTHED = 8
"""Turns over which the idle time is smoothed."""


class WorkerPace:
    """Knows how long a loop waits for input. It is under load if it waits less than one interval on average."""

    def __init__(self) -> None:
        self._idle = _LONGEST_IDLE
        self._now = 0.0
        self._cpu = 0.0

    def rest(self, now: float, cpu: float) -> float:
        """A turn in which frames have left ends now. Return for how many seconds the worker is to rest.

        ``now`` is in monotonic seconds. ``cpu``: seconds of CPU that the thread has used.
        """
        busy = cpu - self._cpu
        idle = min(max(now - self._now - busy, 0.0), _LONGEST_IDLE)
        self._idle += (idle - self._idle) / _SMOOTHED
        seconds = INTERVAL - busy
        if self._idle >= INTERVAL or seconds < _SHORTEST:
            seconds = 0.0
        self._now, self._cpu = now + seconds, cpu
        return seconds
