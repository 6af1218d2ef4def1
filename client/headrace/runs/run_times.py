"""The times of one run: when it began, how long it waited for leases, and what is left of its total timeout. Pure."""

from __future__ import annotations


class RunTimes:
    """Times are on the clock of the session's caller, in seconds."""

    __slots__ = ("asked_at", "granted_at", "queue_reason", "queue_seconds", "started_at", "total_timeout")

    def __init__(self, total_timeout: float | None) -> None:
        self.total_timeout = total_timeout
        """Seconds that the run may take, over all attempts. The connection sets it if the caller did not."""
        self.started_at = 0.0
        self.asked_at = 0.0
        """When this attempt asked for its lease."""
        self.granted_at: float | None = None
        """When the run got its last lease."""
        self.queue_seconds = 0.0
        """Seconds that the run has waited for leases, over all attempts."""
        self.queue_reason = ""
        """What the run waited for last, a word of ``WaitWord``; empty if it did not wait."""

    @property
    def until_lease(self) -> float:
        """Seconds from the start to the run's last lease, with all earlier attempts."""
        return 0.0 if self.granted_at is None else self.granted_at - self.started_at

    def granted(self, waited_for: str, now: float) -> None:
        """The run got a lease."""
        self.granted_at = now
        self.queue_seconds += now - self.asked_at
        if waited_for:
            self.queue_reason = waited_for

    def of_attempt(self, now: float) -> float:
        """Return how many seconds ago the present attempt began: with its lease, or with its question."""
        granted_at = self.granted_at
        return now - (self.asked_at if granted_at is None or granted_at < self.asked_at else granted_at)

    def since_first_lease(self, now: float) -> float:
        """Return how many seconds of the run's time were no wait for a lease."""
        return max(now - self.started_at - self.queue_seconds, 0.0)

    def left(self, now: float) -> float | None:
        """Return how many seconds are left of the run's total timeout; None: it is not known."""
        return None if self.total_timeout is None else max(self.started_at + self.total_timeout - now, 0.0)
