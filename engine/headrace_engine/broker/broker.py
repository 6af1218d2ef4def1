"""The broker process: a shell around admission and liveness. It sees who asks and who is there, never a prompt or a chunk."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.files.engine_directory import broker_endpoint, collector_endpoint, worker_endpoint
from headrace.process.descriptors import broker_shares, raise_limit
from headrace.process.history import open_history
from headrace.process.lifecycle import ProcessWatch, is_orphan, is_sibling, origin, processor_seconds, ticks_at
from headrace.settings.settings import EngineConfig
from headrace.spans.collector_link import CollectorLink
from headrace.spans.outbox import SpanOutbox
from headrace.spans.span import CLIENT_LOST, LOST, as_said_by, decode_span, encode_span
from headrace.transport.peer_identity import TELLS_PROCESSES
from headrace.transport.reactor import Reactor
from headrace.transport.router import FOREIGN_PEER, Limits, Router, SendResult
from headrace.transport.sockets import Dealer, new_context
from headrace.version import VERSION
from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.engine_status import ProcessStatus, SpanStatus, WorkerStatus
from headrace.wire.messages import (
    BROKER_FRAME_BYTES,
    CAPABILITIES,
    PROTOCOL_MINOR,
    Acquire,
    CollectorReport,
    Goodbye,
    Grant,
    Heartbeat,
    Hello,
    Hold,
    Joined,
    LeaseQuery,
    LeaseState,
    ProcessReport,
    Refuse,
    Release,
    Restart,
    RestartAnswer,
    Revoke,
    Silent,
    SpanBatch,
    Status,
    StatusRequest,
    ToBroker,
    Vacated,
    Welcome,
)
from headrace.wire.roles import TO_BROKER, breach
from headrace_engine.broker.admission import Admission, Send, Unfinished
from headrace_engine.broker.hang_blame import Blame
from headrace_engine.broker.inbox import Inbox
from headrace_engine.broker.lost_run_spans import stubs
from headrace_engine.broker.newest_connections import Incarnation, Incarnations
from headrace_engine.broker.restart_questions import RestartQuestions
from headrace_engine.broker.unkept_spans import Unkept
from headrace_engine.liveness import Liveness
from headrace_engine.peer_check import SAID_TOO_MUCH, Claim, Doorkeeper, Known, Refused

logger = logging.getLogger(__name__)

_TICK = 0.5
_FRAMES_PER_TURN = 64
_MESSAGES_PER_TURN = 500
_MIB = 1024 * 1024
_LIMITS = Limits(frame=BROKER_FRAME_BYTES, unfinished=64 * _MIB, unread=16 * _MIB, all_unread=64 * _MIB)
"""A client that reads has far less unread."""
_HELD = 8 * _MIB
"""Of processes of which the supervisor has not told yet. A worker says a hello and heartbeats."""
_MAX_SPANS = 10_000
_MAX_SPAN_BYTES = 16 * 1024 * 1024
"""Stubs, and spans that clients have left here, until there is a collector. The oldest are dropped, and counted."""


class Broker:
    """Sockets, timers and process handles; decisions are admission's and liveness's."""

    def __init__(self, directory: Path, config: EngineConfig, parent: int, epoch: int | None = None) -> None:
        self._parent = parent
        self._epoch = epoch or secrets.randbits(31) + 1
        self._started_at = time.monotonic()
        self._history = open_history("broker", self._epoch)
        self._reactor = Reactor()
        context = new_context()
        self._router = Router(broker_endpoint(directory), broker_shares(raise_limit()).peers, _LIMITS)
        self._inbox: Inbox[ToBroker] = Inbox()
        self._admission = Admission(config.max_runs_per_worker, config.max_waiting_runs)
        self._total_timeout = config.total_timeout
        self._liveness = Liveness()
        self._blame = Blame()
        self._directory = directory
        # Those that are what they say. Who is not here is not heard.
        self._hellos: dict[bytes, Hello] = {}
        self._door: Doorkeeper[tuple[int, ToBroker]] = Doorkeeper(
            parent, origin(parent), can_tell=TELLS_PROCESSES, room=_HELD
        )
        self._worker_epochs: dict[bytes, int] = {}
        self._incarnations = Incarnations()
        self._watch = ProcessWatch(self._reactor)
        self._outboxes: dict[bytes, list[msgspec.Struct]] = {}
        self._processes: list[ProcessStatus] = []
        self._unkept = Unkept()
        self._restarts = RestartQuestions()
        self._spans: SpanStatus | None = None
        self._spans_at = 0.0
        self._collector = CollectorLink(
            self._reactor,
            partial(Dealer, context, expects=is_sibling),
            lambda: collector_endpoint(directory),
            "broker",
            self._epoch,
            SpanOutbox(_MAX_SPANS, _MAX_SPAN_BYTES),
        )

    def run(self) -> None:
        """Serve until the process ends."""
        self._reactor.add_reader(self._router.fd, self._read)
        self._reactor.add_reader(self._router.monitor_fd, self._read_departures)
        self._reactor.each_turn(self._flush)
        self._tick()
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.call(self._stop_admitting))
        self._reactor.run()

    def _tick(self) -> None:
        now = time.monotonic()
        if is_orphan(self._parent):
            self._reactor.stop()
            return
        self._open_door(now)
        self._liveness.expected(
            {process.epoch: process.has_served for process in self._processes if process.epoch}, now
        )
        for epoch in self._liveness.due(now):
            logger.warning("worker is silent", extra={"epoch": epoch})
            if self._history is not None:
                self._history.note("suspect", epoch=epoch)
            self._send_all(self._admission.worker_suspected(epoch, True))
            self._blame.suspected(epoch, self._processor_seconds(epoch))
        for epoch in self._liveness.hung(now):
            self._blame.hung(epoch, self._processor_seconds(epoch), self._admission.runs_on(epoch))
            self._report_silent(epoch, now)
        self._admission.worker_starting(is_so=self._is_starting())
        self._send_all(self._admission.due(now))
        self._check_leases(now)
        self._router.end_silent()
        self._read_departures()
        self._reactor.call_at(now + _TICK, self._tick)

    def _check_leases(self, now: float) -> None:
        """Ask workers that can say so which of the older leases they have the runs of."""
        peers = {epoch: peer for peer, epoch in self._worker_epochs.items()}
        for step in self._admission.checks(now):
            if isinstance(step, Send):
                self._send_all([step])
            elif (peer := peers.get(step.epoch)) is not None and "leases" in self._hellos[peer].capabilities:
                self._send(peer, LeaseQuery(step.leases))

    def _is_starting(self) -> bool:
        """Return whether a worker is at its first start; one that takes too long is ended, and started a second time."""
        return any(
            process.epoch and process.pid and not process.has_served and not process.restarts
            for process in self._processes
        )

    def _processor_seconds(self, epoch: int) -> float | None:
        """Return the processor time that a worker's process has had, where that is known."""
        peer = next((peer for peer, worker in self._worker_epochs.items() if worker == epoch), None)
        return None if peer is None else processor_seconds(self._router.pid(peer))

    def _report_silent(self, epoch: int, now: float) -> None:
        """Have the supervisor end a worker that is there and serves nobody."""
        names = [self._hellos[peer].name for peer, worker in self._worker_epochs.items() if worker == epoch]
        names += [process.name for process in self._processes if process.epoch == epoch]
        for peer, hello in self._hellos.items():
            if hello.role == "supervisor" and names:
                self._send(peer, Silent(names[0], epoch, self._liveness.silence(epoch, now)))

    def _stop_admitting(self) -> None:
        self._send_all(self._admission.stopping())

    def _read(self) -> None:
        """Read what there is, and handle some of it: what is sent in answer must not wait for a flood to end."""
        for peer, frame in self._router.receive(_FRAMES_PER_TURN, self._inbox.busy):
            try:
                epoch, messages = to_broker.decode(frame)
            except (RemoteProtocolError, ProtocolMismatchError) as error:
                self._refuse_peer(peer, str(error))
                continue
            if self._history is not None:
                self._history.frame("received", messages, epoch, peer)
            self._inbox.put(peer, epoch, messages, self._router.pid(peer), len(frame))
        for peer, epoch, message, size in self._inbox.take(_MESSAGES_PER_TURN):
            self._take(peer, epoch, message, size)
        if self._inbox or self._router.has_input():
            self._reactor.call(self._read)

    def _take(self, peer: bytes, epoch: int, message: ToBroker, size: int) -> None:
        """Handle a message of about ``size`` bytes if its peer may say it."""
        hello = self._hellos.get(peer)
        if hello is not None:
            if (problem := breach(TO_BROKER, hello.role, message)) is not None:
                self._refuse_peer(peer, problem)
            elif not isinstance(message, Hello):
                self._handle(peer, message, time.monotonic())
        elif self._door.holds(peer):
            if not self._door.hold(peer, (epoch, message), size):
                self._refuse_peer(peer, SAID_TOO_MUCH)
        elif isinstance(message, Hello):
            self._knock(peer, epoch, message, size)
        else:
            self._refuse_peer(peer, "the first message must be a hello")

    def _acquired(self, peer: bytes, question: Acquire, now: float) -> None:
        reason = self._blame.reason(question.span_id, question.attempt)
        if reason is not None and "poison" in self._hellos[peer].capabilities:
            self._send(peer, Refuse(question.span_id, question.attempt, "poison", reason))
        else:
            self._send_all(self._admission.acquired(peer, question, now))

    def _handle(self, peer: bytes, message: ToBroker, now: float) -> None:
        match message:
            case Acquire():
                self._acquired(peer, message, now)
            case Hold():
                self._send_all(self._admission.held(peer, message.span_id, message.attempt, message.epoch))
            case Release():
                self._send_all(self._admission.released(peer, message.span_id, message.attempt))
            case Heartbeat():
                self._beat(peer, message, now)
            case LeaseState():
                self._send_all(self._admission.checked(self._worker_epochs[peer], message.leases))
            case StatusRequest():
                self._answer(peer, now)
            case Goodbye():
                self._forget(peer, message.reason)
            case ProcessReport() | CollectorReport() | SpanBatch():
                self._take_report(message, now)
            case Restart() | RestartAnswer():
                self._pass_on(peer, message)

    def _take_report(self, message: ProcessReport | CollectorReport | SpanBatch, now: float) -> None:
        """Keep what others say of the engine; pass on what a client leaves here at its end."""
        match message:
            case ProcessReport():
                self._processes = message.processes
                self._door.told(message.processes)
                self._open_door(now)
                for process in message.processes:
                    if process.pid is None and process.reason and process.name not in ("broker", "collector"):
                        self._admission.worker_failed(f"{process.name} ended with {process.reason}")
                self._unkept.reported(message.processes, set(self._worker_epochs.values()))
            case CollectorReport():
                self._spans, self._spans_at = message.spans, now
            case SpanBatch():
                if self._keeps_spans():
                    self._collector.pass_on(_as_clients(message.spans))

    def _answer(self, peer: bytes, now: float) -> None:
        """Say how the engine is, once in a turn."""
        if not any(isinstance(waiting, Status) for waiting in self._outboxes.get(peer, ())):
            self._send(peer, self._status(now))

    def _pass_on(self, peer: bytes, message: Restart | RestartAnswer) -> None:
        """Have the supervisor asked for new workers, and its answer told to who wants them."""
        if isinstance(message, Restart):
            self._ask_supervisors(self._restarts.asked(peer))
        elif self._is_supervisor(peer):
            self._answer_restart(message.token, message.problem)

    def _ask_supervisors(self, number: int | None) -> None:
        """Ask for new workers, now or once it has said hello: this broker may have come after another."""
        for supervisor in [other for other in self._hellos if self._is_supervisor(other)] if number is not None else ():
            if "restart" in self._hellos[supervisor].capabilities:
                self._send(supervisor, Restart(number or 0))
            else:
                self._answer_restart(number or 0, "the engine's supervisor is of an older version; send it SIGHUP")

    def _answer_restart(self, number: int, problem: str) -> None:
        told, following = self._restarts.answered(number)
        for asker in told:
            self._send(asker, RestartAnswer(problem=problem))
        self._ask_supervisors(following)

    def _is_supervisor(self, peer: bytes) -> bool:
        """Return whether a peer is this process's parent, by the kernel's word."""
        return self._hellos[peer].role == "supervisor" and self._router.pid(peer) == self._parent

    def _knock(self, peer: bytes, epoch: int, hello: Hello, size: int) -> None:
        """Let a peer in that is what it says; one that may be has to wait for the supervisor's word."""
        now = time.monotonic()
        if self._router.is_foreign(peer):
            self._refuse_peer(peer, FOREIGN_PEER)
            return
        pid = self._router.pid(peer)
        hello = msgspec.structs.replace(hello, pid=pid)
        if hello.role == "client":
            self._welcome(peer, epoch, hello, now)
            return
        if hello.role == "worker" and hello.endpoint != worker_endpoint(self._directory, hello.name, epoch):
            self._refuse_peer(peer, f"worker {hello.name} is not where workers of this engine are")
            return
        connected = ticks_at(self._router.connected_at(peer))
        claim = Claim(hello.role, hello.name, epoch, pid, origin(pid) if pid else None, connected)
        match self._door.knock(peer, claim, now):
            case Known():
                self._welcome(peer, epoch, hello, now)
            case Refused(reason):
                self._refuse_peer(peer, reason)
            case _ if not self._door.hold(peer, (epoch, hello), size):
                self._refuse_peer(peer, SAID_TOO_MUCH)

    def _open_door(self, now: float) -> None:
        """Let those in whom the supervisor has told of meanwhile, and hear what they have said."""
        for peer, verdict, said in self._door.ready(now):
            if isinstance(verdict, Refused):
                self._refuse_peer(peer, verdict.reason)
                continue
            for epoch, message in said:
                if peer in self._hellos:
                    self._take(peer, epoch, message, 0)
                elif isinstance(message, Hello):
                    self._welcome(peer, epoch, message, now)

    def _welcome(self, peer: bytes, epoch: int, hello: Hello, now: float) -> None:
        pid = hello.pid
        if (earlier := self._incarnations.joined(peer, Incarnation(hello.role, epoch, pid))) is not None:
            self._forget(earlier, "its process has a newer one")
        self._hellos[peer] = hello
        welcome = Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, VERSION, self._total_timeout)
        self._send(peer, welcome)
        logger.info("peer joined", extra={"role": hello.role, "peer": hello.name, "pid": pid})
        # A connection outlives its process where a forked child holds a copy; the process handle does not.
        self._watch.watch(peer, pid, partial(self._forget, peer, "its process ended"))
        if hello.role == "worker":
            self._worker_epochs[peer] = epoch
            self._liveness.joined(epoch, now)
            self._send_all(self._admission.worker_joined(hello.name, hello.endpoint, epoch, hello.capacity, pid))
        elif hello.role == "client":
            self._admission.client_joined(peer, pid)
        if hello.role in ("worker", "supervisor"):
            self._tell_who_joined(peer)
        if self._is_supervisor(peer):
            self._ask_supervisors(self._restarts.open)

    def _tell_who_joined(self, peer: bytes) -> None:
        """Tell supervisors of a worker that serves, or a supervisor of all."""
        is_worker = peer in self._worker_epochs
        workers = [peer] if is_worker else list(self._worker_epochs)
        supervisors = [other for other, hello in self._hellos.items() if hello.role == "supervisor"]
        for supervisor in supervisors if is_worker else [peer]:
            if "joined" in self._hellos[supervisor].capabilities:
                for worker in workers:
                    self._send(supervisor, Joined(self._hellos[worker].name, self._worker_epochs[worker]))

    def _beat(self, peer: bytes, heartbeat: Heartbeat, now: float) -> None:
        epoch = self._worker_epochs.get(peer)
        if epoch is None:
            self._send(peer, Heartbeat())  # the supervisor's: it asks whether this loop serves
            return
        if self._liveness.beat(epoch, now):
            self._send_all(self._admission.worker_suspected(epoch, False))
        self._send_all(self._admission.worker_told(epoch, heartbeat.capacity, heartbeat.is_leaving))
        if heartbeat.is_leaving and self._admission.is_vacated(epoch) and "vacated" in self._hellos[peer].capabilities:
            self._send(peer, Vacated())

    def _read_departures(self) -> None:
        self._read()  # what they said last comes first
        for peer in self._router.departed():
            self._forget(peer, "its connection ended")

    def _forget(self, peer: bytes, reason: str) -> None:
        self._inbox.drop(peer)
        self._door.forget(peer)
        self._outboxes.pop(peer, None)
        self._watch.forget(peer)
        self._incarnations.left(peer)
        self._restarts.left(peer)
        hello = self._hellos.pop(peer, None)
        if hello is None:
            return
        epoch = self._worker_epochs.pop(peer, None)
        if self._history is not None:
            self._history.note("left", peer=peer.hex(), kind=hello.role, epoch=epoch or 0, reason=reason)
        if epoch is not None:
            logger.info("worker left", extra={"worker": hello.name, "reason": reason})
            self._liveness.left(epoch)
            self._send_stubs(self._admission.unfinished_on(epoch), LOST, f"worker {hello.name} is gone: {reason}")
            self._send_all(self._admission.worker_left(epoch, f"{hello.name}: {reason}"))
        else:
            self._send_stubs(self._admission.unfinished_of(peer), CLIENT_LOST, f"the client is gone: {reason}")
            self._send_all(self._admission.client_left(peer))

    def _send_stubs(self, runs: list[Unfinished], error_type: str, reason: str) -> None:
        """Have it on record that these runs were, in case that nobody else is left to say so."""
        if self._keeps_spans():
            for stub in stubs(runs, error_type, reason, time.monotonic(), time.time()):
                self._collector.send(stub)

    def _keeps_spans(self) -> bool:
        """Return whether there is a collector, or may be: the supervisor has not spoken yet."""
        return not self._processes or any(
            known.name == "collector" and known.state != "off" for known in self._processes
        )

    def _refuse_peer(self, peer: bytes, reason: str) -> None:
        """End one connection; whatever its bytes were, nobody else is concerned."""
        reason = self._router.breach(peer) or reason
        logger.warning("peer refused", extra={"reason": reason})
        self._forget(peer, reason)
        self._router.dismiss(peer, encode_frame(self._epoch, [Goodbye(reason)]))
        self._reactor.call_later(_TICK, partial(self._router.disconnect, peer))

    def _status(self, now: float) -> Status:
        workers = []
        for peer, epoch in self._worker_epochs.items():
            hello = self._hellos[peer]
            for worker in self._admission.workers:
                if worker.epoch == epoch:
                    state = "suspect" if worker.is_suspect else "draining" if worker.is_leaving else "ok"
                    silence = self._liveness.silence(epoch, now)
                    workers.append(WorkerStatus(worker.name, hello.pid, state, len(worker.spans), silence))
        return Status(
            pid=os.getpid(),
            version=VERSION,
            uptime=now - self._started_at,
            clients=sum(hello.role == "client" for hello in self._hellos.values()),
            leases=self._admission.lease_count,
            waiting=self._admission.waiting_count,
            granted_total=self._admission.granted_total,
            refused_total=self._admission.refused_total,
            workers=sorted(workers, key=lambda worker: worker.name),
            processes=self._processes,
            spans=self._unkept.status(self._span_status(now)),
        )

    def _span_status(self, now: float) -> SpanStatus | None:
        return None if self._spans is None else msgspec.structs.replace(self._spans, age=now - self._spans_at)

    def _send_all(self, answers: Iterable[Send]) -> None:
        for answer in answers:
            message = answer.message
            if isinstance(message, Grant) and message.attempt == 1 and self._admission.is_traced(message.span_id):
                self._unkept.granted(message.epoch)
            if not isinstance(message, Revoke) or "leases" in self._hellos[answer.client].capabilities:
                self._send(answer.client, message)

    def _send(self, peer: bytes, message: msgspec.Struct) -> None:
        self._outboxes.setdefault(peer, []).append(message)

    def _flush(self) -> None:
        while self._outboxes:
            outboxes, self._outboxes = self._outboxes, {}
            for peer, messages in outboxes.items():
                if self._history is not None:
                    self._history.frame("sent", messages, peer=peer)
                if self._router.send(peer, encode_frame(self._epoch, messages)) is not SendResult.SENT:
                    self._forget(peer, "it cannot be reached")
        if self._router.has_input():
            self._reactor.call(self._read)


def _as_clients(spans: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what a client says of runs as a client's word, and no more; what is no span is left out."""
    for encoded in spans:
        with contextlib.suppress(RemoteProtocolError):
            yield encode_span(as_said_by("client", decode_span(encoded)))
