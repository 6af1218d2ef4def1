"""Who may run where: leases, the queue for them, and the choice of a worker. Pure.

Rules of this file:

1. A span id is held once: by one lease or one place in the queue.
2. A lease goes to the live worker with the fewest, never to one that the run saw die: its client may know of a death first.
3. Interactive runs go before batch runs; within a lane, first come, first served.
4. Leases end with their release, their client or their worker.
"""

from __future__ import annotations

import msgspec

from headrace.wire.messages import Acquire, Grant, RefusalKind, Refuse

NO_WORKERS_TIMEOUT = 10.0
"""Seconds that a run waits while there is no worker for it at all."""


class Send(msgspec.Struct, frozen=True):
    """Send an answer to a client."""

    client: bytes
    message: Grant | Refuse


class Worker:
    """A worker that can be given runs."""

    __slots__ = ("endpoint", "epoch", "is_suspect", "name", "spans")

    def __init__(self, name: str, endpoint: str, epoch: int) -> None:
        self.name = name
        self.endpoint = endpoint
        self.epoch = epoch
        self.is_suspect = False
        self.spans: set[str] = set()


class _Lease(msgspec.Struct, frozen=True, gc=False):
    client: bytes
    attempt: int
    epoch: int


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    client: bytes
    question: Acquire
    since: float


class Admission:
    """Leases and the queue for them."""

    def __init__(self, max_runs_per_worker: int, max_waiting_runs: int) -> None:
        self._max_runs = max_runs_per_worker
        self._max_waiting = max_waiting_runs
        self._workers: dict[int, Worker] = {}
        self._leases: dict[str, _Lease] = {}
        self._lanes: dict[str, dict[str, _Waiting]] = {"interactive": {}, "batch": {}}
        self._spans_of: dict[bytes, set[str]] = {}
        self._is_stopping = False
        # When there was a worker last, as far as :meth:`due` has seen.
        self._absent_since = float("-inf")
        self._absence = "no worker has started yet"
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

    def worker_joined(self, name: str, endpoint: str, epoch: int) -> list[Send]:
        """A worker is ready."""
        worker = self._workers.setdefault(epoch, Worker(name, endpoint, epoch))
        worker.spans |= {span_id for span_id, lease in self._leases.items() if lease.epoch == epoch}
        return self._assign()

    def worker_left(self, epoch: int, reason: str) -> list[Send]:
        """A worker is gone, and its leases with it; their clients see that for themselves."""
        worker = self._workers.pop(epoch, None)
        if worker is None:
            return []
        self._absence = f"the last worker went away: {reason}"
        for span_id in worker.spans:
            self._forget(span_id)
        return []

    def worker_suspected(self, epoch: int, is_suspect: bool) -> list[Send]:
        """A worker has fallen silent (it gets no leases) or speaks again."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.is_suspect = is_suspect
        return [] if is_suspect else self._assign()

    def client_left(self, client: bytes) -> list[Send]:
        """A client is gone: what it held is free."""
        for span_id in self._spans_of.pop(client, set()):
            self._drop(span_id)
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
        elif self.waiting_count >= self._max_waiting:
            reason = f"{self.waiting_count} runs are waiting already"
            refusal = self._refuse(client, question, "queue_full", reason, retry_after=1.0)
        else:
            self._spans_of.setdefault(client, set()).add(question.span_id)
            self._lanes[question.priority][question.span_id] = _Waiting(client, question, now)
            return self._assign()
        return [refusal, *self._assign()]

    def held(self, client: bytes, span_id: str, attempt: int, epoch: int) -> list[Send]:
        """A client tells of a lease that a broker before this one gave; its worker may not have said hello yet."""
        holder = self._leases.get(span_id) or self._waiting(span_id)
        if holder is not None and (holder.client != client or _attempt(holder) > attempt):
            return []
        self._drop(span_id)
        self._spans_of.setdefault(client, set()).add(span_id)
        self._leases[span_id] = _Lease(client, attempt, epoch)
        if (worker := self._workers.get(epoch)) is not None:
            worker.spans.add(span_id)
        return self._assign()

    def released(self, client: bytes, span_id: str, attempt: int) -> list[Send]:
        """A client gives a lease, or its place in the queue, back."""
        holder = self._leases.get(span_id) or self._waiting(span_id)
        if holder is None or holder.client != client or _attempt(holder) != attempt:
            return []
        self._free(client, span_id)
        return self._assign()

    def stopping(self) -> list[Send]:
        """No new runs from here on; those that wait are refused."""
        self._is_stopping = True
        return self._refuse_waiting("stopping", "the engine is stopping and takes no new runs")

    def due(self, now: float) -> list[Send]:
        """Time has passed: nobody waits for ever for a worker that does not come."""
        if self._workers:
            self._absent_since = now
        refused: list[Send] = []
        for lane in self._lanes.values():
            # The first is the oldest: while it may go on waiting, so may those behind it.
            for span_id, waiting in list(lane.items()):
                if now - waiting.since < NO_WORKERS_TIMEOUT:
                    break
                is_absent = not self._workers and now - self._absent_since >= NO_WORKERS_TIMEOUT
                if is_absent or (self._workers and not self._workers.keys() - set(waiting.question.avoid)):
                    self._free(waiting.client, span_id)
                    refused.append(self._refuse(waiting.client, waiting.question, "no_workers", self._absence))
        return refused

    def _assign(self) -> list[Send]:
        """Give leases to those that wait, for as long as there is room."""
        answers: list[Send] = []
        for lane in self._lanes.values():
            for span_id, waiting in list(lane.items()):
                worker = self._choose(waiting.question)
                if worker is None:
                    if waiting.question.avoid:
                        continue  # it waits for a worker of its own; those behind it may not have to
                    return answers
                del lane[span_id]
                answers.append(self._grant(waiting.client, waiting.question, worker))
        return answers

    def _choose(self, question: Acquire) -> Worker | None:
        best: Worker | None = None
        for worker in self._workers.values():
            if worker.is_suspect or len(worker.spans) >= self._max_runs or worker.epoch in question.avoid:
                continue
            if best is None or len(worker.spans) < len(best.spans):
                best = worker
        return best

    def _grant(self, client: bytes, question: Acquire, worker: Worker) -> Send:
        self.granted_total += 1
        worker.spans.add(question.span_id)
        self._leases[question.span_id] = _Lease(client, question.attempt, worker.epoch)
        return Send(client, Grant(question.span_id, question.attempt, worker.name, worker.endpoint, worker.epoch))

    def _refuse(
        self, client: bytes, question: Acquire, kind: RefusalKind, reason: str, retry_after: float | None = None
    ) -> Send:
        self.refused_total += 1
        return Send(client, Refuse(question.span_id, question.attempt, kind, reason, retry_after))

    def _refuse_waiting(self, kind: RefusalKind, reason: str) -> list[Send]:
        refused: list[Send] = []
        for lane in self._lanes.values():
            for span_id, waiting in lane.items():
                self._spans_of.get(waiting.client, set()).discard(span_id)
                refused.append(self._refuse(waiting.client, waiting.question, kind, reason))
            lane.clear()
        return refused

    def _waiting(self, span_id: str) -> _Waiting | None:
        for lane in self._lanes.values():
            if span_id in lane:
                return lane[span_id]
        return None

    def _free(self, client: bytes, span_id: str) -> None:
        """Take what a client holds, or waits for, from it."""
        self._spans_of.get(client, set()).discard(span_id)
        self._drop(span_id)

    def _drop(self, span_id: str) -> None:
        """Free a lease or a place in the queue."""
        lease = self._leases.pop(span_id, None)
        if lease is not None and (worker := self._workers.get(lease.epoch)) is not None:
            worker.spans.discard(span_id)
        for lane in self._lanes.values():
            lane.pop(span_id, None)

    def _forget(self, span_id: str) -> None:
        lease = self._leases.pop(span_id, None)
        if lease is not None and (spans := self._spans_of.get(lease.client)) is not None:
            spans.discard(span_id)


def _attempt(holder: _Lease | _Waiting) -> int:
    return holder.attempt if isinstance(holder, _Lease) else holder.question.attempt
