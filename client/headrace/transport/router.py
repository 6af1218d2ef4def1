"""A bound Unix socket with many peers that speak ZMTP, without libzmq: frames in and out, who the peers are, how many bytes are kept.

libzmq's ROUTER cannot be used here. A peer that claims the routing id which ROUTER would generate next aborts the process. And ROUTER
limits neither the bytes that a peer does not read nor the parts of a message. Here the bytes of each peer, of each process and of all
peers are limited. Sends never block. A router belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import select
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import msgspec

from headrace.process.clock import monotonic
from headrace.transport.accepted_connection import AcceptedConnection
from headrace.transport.fair_turns import FairTurns
from headrace.transport.listener import ConnectionListener
from headrace.transport.zmtp_connection import FRAME_COST
from headrace.wire.messages import MAX_FRAME_BYTES

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024

FOREIGN_PEER = "this engine is another user's"
"""Why a peer is refused that is another user's process, or whose user the kernel does not tell."""

_LOW_MARK = 0.9
"""Connections are ended until the bytes are below this share of the limit that was passed."""
_HANDSHAKE_TIMEOUT = 5.0
"""Seconds that a new peer may take for the handshake of ZMTP."""
_FIRST_MESSAGE_TIMEOUT = 10.0
"""Seconds that a new peer may take until its first message."""
_MAX_READS = 64
"""Reads from peers in one call of :meth:`Router.receive`."""
_MAX_WAITING_BYTES = 256 * 1024
"""Bytes of one process's frames that are read and not yielded. Above it the process's connections are not read."""


class SendResult(enum.Enum):
    """What happened to a frame that a :class:`Router` was asked to send."""

    SENT = "sent"
    FULL = "full"  # the peer has too many unread bytes: it does not read
    GONE = "gone"  # the peer has gone


class PeerLimits(msgspec.Struct, frozen=True):
    """Limits in bytes for what a router keeps. A peer that passes a limit of its own loses its connection."""

    frame: int = MAX_FRAME_BYTES
    """One frame of a peer."""
    unfinished: int = 4 * MAX_FRAME_BYTES
    """The incomplete frames of all peers. Above it the peer whose frame began first loses its connection."""
    unread: int = 64 * _MIB
    """What one peer has not read."""
    turn: int = 64 * 1024
    """The frames of one call of :meth:`Router.receive`, so that a turn of the loop is short. The first frame may be longer."""
    all_unread: int = 256 * _MIB
    """What all peers have not read. Above it, in the process with most unread bytes, the connection with most is ended."""


class Router:
    """A bound socket. Each connection has an identity, a byte string that is never used again.

    With ``max_peers`` connections the router accepts no more until some have ended. Meanwhile the socket's file has another name, so
    that a peer which wants to connect finds none and tries again. Raises OSError if the endpoint cannot be bound.
    """

    def __init__(self, endpoint: str, max_peers: int = 1_000_000, limits: PeerLimits | None = None) -> None:
        self._limits = limits or PeerLimits()
        self._numbers = count(1)
        self._peers: dict[bytes, AcceptedConnection] = {}
        self._newcomers: dict[bytes, AcceptedConnection] = {}  # peers without a message so far, the oldest first
        self._waiting_bytes: Counter[int] = Counter()
        self._turns: FairTurns[AcceptedConnection] = FairTurns()
        self._unfinished = 0
        self._unread = 0
        self._departed: list[bytes] = []
        self._is_signalled = False
        self._epoll = select.epoll()
        self._by_fd: dict[int, AcceptedConnection] = {}
        self._listener = ConnectionListener(Path(endpoint.removeprefix("ipc://")), max_peers, self._epoll)
        self._signal_read, self._signal_write = os.pipe()
        os.set_blocking(self._signal_read, False)
        self.fd: int = self._epoll.fileno()
        self.monitor_fd: int = self._signal_read
        """Readable when a peer has gone: read what it said last, then ask :meth:`departed`."""

    # Who the peers are.

    @property
    def is_full(self) -> bool:
        """Whether there is no room for further connections."""
        return self._listener.is_full

    def pid(self, identity: bytes) -> int:
        """Return the pid of a peer. 0 if the kernel does not tell it, or if the peer has gone."""
        peer = self._peers.get(identity)
        return (peer.pid or 0) if peer is not None else 0

    def connected_at(self, identity: bytes) -> float:
        """Return when a peer connected, by the monotonic clock. For a peer that has gone, return the present."""
        peer = self._peers.get(identity)
        return peer.accepted_at if peer is not None else monotonic()

    def is_connected(self, identity: bytes) -> bool:
        """Return whether a peer is still there. Its last frames may be read long after it has gone."""
        peer = self._peers.get(identity)
        return peer is not None and peer.wire.is_connected()

    def is_foreign(self, identity: bytes) -> bool:
        """Return whether a peer is another user's process, or its user is unknown."""
        peer = self._peers.get(identity)
        return peer is None or peer.uid != os.geteuid()

    def breach(self, identity: bytes) -> str:
        """Return how a peer broke the rules of ZMTP, or an empty text. For each breach :meth:`receive` yields an empty frame."""
        peer = self._peers.get(identity)
        return peer.wire.parser.breach if peer is not None else ""

    # Sending.

    def send(self, identity: bytes, frame: bytes) -> SendResult:
        """Send a frame to a peer, or keep the part that the kernel does not take now. Never blocks."""
        peer = self._peers.get(identity)
        if peer is None or peer.wire.is_over:
            return SendResult.GONE
        before = peer.wire.unsent_bytes
        if before and before + len(frame) + 2 * FRAME_COST > self._limits.unread:
            return SendResult.FULL
        if not peer.wire.send(frame):
            return SendResult.GONE
        if peer.wire.unsent_bytes != before:
            self._unread += peer.wire.unsent_bytes - before
            self._watch(peer)
            if self._unread > self._limits.all_unread:
                self._end_heaviest()
                if peer.wire.is_over:
                    return SendResult.FULL
        return SendResult.SENT

    def _watch(self, peer: AcceptedConnection) -> None:
        """Ask the kernel for the events that a peer needs now."""
        wanted = (0 if peer.is_deaf else select.EPOLLIN) | (select.EPOLLOUT if peer.wire.unsent_bytes else 0)
        if wanted == peer.watched:
            return
        fd = peer.wire.fd
        if not wanted:
            self._unwatch(peer)
        elif peer.watched:
            self._epoll.modify(fd, wanted)
        else:
            self._epoll.register(fd, wanted)
            self._by_fd[fd] = peer
        peer.watched = wanted

    def _unwatch(self, peer: AcceptedConnection) -> None:
        if peer.watched:
            peer.watched = 0
            del self._by_fd[peer.wire.fd]
            self._epoll.unregister(peer.wire.fd)

    def _flush(self, peer: AcceptedConnection) -> None:
        before = peer.wire.unsent_bytes
        peer.wire.flush()
        self._unread += peer.wire.unsent_bytes - before
        self._watch(peer)

    def _end_heaviest(self) -> None:
        """In the process with most unread bytes, end the connection with most."""
        by_process: Counter[int] = Counter()
        for peer in self._peers.values():
            by_process[peer.pid or 0] += peer.wire.unsent_bytes
        process = max(by_process, key=by_process.__getitem__)
        peer = max(
            (peer for peer in self._peers.values() if (peer.pid or 0) == process),
            key=lambda peer: peer.wire.unsent_bytes,
        )
        logger.warning(
            "peer disconnected",
            extra={
                "pid": process,
                "reason": "it has the most unread bytes, and all peers together have too many",
                "bytes": peer.wire.unsent_bytes,
            },
        )
        self._end(peer)

    # Receiving.

    def has_input(self) -> bool:
        """Return whether frames wait that no descriptor tells of. To be asked after :meth:`receive`."""
        return bool(self._turns)

    def wait(self, seconds: float) -> None:
        """Block until :meth:`receive` has something to read, at most for ``seconds``."""
        select.select([self.fd], [], [], seconds)  # epoll itself counts milliseconds

    def receive(self, limit: int = 1000, busy: Collection[int] = ()) -> Iterator[tuple[bytes, bytes]]:
        """Yield up to ``limit`` waiting frames as (identity, frame). The peers' processes take turns; those in ``busy`` have none.

        An empty frame stands for a :meth:`breach`.
        """
        self._poll()
        later: list[AcceptedConnection] = []
        try:
            yield from self._receive(limit, busy, later)
        finally:
            for peer in later:
                self._queue(peer)

    def _receive(
        self, limit: int, busy: Collection[int], later: list[AcceptedConnection]
    ) -> Iterator[tuple[bytes, bytes]]:
        reads, room = _MAX_READS, self._limits.turn
        while limit > 0 and reads > 0 and room > 0:
            peer = self._turns.take()
            if peer is None:
                return
            peer.is_queued = False
            if busy and peer.pid in busy:
                later.append(peer)
                continue
            if not peer.waiting:
                reads -= 1
                self._read(peer)
                if not peer.waiting:
                    continue
            frame = self._next_frame(peer)
            limit -= 1
            room -= len(frame)
            yield peer.identity, frame

    def _poll(self) -> None:
        for fd, events in self._epoll.poll(0):
            if fd == self._listener.fd:
                self._accept()
                continue
            peer = self._by_fd.get(fd)
            if peer is None or peer.wire.is_over:
                continue  # it was ended by an event before this one
            if events & ~select.EPOLLIN and peer.watched & select.EPOLLOUT:
                self._flush(peer)
            if events & ~select.EPOLLOUT and not peer.is_deaf:
                self._queue(peer)

    def _queue(self, peer: AcceptedConnection) -> None:
        if not peer.is_queued:
            peer.is_queued = True
            self._turns.put(peer.pid, peer)

    def _read(self, peer: AcceptedConnection) -> None:
        """Read once from a peer. Its frames wait in the peer."""
        if peer.wire.is_over or peer.is_deaf or self._waiting_bytes[peer.pid or 0] > _MAX_WAITING_BYTES:
            return  # the kernel reports the peer again
        parser = peer.wire.parser
        before, unsent = parser.held, peer.wire.unsent_bytes
        frames = peer.wire.read()
        if peer.wire.unsent_bytes != unsent:
            self._unread += peer.wire.unsent_bytes - unsent
            self._watch(peer)
        self._unfinished += parser.held - before
        if parser.breach:
            peer.is_deaf = True
            if not parser.is_ready:
                peer.wire.is_over = True  # before the handshake nothing can be sent to it
            else:
                frames.append(b"")
                self._watch(peer)
        if frames:
            size = sum(map(len, frames))
            peer.waiting.extend(frames)
            peer.waiting_bytes += size
            self._waiting_bytes[peer.pid or 0] += size
        if peer.wire.is_over:
            self._end(peer)
        elif parser.held != before:
            if not before or frames:
                peer.began_at = monotonic()
            if self._unfinished > self._limits.unfinished:
                self._end_oldest_frames()

    def _next_frame(self, peer: AcceptedConnection) -> bytes:
        frame = peer.waiting.popleft()
        size = len(frame)
        peer.waiting_bytes -= size
        self._waiting_bytes[peer.pid or 0] -= size
        if not peer.is_known:
            peer.is_known = True
            self._newcomers.pop(peer.identity, None)
        if peer.waiting:
            self._queue(peer)
        elif peer.wire.is_over:
            self._depart(peer)
        return frame

    def _end_oldest_frames(self) -> None:
        """End the connections whose frames began first, until the incomplete frames are below the limit."""
        unfinished = sorted(
            (peer for peer in self._peers.values() if peer.wire.parser.held), key=lambda peer: peer.began_at
        )
        for peer in unfinished:
            if self._unfinished <= self._limits.unfinished * _LOW_MARK:
                return
            logger.warning(
                "peer disconnected",
                extra={"pid": peer.pid, "reason": "its frame takes too long", "bytes": peer.wire.parser.held},
            )
            self._end(peer)

    # Connections that begin and end.

    def _accept(self) -> None:
        for connection, who in self._listener.accept():
            identity = b"\0" + next(self._numbers).to_bytes(8, "big")
            peer = AcceptedConnection(connection, identity, who, self._limits.frame, monotonic())
            self._peers[identity] = self._newcomers[identity] = peer
            self._watch(peer)

    def _end(self, peer: AcceptedConnection) -> None:
        """Close a connection. Its waiting frames are still yielded, then it departs. A second call drops the waiting frames."""
        if peer.identity not in self._peers:
            return
        was_open = peer.wire.fd >= 0
        if was_open:
            self._unwatch(peer)
            self._unread -= peer.wire.unsent_bytes
            self._unfinished -= peer.wire.parser.held
            peer.wire.parser.held = 0
            peer.wire.close()
        if was_open and peer.waiting and not peer.is_deaf:
            self._queue(peer)
            self._signal()
        else:
            self._drop_waiting(peer)
            self._depart(peer)

    def _drop_waiting(self, peer: AcceptedConnection) -> None:
        self._waiting_bytes[peer.pid or 0] -= peer.waiting_bytes
        peer.waiting.clear()
        peer.waiting_bytes = 0

    def _depart(self, peer: AcceptedConnection) -> None:
        if self._peers.pop(peer.identity, None) is None:
            return
        self._newcomers.pop(peer.identity, None)
        if self._listener.connection_ended(peer.pid):
            self._waiting_bytes.pop(peer.pid or 0, None)
        if peer.is_known:
            self._departed.append(peer.identity)
            self._signal()

    def _signal(self) -> None:
        """Make ``monitor_fd`` readable, until :meth:`departed` is called."""
        if not self._is_signalled:
            self._is_signalled = True
            os.write(self._signal_write, b"\0")

    def departed(self) -> Iterator[bytes]:
        """Yield the identities of the peers that have gone since the last call. Peers without any frame are left out."""
        if not self._is_signalled:
            return
        self._is_signalled = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._signal_read, 16)
        departed, self._departed = self._departed, []
        yield from departed

    def dismiss(self, identity: bytes, frame: bytes) -> None:
        """Send a last frame to a peer, and read nothing more from it. Call :meth:`disconnect` a moment later."""
        peer = self._peers.get(identity)
        if peer is None:
            return
        self.send(identity, frame)
        if peer.wire.is_over:
            self._end(peer)
        else:
            peer.is_deaf = True
            self._drop_waiting(peer)
            self._watch(peer)

    def disconnect(self, identity: bytes) -> None:
        """End a peer's connection. A peer that has gone is ignored."""
        peer = self._peers.get(identity)
        if peer is not None:
            self._end(peer)

    @property
    def needs_looks(self) -> bool:
        """Whether :meth:`end_silent` may have something to do."""
        return bool(self._newcomers) or self._listener.is_out_of_descriptors

    def end_silent(self) -> None:
        """End the connections without a handshake after 5 s, or without a message after 10 s. Call it each second or so."""
        now = monotonic()
        for peer in list(self._newcomers.values()):
            age = now - peer.accepted_at
            if age < _HANDSHAKE_TIMEOUT:
                break
            if age >= _FIRST_MESSAGE_TIMEOUT or not peer.wire.parser.is_ready:
                self._end(peer)
        self._listener.accept_again()

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. Waits for up to ``linger`` seconds until the queued frames have left."""
        if self._signal_read < 0:
            return
        deadline = monotonic() + linger
        while any(peer.wire.unsent_bytes for peer in self._peers.values()) and (left := deadline - monotonic()) > 0:
            for fd, events in self._epoll.poll(min(left, 0.05)):
                if (waiting := self._by_fd.get(fd)) is not None and events & ~select.EPOLLIN:
                    self._flush(waiting)
        for peer in self._peers.values():
            peer.wire.close()
        self._peers.clear()
        self._epoll.close()
        self._listener.close()
        os.close(self._signal_read)
        os.close(self._signal_write)
        self._signal_read = -1
