"""The runs of one connection that have not ended. Any thread adds runs, and may end them without their sessions."""

from __future__ import annotations

import contextlib

from headrace.errors import HeadraceError
from headrace.runs.delivery import Delivery


class OpenRuns:
    """Runs that were asked for and have not ended."""

    def __init__(self, total_timeout: float) -> None:
        self.deliveries: set[Delivery] = set()
        """Changed by any thread, in one step each time."""
        # For runs without a total timeout of their own, in seconds: a guess, until the broker says the engine's.
        self._total_timeout = total_timeout

    def add(self, delivery: Delivery) -> None:
        """Add a run that was just asked for."""
        if delivery.session.plan.total_timeout is None:
            delivery.limit(self._total_timeout)
        self.deliveries.add(delivery)

    def limit(self, total_timeout: float) -> None:
        """Set the engine's total timeout, in seconds, for runs without one of their own."""
        self._total_timeout = total_timeout
        for delivery in list(self.deliveries):
            if delivery.session.plan.total_timeout is None:
                delivery.limit(total_timeout)

    def give_up(self, delivery: Delivery, error: HeadraceError) -> None:
        """End a run with an error, without its session. Where that fails, the watchdog ends the run later."""
        with contextlib.suppress(BaseException):
            delivery.give_up(error)
        if delivery.outcome.has_ended:
            self.deliveries.discard(delivery)
