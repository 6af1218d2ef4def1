"""The collector process: takes spans from workers, clients and the broker, and stores them. The shell around batching and flushes.

A span is acknowledged after it is committed. Its sender waits only for the acknowledgement. So a collector that is slow, or cannot
write, slows down no other process.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.files.engine_directory import broker_endpoint, collector_endpoint
from headrace.process.descriptors import broker_shares, raise_limit
from headrace.process.garbage_collection import collect_young, settle
from headrace.process.lifecycle import is_orphan
from headrace.settings.settings import Settings
from headrace.transport.peer_server import PeerServer, ServedPeer, ServerSettings
from headrace.transport.reactor import Reactor
from headrace.transport.router import PeerLimits
from headrace.wire.codec import to_collector
from headrace.wire.engine_status import SpanStatus
from headrace.wire.messages import (
    Flush,
    Flushed,
    FlushRequest,
    FlushResult,
    ProcessReport,
    SpanAck,
    SpanBatch,
    ToCollector,
)
from headrace.wire.roles import TO_COLLECTOR
from headrace_engine.process_exit import EngineExitCode
from headrace_engine.spans.flushing import Flushes, OpenFlush, bounded_timeout
from headrace_engine.spans.report_link import ReportLink
from headrace_engine.spans.span_pipeline import SpanPipeline
from headrace_engine.spans.storage.batching import Batching

logger = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds between two reports to the broker, and two looks at the files, while there is work."""
_IDLE_TICK = 4.0
"""The same while nothing happens."""
_RECOVERY_INTERVAL = 60.0
_RETIRE_EVERY = 60
"""Old files are removed with every 60th recovery."""
_LEFT_DELAY = 0.3
"""Seconds from the end of a worker's connection to a second look at its spool: the process may end a little later."""
_FLUSH_POLL = 0.02
_STOP_BUDGET = 1.0
_MIB = 1024 * 1024
_LIMITS = PeerLimits(unfinished=128 * _MIB, unread=4 * _MIB, all_unread=16 * _MIB, turn=512 * 1024)
"""Messages to senders are short. Senders send batches, and one turn of the loop may take several of them."""


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the collector's command line. ``slot``: the directory for spans. ``parent``: the pid of the supervisor."""

    directory: Path
    slot: Path
    parent: int
    epoch: int


class SpanSender:
    """A peer that sends spans or asks for a flush. ``sequence``: the number of its last batch. ``incarnation`` names its process."""

    def __init__(self, peer: ServedPeer) -> None:
        self.peer = peer
        self.role = peer.role
        self.epoch = peer.epoch
        self.incarnation = (peer.role, peer.pid, peer.epoch)
        self.sequence = 0


class Collector:
    """The collector's sockets, timers and signals."""

    def __init__(self, settings: CollectorSettings, config: Settings) -> None:
        self._settings = settings
        self._reactor = Reactor()
        self._is_stopping = False
        # Before the socket exists: when the supervisor sees the socket, it may send SIGTERM.
        signal.signal(signal.SIGTERM, self._terminated)
        self._pipeline = SpanPipeline(settings.slot, config)
        self._batching: Batching[SpanSender] = Batching()
        self._flushes: Flushes[SpanSender] = Flushes()
        server_settings = ServerSettings(
            endpoint=collector_endpoint(settings.directory),
            epoch=settings.epoch,
            parent=settings.parent,
            max_peers=broker_shares(raise_limit()).peers,
            limits=_LIMITS,
        )
        self._server = PeerServer(self._reactor, server_settings, to_collector, TO_COLLECTOR, self)
        self._link = ReportLink(self._reactor, broker_endpoint(settings.directory), settings.epoch)
        self._senders: dict[bytes, SpanSender] = {}
        self._recovery: Iterator[None] | None = None
        self._recoveries = 0
        self._is_recovery_wanted = False
        self._wakes_at = float("inf")
        self._ticked_at = float("-inf")
        self._has_news = True
        self._told: SpanStatus | None = None
        self._reported: tuple[str, str] = ("", "")

    def run(self) -> None:
        """Serve until the process ends."""
        logger.info("collector serves", extra={"directory": str(self._settings.slot), "epoch": self._settings.epoch})
        self._link.open()
        self._pipeline.start()
        self._reactor.each_turn(self._work)
        self._server.open()
        self._wake_regularly()
        self._recover_all()
        settle()
        self._reactor.run()

    # Peers.

    def peer_joined(self, peer: ServedPeer) -> None:
        """A peer has said hello."""
        self._senders[peer.identity] = SpanSender(peer)

    def peer_said(self, peer: ServedPeer, message: ToCollector) -> None:
        """Handle a message. If no more spans fit in memory, stop reading: the rest waits with the senders and in their spools."""
        self._handle(self._senders[peer.identity], message)
        if self._batching.is_full:
            self._server.pause()

    def peer_left(self, peer: ServedPeer, reason: str) -> None:  # noqa: ARG002 - the server's form
        """A peer has gone. Take over what a worker has left in its spool."""
        self._flushes.left(self._senders.pop(peer.identity))
        if peer.role == "worker":
            self._recover()
            self._reactor.call_later(_LEFT_DELAY, self._recover)

    def _handle(self, sender: SpanSender, message: ToCollector) -> None:
        now = time.monotonic()
        match message:
            case SpanBatch():
                self._has_news = True
                self._pipeline.totals.said(sender.incarnation, message.dropped, message.untraced)
                if not message.spans and message.sequence == sender.sequence:
                    return  # the sender only reports its counts
                sender.sequence = message.sequence
                self._batching.arrived(sender, message.sequence, message.spans, now)
                if sender.role == "client":
                    self._batching.hurry()  # a client sends few spans, and may wait for them before it ends
            case Flush():
                process = sender.peer.pid or sender.peer.identity
                self._flushes.asked(sender, process, message.token, now + bounded_timeout(message.timeout))
            case Flushed():
                self._flushes.flushed(sender, message.token, self._batching.arrived_total)
                self._batching.hurry()
            case ProcessReport():
                self._server.reported(message.processes)
            case _:
                pass  # the server has handled it

    # Spans.

    def _work(self) -> None:
        """Commit the spans that are due, at the end of each turn of the loop. Set a timer for the others."""
        if self._is_stopping:
            return
        if (now := time.monotonic()) - self._ticked_at >= _TICK:
            self._tick(now)
        self._has_news |= self._commit(now)
        if not self._batching.is_full:
            self._server.resume()
        if self._flushes:
            self._look_at_flushes()
        self._report_change()
        if (when := self._batching.next_at) is not None:
            self._wake_at(when)
        if self._has_news:
            self._wake_at(self._ticked_at + _TICK)

    def _commit(self, now: float) -> bool:
        batches = self._batching.take(now)
        if not batches:
            return False
        spans = [(span, batch.sender.role) for batch in batches for span in batch.spans]
        if not self._pipeline.keep(spans):
            self._batching.failed(time.monotonic())
            return False
        for sender, sequence in self._batching.committed().items():
            # A peer that has gone sends its spans again when it is back. A peer that does not read has its own loss.
            self._server.send(sender.peer.identity, [SpanAck(sequence)])
        return True

    def _wake_at(self, when: float) -> None:
        """Have a turn of the loop at ``when`` (monotonic) or earlier."""
        if when <= time.monotonic():
            self._reactor.call(_nothing)
        elif when < self._wakes_at:
            self._wakes_at = when
            self._reactor.call_at(when, self._woken)

    def _woken(self) -> None:
        self._wakes_at = float("inf")

    # Flushes.

    def _begin_flushes(self, now: float) -> None:
        """Ask the workers for their spans: once for all flushes that were asked for in this turn."""
        workers = [sender for sender in self._senders.values() if sender.role == "worker"]
        if self._pipeline.has_writers_beside({worker.epoch for worker in workers}):
            # Some workers have not connected to this new collector yet. The flush covers their spans too: wait for them.
            self._wake_at(now + _FLUSH_POLL)
            return
        if self._pipeline.has_leavings():
            self._recover()  # the flush also covers spans that ended workers left
        number = self._flushes.begin(workers, self._batching.arrived_total)
        for worker in workers:
            self._server.send(worker.peer.identity, [FlushRequest(number)])
        self._batching.hurry()

    def _look_at_flushes(self) -> None:
        now = time.monotonic()
        if self._flushes.is_one_new:
            self._begin_flushes(now)
        done = self._flushes.expired(now)
        # The flush also covers the spool of a worker that has just ended.
        is_recovering = self._recovery is not None
        for flush in [] if is_recovering else self._flushes.committed(self._batching.committed_total):
            if flush.marks is None:
                flush.marks = self._pipeline.marks()
            if flush.marks is not None and self._pipeline.is_delivered(flush.marks):
                done.append(flush)
        if done:
            self._answer(done)
        if self._flushes:
            self._wake_at(now + _FLUSH_POLL)

    def _answer(self, flushes: list[OpenFlush[SpanSender]]) -> None:
        self._flushes.answered(flushes)
        counts = self._pipeline.counts(self._batching.span_count)
        self._link.report(self._pipeline.status(self._batching.span_count))
        results: dict[bytes, list[FlushResult]] = {}
        for flush in flushes:
            results.setdefault(flush.client.peer.identity, []).append(FlushResult(flush.token, *counts))
        for identity, answers in results.items():
            self._server.send(identity, answers)

    # Spools.

    def _recover_all(self) -> None:
        """Take over spans from all slots without an engine, and from the spools of this slot. Once a minute."""
        if self._recovery is None:
            retires = self._recoveries % _RETIRE_EVERY == 0
            self._recoveries += 1
            self._begin(self._pipeline.recover(others=True, retires=retires))
        self._reactor.call_later(_RECOVERY_INTERVAL, self._recover_all)

    def _recover(self) -> None:
        if self._recovery is None:
            self._begin(self._pipeline.recover())
        else:
            self._is_recovery_wanted = True

    def _begin(self, recovery: Iterator[None]) -> None:
        self._recovery = recovery
        self._reactor.call(self._recover_step)

    def _recover_step(self) -> None:
        """Recover one batch. Then other work of the loop has a turn."""
        if self._recovery is None:
            return
        self._has_news = True
        try:
            next(self._recovery)
        except StopIteration:
            self._recovery = None
            if self._is_recovery_wanted:
                self._is_recovery_wanted = False
                self._recover()
        except Exception:
            logger.exception("span recovery failed")
            self._recovery = None
        else:
            self._reactor.call(self._recover_step)

    # The process.

    def _wake_regularly(self) -> None:
        """Have a turn of the loop now and then, also if nothing happens: each turn ticks if that is due."""
        self._reactor.call_later(_IDLE_TICK, self._wake_regularly)

    def _tick(self, now: float) -> None:
        self._ticked_at = now
        if is_orphan(self._settings.parent):
            self._stop()
            return
        self._pipeline.check()
        collect_young()
        status = self._pipeline.status(self._batching.span_count)
        self._link.report(status)
        self._has_news, self._told = status != self._told, status

    def _report_change(self) -> None:
        said = (self._pipeline.state, self._pipeline.error)
        if said != self._reported:
            self._reported = said
            self._link.report(self._pipeline.status(self._batching.span_count))

    def _terminated(self, *_: object) -> None:
        if self._is_stopping:
            os._exit(EngineExitCode.OK)
        self._reactor.call(self._stop)

    def _stop(self) -> None:
        """Store the spans that have arrived or that ended workers left, for at most 1 s, and end. The next collector does the rest."""
        if self._is_stopping:
            return
        self._is_stopping = True
        deadline = time.monotonic() + _STOP_BUDGET
        self._read_all(deadline)
        self._batching.hurry()
        while self._commit(time.monotonic()):
            self._read_all(deadline)
        self._recovery = None
        for _ in self._pipeline.recover():
            if time.monotonic() > deadline:
                break
        self._link.report(self._pipeline.status(self._batching.span_count))
        self._pipeline.close(max(deadline - time.monotonic(), 0.05))
        self._link.close()
        self._server.close(0.05)
        self._reactor.stop()

    def _read_all(self, deadline: float) -> None:
        """Read all messages that wait, in as many turns as that takes."""
        arrived = -1
        while arrived != self._batching.arrived_total and time.monotonic() < deadline:
            arrived = self._batching.arrived_total
            self._server.read()


def _nothing() -> None:
    """Wake the loop: :meth:`Collector._work` runs at the end of the turn."""
