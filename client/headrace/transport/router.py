"""A bound Unix socket with many peers that speak ZMTP, without libzmq: who they are, what they say, how much of it is kept.

libzmq's ROUTER cannot be used here: a peer that claims the routing id which it would make next aborts the process, and neither what a
peer does not read nor the parts of a message are bounded in bytes. Here the bytes of each peer, of each process and of all are.
Sends never block. A router belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import selectors
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import msgspec

from headrace.process.clock import monotonic
from headrace.transport.accepted_connection import FRAME_COST, Accepted
from headrace.transport.fair_turns import FairTurns
from headrace.transport.listener import Doorway
from headrace.wire.messages import MAX_FRAME_BYTES

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024

FOREIGN_PEER = "this engine is another user's"
"""Why a peer is refused that the kernel says is another user's process, or of which it does not say whose it is."""

_ROOM = 0.9
"""The share of a bound on bytes of all peers that is left once it was passed."""
_SHAKEN_HANDS = 5.0
"""Seconds within which whoever connects must have greeted."""
_SILENCE = 10.0
"""Seconds within which whoever connects must have said something that is a message."""
_READS = 64
"""Peers that are read in one call of it."""
_UNTOLD = 256 * 1024
"""Bytes of frames of one process that are read and not yielded, beyond which it is not read."""


class SendResult(enum.Enum):
    """What became of a message that a :class:`Router` was to send."""

    SENT = "sent"
    FULL = "full"  # so much of it is unread that it does not read at all
    GONE = "gone"  # no such peer any more


class PeerLimits(msgspec.Struct, frozen=True):
    """Bytes that are kept of peers and for them. Whoever passes a bound of its own, or has most where all together pass one, is cut off."""

    frame: int = MAX_FRAME_BYTES
    """Of one frame."""
    unfinished: int = 4 * MAX_FRAME_BYTES
    """Of frames that have not come whole, of all peers: beyond it the one that began first ends its connection."""
    unread: int = 64 * _MIB
    """That one peer has not read."""
    turn: int = 64 * 1024
    """Yielded by one call of :meth:`Router.receive`, unless its first frame has more: one turn of the loop is short whatever comes."""
    all_unread: int = 256 * _MIB
    """That all peers have not read: beyond it the process that leaves most unread loses the connection that leaves most."""


class Router:
    """A bound socket; each peer is known by bytes that are never used again.

    With ``max_peers`` connections it takes no further ones, until some have ended. Whoever waits to connect finds no socket meanwhile,
    and tries again. Raises OSError where it cannot be bound.
    """

    def __init__(self, endpoint: str, max_peers: int = 1_000_000, limits: PeerLimits | None = None) -> None:
        self._limits = limits or PeerLimits()
        self._numbers = count(1)
        self._peers: dict[bytes, Accepted] = {}
        self._newcomers: dict[bytes, Accepted] = {}  # who has not said anything, by age
        self._untold: Counter[int] = Counter()
        self._turns: FairTurns[Accepted] = FairTurns()
        self._unfinished = 0
        self._unread = 0
        self._departed: list[bytes] = []
        self._is_signalled = False
        self._selector = selectors.DefaultSelector()
        self._door = Doorway(Path(endpoint.removeprefix("ipc://")), max_peers, self._selector)
        self._signal_read, self._signal_write = os.pipe()
        os.set_blocking(self._signal_read, False)
        self.fd: int = self._selector.fileno()
        self.monitor_fd: int = self._signal_read
        """Readable when a peer has gone: read what it said last, then ask :meth:`departed`."""

    # Who is there.

    @property
    def is_full(self) -> bool:
        """Whether there is no room for further connections."""
        return self._door.is_full

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return len(self._peers)

    def pid(self, identity: bytes) -> int:
        """Return a peer's process, 0 where the kernel does not tell it."""
        peer = self._peers.get(identity)
        return (peer.pid or 0) if peer is not None else 0

    def connected_at(self, identity: bytes) -> float:
        """Return when a peer's connection was made, by the monotonic clock; the present of one that is gone."""
        peer = self._peers.get(identity)
        return peer.accepted_at if peer is not None else monotonic()

    def is_connected(self, identity: bytes) -> bool:
        """Return whether a peer is still there. What it said last may be read long after it has gone."""
        peer = self._peers.get(identity)
        return peer is not None and peer.is_connected()

    def is_foreign(self, identity: bytes) -> bool:
        """Return whether a peer is another user's process, or one of whom the kernel does not say whose it is."""
        peer = self._peers.get(identity)
        return peer is None or peer.uid != os.geteuid()

    def breach(self, identity: bytes) -> str:
        """Return what a peer did that is against the protocol below ours, for which an empty frame was yielded; else nothing."""
        peer = self._peers.get(identity)
        return peer.inbound.breach if peer is not None else ""

    # What is sent.

    def send(self, identity: bytes, frame: bytes) -> SendResult:
        """Queue a frame for one peer; never blocks."""
        peer = self._peers.get(identity)
        if peer is None or peer.is_over:
            return SendResult.GONE
        before = peer.unsent_bytes
        if before and before + len(frame) + 2 * FRAME_COST > self._limits.unread:
            return SendResult.FULL
        if not peer.send(frame):
            return SendResult.GONE
        if peer.unsent_bytes != before:
            self._unread += peer.unsent_bytes - before
            self._watch(peer)
            if self._unread > self._limits.all_unread:
                self._end_heaviest()
                if peer.is_over:
                    return SendResult.FULL
        return SendResult.SENT

    def _watch(self, peer: Accepted) -> None:
        """Have the selector tell of what is needed of a peer."""
        wanted = (0 if peer.is_deaf else selectors.EVENT_READ) | (selectors.EVENT_WRITE if peer.unsent_bytes else 0)
        known = self._selector.get_map().get(peer.fd)
        if known is None:
            if wanted:
                self._selector.register(peer.fd, wanted, peer)
        elif not wanted:
            self._selector.unregister(peer.fd)
        elif known.events != wanted:
            self._selector.modify(peer.fd, wanted, peer)

    def _flush(self, peer: Accepted) -> None:
        before = peer.unsent_bytes
        peer.flush()
        self._unread += peer.unsent_bytes - before
        self._watch(peer)

    def _end_heaviest(self) -> None:
        """End the connection that leaves most unread, of the process that leaves most."""
        by_process: Counter[int] = Counter()
        for peer in self._peers.values():
            by_process[peer.pid or 0] += peer.unsent_bytes
        process = max(by_process, key=by_process.__getitem__)
        peer = max(
            (peer for peer in self._peers.values() if (peer.pid or 0) == process), key=lambda peer: peer.unsent_bytes
        )
        logger.warning(
            "peer disconnected", extra={"pid": process, "reason": "it leaves most unread", "bytes": peer.unsent_bytes}
        )
        self._end(peer)

    # What is read.

    def has_input(self) -> bool:
        """Return whether frames wait that no descriptor tells of. To be asked after :meth:`receive`."""
        return bool(self._turns)

    def receive(self, limit: int = 1000, busy: Collection[int] = ()) -> Iterator[tuple[bytes, bytes]]:
        """Yield up to ``limit`` waiting frames as (peer, frame), processes by turns; an empty frame stands for a :meth:`breach`.

        Processes that are ``busy`` have no turn.
        """
        self._look()
        later: list[Accepted] = []
        try:
            yield from self._receive(limit, busy, later)
        finally:
            for peer in later:
                self._queue(peer)

    def _receive(self, limit: int, busy: Collection[int], later: list[Accepted]) -> Iterator[tuple[bytes, bytes]]:
        reads, room = _READS, self._limits.turn
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

    def _look(self) -> None:
        for key, events in self._selector.select(0):
            peer: Accepted | None = key.data
            if peer is None:
                self._accept()
                continue
            if peer.is_over:
                continue
            if events & selectors.EVENT_WRITE:
                self._flush(peer)
            if events & selectors.EVENT_READ:
                self._queue(peer)

    def _queue(self, peer: Accepted) -> None:
        if not peer.is_queued:
            peer.is_queued = True
            self._turns.put(peer.pid, peer)

    def _read(self, peer: Accepted) -> None:
        """Read once from a peer; its frames wait behind."""
        if peer.is_over or peer.is_deaf or self._untold[peer.pid or 0] > _UNTOLD:
            return  # the selector tells of it again
        inbound = peer.inbound
        before, unsent = inbound.held, peer.unsent_bytes
        frames = peer.read()
        if peer.unsent_bytes != unsent:
            self._unread += peer.unsent_bytes - unsent
            self._watch(peer)
        self._unfinished += inbound.held - before
        if inbound.breach:
            peer.is_deaf = True
            if not inbound.is_ready:
                peer.is_over = True  # nothing can be said to it
            else:
                frames.append(b"")
                self._watch(peer)
        if frames:
            size = sum(map(len, frames))
            peer.waiting.extend(frames)
            peer.waiting_bytes += size
            self._untold[peer.pid or 0] += size
        if peer.is_over:
            self._end(peer)
        elif inbound.held != before:
            if not before or frames:
                peer.began_at = monotonic()
            if self._unfinished > self._limits.unfinished:
                self._end_oldest_frames()

    def _next_frame(self, peer: Accepted) -> bytes:
        frame = peer.waiting.popleft()
        size = len(frame)
        peer.waiting_bytes -= size
        self._untold[peer.pid or 0] -= size
        if not peer.is_known:
            peer.is_known = True
            self._newcomers.pop(peer.identity, None)
        if peer.waiting:
            self._queue(peer)
        elif peer.is_over:
            self._depart(peer)
        return frame

    def _end_oldest_frames(self) -> None:
        """End the connections of the frames that began first, until there is room again."""
        unfinished = sorted(
            (peer for peer in self._peers.values() if peer.inbound.held), key=lambda peer: peer.began_at
        )
        for peer in unfinished:
            if self._unfinished <= self._limits.unfinished * _ROOM:
                return
            logger.warning(
                "peer disconnected",
                extra={"pid": peer.pid, "reason": "its frame takes too long", "bytes": peer.inbound.held},
            )
            self._end(peer)

    # Beginnings and ends.

    def _accept(self) -> None:
        for connection, who in self._door.accept():
            identity = b"\0" + next(self._numbers).to_bytes(8, "big")
            peer = Accepted(connection, identity, who, self._limits.frame, monotonic())
            self._peers[identity] = self._newcomers[identity] = peer
            self._watch(peer)

    def _end(self, peer: Accepted) -> None:
        """Close a connection. What it said is still yielded, then its departure told; told again, nothing more is yielded."""
        if peer.identity not in self._peers:
            return
        was_open = peer.fd >= 0
        if was_open:
            if self._selector.get_map().get(peer.fd) is not None:
                self._selector.unregister(peer.fd)
            self._unread -= peer.unsent_bytes
            self._unfinished -= peer.inbound.held
            peer.inbound.held = 0
            peer.close()
        if was_open and peer.waiting and not peer.is_deaf:
            self._queue(peer)
            self._signal()
        else:
            self._drop_waiting(peer)
            self._depart(peer)

    def _drop_waiting(self, peer: Accepted) -> None:
        self._untold[peer.pid or 0] -= peer.waiting_bytes
        peer.waiting.clear()
        peer.waiting_bytes = 0

    def _depart(self, peer: Accepted) -> None:
        if self._peers.pop(peer.identity, None) is None:
            return
        self._newcomers.pop(peer.identity, None)
        if self._door.left(peer.pid):
            self._untold.pop(peer.pid or 0, None)
        if peer.is_known:
            self._departed.append(peer.identity)
            self._signal()

    def _signal(self) -> None:
        """Make ``monitor_fd`` readable, until :meth:`departed` is called."""
        if not self._is_signalled:
            self._is_signalled = True
            os.write(self._signal_write, b"\0")

    def departed(self) -> Iterator[bytes]:
        """Yield the peers whose connections have ended since the last call, of those that were yielded by :meth:`receive`."""
        if not self._is_signalled:
            return
        self._is_signalled = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._signal_read, 16)
        departed, self._departed = self._departed, []
        yield from departed

    def dismiss(self, identity: bytes, frame: bytes) -> None:
        """Say something last to a peer, and hear nothing more of it. To be followed by :meth:`disconnect`, a moment later."""
        peer = self._peers.get(identity)
        if peer is None:
            return
        self.send(identity, frame)
        if peer.is_over:
            self._end(peer)
        else:
            peer.is_deaf = True
            self._drop_waiting(peer)
            self._watch(peer)

    def disconnect(self, identity: bytes) -> None:
        """End one peer's connection; one that is gone is fine."""
        peer = self._peers.get(identity)
        if peer is not None:
            self._end(peer)

    @property
    def needs_looks(self) -> bool:
        """Whether :meth:`end_silent` may have something to do."""
        return bool(self._newcomers) or self._door.is_out_of_descriptors

    def end_silent(self) -> None:
        """End the connections on which no message has come within 10 s of their beginning. To be called now and then."""
        now = monotonic()
        for peer in list(self._newcomers.values()):
            age = now - peer.accepted_at
            if age < _SHAKEN_HANDS:
                break
            if age >= _SILENCE or not peer.inbound.is_ready:
                self._end(peer)
        self._door.accept_again()

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
        if self._signal_read < 0:
            return
        deadline = monotonic() + linger
        while any(peer.unsent_bytes for peer in self._peers.values()) and (left := deadline - monotonic()) > 0:
            for key, events in self._selector.select(min(left, 0.05)):
                if key.data is not None and events & selectors.EVENT_WRITE:
                    self._flush(key.data)
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self._selector.close()
        self._door.close()
        os.close(self._signal_read)
        os.close(self._signal_write)
        self._signal_read = -1
