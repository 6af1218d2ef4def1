"""Serves the peers of a process: greets each peer, checks who it is, refuses wrong messages, and reports arrivals and departures.

The broker, the collector and each worker have one :class:`PeerServer`. It owns the process's bound socket. Its owner handles the messages.
Who may say what is in ``wire/roles.py``. Whether a peer is what it claims to be is decided in ``transport/peer_check.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import msgspec

from headrace.errors import ProtocolError
from headrace.process.clock import monotonic
from headrace.process.event_loop import EventLoop
from headrace.process.history import History
from headrace.process.lifecycle import ProcessWatch, origin, ticks_at
from headrace.transport.inbox import Inbox
from headrace.transport.peer_check import MAX_HELD_BYTES, SAID_TOO_MUCH, Claim, Genuine, Mismatch, PeerCheck
from headrace.transport.peer_identity import TELLS_PROCESSES
from headrace.transport.router import FOREIGN_PEER, PeerLimits, Router, SendResult
from headrace.version import VERSION
from headrace.wire.codec import FrameDecoder, encode_frame
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, Goodbye, Hello, PeerRole, Welcome
from headrace.wire.roles import Table, breach

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=msgspec.Struct)
M_contra = TypeVar("M_contra", bound=msgspec.Struct, contravariant=True)

_LOOK_INTERVAL = 1.0
"""Seconds between two looks for silent connections and for peers that have waited too long, while there are such peers."""
_GOODBYE_DELAY = 0.5
"""Seconds from the goodbye to a refused peer to the end of its connection. The peer needs them to read the goodbye."""
_FRAMES_PER_TURN = 64
"""Frames that are read in one turn of the loop, if an inbox shares out the turns."""
_MESSAGES_PER_TURN = 500
"""Messages of the inbox that are handled in one turn of the loop."""

_HELLO_FIRST = "the first message must be a hello"


class ServedPeer:
    """A peer that has said hello and is what it claims to be.

    ``identity`` names its connection and is never used again. ``epoch`` is that of the peer's process, as the peer says.
    ``pid`` is what the kernel says, and 0 if the kernel does not tell it.
    """

    __slots__ = ("epoch", "hello", "identity", "pid", "role")

    def __init__(self, identity: bytes, hello: Hello, epoch: int, pid: int) -> None:
        self.identity = identity
        self.hello = hello
        self.role: PeerRole = hello.role
        self.epoch = epoch
        self.pid = pid

    def understands(self, capability: str) -> bool:
        """Return whether the peer understands an optional kind of message."""
        return capability in self.hello.capabilities


class PeerOwner(Protocol[M_contra]):
    """What a :class:`PeerServer` tells its owner, on the loop's thread."""

    def peer_joined(self, peer: ServedPeer) -> None:
        """A peer has said hello and has been welcomed."""

    def peer_said(self, peer: ServedPeer, message: M_contra) -> None:
        """A peer has sent a message that its role may send. Hello and Goodbye are handled by the server."""

    def peer_left(self, peer: ServedPeer, reason: str) -> None:
        """A peer has gone, or was refused. Called once for each peer that joined."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a process serves its peers."""

    endpoint: str
    """Where it listens."""
    epoch: int
    """The epoch of this process. It is in every frame that the process sends."""
    parent: int
    """The pid of the supervisor."""
    max_peers: int
    """Connections that may be open at once."""
    limits: PeerLimits = PeerLimits()
    """Bytes that are kept of peers and for them."""
    max_held_bytes: int = MAX_HELD_BYTES
    """Bytes of messages that are kept of peers that wait for the supervisor's report."""
    total_timeout: float | None = None
    """What Welcome says about the total timeout of a run, in seconds."""


class PeerServer(Generic[M]):
    """The bound socket of a process, and the peers that have said hello.

    ``decoder`` and ``table`` say which messages exist in this direction, and which role may send which. With an ``inbox`` the peers'
    processes take turns; without one each message is handled as soon as it is read. ``objection`` may refuse a hello: it returns the
    reason, or None. ``history`` records the frames, if there is one. Raises OSError if the endpoint cannot be bound.
    """

    def __init__(
        self,
        loop: EventLoop,
        settings: ServerSettings,
        decoder: FrameDecoder[M],
        table: Table,
        owner: PeerOwner[M],
        *,
        inbox: Inbox[M] | None = None,
        history: History | None = None,
        objection: Callable[[Hello, int], str | None] = lambda _hello, _epoch: None,
    ) -> None:
        self._loop = loop
        self._epoch = settings.epoch
        self._decode = decoder.decode
        self._table = table
        self._owner = owner
        self._inbox = inbox
        self._history = history
        self._objection = objection
        self._welcome = Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, VERSION, settings.total_timeout)
        self._router = Router(settings.endpoint, settings.max_peers, settings.limits)
        self._watch = ProcessWatch(loop)
        self._check: PeerCheck[tuple[int, M | Hello]] = PeerCheck(
            settings.parent,
            origin(settings.parent),
            can_tell=TELLS_PROCESSES,
            max_held_bytes=settings.max_held_bytes,
        )
        self._is_reading = False
        self._is_looking = False
        self._is_closed = False
        self.peers: dict[bytes, ServedPeer] = {}
        """The peers that have said hello and are what they claim to be, by the identities of their connections."""
        self.send_frame: Callable[[bytes, bytes], SendResult] = self._router.send
        """Queues an encoded frame for a peer. Never blocks."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another connection."""
        return self._router.is_full

    def is_connected(self, identity: bytes) -> bool:
        """Return whether a peer is still there. The server may read the last messages of a peer long after it has gone."""
        return self._router.is_connected(identity)

    def open(self) -> None:
        """Serve from now on."""
        self._loop.add_reader(self._router.monitor_fd, self._read_departures)
        self.resume()

    def pause(self) -> None:
        """Read and handle nothing until :meth:`resume`. Unread messages stay with their senders."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._router.fd)

    def resume(self) -> None:
        """Read again."""
        if not self._is_reading and not self._is_closed:
            self._is_reading = True
            self._loop.add_reader(self._router.fd, self.read)
            self.read()

    @property
    def is_reading(self) -> bool:
        """Whether messages are read: not before :meth:`open`, and not after :meth:`pause` or :meth:`close`."""
        return self._is_reading

    def send(self, identity: bytes, messages: Sequence[msgspec.Struct]) -> SendResult:
        """Send messages to a peer in one frame. Never blocks. What follows from a frame that is not sent is decided by the caller."""
        if self._history is not None:
            self._history.frame("sent", messages, self._epoch, identity)
        return self._router.send(identity, encode_frame(self._epoch, messages))

    def reported(self, processes: Sequence[ProcessStatus]) -> None:
        """Take the supervisor's report: the processes that run now. Peers that have waited for it are let in, or refused."""
        self._check.reported(processes)
        self._let_in()

    def forget(self, identity: bytes, reason: str) -> None:
        """Treat a peer as gone. Its connection stays open; a peer that speaks again must begin with a hello."""
        if self._inbox is not None:
            self._inbox.drop(identity)
        self._check.forget(identity)
        self._watch.forget(identity)
        peer = self.peers.pop(identity, None)
        if peer is not None:
            self._owner.peer_left(peer, reason)

    def end(self, identity: bytes, reason: str) -> None:
        """Treat a peer as gone, and close its connection."""
        self._router.disconnect(identity)
        self.forget(identity, reason)

    def read(self) -> None:
        """Read what waits, as much as one turn of the loop may take, and have it handled."""
        if not self._is_reading:
            return
        if self._inbox is None:
            waiting = self._router.receive()
        else:
            waiting = self._router.receive(_FRAMES_PER_TURN, self._inbox.busy)
        for identity, frame in waiting:
            self._take_frame(identity, frame)
            if not self._is_reading:
                return
        if self._inbox is not None:
            for identity, epoch, message, size in self._inbox.take(_MESSAGES_PER_TURN):
                self._take(identity, epoch, message, size)
                if not self._is_reading:
                    return
        if self._inbox or self._router.has_input():
            self._loop.call_soon(self.read)
        self._look_later()

    def wait_for_input(self, seconds: float) -> None:
        """Block until a peer has said something, at most for ``seconds``. Nothing else of this thread happens meanwhile."""
        if not self._is_closed:
            self._router.wait(seconds)

    def close(self, linger: float = 0.0) -> None:
        """Close the socket and its connections. ``linger`` is how long queued frames may take to leave, in seconds."""
        if self._is_closed:
            return
        self.pause()
        self._is_closed = True
        self._loop.remove_reader(self._router.monitor_fd)
        self._router.close(linger)

    def _take_frame(self, identity: bytes, frame: bytes) -> None:
        try:
            epoch, messages = self._decode(frame)
        except ProtocolError as error:
            self._refuse(identity, str(error))
            return
        if self._history is not None:
            self._history.frame("received", messages, epoch, identity)
        if self._inbox is not None:
            self._inbox.put(identity, epoch, messages, self._router.pid(identity), len(frame))
            return
        for message in messages:
            if not self._take(identity, epoch, message, len(frame) // len(messages)):
                return

    def _take(self, identity: bytes, epoch: int, message: M | Hello, size: int) -> bool:
        """Handle a message of about ``size`` bytes if its peer may send it. Return False if the peer is refused."""
        peer = self.peers.get(identity)
        problem = None
        if peer is not None:
            if (problem := breach(self._table, peer.role, message)) is not None:
                pass
            elif isinstance(message, Goodbye):
                self.forget(identity, message.reason)
            elif not isinstance(message, Hello):
                self._owner.peer_said(peer, message)
        elif self._check.holds(identity):
            if not self._check.hold(identity, (epoch, message), size):
                problem = SAID_TOO_MUCH
        elif isinstance(message, Hello):
            problem = self._greet(identity, epoch, message, size)
        else:
            problem = _HELLO_FIRST
        if problem is not None:
            self._refuse(identity, problem)
        return problem is None

    def _greet(self, identity: bytes, epoch: int, hello: Hello, size: int) -> str | None:
        """Let a peer in if it is what it claims to be, or have it wait for the supervisor's report. Return why a peer is refused."""
        if self._router.is_foreign(identity):
            return FOREIGN_PEER
        problem = breach(self._table, hello.role, hello) or self._objection(hello, epoch)
        if problem is not None:
            return problem
        pid = self._router.pid(identity)
        connected = ticks_at(self._router.connected_at(identity))
        claim = Claim(hello.role, hello.name, epoch, pid, origin(pid) if pid else None, connected)
        match self._check.check(identity, claim, monotonic()):
            case Genuine():
                self._let_in_peer(identity, epoch, hello)
            case Mismatch(reason):
                return reason
            case _ if not self._check.hold(identity, (epoch, hello), size):
                return SAID_TOO_MUCH
        return None

    def _let_in(self) -> None:
        """Let in or refuse the peers that wait no longer, and handle what they have said meanwhile."""
        for identity, verdict, said in self._check.decided(monotonic()):
            if isinstance(verdict, Mismatch):
                self._refuse(identity, verdict.reason)
                continue
            for epoch, message in said:
                if identity in self.peers:
                    self._take(identity, epoch, message, 1)
                elif isinstance(message, Hello):
                    self._let_in_peer(identity, epoch, message)

    def _let_in_peer(self, identity: bytes, epoch: int, hello: Hello) -> None:
        pid = self._router.pid(identity)
        peer = self.peers[identity] = ServedPeer(identity, hello, epoch, pid)
        # A peer that has gone already may have left messages: its departure is reported once they are read.
        self.send(identity, [self._welcome])
        # A connection outlives its process if a forked child has a copy of it.
        self._watch.watch(identity, pid, partial(self.forget, identity, "its process ended"))
        self._owner.peer_joined(peer)

    def _refuse(self, identity: bytes, reason: str) -> None:
        """End one connection. Other peers are not affected by what this peer sent."""
        reason = self._router.breach(identity) or reason
        logger.warning("peer refused", extra={"pid": self._router.pid(identity), "reason": reason})
        self.forget(identity, reason)
        self._router.dismiss(identity, encode_frame(self._epoch, [Goodbye(reason)]))
        self._loop.call_later(_GOODBYE_DELAY, partial(self._router.disconnect, identity))

    def _read_departures(self) -> None:
        self.read()  # the last messages of a peer come before its departure
        for identity in self._router.departed():
            self.forget(identity, "its connection ended")

    def _look_later(self) -> None:
        """Look for silent and waiting peers in a second, if there are such peers."""
        if not self._is_looking and (self._router.needs_looks or self._check.has_waiting):
            self._is_looking = True
            self._loop.call_later(_LOOK_INTERVAL, self._look)

    def _look(self) -> None:
        self._is_looking = False
        if self._is_closed:
            return
        self._router.end_silent()
        self._read_departures()
        self._let_in()
        self._look_later()
