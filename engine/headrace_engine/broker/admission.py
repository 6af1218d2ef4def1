"""Who may run where: leases, the queue for them, and the choice of a worker. Pure.

Rules of this file:

1. A span id is held once: by one lease or one place in the queue.
2. A lease goes to the live worker with the fewest, never to one that the run saw die: its client may know of a death first.
3. Interactive runs go before batch runs; within a lane clients take turns, and a client's own are served as they came.
4. Leases end with their release, their client or their worker; and when the worker, asked after a while, does not have the run.
5. No client takes the last places in the queue, or on a worker, for itself. All connections of one process are one client in this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from headrace.wire.messages import Acquire, Grant, RefusalKind, Refuse, Revoke
from headrace_engine.broker.client_shares import Shares
from headrace_engine.broker.lane import Line, Owner, Waiting
from headrace_engine.broker.lease_checks import LeaseChecks

NO_WORKERS_TIMEOUT = 10.0
"""Seconds that a run waits while there is no worker for it at all."""
_NONE_YET = "no worker has started yet"
_FREE_SHARE = 9
"""A client may have so many times as many runs waiting as there are free places in the queue."""
_CHECKED_AT_ONCE = 1000
"""Leases whose workers are asked about them at one time."""


class Send(msgspec.Struct, frozen=True):
    """Send an answer to a client."""

    client: bytes
    message: Grant | Refuse | Revoke


class Ask(msgspec.Struct, frozen=True):
    """Ask a worker which of these runs it has: span id, attempt and client's process, 0 for an unknown one, of each."""

    epoch: int
    leases: list[tuple[str, int, int]]


class Worker:
    """A worker that can be given runs."""

    __slots__ = ("endpoint", "epoch", "is_leaving", "is_suspect", "max_runs", "name", "pid", "spans")

    def __init__(self, name: str, endpoint: str, epoch: int, max_runs: int, pid: int) -> None:
        self.name = name
        self.endpoint = endpoint
        self.epoch = epoch
        self.pid = pid
        self.max_runs = max_runs
        self.is_suspect = False
        self.is_leaving = False
        self.spans: set[str] = set()

    @property
    def has_room(self) -> bool:
        """Whether it can be given another run."""
        return not self.is_suspect and not self.is_leaving and len(self.spans) < self.max_runs


class _Lease(msgspec.Struct, frozen=True, gc=False):
    client: bytes
    owner: Owner
    attempt: int
    epoch: int
    # What it answered; not known of a lease that the broker before gave.
    waiting: Waiting | None = None


class Unfinished(msgspec.Struct, frozen=True):
    """A run that had a lease, and of which perhaps nobody will say how it ends. ``asked_at`` is when its lease was asked for."""

    span_id: str
    attempt: int
    provider: str
    model: str
    worker: str
    asked_at: float


class Admission:
    """Leases and the queue for them."""

    def __init__(self, max_runs_per_worker: int, max_waiting_runs: int) -> None:
        self._max_runs = max_runs_per_worker
        self._max_waiting = max_waiting_runs
        self._workers: dict[int, Worker] = {}
        self._leases: dict[str, _Lease] = {}
        self._shares = Shares()
        self._checks = LeaseChecks()
        self._checked_at = 0.0
        self._processes: dict[bytes, int] = {}
        self._lanes = {"interactive": Line(), "batch": Line()}
        self._spans_of: dict[bytes, set[str]] = {}
        self._is_stopping = False
        # When there was a worker last, as far as :meth:`due` has seen.
        self._absent_since = float("-inf")
        self._absence = _NONE_YET
        self._is_one_starting = False
        self.granted_total = 0
        self.refused_total = 0

    @property
    def lease_count(self) -> int:
        """Leases that are held."""
        return len(self._leases)

    @property
    def waiting_count(self) -> int:
        """Runs that wait for a lease."""
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def workers(self) -> list[Worker]:
        """The workers that are there."""
        return list(self._workers.values())

    def client_joined(self, client: bytes, process: int) -> None:
        """A client is there, of a process, 0 for one that the kernel does not know."""
        if process:
            self._processes[client] = process

    def worker_joined(self, name: str, endpoint: str, epoch: int, capacity: int = -1, pid: int = 0) -> list[Send]:
        """A worker is ready; for ``capacity`` see :meth:`worker_told`."""
        worker = self._workers.setdefault(epoch, Worker(name, endpoint, epoch, self._bounded(capacity), pid))
        worker.spans |= {span_id for span_id, lease in self._leases.items() if lease.epoch == epoch}
        return self._assign()

    def worker_failed(self, reason: str) -> None:
        """A worker process ended; of interest where none has ever served."""
        if self._absence.startswith(_NONE_YET):
            self._absence = f"{_NONE_YET}: {reason}"

    def worker_left(self, epoch: int, reason: str) -> list[Send]:
        """A worker is gone, and its leases with it; their clients see that for themselves."""
        worker = self._workers.pop(epoch, None)
        if worker is None:
            return []
        self._absence = f"the last worker went away: {reason}"
        for span_id in list(worker.spans):
            self._forget(span_id)
        return []

    def runs_on(self, epoch: int) -> list[str]:
        """Return the runs with a lease on a worker."""
        worker = self._workers.get(epoch)
        return [] if worker is None else list(worker.spans)

    def unfinished_on(self, epoch: int) -> list[Unfinished]:
        """Return the runs with a lease on a worker, those that want a span."""
        worker = self._workers.get(epoch)
        return self._unfinished(worker.spans) if worker is not None else []

    def unfinished_of(self, client: bytes) -> list[Unfinished]:
        """Return a client's runs with a lease, those that want a span."""
        return self._unfinished(self._spans_of.get(client, set()))

    def is_traced(self, span_id: str) -> bool:
        """Return whether a run that this broker has given a lease wants a span."""
        lease = self._leases.get(span_id)
        return lease is not None and lease.waiting is not None and lease.waiting.question.is_traced

    def worker_suspected(self, epoch: int, is_suspect: bool) -> list[Send]:
        """A worker has fallen silent (it gets no leases) or speaks again."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.is_suspect = is_suspect
        return [] if is_suspect else self._assign()

    def worker_told(self, epoch: int, capacity: int, is_leaving: bool) -> list[Send]:
        """A worker tells how many runs it can have, -1 for as many as the settings say, and whether it takes new ones."""
        worker = self._workers.get(epoch)
        if worker is None:
            return []
        max_runs = self._bounded(capacity)
        has_grown = max_runs > worker.max_runs
        worker.max_runs = max_runs
        if is_leaving and not worker.is_leaving:
            worker.is_leaving = True
            self._absence = f"the last worker is leaving: {worker.name}"
        return self._assign() if has_grown else []

    def _bounded(self, capacity: int) -> int:
        return self._max_runs if capacity < 0 else min(capacity, self._max_runs)

    def is_vacated(self, epoch: int) -> bool:
        """Return whether nobody holds a lease on a worker."""
        worker = self._workers.get(epoch)
        return worker is None or not worker.spans

    def client_left(self, client: bytes) -> list[Send]:
        """A client is gone: what it held is free."""
        for span_id in self._spans_of.pop(client, set()):
            self._drop(span_id)
        self._processes.pop(client, None)
        return self._assign()

    def acquired(self, client: bytes, question: Acquire, now: float) -> list[Send]:
        """A client asks for a lease."""
        holder = self._leases.get(question.span_id) or self._waiting(question.span_id)
        if holder is not None:
            if holder.client != client or _attempt(holder) >= question.attempt:
                return [self._refuse(client, question, "duplicate_span_id", f"{question.span_id} is running already")]
            # A further attempt of the same run ends the one before.
            self._free(client, question.span_id)
        if self._is_stopping:
            refusal = self._refuse(client, question, "stopping", "the engine is stopping and takes no new runs")
        elif (taken := sum(lane.places for lane in self._lanes.values())) >= self._max_waiting:
            reason = f"{self.waiting_count} runs are waiting already"
            refusal = self._refuse(client, question, "queue_full", reason, retry_after=1.0)
        elif (own := self._waiting_of(self._owner(client))) >= _FREE_SHARE * (self._max_waiting - taken):
            reason = f"this client's waiting runs take {own} places already, of {taken} in all"
            refusal = self._refuse(client, question, "queue_full", reason, retry_after=1.0)
        else:
            self._spans_of.setdefault(client, set()).add(question.span_id)
            waiting = Waiting(client, question, now, self._processes.get(client, 0))
            self._lanes[question.priority].add(waiting)
            return self._assign()
        return [refusal, *self._assign()]

    def held(self, client: bytes, span_id: str, attempt: int, epoch: int) -> list[Send]:
        """A client tells of a lease that a broker before this one gave; its worker may not have said hello yet."""
        holder = self._leases.get(span_id) or self._waiting(span_id)
        if holder is not None and (holder.client != client or _attempt(holder) > attempt):
            return []
        if isinstance(holder, _Lease) and (holder.attempt, holder.epoch) == (attempt, epoch):
            return []
        owner = self._owner(client)
        if not self._shares.may_tell(epoch, owner, self._max_runs):
            return []  # more than it can have had
        self._drop(span_id)
        self._spans_of.setdefault(client, set()).add(span_id)
        self._add(span_id, _Lease(client, owner, attempt, epoch))
        self._checks.added(span_id, is_told=epoch in self._workers)
        return self._assign()

    def released(self, client: bytes, span_id: str, attempt: int) -> list[Send]:
        """A client gives a lease, or its place in the queue, back."""
        holder = self._leases.get(span_id) or self._waiting(span_id)
        if holder is None or holder.client != client or _attempt(holder) != attempt:
            return []
        self._free(client, span_id)
        return self._assign()

    def checks(self, now: float) -> list[Ask | Send]:
        """Time has passed: ask workers for the runs of leases, and end those whose worker has not come."""
        self._checked_at = now
        self._shares.passed(now)
        asked: dict[int, list[tuple[str, int, int]]] = {}
        ended: list[Ask | Send] = []
        for span_id in self._checks.due(now, _CHECKED_AT_ONCE):
            lease = self._leases[span_id]
            if lease.epoch in self._workers:
                process = lease.owner if isinstance(lease.owner, int) else 0
                asked.setdefault(lease.epoch, []).append((span_id, lease.attempt, process))
            else:
                ended.append(self._revoke(span_id, lease))
        return [*ended, *(Ask(epoch, leases) for epoch, leases in asked.items())]

    def checked(self, epoch: int, answers: Iterable[tuple[str, int, bool]]) -> list[Send]:
        """A worker says which runs it has: span id, attempt, and whether it has it. The leases of the others end."""
        ended: list[Send] = []
        unused: Counter[Owner] = Counter()
        for span_id, attempt, is_running in answers:
            lease = self._leases.get(span_id)
            is_meant = lease is not None and (lease.epoch, lease.attempt) == (epoch, attempt)
            # One that was given since is another.
            if lease is not None and is_meant and not is_running and self._checks.was_asked(span_id):
                unused[lease.owner] += 1
                ended.append(self._revoke(span_id, lease))
        self._shares.unused(unused, self._max_runs, self._checked_at)
        return [*ended, *self._assign()] if ended else []

    def _revoke(self, span_id: str, lease: _Lease) -> Send:
        self._forget(span_id)
        return Send(lease.client, Revoke(span_id, lease.attempt))

    def stopping(self) -> list[Send]:
        """No new runs from here on; those that wait are refused."""
        self._is_stopping = True
        return self._refuse_waiting("stopping", "the engine is stopping and takes no new runs")

    def worker_starting(self, *, is_so: bool) -> None:
        """Whether a worker is on its way: as long as one is, runs wait for it."""
        self._is_one_starting = is_so

    def due(self, now: float) -> list[Send]:
        """Time has passed: nobody waits for ever for a worker that does not come."""
        staying = {epoch for epoch, worker in self._workers.items() if not worker.is_leaving}
        if staying or self._is_one_starting:
            self._absent_since = now
        is_absent = now - self._absent_since >= NO_WORKERS_TIMEOUT
        refused: list[Send] = []
        for lane in self._lanes.values():
            for waiting in lane.overdue(now - NO_WORKERS_TIMEOUT) if is_absent or staying else ():
                if is_absent or not staying - set(waiting.question.avoid):
                    self._free(waiting.client, waiting.span_id)
                    reason = "the run has met every worker that there is" if staying else self._absence
                    refused.append(self._refuse(waiting.client, waiting.question, "no_workers", reason))
        return refused

    def _assign(self) -> list[Send]:
        """Give leases to those that wait, for as long as there is room."""
        answers: list[Send] = []
        for lane in self._lanes.values():
            while lane and any(worker.has_room for worker in self._workers.values()):
                served = lane.serve(self._choose)
                if served is None:
                    break  # those that are left wait for workers of their own; others may not have to
                waiting, worker = served
                answers.append(self._grant(waiting, worker))
        return answers

    def _choose(self, waiting: Waiting) -> Worker | None:
        best: Worker | None = None
        for worker in self._workers.values():
            if not worker.has_room or worker.epoch in waiting.question.avoid:
                continue
            if not self._shares.has_room(worker.epoch, waiting.owner, worker.max_runs):
                continue
            if best is None or len(worker.spans) < len(best.spans):
                best = worker
        return best

    def _grant(self, waiting: Waiting, worker: Worker) -> Send:
        question = waiting.question
        self.granted_total += 1
        span_id, attempt = question.span_id, question.attempt
        self._add(span_id, _Lease(waiting.client, waiting.owner, attempt, worker.epoch, waiting))
        self._checks.added(span_id)
        return Send(waiting.client, Grant(span_id, attempt, worker.name, worker.endpoint, worker.epoch, worker.pid))

    def _unfinished(self, span_ids: Iterable[str]) -> list[Unfinished]:
        found: list[Unfinished] = []
        for span_id in sorted(span_id for span_id in span_ids if span_id in self._leases):
            lease = self._leases[span_id]
            if lease.waiting is None or not lease.waiting.question.is_traced:
                continue
            question = lease.waiting.question
            worker = self._workers.get(lease.epoch)
            name = worker.name if worker is not None else ""
            since = lease.waiting.since
            found.append(Unfinished(span_id, lease.attempt, question.provider, question.model, name, since))
        return found

    def _refuse(
        self, client: bytes, question: Acquire, kind: RefusalKind, reason: str, retry_after: float | None = None
    ) -> Send:
        self.refused_total += 1
        return Send(client, Refuse(question.span_id, question.attempt, kind, reason, retry_after))

    def _refuse_waiting(self, kind: RefusalKind, reason: str) -> list[Send]:
        refused: list[Send] = []
        for lane in self._lanes.values():
            for waiting in lane.clear():
                self._spans_of.get(waiting.client, set()).discard(waiting.span_id)
                refused.append(self._refuse(waiting.client, waiting.question, kind, reason))
        return refused

    def _waiting(self, span_id: str) -> Waiting | None:
        for lane in self._lanes.values():
            if (waiting := lane.find(span_id)) is not None:
                return waiting
        return None

    def _waiting_of(self, owner: Owner) -> int:
        return sum(lane.count(owner) for lane in self._lanes.values())

    def _owner(self, client: bytes) -> Owner:
        return self._processes.get(client) or client

    def _free(self, client: bytes, span_id: str) -> None:
        """Take what a client holds, or waits for, from it."""
        self._spans_of.get(client, set()).discard(span_id)
        self._drop(span_id)

    def _drop(self, span_id: str) -> None:
        """Free a lease or a place in the queue."""
        self._remove(span_id)
        for lane in self._lanes.values():
            lane.remove(span_id)

    def _forget(self, span_id: str) -> None:
        lease = self._remove(span_id)
        if lease is not None and (spans := self._spans_of.get(lease.client)) is not None:
            spans.discard(span_id)

    def _add(self, span_id: str, lease: _Lease) -> None:
        self._leases[span_id] = lease
        self._shares.taken(lease.epoch, lease.owner)
        if (worker := self._workers.get(lease.epoch)) is not None:
            worker.spans.add(span_id)

    def _remove(self, span_id: str) -> _Lease | None:
        lease = self._leases.pop(span_id, None)
        if lease is None:
            return None
        self._checks.dropped(span_id)
        self._shares.given_back(lease.epoch, lease.owner)
        if (worker := self._workers.get(lease.epoch)) is not None:
            worker.spans.discard(span_id)
        return lease


def _attempt(holder: _Lease | Waiting) -> int:
    return holder.attempt if isinstance(holder, _Lease) else holder.question.attempt
