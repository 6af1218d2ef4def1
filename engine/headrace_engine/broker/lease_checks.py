"""When the worker of a lease is asked whether it has the run. Pure.

A worker learns of a run a moment after the lease was given. A lease that its client does not use, or no longer uses,
would be held for ever. So the broker asks some time after it gave the lease, and again now and then: a few leases at a
time, the one that is due longest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

FIRST_CHECK = 10.0
"""Seconds from a lease to the first question. A client may take some time to reach its worker."""
TOLD_CHECK = 1.0
"""Seconds to the first question about a lease that a client says an earlier broker gave.

Its run has begun, if that is true.
"""
NEXT_CHECK = 30.0
"""Seconds from one question to the next."""
PAUSE = 0.5
"""Seconds until the next leases are due, where more were due than one call may return."""


class LeaseChecks:
    """The leases, by span id, each with the time of its next question."""

    def __init__(self) -> None:
        # Leases that were added since the time was last told, each with the delay of its first question.
        self._new: dict[str, float] = {}
        # For each delay the leases that wait for it, and when they are due. Each is in the order of that time.
        self._waiting: dict[float, dict[str, float]] = {FIRST_CHECK: {}, TOLD_CHECK: {}, NEXT_CHECK: {}}
        self._not_before = float("-inf")

    def added(self, span_id: str, *, is_soon: bool = False) -> None:
        """A lease was given. ``is_soon``: ask about it soon, because its run must have begun."""
        self.dropped(span_id)
        self._new[span_id] = TOLD_CHECK if is_soon else FIRST_CHECK

    def added_all(self, span_ids: Iterable[str]) -> None:
        """Leases were given to runs that had none."""
        self._new.update(dict.fromkeys(span_ids, FIRST_CHECK))

    def dropped_all(self, span_ids: Iterable[str]) -> None:
        """Leases have ended. An unknown one does no harm."""
        queues = (self._new, *(queue for queue in self._waiting.values() if queue))
        for span_id in span_ids:
            for queue in queues:
                if queue.pop(span_id, None) is not None:
                    break

    def dropped(self, span_id: str) -> None:
        """A lease has ended. An unknown one does no harm."""
        self._new.pop(span_id, None)
        for queue in self._waiting.values():
            queue.pop(span_id, None)

    def was_asked(self, span_id: str) -> bool:
        """Return whether the worker has been asked about a lease since it was added."""
        return span_id in self._waiting[NEXT_CHECK]

    def next_deadline(self, now: float) -> float | None:
        """Return when the next lease is due. The delay of leases that were added since the last call begins ``now``."""
        if self._new:
            new, self._new = self._new, {}
            for span_id, delay in new.items():
                self._waiting[delay][span_id] = now + delay
        first = float("inf")
        for queue in self._waiting.values():
            for when in queue.values():
                first = min(first, when)
                break
        return None if first == float("inf") else max(first, self._not_before)

    def due(self, now: float, limit: int) -> list[str]:
        """Return up to ``limit`` leases whose workers are to be asked now."""
        deadline = self.next_deadline(now)
        if deadline is None or deadline > now:
            return []
        found: list[str] = []
        for queue in self._waiting.values():
            for span_id, when in islice(queue.items(), limit - len(found)):
                if when > now:
                    break
                found.append(span_id)
        for span_id in found:
            self.dropped(span_id)
            self._waiting[NEXT_CHECK][span_id] = now + NEXT_CHECK
        if len(found) == limit:
            self._not_before = now + PAUSE
        return found
