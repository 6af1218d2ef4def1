"""Admission: gives leases to the runs that ask for one, keeps the runs that must wait, and refuses the others. Pure.

It combines the parts that decide one thing each: ``leases`` (who holds which lease), ``lanes`` (who waits, in which
order), ``wait_deadlines`` (for how long), ``connected_workers``, ``client_shares`` (how much one client may have), ``choice``
(which worker a run goes to, or what it waits for) and the gates (which limits a run must have room in). Rules of this file:

1. A span id is in one place: it has one lease, or one place in the queue.
2. A lease is given when a worker and the run's gate have room for it.
3. Each ticket of a gate is given back once: when its lease ends, however that comes.
4. A question that a client repeats is answered again, and costs the run neither its lease nor its place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

import msgspec

from headrace.wire.bounds import MAX_SECONDS
from headrace.wire.messages import (
    Acquire,
    Grant,
    GrantMany,
    Hold,
    RefusalKind,
    Refuse,
    Release,
    ResponseReport,
    Revoke,
    WaitWord,
)
from headrace_engine.broker.choice import NO_WORKERS_TIMEOUT, choose, choose_many
from headrace_engine.broker.connected_workers import ConnectedWorker, ConnectedWorkers
from headrace_engine.broker.lane import Lane
from headrace_engine.broker.lanes import Lanes
from headrace_engine.broker.leases import Lease, Leases, UnfinishedRun
from headrace_engine.broker.tickets import Tickets
from headrace_engine.broker.wait_deadlines import WaitDeadlines
from headrace_engine.broker.waiting_run import Owner, Wait, WaitCause, WaitingRun
from headrace_engine.limits.gate import Gate, Gates, Priority
from headrace_engine.limits.no_limits import NoLimits

_NO_HEDGE = "a second attempt does not wait, and there is no place for it now"
_FOR_LIMITS = "for the limits of its model"
_LONG_WAITS: dict[WaitWord, str] = {
    "blocked": "because the provider asked for a pause",
    "breaker": "because the provider fails",
}
_STOPPING = "the engine is stopping and takes no new runs"
_LOOK_INTERVAL = 0.5
"""Seconds to the next look, while so many runs avoid workers that their deadlines are not compared in each turn."""
_GIVES_UP = (WaitCause.NO_WORKER, WaitCause.ALL_AVOIDED)
_SHORTEST_WAIT = 0.001
"""Seconds to the next look at a gate, at least."""


class Send(msgspec.Struct, frozen=True):
    """Send an answer to a client. ``is_repeat``: it was sent before, and the client has asked again."""

    client: bytes
    message: Grant | Refuse | Revoke
    is_repeat: bool = False


class SendMany(msgspec.Struct, frozen=True):
    """Tell a client of leases of several of its runs."""

    client: bytes
    message: GrantMany


class Ask(msgspec.Struct, frozen=True):
    """Ask a worker which of these runs it has. Each item: span id, attempt, pid of the client (0: not known)."""

    epoch: int
    leases: list[tuple[str, int, int]]


class Admission:
    """The leases of one engine, and the queue for them. Each method returns what is to be sent.

    ``gates``: the limits; ``None``: nothing is limited.
    """

    def __init__(self, max_runs_per_worker: int, max_waiting_runs: int, gates: Gates | None = None) -> None:
        self._workers = ConnectedWorkers(max_runs_per_worker)
        self._leases = Leases(self._workers)
        self._lanes = Lanes(max_waiting_runs)
        self._deadlines = WaitDeadlines(self._is_waiting)
        self._gates: Gates = gates if gates is not None else NoLimits()
        self._generation = self._gates.generation
        self._tickets = Tickets(self._gates, self._leases)
        # Client processes by connection, where the kernel tells them.
        self._processes: dict[bytes, int] = {}
        self._is_stopping = False
        self._now = 0.0
        self.granted_total = 0
        self.refused_total = 0

    @property
    def lease_count(self) -> int:
        """Leases that are held."""
        return len(self._leases)

    @property
    def waiting_count(self) -> int:
        """Runs that wait for a lease."""
        return len(self._lanes)

    @property
    def workers(self) -> list[ConnectedWorker]:
        """The workers that are connected."""
        return list(self._workers)

    # Clients and their runs.

    def client_joined(self, client: bytes, process: int) -> None:
        """A client has connected. ``process`` is its pid, 0 where the kernel does not tell it."""
        if process:
            self._processes[client] = process

    def client_left(self, client: bytes) -> list[Send]:
        """A client is gone. Its leases and its places in the queue are free."""
        self._lanes.client_left(client)
        for lease in self._leases.client_left(client):
            self._tickets.give_back(lease, None, self._now)
        self._processes.pop(client, None)
        return self._assign()

    def acquired(self, client: bytes, question: Acquire, now: float) -> list[Send]:
        """A client asks for a lease."""
        self._now = now
        holder = self._holder(question.span_id)
        if holder is not None:
            if holder.client == client and holder.attempt == question.attempt and question.is_repeat:
                return self._repeated(holder)
            if holder.client != client or holder.attempt >= question.attempt:
                return [self._refuse(client, question, "duplicate_span_id", f"{question.span_id} is running already")]
            # A further attempt of the same run ends the one before.
            self._drop(question.span_id)
        if self._is_stopping:
            return [self._refuse(client, question, "stopping", _STOPPING), *self._assign()]
        if problem := self._lanes.no_room(self._owner(client)):
            return [self._refuse(client, question, "queue_full", problem, retry_after=1.0), *self._assign()]
        if (refusal := self._gates.refusal(question, now)) is not None:
            return [self._refuse(client, question, *refusal), *self._assign()]
        run = WaitingRun(client, question, now, self._processes.get(client, 0))
        gate = self._gates.gate_of(question)
        if not self._lanes and self._workers.has_room:  # nobody waits: the run needs no place in the queue
            worker = self._choose(run) if gate is None else self._choose_at(gate, run.question.priority, run)
            if isinstance(worker, ConnectedWorker):
                return [self._grant(run, worker, gate)]
        return self._queue(run, gate)

    def acquired_many(self, client: bytes, questions: Sequence[Acquire], now: float) -> list[Send | SendMany]:
        """A client asks for leases for the first attempts of several runs, whose questions differ in ids and tokens only.

        Decides as :meth:`acquired` does for one after another.
        """
        self._now = now
        answers: list[Send | SendMany] = []
        count = 0
        if self._are_free(client, questions):
            answers, count = self._grant_many(client, questions)
        for question in questions[count:]:
            answers += self.acquired(client, question, now)
        return answers

    def _are_free(self, client: bytes, questions: Sequence[Acquire]) -> bool:
        """Return whether nothing but places on workers decides about these runs."""
        first = questions[0]
        span_ids = {question.span_id for question in questions}
        return not (
            self._is_stopping
            or self._lanes
            or first.avoid
            or first.is_repeat
            or len(span_ids) < len(questions)
            or self._leases.knows_any(span_ids)
            or self._gates.gate_of(first) is not None
            or first.is_provider_retry
            or first.is_hedge
            or self._lanes.no_room(self._owner(client))
            or self._gates.refusal(first, self._now) is not None
            or self._gates.gate_of(first) is not None  # again: where gates are many, the question made place for one
        )

    def _queue(self, run: WaitingRun, gate: Gate | None) -> list[Send]:
        """Put a run in the queue, if it may wait."""
        question = run.question
        if gate is not None and (refused := self._would_wait_too_long(run, gate)) is not None:
            return [refused, *self._assign()]
        self._lanes.add(run, gate)
        answers = self._assign(run)
        if self._is_waiting(run):
            if question.is_hedge:
                self._lanes.remove(run.span_id)
                answers.append(self._refuse(run.client, question, "no_hedge", _NO_HEDGE))
                answers += self._assign()  # the lane must know again what its first run waits for
            elif question.max_wait is not None:
                self._deadlines.add(run, question.max_wait, len(self._lanes))
        return answers

    def _would_wait_too_long(self, run: WaitingRun, gate: Gate) -> Send | None:
        """Return a refusal if a run would wait longer at its gate than its client says that it may."""
        longest = run.question.max_wait
        if longest is None:
            return None
        expected = gate.expected_wait(run.question, self._lanes.ahead_of(run, gate), self._now)
        if expected <= longest:
            return None
        wait = gate.wait(run.question.priority, run.question, self._now)
        cause = _LONG_WAITS.get(wait.word, _FOR_LIMITS) if wait is not None else _FOR_LIMITS
        reason = f"the run would wait about {expected:.1f} s {cause}, and may wait {longest:.1f} s"
        return self._refuse(run.client, run.question, "queue_full", reason, retry_after=expected - longest)

    def held(self, client: bytes, hold: Hold, now: float) -> list[Send]:
        """A client tells of a lease that an earlier broker gave. Its worker may not have said hello yet."""
        self._now = now
        span_id, attempt, epoch = hold.span_id, hold.attempt, hold.epoch
        holder = self._holder(span_id)
        if holder is not None and (holder.client != client or holder.attempt > attempt):
            return []
        if isinstance(holder, Lease) and (holder.attempt, holder.epoch) == (attempt, epoch):
            return []
        owner = self._owner(client)
        question, run, ticket = hold.question, None, None
        if question is not None and (question.span_id, question.attempt) == (span_id, attempt):
            run = WaitingRun(client, question, now, self._processes.get(client, 0))
        places = run.places if run is not None else 1
        if not self._leases.shares.may_tell(epoch, owner, self._workers.max_runs, places):
            return []  # more than an earlier broker can have given
        self._drop(span_id)
        if run is not None:
            ticket = self._gates.adopt(run.question, hold.key, now, now - hold.age)
        self._leases.add(Lease(span_id, client, owner, attempt, epoch, run, "", ticket, places), is_told=True)
        return self._assign()

    def released(self, client: bytes, release: Release, now: float) -> list[Send]:
        """A client gives back a lease, or a place in the queue."""
        self._now = now
        holder = self._holder(release.span_id)
        if holder is None or holder.client != client or holder.attempt != release.attempt:
            return []
        self._drop(release.span_id, release)
        return self._assign()

    def released_many(self, client: bytes, releases: Sequence[Release], now: float) -> list[Send]:
        """A client gives back several leases, or places in the queue. They are free for others when all are given back."""
        self._now = now
        ended: dict[str, tuple[Lease, Release]] = {}
        find = self._leases.find
        for release in releases:
            holder = find(release.span_id) or self._lanes.find(release.span_id)
            if holder is None or holder.client != client or holder.attempt != release.attempt:
                continue
            if isinstance(holder, Lease) and release.outcome == "finished":
                ended.setdefault(release.span_id, (holder, release))
            else:
                # A failure may make a gate, which then counts the leases that there are. So it keeps its turn.
                self._end_all(ended)
                self._drop(release.span_id, release)
        self._end_all(ended)
        return self._assign()

    def answered(self, epoch: int, reports: Iterable[ResponseReport], now: float) -> list[Send]:
        """A worker tells of the heads of responses, with the limits that they name."""
        self._now = now
        for report in reports:
            self._tickets.answered(epoch, report, now)
        return self._assign()

    def limits_changed(self, now: float) -> list[Send]:
        """The limits have changed, for example the keys that there are: runs that wait may go."""
        self._now = now
        self._lanes.look_again()
        return self._assign()

    def is_traced(self, span_id: str) -> bool:
        """Return whether a run to which this broker gave a lease wants a span."""
        lease = self._leases.find(span_id)
        return lease is not None and lease.is_traced

    def waits_for(self, span_id: str) -> Wait | None:
        """Return what a run waits for, and until when; ``None`` if it does not wait."""
        run, lane = self._lanes.find(span_id), self._lanes.lane_of(span_id)
        if (until := self._lanes.waits_for_batch(span_id, self._now)) is not None:
            return Wait(WaitCause.GATE, until, "limit")
        chosen = self._choice(lane)(run) if run is not None and lane is not None else None
        return chosen if isinstance(chosen, Wait) else None

    def waiting_for(self) -> dict[str, int]:
        """Return how many runs wait for what: a word of ``WaitWord`` → a number."""
        return self._lanes.words()

    def waiting_at_gates(self) -> dict[Hashable, int]:
        """Return how many runs wait at each gate, by the gate's key."""
        return self._lanes.waiting_at_gates()

    # Workers.

    def worker_joined(self, name: str, endpoint: str, epoch: int, capacity: int = -1, pid: int = 0) -> list[Send]:
        """A worker has said hello. For ``capacity`` see :meth:`worker_told`."""
        self._leases.worker_joined(self._workers.joined(name, endpoint, epoch, capacity, pid))
        return self._assign()

    def worker_starting(self, *, is_so: bool) -> None:
        """Whether a worker is starting. While one is, runs wait for it."""
        self._workers.starting(is_so=is_so)

    def worker_failed(self, reason: str) -> None:
        """A worker's process ended. If no worker has ever served, runs are refused with this reason."""
        self._workers.failed(reason)

    def worker_left(self, epoch: int, reason: str) -> list[Send]:
        """A worker is gone, and so are the leases on it."""
        is_share_free = False
        if (worker := self._workers.find(epoch)) is not None:
            for lease in self._leases.worker_left(worker):
                is_share_free |= lease.ticket is not None
                self._tickets.give_back(lease, None, self._now)
            self._workers.left(epoch, reason)
        return self._assign() if is_share_free else []

    def worker_suspected(self, epoch: int, is_suspect: bool) -> list[Send]:
        """A worker is silent and gets no leases, or is heard again."""
        if (worker := self._workers.find(epoch)) is not None:
            worker.is_suspect = is_suspect
        return [] if is_suspect else self._assign()

    def worker_told(self, epoch: int, capacity: int, is_leaving: bool) -> list[Send]:
        """A worker tells how many runs it can have (-1: as many as the settings allow), and whether it is leaving."""
        return self._assign() if self._workers.told(epoch, capacity, is_leaving) else []

    def is_vacated(self, epoch: int) -> bool:
        """Return whether no client holds a lease on a worker."""
        return not self.runs_on(epoch)

    def runs_on(self, epoch: int) -> list[str]:
        """Return the runs with a lease on a worker."""
        worker = self._workers.find(epoch)
        return [] if worker is None else list(worker.spans)

    def unfinished_on(self, epoch: int) -> list[UnfinishedRun]:
        """Return the runs with a lease on a worker that want a span."""
        return self._leases.unfinished_on(epoch)

    def unfinished_of(self, client: bytes) -> list[UnfinishedRun]:
        """Return the runs with a lease of a client that want a span."""
        return self._leases.unfinished_of(client)

    # Time.

    def next_deadline(self, now: float) -> float | None:
        """Return when :meth:`due` or :meth:`checks` has something to do next; ``None`` for never.

        To be asked after each turn: what has happened since the last call counts from ``now``.
        """
        self.passed(now)
        deadlines = [self._leases.next_check(now), self._leases.shares.next_recovery()]
        if self._lanes:
            deadlines += [self._lanes.next_until(), self._deadlines.next()]
            has_workers = self._workers.absent_since is None
            waits = (self._choose(run) for run in self._lanes.next_to_give_up(has_workers=has_workers))
            deadlines += [wait.until for wait in waits if isinstance(wait, Wait) and wait.cause in _GIVES_UP]
            if self._lanes.avoids_more:
                deadlines.append(now + _LOOK_INTERVAL)
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    def due(self, now: float) -> list[Send]:
        """Time has passed: refuse the runs that have waited for too long, and let runs go whose gate is open again.

        No run waits for ever for a worker.
        """
        self.passed(now)
        refused: list[Send] = []
        has_workers = self._workers.absent_since is None
        for run in list(self._lanes.waiting_for(NO_WORKERS_TIMEOUT, now, has_workers=has_workers)):
            wait = self._choose(run)
            if isinstance(wait, Wait) and wait.cause in _GIVES_UP and wait.until is not None and wait.until <= now:
                self._lanes.remove(run.span_id)
                is_alone = wait.cause is WaitCause.NO_WORKER
                reason = (
                    self._workers.absence
                    if is_alone
                    else "the run must avoid every connected worker: it was lost or refused there"
                )
                refused.append(self._refuse(run.client, run.question, "no_workers", reason))
        until = self._lanes.next_until()
        is_open = until is not None and until <= now
        granted = self._assign() if self._leases.shares.recovered(now) or is_open else []
        late = [self._waited_too_long(run) for run in self._deadlines.due(now)]
        # The runs behind those that have gone may be smaller, and need not wait as long.
        more = self._assign() if refused or late else []
        return [*refused, *granted, *late, *more]

    def _waited_too_long(self, run: WaitingRun) -> Send:
        """Take a run out of the queue whose client does not let it wait longer."""
        lane = self._lanes.lane_of(run.span_id)
        gate = lane.gate if lane is not None else None
        self._lanes.remove(run.span_id)
        ahead = self._lanes.ahead_of(run, gate)
        expected = gate.expected_wait(run.question, ahead, self._now) if gate is not None else 0.0
        reason = f"the run has waited {self._now - run.since:.1f} s, and may not wait longer"
        return self._refuse(run.client, run.question, "queue_full", reason, retry_after=max(expected, 1.0))

    def checks(self, now: float) -> list[Ask | Send]:
        """Time has passed: ask workers which runs they have, and end the leases whose worker has not connected."""
        self.passed(now)
        asked: dict[int, list[tuple[str, int, int]]] = {}
        ended: list[Ask | Send] = []
        for lease in self._leases.due(now):
            if lease.epoch in self._workers:
                process = lease.owner if isinstance(lease.owner, int) else 0
                asked.setdefault(lease.epoch, []).append((lease.span_id, lease.attempt, process))
            else:
                ended.append(self._revoke(lease))
        if ended:
            ended += self._assign()  # they may have had shares of gates
        return [*ended, *(Ask(epoch, leases) for epoch, leases in asked.items())]

    def checked(self, epoch: int, answers: Iterable[tuple[str, int, bool]]) -> list[Send]:
        """A worker says which runs it has: span id, attempt, and whether it has the run.

        The leases of the others end.
        """
        ended: list[Send] = [self._revoke(lease) for lease in self._leases.unused(epoch, answers, self._now)]
        return [*ended, *self._assign()] if ended else []

    def stopping(self) -> list[Send]:
        """The engine takes no new runs from now on. Runs that wait are refused."""
        self._is_stopping = True
        return [self._refuse(run.client, run.question, "stopping", _STOPPING) for run in self._lanes.clear()]

    def passed(self, now: float) -> None:
        """Time has passed. What a method without a time of its own is told happens now."""
        self._now = now
        self._workers.passed(now)

    # Leases and places.

    def _assign(self, new: WaitingRun | None = None) -> list[Send]:
        """Give leases to runs that wait, for as long as there is room. ``new`` has not waited yet."""
        if self._gates.generation != self._generation:
            self._generation = self._gates.generation
            self._tickets.gates_changed(self._now)
            self._lanes.regroup(lambda run: self._gates.gate_of(run.question))
        if not self._lanes:
            return []
        answers: list[Send] = []
        held: set[Lane] = set()
        gates = self._lanes.open(self._now) if self._workers.has_room else []
        while self._workers.has_room:
            served = self._lanes.serve(self._choice, held, gates, self._now)
            if served is None:
                return answers
            run, worker, gate, word = served
            if (
                gate is not None
                and run is not new
                and (refusal := gate.late_refusal(run.question, self._now)) is not None
            ):
                answers.append(self._refuse(run.client, run.question, *refusal))
                continue
            answers.append(self._grant(run, worker, gate, "" if run is new else word))
        self._lanes.no_worker_has_room()
        return answers

    def _grant(self, run: WaitingRun, worker: ConnectedWorker, gate: Gate | None, waited_for: WaitWord = "") -> Send:
        ticket = gate.enter(run.question, self._now, worker.epoch) if gate is not None else None
        lease = Lease(run.span_id, run.client, run.owner, run.attempt, worker.epoch, run, waited_for, ticket)
        self._leases.add(lease)
        self.granted_total += 1
        return _answer(lease, worker)

    def _grant_many(self, client: bytes, questions: Sequence[Acquire]) -> tuple[list[Send | SendMany], int]:
        """Give leases to the first of these runs, as many as find a place. Return the answers, and how many these are."""
        owner, process, now = self._owner(client), self._processes.get(client, 0), self._now
        chosen = choose_many(len(questions), owner, self._workers, self._leases.shares)
        groups: dict[ConnectedWorker, dict[str, Lease]] = {worker: {} for worker in chosen}
        for worker, question in zip(chosen, questions, strict=False):
            span_id, attempt = question.span_id, question.attempt
            run = WaitingRun(client, question, now, process)
            groups[worker][span_id] = Lease(span_id, client, owner, attempt, worker.epoch, run)
        for worker, leases in groups.items():
            self._leases.add_all(worker, leases)
        self.granted_total += len(chosen)
        return [_answer_many(list(leases.values()), worker) for worker, leases in groups.items()], len(chosen)

    def _end_all(self, ended: dict[str, tuple[Lease, Release]]) -> None:
        """Free the leases of runs of one client that have finished, and forget them."""
        if ended:
            self._leases.remove_all([lease for lease, _ in ended.values()])
            self._tickets.give_back_finished(ended.values(), self._now)
            ended.clear()

    def _choose(self, run: WaitingRun) -> ConnectedWorker | Wait:
        return choose(run, self._workers, self._leases.shares)

    def _choose_at(self, gate: Gate, priority: Priority, run: WaitingRun) -> ConnectedWorker | Wait:
        """Return the worker that a run before a gate goes to, or what it waits for."""
        worker = self._choose(run)
        if isinstance(worker, Wait) or (wait := gate.wait(priority, run.question, self._now)) is None:
            return worker
        until = None if wait.until is None else max(wait.until, self._now + _SHORTEST_WAIT)
        return Wait(WaitCause.GATE, until, wait.word)

    def _choice(self, lane: Lane) -> Callable[[WaitingRun], ConnectedWorker | Wait]:
        return self._choose if lane.gate is None else partial(self._choose_at, lane.gate, lane.asks_as)

    def _repeated(self, holder: Lease | WaitingRun) -> list[Send]:
        """Return the answer to a question that was asked before; none yet for a run that waits."""
        worker = self._workers.find(holder.epoch) if isinstance(holder, Lease) else None
        if not isinstance(holder, Lease) or worker is None:
            return []
        return [msgspec.structs.replace(_answer(holder, worker), is_repeat=True)]

    def _revoke(self, lease: Lease) -> Send:
        self._drop(lease.span_id)
        return Send(lease.client, Revoke(lease.span_id, lease.attempt))

    def _refuse(
        self, client: bytes, question: Acquire, kind: RefusalKind, reason: str, retry_after: float | None = None
    ) -> Send:
        self.refused_total += 1
        if retry_after is not None:
            retry_after = min(retry_after, MAX_SECONDS)
        return Send(client, Refuse(question.span_id, question.attempt, kind, reason, retry_after))

    def _holder(self, span_id: str) -> Lease | WaitingRun | None:
        return self._leases.find(span_id) or self._lanes.find(span_id)

    def _is_waiting(self, run: WaitingRun) -> bool:
        return self._lanes.find(run.span_id) is run

    def _drop(self, span_id: str, release: Release | None = None) -> None:
        """Free a lease or a place in the queue."""
        lease = self._leases.remove(span_id)
        if lease is None:
            self._lanes.remove(span_id)
        else:
            self._tickets.give_back(lease, release, self._now)

    def _owner(self, client: bytes) -> Owner:
        return self._processes.get(client) or client


def _answer_many(leases: Sequence[Lease], worker: ConnectedWorker) -> Send | SendMany:
    """Return the answer that tells a client of leases on one worker, which differ in their runs only."""
    first = _answer(leases[0], worker)
    if len(leases) == 1 or not isinstance(first.message, Grant):
        return first
    return SendMany(first.client, GrantMany(first.message, [lease.span_id for lease in leases[1:]]))


def _answer(lease: Lease, worker: ConnectedWorker) -> Send:
    ticket = lease.ticket
    key, reports = (ticket.key, ticket.reports) if ticket is not None else ("", False)
    names = (lease.span_id, lease.attempt, worker.name, worker.endpoint, worker.epoch, worker.pid)
    return Send(lease.client, Grant(*names, lease.waited_for, key, reports))
