"""When the worker of a lease is asked whether it has the run. Pure.

A lease that its client uses is known to its worker a moment later. One that is not used, or no longer, would be held for ever: so each is
looked at some time after it was given, and again now and then. A few at a time, those that are due longest first.
"""

from __future__ import annotations

from itertools import islice

FIRST_CHECK = 10.0
"""Seconds from a lease to the first question: a client may take some to reach its worker."""
TOLD_CHECK = 1.0
"""The same of a lease that a client says it had from the broker before: its run has begun, if it is true."""
NEXT_CHECK = 30.0
"""Seconds from one question to the next."""


class LeaseChecks:
    """The leases that there are, by span id, each with the time of its next question."""

    def __init__(self) -> None:
        # Those that came since :meth:`due` was called last: nobody has told the time since.
        self._new: dict[str, float] = {}
        # For each delay those that wait for it, in the order in which they are due.
        self._waiting: dict[float, dict[str, float]] = {FIRST_CHECK: {}, TOLD_CHECK: {}, NEXT_CHECK: {}}

    def added(self, span_id: str, *, is_told: bool = False) -> None:
        """There is a lease; ``is_told``: by its client's word."""
        self.dropped(span_id)
        self._new[span_id] = TOLD_CHECK if is_told else FIRST_CHECK

    def dropped(self, span_id: str) -> None:
        """A lease has ended; unknown ones are fine."""
        self._new.pop(span_id, None)
        for queue in self._waiting.values():
            queue.pop(span_id, None)

    def was_asked(self, span_id: str) -> bool:
        """Return whether a lease has been due since it was added."""
        return span_id in self._waiting[NEXT_CHECK]

    def due(self, now: float, limit: int) -> list[str]:
        """Return up to ``limit`` leases whose workers are to be asked now."""
        new, self._new = self._new, {}
        for span_id, delay in new.items():
            self._waiting[delay][span_id] = now + delay
        found: list[str] = []
        for queue in self._waiting.values():
            for span_id, when in islice(queue.items(), limit - len(found)):
                if when > now:
                    break
                found.append(span_id)
        for span_id in found:
            self.dropped(span_id)
            self._waiting[NEXT_CHECK][span_id] = now + NEXT_CHECK
        return found
