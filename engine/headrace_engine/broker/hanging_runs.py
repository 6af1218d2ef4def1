"""Finds the run that made its worker hang, so that it is not tried again. Pure: the caller measures processor time.

A run is found if it was the only run with a lease on a worker that fell silent, and if the worker's process used the
processor all the time. A process that was stopped, or that waits for a disk, uses none. If several runs were on the
worker, nobody knows which run it was.
"""

from __future__ import annotations

from collections.abc import Collection

WORKED = 0.25
"""Seconds of processor time from suspicion to the end of the worker.

With less the process waited, on the busiest machine too.
"""
_REMEMBERED = 1000
"""Runs that are remembered. A client asks again within moments, or never."""


class HangingRuns:
    """The runs that made a worker hang."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._found: dict[str, str] = {}

    def suspected(self, epoch: int, seconds: float | None) -> None:
        """A worker is silent. ``seconds``: the processor time that its process has used; ``None`` if not known."""
        self._seconds.pop(epoch, None)
        if seconds is not None:
            self._seconds[epoch] = seconds
        if len(self._seconds) > _REMEMBERED:
            self._seconds.pop(next(iter(self._seconds)))

    def hung(self, epoch: int, seconds: float | None, runs: Collection[str]) -> None:
        """A worker counts as hung and is ended. ``runs`` had leases on it."""
        before = self._seconds.pop(epoch, None)
        if before is None or seconds is None or len(runs) != 1:
            return
        worked = seconds - before
        if worked < WORKED:
            return
        if len(self._found) >= _REMEMBERED:
            self._found.pop(next(iter(self._found)))
        for span_id in runs:
            self._found[span_id] = (
                f"its worker hung, used {worked:.1f} s of processor time and had no other run; the worker was ended, and"
                " the run is not tried again"
            )

    def reason(self, span_id: str, *, is_retry: bool) -> str | None:
        """Return why a run is not tried again; ``None`` if it may be.

        A first attempt is another run with the same id.
        """
        return self._found.get(span_id) if is_retry else None
