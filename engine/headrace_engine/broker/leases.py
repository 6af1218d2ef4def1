"""Leases: which client holds which, on which worker, and when its worker is asked whether it has the run. Pure.

A lease ends with its release, its client or its worker. It ends too when its worker, asked after a while, does not have
the run, or has not connected by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import msgspec

from headrace.wire.messages import WaitWord
from headrace_engine.broker.client_shares import ClientShares
from headrace_engine.broker.connected_workers import ConnectedWorker, ConnectedWorkers
from headrace_engine.broker.lease_checks import LeaseChecks
from headrace_engine.broker.waiting_run import Owner, WaitingRun
from headrace_engine.limits.gate import Ticket

_CHECKED_AT_ONCE = 1000
"""Leases about which workers are asked at one time."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A lease of one run. ``owner`` is the client's process, or its connection."""

    span_id: str
    client: bytes
    owner: Owner
    attempt: int
    epoch: int
    run: WaitingRun | None = None
    """The run as it waited. ``None``: an earlier broker gave the lease, and the client did not tell its question."""
    waited_for: WaitWord = ""
    """What the run waited for last; empty if it did not wait."""
    ticket: Ticket | None = None
    """The run's share of the limits; ``None`` if nothing limits it."""
    places: int = 1
    """How much the lease counts among those that a client may tell of: more than 1 if its question is large."""

    @property
    def is_traced(self) -> bool:
        """Whether the run wants a span, as far as this broker knows."""
        return self.run is not None and self.run.question.is_traced


class UnfinishedRun(msgspec.Struct, frozen=True):
    """A run that had a lease and did not end well, perhaps. ``asked_at`` is when its client asked for the lease."""

    span_id: str
    attempt: int
    provider: str
    model: str
    worker: str
    asked_at: float


class Leases:
    """The leases, by span id, with each client's share of each worker."""

    def __init__(self, workers: ConnectedWorkers) -> None:
        self.shares = ClientShares()
        self._workers = workers
        self._leases: dict[str, Lease] = {}
        self.find: Callable[[str], Lease | None] = self._leases.get
        """Returns the lease of a run."""
        self._of_client: dict[bytes, set[str]] = {}
        self._checks = LeaseChecks()

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, lease: Lease, *, is_told: bool = False) -> None:
        """A client has a lease. ``is_told``: its client says that an earlier broker gave it."""
        self._leases[lease.span_id] = lease
        self._of_client.setdefault(lease.client, set()).add(lease.span_id)
        self.shares.taken(lease.epoch, lease.owner, lease.places)
        worker = self._workers.find(lease.epoch)
        if worker is not None:
            worker.spans.add(lease.span_id)
        self._checks.added(lease.span_id, is_soon=is_told and worker is not None)

    def knows_any(self, span_ids: Iterable[str]) -> bool:
        """Return whether any of these runs has a lease."""
        return not self._leases.keys().isdisjoint(span_ids)

    def add_all(self, worker: ConnectedWorker, leases: dict[str, Lease]) -> None:
        """A client has these leases on a worker, by span id. None of the runs had one before."""
        first = next(iter(leases.values()))
        self._leases.update(leases)
        self._of_client.setdefault(first.client, set()).update(leases)
        self.shares.taken(worker.epoch, first.owner, sum([lease.places for lease in leases.values()]), len(leases))
        worker.spans.update(leases)
        self._checks.added_all(leases)

    def remove_all(self, leases: Collection[Lease]) -> None:
        """Leases of one client have ended."""
        span_ids = [lease.span_id for lease in leases]
        by_worker: dict[int, list[Lease]] = {}
        for lease in leases:
            del self._leases[lease.span_id]
            by_worker.setdefault(lease.epoch, []).append(lease)
        self._checks.dropped_all(span_ids)
        for epoch, ended in by_worker.items():
            first = ended[0]
            self.shares.given_back(epoch, first.owner, sum([lease.places for lease in ended]), len(ended))
            if (worker := self._workers.find(epoch)) is not None:
                worker.spans.difference_update([lease.span_id for lease in ended])
            spans = self._of_client[first.client]
            spans.difference_update([lease.span_id for lease in ended])
            if not spans:
                del self._of_client[first.client]

    def remove(self, span_id: str) -> Lease | None:
        """A lease has ended. Return it; ``None`` for an unknown one."""
        lease = self._leases.pop(span_id, None)
        if lease is None:
            return None
        spans = self._of_client[lease.client]
        spans.discard(span_id)
        if not spans:
            del self._of_client[lease.client]
        self._checks.dropped(span_id)
        self.shares.given_back(lease.epoch, lease.owner, lease.places)
        if (worker := self._workers.find(lease.epoch)) is not None:
            worker.spans.discard(span_id)
        return lease

    def worker_joined(self, worker: ConnectedWorker) -> None:
        """A worker has connected. Clients may have told of leases on it before."""
        worker.spans |= {lease.span_id for lease in self._leases.values() if lease.epoch == worker.epoch}

    def worker_left(self, worker: ConnectedWorker) -> list[Lease]:
        """A worker is gone, and so are the leases on it. Return them. Their clients see that on their own connections."""
        return self._remove_all(list(worker.spans))

    def client_left(self, client: bytes) -> list[Lease]:
        """A client is gone, and so are its leases. Return them."""
        return self._remove_all(list(self._of_client.get(client, ())))

    def _remove_all(self, span_ids: list[str]) -> list[Lease]:
        return [lease for span_id in span_ids if (lease := self.remove(span_id)) is not None]

    def give_tickets(self, ticket_of: Callable[[WaitingRun], Ticket | None]) -> None:
        """Give a ticket to each lease that has none and now stands before a gate."""
        for lease in list(self._leases.values()):
            if lease.ticket is None and lease.run is not None and (ticket := ticket_of(lease.run)) is not None:
                self._leases[lease.span_id] = msgspec.structs.replace(lease, ticket=ticket)

    def unfinished_on(self, epoch: int) -> list[UnfinishedRun]:
        """Return the runs with a lease on a worker that want a span. The span of a hedge is that of the run beside it."""
        worker = self._workers.find(epoch)
        return self._unfinished(worker.spans) if worker is not None else []

    def unfinished_of(self, client: bytes) -> list[UnfinishedRun]:
        """Return the runs with a lease of a client that want a span."""
        return self._unfinished(self._of_client.get(client, set()))

    def _unfinished(self, span_ids: Iterable[str]) -> list[UnfinishedRun]:
        found: list[UnfinishedRun] = []
        for span_id in sorted(span_ids):
            lease = self._leases[span_id]
            if lease.run is None or not lease.is_traced or lease.run.question.is_hedge:
                continue
            question = lease.run.question
            worker = self._workers.find(lease.epoch)
            name = worker.name if worker is not None else ""
            found.append(
                UnfinishedRun(span_id, lease.attempt, question.provider, question.model, name, lease.run.since)
            )
        return found

    def next_check(self, now: float) -> float | None:
        """Return when :meth:`due` has a lease next. Leases that were added since the last call count from ``now``."""
        return self._checks.next_deadline(now)

    def due(self, now: float) -> list[Lease]:
        """Return the leases whose workers are to be asked now whether they have the run: 1,000 at most."""
        return [self._leases[span_id] for span_id in self._checks.due(now, _CHECKED_AT_ONCE)]

    def unused(self, epoch: int, answers: Iterable[tuple[str, int, bool]], now: float) -> list[Lease]:
        """A worker says which runs it has: span id, attempt, whether it has it. Return the leases that are not used.

        A client with many of them gets few leases for a while.
        """
        found: dict[str, Lease] = {}
        for span_id, attempt, is_running in answers:
            lease = self._leases.get(span_id)
            # A lease that was given after the question is another one, and the answer is not about it.
            if (
                lease is not None
                and not is_running
                and (lease.epoch, lease.attempt) == (epoch, attempt)
                and self._checks.was_asked(span_id)
            ):
                found[span_id] = lease
        self.shares.unused(Counter(lease.owner for lease in found.values()), self._workers.max_runs, now)
        return list(found.values())
