"""Which run made its worker hang, so that it is not tried again. Pure: the processor time of workers is told.

A run is to blame where it was the only one with a lease on a worker that fell silent, and the worker's process worked all the while:
one that was stopped, or waits for a disk, did not. Where several runs were on the worker nobody knows which it was.
"""

from __future__ import annotations

from collections.abc import Collection

WORKED = 0.25
"""Seconds of processor time between suspicion and the end of patience that tell work from waiting, on the busiest machine too."""
_REMEMBERED = 1000
"""Runs that are remembered; a client asks again within moments, or never."""


class Blame:
    """The runs that are not to be tried again."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._blamed: dict[str, str] = {}

    def suspected(self, epoch: int, seconds: float | None) -> None:
        """A worker has fallen silent; its process has had so many seconds of processor time, None where nobody knows."""
        self._seconds.pop(epoch, None)
        if seconds is not None:
            self._seconds[epoch] = seconds
        if len(self._seconds) > _REMEMBERED:
            self._seconds.pop(next(iter(self._seconds)))

    def hung(self, epoch: int, seconds: float | None, runs: Collection[str]) -> None:
        """A worker is taken to be hung, and is ended; ``runs`` had leases on it."""
        before = self._seconds.pop(epoch, None)
        if before is None or seconds is None or len(runs) != 1:
            return
        worked = seconds - before
        if worked < WORKED:
            return
        if len(self._blamed) >= _REMEMBERED:
            self._blamed.pop(next(iter(self._blamed)))
        for span_id in runs:
            self._blamed[span_id] = (
                f"its worker hung over this run alone, for {worked:.1f} s of processor time, and was ended;"
                " the run is not tried again"
            )

    def reason(self, span_id: str, attempt: int) -> str | None:
        """Return why a further attempt of a run is refused; None where it is not."""
        return self._blamed.get(span_id) if attempt > 1 else None
