"""The tickets of leases: each run's share of the limits is given back when its lease ends, and limits are learned. Pure.

Runs that are granted while nothing limits them have no ticket. When such a run fails, or the head of its response names
limits, a gate may be made. Then the leases that stand before it get tickets, so that the gate knows how many runs it has.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.wire.messages import Release, ResponseReport
from headrace_engine.broker.leases import Lease, Leases
from headrace_engine.limits.gate import Gates, Ticket

_REMEMBERED = 1000
"""Leases that are remembered after their end, at least: the worker's report of a short run's response may come behind the Release."""


class Tickets:
    """The tickets of the leases of one engine."""

    def __init__(self, gates: Gates, leases: Leases) -> None:
        self._gates = gates
        self._leases = leases
        # Leases that have ended, the newer and the older ones. To forget the oldest one each time would take longer than all else
        # that is done here: a dict searches for its first item behind the places of all that were removed.
        self._ended: dict[str, Lease] = {}
        self._ended_before: dict[str, Lease] = {}

    def give_back_finished(self, ended: Iterable[tuple[Lease, Release]], now: float) -> None:
        """Leases of runs that have finished have ended."""
        for lease, release in ended:
            ticket = lease.ticket
            if ticket is not None:
                ticket.gate.leave(ticket, release, now)
            self._ended[lease.span_id] = lease
        self._forget_old()

    def give_back(self, lease: Lease, release: Release | None, now: float) -> None:
        """A lease has ended. ``release``: how its run ended; None if its client or its worker went away."""
        ticket = lease.ticket
        if ticket is not None:
            ticket.gate.leave(ticket, release, now)
        elif release is not None and release.outcome != "finished":
            self._learn_from_end(lease, release, now)
        self._ended[lease.span_id] = lease
        self._forget_old()

    def _forget_old(self) -> None:
        if len(self._ended) >= _REMEMBERED:
            self._ended_before, self._ended = self._ended, {}

    def _learn_from_end(self, lease: Lease, release: Release, now: float) -> None:
        if (ticket := self._learned(lease, release, now)) is not None:
            ticket.gate.leave(ticket, release, now)

    def answered(self, epoch: int, report: ResponseReport, now: float) -> None:
        """The worker with this epoch tells of the head of a response."""
        running = self._leases.find(report.span_id)
        lease = running or self._ended.get(report.span_id) or self._ended_before.get(report.span_id)
        if lease is None or (lease.epoch, lease.attempt) != (epoch, report.attempt):
            return
        if lease.ticket is not None:
            lease.ticket.gate.answered(lease.ticket, report, now)
        elif (ticket := self._learned(lease, report, now)) is not None:
            ticket.gate.answered(ticket, report, now)
            if running is None:
                ticket.gate.leave(ticket, None, now)

    def _learned(self, lease: Lease, sign: Release | ResponseReport, now: float) -> Ticket | None:
        """Return the lease's ticket if there is a gate for its run now: the sign may have made one."""
        if lease.run is None:
            return None
        if self._gates.learns_from(lease.run.question, sign, now):
            self.gates_changed(now)
        running = self._leases.find(lease.span_id)
        if running is not None and running.ticket is not None:
            return running.ticket
        return self._gates.adopt(lease.run.question, "", now)

    def gates_changed(self, now: float) -> None:
        """There may be gates that there were not: count in them the runs that have a lease and no ticket."""
        self._leases.give_tickets(lambda run: self._gates.adopt(run.question, "", now, run.since))
