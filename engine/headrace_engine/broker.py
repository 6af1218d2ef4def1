"""The broker process: a shell around admission and liveness. It sees who asks and who is there, never a prompt or a chunk."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

import headrace
from headrace.embedded import broker_endpoint
from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.processes import ProcessWatch, is_orphan
from headrace.reactor import Reactor
from headrace.settings import EngineConfig
from headrace.sockets import FOREIGN_PEER, Router, SendResult, new_context
from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    Acquire,
    Goodbye,
    Heartbeat,
    Hello,
    Hold,
    ProcessReport,
    ProcessStatus,
    Release,
    Silent,
    Status,
    StatusRequest,
    ToBroker,
    Welcome,
    WorkerStatus,
)
from headrace_engine.admission import Admission, Send
from headrace_engine.liveness import Liveness

logger = logging.getLogger(__name__)

_TICK = 0.5


class Broker:
    """Sockets, timers and process handles; decisions are admission's and liveness's."""

    def __init__(self, directory: Path, config: EngineConfig, parent: int) -> None:
        self._parent = parent
        self._epoch = secrets.randbits(31) + 1
        self._started_at = time.monotonic()
        self._reactor = Reactor()
        self._router = Router(new_context(), broker_endpoint(directory))
        self._admission = Admission(config.max_runs_per_worker, config.max_waiting_runs)
        self._liveness = Liveness()
        self._hellos: dict[bytes, Hello] = {}
        self._worker_epochs: dict[bytes, int] = {}
        self._watch = ProcessWatch(self._reactor.register, self._reactor.unregister)
        self._outboxes: dict[bytes, list[msgspec.Struct]] = {}
        self._processes: list[ProcessStatus] = []

    def run(self) -> None:
        """Serve until the process ends."""
        self._reactor.register(self._router.fd, self._read)
        self._reactor.register(self._router.monitor_fd, self._read_departures)
        self._reactor.each_turn(self._flush)
        self._tick()
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.call(self._stop_admitting))
        self._reactor.run()

    def _tick(self) -> None:
        now = time.monotonic()
        if is_orphan(self._parent):
            self._reactor.stop()
            return
        for epoch in self._liveness.due(now):
            logger.warning("worker is silent", extra={"epoch": epoch})
            self._send_all(self._admission.worker_suspected(epoch, True))
        for epoch in self._liveness.hung(now):
            self._report_silent(epoch, now)
        self._send_all(self._admission.due(now))
        self._reactor.call_at(now + _TICK, self._tick)

    def _report_silent(self, epoch: int, now: float) -> None:
        """Have the supervisor end a worker that is there and serves nobody."""
        names = [self._hellos[peer].name for peer, worker in self._worker_epochs.items() if worker == epoch]
        for peer, hello in self._hellos.items():
            if hello.role == "supervisor" and names:
                self._send(peer, Silent(names[0], epoch, self._liveness.silence(epoch, now)))

    def _stop_admitting(self) -> None:
        self._send_all(self._admission.stopping())

    def _read(self) -> None:
        for peer, frame in self._router.receive():
            try:
                epoch, messages = to_broker.decode(frame)
            except (RemoteProtocolError, ProtocolMismatchError) as error:
                self._refuse_peer(peer, str(error))
                continue
            for message in messages:
                if peer not in self._hellos and not isinstance(message, Hello):
                    self._refuse_peer(peer, "the first message must be a hello")
                    break
                self._handle(peer, epoch, message)
        if self._router.has_input():
            self._reactor.call(self._read)

    def _handle(self, peer: bytes, epoch: int, message: ToBroker) -> None:
        now = time.monotonic()
        match message:
            case Acquire():
                self._send_all(self._admission.acquired(peer, message, now))
            case Hold():
                self._send_all(self._admission.held(peer, message.span_id, message.attempt, message.epoch))
            case Release():
                self._send_all(self._admission.released(peer, message.span_id, message.attempt))
            case Heartbeat():
                if self._liveness.beat(epoch, now):
                    self._send_all(self._admission.worker_suspected(epoch, False))
            case Hello():
                self._welcome(peer, epoch, message, now)
            case StatusRequest():
                self._send(peer, self._status(now))
            case ProcessReport():
                self._processes = message.processes
            case Goodbye():
                self._forget(peer, message.reason)

    def _welcome(self, peer: bytes, epoch: int, hello: Hello, now: float) -> None:
        if peer in self._hellos:
            return
        if self._router.is_foreign(peer):
            self._refuse_peer(peer, FOREIGN_PEER)
            return
        self._hellos[peer] = hello
        self._send(peer, Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, headrace.__version__))
        self._watch_process(peer)
        if hello.role == "worker":
            self._worker_epochs[peer] = epoch
            self._liveness.joined(epoch, now)
            self._send_all(self._admission.worker_joined(hello.name, hello.endpoint, epoch))

    def _watch_process(self, peer: bytes) -> None:
        """A connection outlives its process where a forked child holds a copy; the process handle does not."""
        known = self._router.peer(peer)
        if known is not None and known.pid:
            self._watch.watch(peer, known.pid, partial(self._forget, peer, "its process ended"))

    def _read_departures(self) -> None:
        self._read()  # what they said last comes first
        for peer in self._router.departed():
            self._forget(peer, "its connection ended")

    def _forget(self, peer: bytes, reason: str) -> None:
        self._outboxes.pop(peer, None)
        self._watch.forget(peer)
        hello = self._hellos.pop(peer, None)
        if hello is None:
            return
        epoch = self._worker_epochs.pop(peer, None)
        if epoch is not None:
            logger.info("worker left", extra={"worker": hello.name, "reason": reason})
            self._liveness.left(epoch)
            self._send_all(self._admission.worker_left(epoch, f"{hello.name}: {reason}"))
        else:
            self._send_all(self._admission.client_left(peer))

    def _refuse_peer(self, peer: bytes, reason: str) -> None:
        """End one connection; whatever its bytes were, nobody else is concerned."""
        logger.warning("peer refused", extra={"reason": reason})
        self._forget(peer, reason)
        self._router.send(peer, encode_frame(self._epoch, [Goodbye(reason)]))
        self._reactor.call_at(time.monotonic() + _TICK, partial(self._router.disconnect, peer))

    def _status(self, now: float) -> Status:
        workers = []
        for peer, epoch in self._worker_epochs.items():
            hello = self._hellos[peer]
            for worker in self._admission.workers:
                if worker.epoch == epoch:
                    state = "suspect" if worker.is_suspect else "ok"
                    silence = self._liveness.silence(epoch, now)
                    workers.append(WorkerStatus(worker.name, hello.pid, state, len(worker.spans), silence))
        return Status(
            pid=os.getpid(),
            version=headrace.__version__,
            uptime=now - self._started_at,
            clients=sum(hello.role == "client" for hello in self._hellos.values()),
            leases=self._admission.lease_count,
            waiting=self._admission.waiting_count,
            granted_total=self._admission.granted_total,
            refused_total=self._admission.refused_total,
            workers=sorted(workers, key=lambda worker: worker.name),
            processes=self._processes,
        )

    def _send_all(self, answers: Iterable[Send]) -> None:
        for answer in answers:
            self._send(answer.client, answer.message)

    def _send(self, peer: bytes, message: msgspec.Struct) -> None:
        self._outboxes.setdefault(peer, []).append(message)

    def _flush(self) -> None:
        while self._outboxes:
            outboxes, self._outboxes = self._outboxes, {}
            for peer, messages in outboxes.items():
                if self._router.send(peer, encode_frame(self._epoch, messages)) is not SendResult.SENT:
                    self._forget(peer, "it cannot be reached")
        if self._router.has_input():
            self._reactor.call(self._read)
