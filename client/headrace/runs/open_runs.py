"""The runs of one connection that have not ended: any thread adds them, and may end them without their sessions."""

from __future__ import annotations

import contextlib

from headrace.errors import HeadraceError
from headrace.runs.delivery import Delivery


class OpenRuns:
    """Runs that have not ended, from the moment they are asked for."""

    def __init__(self, total_timeout: float) -> None:
        self.deliveries: set[Delivery] = set()
        """Changed by any thread, in one step each time."""
        # Of runs that ask for none: a guess, until the broker says.
        self._total_timeout = total_timeout

    def add(self, delivery: Delivery) -> None:
        """A run is asked for."""
        if delivery.session.plan.total_timeout is None:
            delivery.limit(self._total_timeout)
        self.deliveries.add(delivery)

    def limit(self, total_timeout: float) -> None:
        """The engine says how long runs may take that ask for no limit of their own, in seconds."""
        self._total_timeout = total_timeout
        for delivery in list(self.deliveries):
            if delivery.session.plan.total_timeout is None:
                delivery.limit(total_timeout)

    def give_up(self, delivery: Delivery, error: HeadraceError) -> None:
        """End a run without its session; where that fails too, the watchdog does so later."""
        with contextlib.suppress(BaseException):
            delivery.give_up(error)
        if delivery.has_ended:
            self.deliveries.discard(delivery)
