"""The broker process: gives leases to clients, and tells the supervisor which workers are hung.

It is a shell: sockets, timers and process handles. ``admission`` and ``liveness`` decide. It never sees a prompt or a
chunk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.files.engine_directory import broker_endpoint, collector_endpoint, worker_endpoint
from headrace.process.descriptors import broker_shares, raise_limit
from headrace.process.epoch import new_epoch
from headrace.process.history import open_history
from headrace.process.lifecycle import is_orphan, is_sibling, open_process, processor_seconds, processor_wait
from headrace.settings.settings import EngineConfig
from headrace.spans.collector_link import CollectorLink
from headrace.spans.outbox import SpanOutbox
from headrace.spans.span import CLIENT_LOST, LOST, decode_span, encode_span, with_allowed_rank
from headrace.transport.inbox import Inbox
from headrace.transport.peer_server import PeerServer, ServedPeer, ServerSettings
from headrace.transport.reactor import Reactor
from headrace.transport.router import PeerLimits, SendResult
from headrace.transport.unix_dealer import UnixDealer
from headrace.version import VERSION
from headrace.wire.codec import to_broker
from headrace.wire.groups import GROUPS, packed, questions_of, run_count, unpacked
from headrace.wire.messages import (
    BROKER_FRAME_BYTES,
    Acquire,
    AcquireMany,
    CollectorReport,
    Grant,
    GrantMany,
    Heartbeat,
    Hello,
    Hold,
    Joined,
    KeyReport,
    LeaseQuery,
    LeaseState,
    LimitReport,
    ProcessReport,
    Refuse,
    Release,
    ReleaseMany,
    Restart,
    RestartAnswer,
    Silent,
    SpanBatch,
    Status,
    StatusRequest,
    ToBroker,
    Vacated,
)
from headrace.wire.roles import TO_BROKER
from headrace_engine.broker.admission import Admission, Send, SendMany
from headrace_engine.broker.broker_limits import BrokerLimits, EngineLimits, understood
from headrace_engine.broker.deadline_timer import DeadlineTimer
from headrace_engine.broker.engine_reports import EngineReports
from headrace_engine.broker.hanging_runs import HangingRuns
from headrace_engine.broker.leases import UnfinishedRun
from headrace_engine.broker.lost_run_spans import lost_run_spans
from headrace_engine.broker.newest_connections import NewestConnections, ProcessKey
from headrace_engine.broker.restart_questions import RestartQuestions
from headrace_engine.broker.state_file import StateFile
from headrace_engine.broker.worker_statuses import worker_statuses
from headrace_engine.limits.no_limits import NoLimits
from headrace_engine.liveness import Liveness

logger = logging.getLogger(__name__)

_PARENT_INTERVAL = 0.5
"""Seconds between two looks at the supervisor, where the kernel has no process handles."""
_MIB = 1024 * 1024
_LIMITS = PeerLimits(frame=BROKER_FRAME_BYTES, unfinished=64 * _MIB, unread=16 * _MIB, all_unread=64 * _MIB)
"""Bytes of messages on their way. A client that reads its messages never comes near the limit of unread ones."""
_MAX_HELD_BYTES = 8 * _MIB
"""Bytes of messages that are kept of peers that the supervisor has not reported yet.

A worker sends a hello and heartbeats.
"""
_MAX_SPANS = 10_000
_MAX_SPAN_BYTES = 16 * 1024 * 1024
"""The broker keeps its own spans, and those of clients that have ended, until there is a collector.

It drops and counts the oldest.
"""


class Broker:
    """The broker of one engine.

    ``parent`` is the pid of the supervisor, ``epoch`` the number of this process. Without ``limits`` nothing is limited.
    """

    def __init__(
        self,
        directory: Path,
        config: EngineConfig,
        parent: int,
        epoch: int | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self._parent = parent
        self._epoch = epoch or new_epoch()
        self._started_at = time.monotonic()
        self._history = open_history("broker", self._epoch)
        self._reactor = Reactor()
        server_settings = ServerSettings(
            endpoint=broker_endpoint(directory),
            epoch=self._epoch,
            parent=parent,
            max_peers=broker_shares(raise_limit()).peers,
            limits=_LIMITS,
            max_held_bytes=_MAX_HELD_BYTES,
            total_timeout=config.total_timeout,
        )
        inbox: Inbox[ToBroker] = Inbox(run_count)
        self._server = PeerServer(
            self._reactor,
            server_settings,
            to_broker,
            TO_BROKER,
            self,
            inbox=inbox,
            history=self._history,
            objection=self._objection,
        )
        limits = limits if limits is not None else EngineLimits(NoLimits())
        self._admission = Admission(config.max_runs_per_worker, config.max_waiting_runs, limits.gates)
        self._limits = BrokerLimits(limits, self._admission, StateFile(directory), self._send_all)
        self._liveness = Liveness()
        self._timer = DeadlineTimer(self._reactor, self._look)
        self._hanging_runs = HangingRuns()
        self._directory = directory
        self._worker_epochs: dict[bytes, int] = {}
        self._connections = NewestConnections()
        self._outboxes: dict[bytes, list[msgspec.Struct]] = {}
        self._reports = EngineReports()
        self._restarts = RestartQuestions()
        self._collector = CollectorLink(
            self._reactor,
            partial(UnixDealer, expects=is_sibling),
            lambda: collector_endpoint(directory),
            "broker",
            self._epoch,
            SpanOutbox(_MAX_SPANS, _MAX_SPAN_BYTES),
        )

    def run(self) -> None:
        """Serve until the process ends."""
        self._limits.start(self._reactor.call)
        self._server.open()
        self._reactor.each_turn(self._end_turn)
        self._watch_parent()
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.call(self._stop_admitting))
        self._reactor.run()
        self._limits.end()

    def _watch_parent(self) -> None:
        """End with the supervisor: the kernel tells of its end by a process handle.

        Where there are none, ask now and then.
        """
        handle = open_process(self._parent)
        if handle is not None:
            self._reactor.add_reader(handle, self._reactor.stop)
        self._look_at_parent(is_repeated=handle is None)

    def _look_at_parent(self, *, is_repeated: bool) -> None:
        if is_orphan(self._parent):
            self._reactor.stop()
        elif is_repeated:
            self._reactor.call_later(_PARENT_INTERVAL, partial(self._look_at_parent, is_repeated=True))

    def _end_turn(self) -> None:
        """Send what this turn produced, and set the timer to the next deadline."""
        now = time.monotonic()
        limits_due = self._limits.turn_ended(now)  # before the answers leave: see there
        self._flush()
        deadlines = (self._liveness.next_deadline(), self._admission.next_deadline(now), limits_due)
        self._timer.set(min((deadline for deadline in deadlines if deadline is not None), default=None))
        self._liveness.look_by(self._timer.at)

    def _look(self) -> None:
        """Do what is due now. The broker does everything else in answer to a message, or to the end of a connection."""
        now = time.monotonic()
        for epoch in self._liveness.due(now):
            logger.warning(
                "worker is silent",
                extra={
                    "worker": self._name_of(epoch),
                    "epoch": epoch,
                    "silence": round(self._liveness.silence(epoch, now), 1),
                },
            )
            if self._history is not None:
                self._history.note("suspect", epoch=epoch)
            self._send_all(self._admission.worker_suspected(epoch, True))
            self._hanging_runs.suspected(epoch, self._processor_seconds(epoch))
        for epoch in self._liveness.in_doubt():
            pid = self._pid_of(epoch)
            self._liveness.waited(epoch, processor_wait(pid) if pid else None)
        for epoch in self._liveness.hung(now):
            self._hanging_runs.hung(epoch, self._processor_seconds(epoch), self._admission.runs_on(epoch))
            self._report_silent(epoch, now)
        self._send_all(self._admission.due(now))
        self._check_leases(now)
        self._limits.due(now)

    def _expect_workers(self, now: float) -> None:
        """Watch the workers that run as the supervisor reports, connected or not."""
        self._liveness.expected(self._reports.running_workers(), now)
        self._admission.worker_starting(is_so=self._reports.is_worker_starting)

    def _check_leases(self, now: float) -> None:
        """Ask workers whether they have the runs of their older leases, if they understand the question."""
        peers = {epoch: peer for peer, epoch in self._worker_epochs.items()}
        for step in self._admission.checks(now):
            if isinstance(step, Send):
                self._send_all([step])
            elif (peer := peers.get(step.epoch)) is not None and self._server.peers[peer].understands("leases"):
                self._send(peer, LeaseQuery(step.leases))

    def _processor_seconds(self, epoch: int) -> float | None:
        """Return the processor time that a worker's process has used, in seconds; ``None`` if not known."""
        pid = self._pid_of(epoch)
        return processor_seconds(pid) if pid else None

    def _pid_of(self, epoch: int) -> int:
        """Return the pid of a worker that is connected, or that the supervisor has reported; 0 if it is not known."""
        peer = next((peer for peer, worker in self._worker_epochs.items() if worker == epoch), None)
        return self._reports.worker_pid(epoch) if peer is None else self._server.peers[peer].pid

    def _name_of(self, epoch: int) -> str:
        """Return the name of a worker, or an empty string if neither the worker nor the supervisor has told it."""
        peers = self._server.peers
        connected = (peers[peer].hello.name for peer, worker in self._worker_epochs.items() if worker == epoch)
        return next(connected, "") or self._reports.worker_name(epoch)

    def _report_silent(self, epoch: int, now: float) -> None:
        """Ask the supervisor to end a worker that runs and does not answer."""
        name = self._name_of(epoch)
        for peer in self._server.peers.values():
            if peer.role == "supervisor" and name:
                self._send(peer.identity, Silent(name, epoch, self._liveness.silence(epoch, now)))

    def _stop_admitting(self) -> None:
        self._send_all(self._admission.stopping())

    def _acquired(self, peer: bytes, question: Acquire, now: float) -> None:
        reason = self._hanging_runs.reason(question.span_id, is_retry=question.is_retry)
        if reason is not None and self._server.peers[peer].understands("poison"):
            self._send(peer, Refuse(question.span_id, question.attempt, "poison", reason))
        else:
            self._send_all(self._admission.acquired(peer, question, now))

    def _acquired_many(self, peer: bytes, questions: list[Acquire], now: float) -> None:
        if questions[0].is_retry:
            for question in questions:
                self._acquired(peer, question, now)
        else:
            self._send_all(self._admission.acquired_many(peer, questions, now))

    def peer_said(self, peer: ServedPeer, message: ToBroker) -> None:
        """Handle a message."""
        self._handle(peer.identity, message, time.monotonic())

    def _handle(self, peer: bytes, message: ToBroker, now: float) -> None:
        match message:
            case Acquire() | AcquireMany() | Hold() | Release() | ReleaseMany():
                self._about_leases(peer, message, now)
            case Heartbeat():
                self._beat(peer, message, now)
            case LimitReport() | KeyReport():
                self._send_all(self._limits.reported(self._worker_epochs[peer], message, now))
            case LeaseState():
                self._admission.passed(now)
                self._send_all(self._admission.checked(self._worker_epochs[peer], message.leases))
            case StatusRequest():
                self._answer(peer, now)
            case ProcessReport() | CollectorReport() | SpanBatch():
                self._take_report(message, now)
            case Restart() | RestartAnswer():
                self._pass_on(peer, message)
            case _:
                pass  # the server has handled it

    def _about_leases(
        self, peer: bytes, message: Acquire | AcquireMany | Hold | Release | ReleaseMany, now: float
    ) -> None:
        match message:
            case Acquire():
                self._acquired(peer, message, now)
            case AcquireMany():
                self._acquired_many(peer, questions_of(message), now)
            case Hold():
                self._send_all(self._admission.held(peer, message, now))
            case Release():
                self._send_all(self._admission.released(peer, message, now))
            case ReleaseMany():
                self._send_all(self._admission.released_many(peer, message.releases, now))

    def _take_report(self, message: ProcessReport | CollectorReport | SpanBatch, now: float) -> None:
        """Keep a report, or pass on the spans that a client leaves here when it ends."""
        match message:
            case ProcessReport():
                self._reports.processes_reported(message.processes, set(self._worker_epochs.values()))
                self._server.reported(message.processes)
                for failure in self._reports.failed_workers():
                    self._admission.worker_failed(failure)
                self._expect_workers(now)
            case CollectorReport():
                self._reports.spans_reported(message.spans, now)
            case SpanBatch():
                if self._reports.keeps_spans:
                    self._collector.pass_on(_as_clients(message.spans))

    def _answer(self, peer: bytes, now: float) -> None:
        """Answer with the engine's status, once in a turn."""
        if not any(isinstance(waiting, Status) for waiting in self._outboxes.get(peer, ())):
            self._send(peer, self._status(now))

    def _pass_on(self, peer: bytes, message: Restart | RestartAnswer) -> None:
        """Pass a client's question for new workers to the supervisor, or the supervisor's answer to the clients."""
        if isinstance(message, Restart):
            self._ask_supervisors(self._restarts.asked(peer, reload=message.reload))
        elif self._is_supervisor(peer):
            if not message.problem:
                self._limits.reloaded(time.monotonic(), reads_settings=message.reload)
            self._answer_restart(message)

    def _ask_supervisors(self, question: Restart | None) -> None:
        """Ask the supervisor a question. If it has not connected yet, it is asked when it has."""
        if question is None:
            return
        for supervisor in [peer for peer in self._server.peers.values() if self._is_supervisor(peer.identity)]:
            if supervisor.understands("limits" if question.reload else "restart"):
                self._send(supervisor.identity, question)
            else:
                problem = "the engine's supervisor is of an older version; send it SIGHUP"
                self._answer_restart(RestartAnswer(question.token, problem))

    def _answer_restart(self, answer: RestartAnswer) -> None:
        told, following = self._restarts.answered(answer.token)
        for asker in told:
            self._send(asker, msgspec.structs.replace(answer, token=0))
        self._ask_supervisors(following)

    def _is_supervisor(self, peer: bytes) -> bool:
        """Return whether a peer is the supervisor: its pid, as the kernel says, is that of this process's parent."""
        known = self._server.peers[peer]
        return known.role == "supervisor" and known.pid == self._parent

    def _objection(self, hello: Hello, epoch: int) -> str | None:
        """Return why a peer that says this hello is refused, or None.

        Whether it is what it claims to be is checked elsewhere.
        """
        if hello.role == "worker" and hello.endpoint != worker_endpoint(self._directory, hello.name, epoch):
            return f"the endpoint of worker {hello.name} is not the one that it has in this engine's directory"
        return None

    def peer_joined(self, peer: ServedPeer) -> None:
        """A peer has said hello."""
        now = time.monotonic()
        self._admission.passed(now)
        who, hello, epoch, pid = peer.identity, peer.hello, peer.epoch, peer.pid
        if (older := self._connections.joined(who, ProcessKey(peer.role, epoch, pid))) is not None:
            self._server.forget(older, "its process has a newer connection")
        logger.info("peer joined", extra={"role": peer.role, "peer": hello.name, "pid": pid, "epoch": epoch})
        if peer.role == "worker":
            self._worker_epochs[who] = epoch
            self._liveness.joined(epoch, now)
            self._send_all(self._admission.worker_joined(hello.name, hello.endpoint, epoch, hello.capacity, pid))
        elif peer.role == "client":
            self._admission.client_joined(who, pid)
        if peer.role in ("worker", "supervisor"):
            self._tell_who_joined(who)
        if self._is_supervisor(who):
            self._ask_supervisors(self._restarts.open)

    def _tell_who_joined(self, peer: bytes) -> None:
        """Tell the supervisor of a worker that has connected, or a new supervisor of all workers that are connected."""
        is_worker = peer in self._worker_epochs
        workers = [peer] if is_worker else list(self._worker_epochs)
        peers = self._server.peers
        supervisors = [other for other in peers.values() if other.role == "supervisor"]
        for supervisor in supervisors if is_worker else [peers[peer]]:
            if supervisor.understands("joined"):
                for worker in workers:
                    self._send(supervisor.identity, Joined(peers[worker].hello.name, self._worker_epochs[worker]))

    def _beat(self, peer: bytes, heartbeat: Heartbeat, now: float) -> None:
        epoch = self._worker_epochs.get(peer)
        if epoch is None:
            self._send(peer, Heartbeat())  # to the supervisor, which asks whether this loop serves
            return
        self._admission.passed(now)
        if self._liveness.beat(epoch, now):
            logger.warning("worker answers again", extra={"worker": self._name_of(epoch), "epoch": epoch})
            self._send_all(self._admission.worker_suspected(epoch, False))
        self._send_all(self._admission.worker_told(epoch, heartbeat.capacity, heartbeat.is_leaving))
        if (
            heartbeat.is_leaving
            and self._admission.is_vacated(epoch)
            and self._server.peers[peer].understands("vacated")
        ):
            self._send(peer, Vacated())

    def peer_left(self, peer: ServedPeer, reason: str) -> None:
        """A peer has gone. Its leases end."""
        now = time.monotonic()
        self._admission.passed(now)
        who, name = peer.identity, peer.hello.name
        self._outboxes.pop(who, None)
        self._connections.left(who)
        self._restarts.left(who)
        epoch = self._worker_epochs.pop(who, None)
        if self._history is not None:
            self._history.note("left", peer=who.hex(), kind=peer.role, epoch=epoch or 0, reason=reason)
        if epoch is not None:
            logger.info("worker left", extra={"worker": name, "pid": peer.pid, "epoch": epoch, "reason": reason})
            self._liveness.left(epoch)
            self._expect_workers(now)
            self._limits.worker_left(epoch)
            self._send_lost_run_spans(self._admission.unfinished_on(epoch), LOST, f"worker {name} is gone: {reason}")
            self._send_all(self._admission.worker_left(epoch, f"{name}: {reason}"))
        else:
            self._send_lost_run_spans(self._admission.unfinished_of(who), CLIENT_LOST, f"the client is gone: {reason}")
            self._send_all(self._admission.client_left(who))

    def _send_lost_run_spans(self, runs: list[UnfinishedRun], error_type: str, reason: str) -> None:
        """Send the collector a stub for each run: its worker and its client may not be able to write the span."""
        if self._reports.keeps_spans:
            for span in lost_run_spans(runs, error_type, reason, time.monotonic(), time.time()):
                self._collector.send(span)

    def _status(self, now: float) -> Status:
        return Status(
            pid=os.getpid(),
            version=VERSION,
            uptime=now - self._started_at,
            clients=sum(peer.role == "client" for peer in self._server.peers.values()),
            leases=self._admission.lease_count,
            waiting=self._admission.waiting_count,
            granted_total=self._admission.granted_total,
            refused_total=self._admission.refused_total,
            workers=worker_statuses(self._admission.workers, lambda epoch: self._liveness.silence(epoch, now)),
            processes=self._reports.processes,
            spans=self._reports.span_status(now),
            pools=self._limits.pools(now),
            spending=self._limits.spending(now),
            waiting_for=self._admission.waiting_for(),
            budget=self._limits.budget(),
        )

    def _send_all(self, answers: Iterable[Send | SendMany]) -> None:
        for answer in answers:
            if isinstance(answer, SendMany):
                self._note_leases(answer.message)
                self._send(answer.client, answer.message)
                continue
            message = answer.message
            if isinstance(message, Grant):
                if message.attempt == 1 and not answer.is_repeat and self._admission.is_traced(message.span_id):
                    self._reports.granted(message.epoch)
            elif isinstance(message, Refuse):
                message = understood(message, has_limits=self._server.peers[answer.client].understands("limits"))
            elif not self._server.peers[answer.client].understands("leases"):
                continue  # an older client knows nothing of Revoke
            self._send(answer.client, message)

    def _note_leases(self, message: GrantMany) -> None:
        """Count the leases of a group. All runs of a group want spans, or none does."""
        if self._admission.is_traced(message.grant.span_id):
            self._reports.granted(message.grant.epoch, run_count(message))

    def _send(self, peer: bytes, message: msgspec.Struct) -> None:
        self._outboxes.setdefault(peer, []).append(message)

    def _flush(self) -> None:
        while self._outboxes:
            outboxes, self._outboxes = self._outboxes, {}
            for peer, waiting in outboxes.items():
                messages = self._packed(peer, waiting)
                if self._server.send(peer, messages) is not SendResult.SENT:
                    self._server.end(peer, "it cannot be reached")

    def _packed(self, peer: bytes, messages: list[msgspec.Struct]) -> Sequence[msgspec.Struct]:
        """Return the messages as the peer understands them: many leases in one message, if it can read that."""
        if len(messages) == 1 and not isinstance(messages[0], GrantMany):
            return messages
        if (known := self._server.peers.get(peer)) is not None and known.understands(GROUPS):
            return packed(messages)
        return [single for message in messages for single in unpacked(message)]


def _as_clients(spans: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the spans that a client left, each marked as a client's word. What is no span is left out."""
    for encoded in spans:
        with contextlib.suppress(RemoteProtocolError):
            yield encode_span(with_allowed_rank("client", decode_span(encoded)))
