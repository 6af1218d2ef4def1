"""The collector process: a shell around batching, flushing and the keeper. It takes spans from workers, clients and the broker.

Nothing is acknowledged before it is committed. Whoever sends waits for nothing but the acknowledgement, so that a collector that
is slow, or cannot write, slows nobody.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.files.engine_directory import broker_endpoint, collector_endpoint
from headrace.process.descriptors import broker_shares, raise_limit
from headrace.process.lifecycle import ProcessWatch, is_orphan, origin, ticks_at
from headrace.settings.settings import Settings
from headrace.transport.peer_identity import TELLS_PROCESSES
from headrace.transport.reactor import Reactor
from headrace.transport.router import FOREIGN_PEER, Limits, Router
from headrace.transport.sockets import new_context
from headrace.version import VERSION
from headrace.wire.codec import encode_frame, to_collector
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    Flush,
    Flushed,
    FlushRequest,
    FlushResult,
    Goodbye,
    Hello,
    PeerRole,
    ProcessReport,
    SpanAck,
    SpanBatch,
    ToCollector,
    Welcome,
)
from headrace.wire.roles import TO_COLLECTOR, breach
from headrace_engine.exit_codes import ExitCode
from headrace_engine.peer_check import SAID_TOO_MUCH, Claim, Doorkeeper, Known, Refused
from headrace_engine.spans.flushing import Flushes, OpenFlush, bounded_timeout
from headrace_engine.spans.report_link import ReportLink
from headrace_engine.spans.span_pipeline import Keeper
from headrace_engine.spans.storage.batching import Batching

logger = logging.getLogger(__name__)

_TICK = 1.0
_RECOVERY_INTERVAL = 60.0
_RETIRE_EVERY = 60
"""Recoveries from one removal of old files to the next."""
_LEFT_DELAY = 0.3
"""Seconds from the end of a worker's connection, where its process cannot be watched, to the look at its spool."""
_FLUSH_POLL = 0.02
_STOP_BUDGET = 1.0
_GOODBYE_DELAY = 0.5
_MIB = 1024 * 1024
_LIMITS = Limits(unfinished=128 * _MIB, unread=4 * _MIB, all_unread=16 * _MIB, turn=512 * 1024)
"""What is said to a sender is short; what senders say comes in batches, which one turn may take several of."""


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a collector is told on its command line."""

    directory: Path
    slot: Path
    parent: int
    epoch: int


class _Peer:
    """A connection that has said hello and is what it says, and whose it is. ``pid`` is the kernel's word."""

    def __init__(self, identity: bytes, epoch: int, role: PeerRole, pid: int) -> None:
        self.identity = identity
        self.role = role
        self.epoch = epoch
        self.incarnation = (role, pid, epoch)
        self.sequence = 0


class Collector:
    """Sockets, timers and signals."""

    def __init__(self, settings: CollectorSettings, config: Settings) -> None:
        self._settings = settings
        self._reactor = Reactor()
        self._is_stopping = False
        # Before the socket is there, by which the supervisor sees that this process can be told to end.
        signal.signal(signal.SIGTERM, self._terminated)
        self._keeper = Keeper(settings.slot, config)
        self._batching: Batching[_Peer] = Batching()
        self._flushes: Flushes[_Peer] = Flushes()
        context = new_context()
        peers = broker_shares(raise_limit()).peers
        self._router = Router(collector_endpoint(settings.directory), peers, _LIMITS)
        self._link = ReportLink(self._reactor, context, broker_endpoint(settings.directory), settings.epoch)
        self._watch = ProcessWatch(self._reactor)
        # Those that are what they say. Who is not here is not heard.
        self._peers: dict[bytes, _Peer] = {}
        self._door: Doorkeeper[tuple[int, ToCollector]] = Doorkeeper(
            settings.parent, origin(settings.parent), can_tell=TELLS_PROCESSES
        )
        self._recovery: Iterator[None] | None = None
        self._recoveries = 0
        self._is_recovery_wanted = False
        self._is_reading = False
        self._wakes_at = float("inf")
        self._reported: tuple[str, str] = ("", "")

    def run(self) -> None:
        """Serve until the process ends."""
        logger.info("collector serves", extra={"directory": str(self._settings.slot)})
        self._link.open()
        self._keeper.start()
        self._reactor.add_reader(self._router.monitor_fd, self._read_departures)
        self._reactor.each_turn(self._work)
        self._go_on_reading()
        self._tick()
        self._recover_all()
        self._reactor.run()

    # Peers.

    def _go_on_reading(self) -> None:
        self._is_reading = True
        self._reactor.add_reader(self._router.fd, self._read)
        self._read()

    def _read(self) -> None:
        if not self._is_reading:
            return
        for identity, frame in self._router.receive():
            self._take_frame(identity, frame)
            if self._batching.is_full:
                # What is not read stays with its senders, and in their spools.
                self._is_reading = False
                self._reactor.remove_reader(self._router.fd)
                return
        if self._router.has_input():
            self._reactor.call(self._read)

    def _take_frame(self, identity: bytes, frame: bytes) -> None:
        try:
            epoch, messages = to_collector.decode(frame)
        except (RemoteProtocolError, ProtocolMismatchError) as error:
            self._refuse_peer(identity, str(error))
            return
        for message in messages:
            if not self._take(identity, epoch, message, len(frame) // len(messages)):
                return

    def _take(self, identity: bytes, epoch: int, message: ToCollector, size: int) -> bool:
        """Handle a message if its peer may say it; return False when the peer is refused."""
        peer = self._peers.get(identity)
        problem = None
        if peer is not None:
            if (problem := breach(TO_COLLECTOR, peer.role, message)) is None:
                self._handle(peer, message)
        elif self._door.holds(identity):
            if not self._door.hold(identity, (epoch, message), size):
                problem = SAID_TOO_MUCH
        elif isinstance(message, Hello):
            problem = self._knock(identity, epoch, message, size)
        else:
            problem = "the first message must be a hello"
        if problem is not None:
            self._refuse_peer(identity, problem)
        return problem is None

    def _knock(self, identity: bytes, epoch: int, hello: Hello, size: int) -> str | None:
        """Let a peer in that is what it says, or have it wait for the supervisor's word; return why one is refused."""
        if self._router.is_foreign(identity):
            return FOREIGN_PEER
        pid = self._router.pid(identity)
        connected = ticks_at(self._router.connected_at(identity))
        claim = Claim(hello.role, hello.name, epoch, pid, origin(pid) if pid else None, connected)
        match self._door.knock(identity, claim, time.monotonic()):
            case Known():
                self._welcome(identity, epoch, hello.role)
            case Refused(reason):
                return reason
            case _ if not self._door.hold(identity, (epoch, hello), size):
                return SAID_TOO_MUCH
        return None

    def _open_door(self) -> None:
        """Let those in whom the supervisor has told of meanwhile, and hear what they have said."""
        for identity, verdict, said in self._door.ready(time.monotonic()):
            if isinstance(verdict, Refused):
                self._refuse_peer(identity, verdict.reason)
                continue
            for epoch, message in said:
                if identity in self._peers:
                    self._take(identity, epoch, message, 1)
                elif isinstance(message, Hello):
                    self._welcome(identity, epoch, message.role)

    def _welcome(self, identity: bytes, epoch: int, role: PeerRole) -> None:
        pid = self._router.pid(identity)
        self._peers[identity] = _Peer(identity, epoch, role, pid)
        self._send(identity, Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, VERSION))
        # Once the process has ended its spool is nobody's; its connection may end a moment before.
        self._watch.watch(identity, pid, partial(self._forget, identity))

    def _handle(self, peer: _Peer, message: ToCollector) -> None:
        now = time.monotonic()
        match message:
            case SpanBatch():
                self._keeper.totals.said(peer.incarnation, message.dropped, message.untraced)
                if not message.spans and message.sequence == peer.sequence:
                    return  # it says its counts, and waits for what it has sent before
                peer.sequence = message.sequence
                self._batching.arrived(peer, message.sequence, message.spans, now)
                if peer.role == "client":
                    self._batching.hurry()  # few, and it may wait for them before it ends
            case Flush():
                process = self._router.pid(peer.identity) or peer.identity
                self._flushes.asked(peer, process, message.token, now + bounded_timeout(message.timeout))
            case Flushed():
                self._flushes.flushed(peer, message.token, self._batching.arrived_total)
                self._batching.hurry()
            case ProcessReport():
                self._door.told(message.processes)
                self._open_door()
            case Goodbye():
                self._forget(peer.identity)
            case Hello():
                pass

    def _read_departures(self) -> None:
        self._read()  # what they said last comes first
        for identity in self._router.departed():
            self._forget(identity)

    def _forget(self, identity: bytes) -> None:
        self._watch.forget(identity)
        self._door.forget(identity)
        peer = self._peers.pop(identity, None)
        if peer is not None:
            self._flushes.left(peer)
            if peer.role == "worker":
                self._recover()
                self._reactor.call_later(_LEFT_DELAY, self._recover)

    def _refuse_peer(self, identity: bytes, reason: str) -> None:
        """End one connection; whatever its bytes were, nobody else is concerned."""
        reason = self._router.breach(identity) or reason
        logger.warning("peer refused", extra={"reason": reason})
        self._forget(identity)
        self._router.dismiss(identity, encode_frame(self._settings.epoch, [Goodbye(reason)]))
        self._reactor.call_later(_GOODBYE_DELAY, partial(self._router.disconnect, identity))

    def _send(self, identity: bytes, *messages: msgspec.Struct) -> None:
        # A peer that is gone sends its spans again when it is back; one that reads nothing has its own loss.
        self._router.send(identity, encode_frame(self._settings.epoch, messages))
        if self._router.has_input():
            self._reactor.call(self._read)

    # Spans.

    def _work(self) -> None:
        """Commit what is due, at the end of each turn; and see to be woken for the rest."""
        if self._is_stopping:
            return
        self._commit(time.monotonic())
        if not self._is_reading and not self._batching.is_full:
            self._go_on_reading()
        if self._flushes:
            self._look_at_flushes()
        self._report_change()
        if (when := self._batching.next_at) is not None:
            self._wake_at(when)

    def _commit(self, now: float) -> bool:
        batches = self._batching.take(now)
        if not batches:
            return False
        spans = [(span, batch.sender.role) for batch in batches for span in batch.spans]
        if not self._keeper.keep(spans):
            self._batching.failed(time.monotonic())
            return False
        for peer, sequence in self._batching.committed().items():
            self._send(peer.identity, SpanAck(sequence))
        return True

    def _wake_at(self, when: float) -> None:
        """Have a turn at ``when``; one that comes earlier looks again."""
        if when <= time.monotonic():
            self._reactor.call(_nothing)
        elif when < self._wakes_at:
            self._wakes_at = when
            self._reactor.call_at(when, self._woken)

    def _woken(self) -> None:
        self._wakes_at = float("inf")

    # Flushes.

    def _begin_flushes(self, now: float) -> None:
        """Ask the workers, once for all that were asked for in this turn."""
        workers = [peer for peer in self._peers.values() if peer.role == "worker"]
        if self._keeper.has_writers_beside({worker.epoch for worker in workers}):
            # A new collector has not heard of those yet, whose spans are meant too.
            self._wake_at(now + _FLUSH_POLL)
            return
        if self._keeper.has_leavings():
            self._recover()  # what the dead left is meant too, and not looked for before a minute is over
        number = self._flushes.begin(workers, self._batching.arrived_total)
        for worker in workers:
            self._send(worker.identity, FlushRequest(number))
        self._batching.hurry()

    def _look_at_flushes(self) -> None:
        now = time.monotonic()
        if self._flushes.is_one_new:
            self._begin_flushes(now)
        done = self._flushes.expired(now)
        # What lies in the spool of a worker that has just died is meant too.
        is_recovering = self._recovery is not None
        for flush in [] if is_recovering else self._flushes.committed(self._batching.committed_total):
            if flush.marks is None:
                flush.marks = self._keeper.marks()
            if flush.marks is not None and self._keeper.is_delivered(flush.marks):
                done.append(flush)
        if done:
            self._answer(done)
        if self._flushes:
            self._wake_at(now + _FLUSH_POLL)

    def _answer(self, flushes: list[OpenFlush[_Peer]]) -> None:
        self._flushes.answered(flushes)
        counts = self._keeper.counts(self._batching.span_count)
        self._link.report(self._keeper.status(self._batching.span_count))
        results: dict[bytes, list[FlushResult]] = {}
        for flush in flushes:
            results.setdefault(flush.client.identity, []).append(FlushResult(flush.token, *counts))
        for identity, answers in results.items():
            self._send(identity, *answers)

    # Spools.

    def _recover_all(self) -> None:
        """Look at every slot that is nobody's, and at all spools of this one."""
        if self._recovery is None:
            retires = self._recoveries % _RETIRE_EVERY == 0
            self._recoveries += 1
            self._begin(self._keeper.recover(others=True, retires=retires))
        self._reactor.call_later(_RECOVERY_INTERVAL, self._recover_all)

    def _recover(self) -> None:
        if self._recovery is None:
            self._begin(self._keeper.recover())
        else:
            self._is_recovery_wanted = True

    def _begin(self, recovery: Iterator[None]) -> None:
        self._recovery = recovery
        self._reactor.call(self._recover_step)

    def _recover_step(self) -> None:
        """Do one batch, and let others have a turn."""
        if self._recovery is None:
            return
        try:
            next(self._recovery)
        except StopIteration:
            self._recovery = None
            if self._is_recovery_wanted:
                self._is_recovery_wanted = False
                self._recover()
        except Exception:
            logger.exception("recovery failed")
            self._recovery = None
        else:
            self._reactor.call(self._recover_step)

    # The process.

    def _tick(self) -> None:
        if self._is_stopping:
            return
        if is_orphan(self._settings.parent):
            self._stop()
            return
        self._router.end_silent()
        self._read_departures()
        self._open_door()
        self._keeper.check()
        self._link.report(self._keeper.status(self._batching.span_count))
        self._reactor.call_later(_TICK, self._tick)

    def _report_change(self) -> None:
        said = (self._keeper.state, self._keeper.error)
        if said != self._reported:
            self._reported = said
            self._link.report(self._keeper.status(self._batching.span_count))

    def _terminated(self, *_: object) -> None:
        if self._is_stopping:
            os._exit(ExitCode.OK)
        self._reactor.call(self._stop)

    def _stop(self) -> None:
        """Take what there is, what dead workers left included, and end. What time does not allow is left for the next one."""
        if self._is_stopping:
            return
        self._is_stopping = True
        deadline = time.monotonic() + _STOP_BUDGET
        self._read_all(deadline)
        self._batching.hurry()
        while self._commit(time.monotonic()):
            self._read_all(deadline)
        self._recovery = None
        for _ in self._keeper.recover():
            if time.monotonic() > deadline:
                break
        self._link.report(self._keeper.status(self._batching.span_count))
        self._keeper.close(max(deadline - time.monotonic(), 0.05))
        self._link.close()
        self._is_reading = False  # what is left of this turn finds no sockets
        self._router.close(0.05)
        self._reactor.stop()

    def _read_all(self, deadline: float) -> None:
        """Read what there is, and not only as much as one turn takes."""
        arrived = -1
        while arrived != self._batching.arrived_total and time.monotonic() < deadline:
            arrived = self._batching.arrived_total
            self._read()


def _nothing() -> None:
    """End the wait; the turn's end does the rest."""
