"""All of ZeroMQ that Headrace uses, and the only file that imports zmq.

Facts behind the choices are in docs/protocol.md: routing ids are generated, never chosen; sends never block; every socket
is read until it is empty; a peer's coming and going is seen by a socket monitor that hears of nothing else.
A socket belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import zmq
from zmq.utils.monitor import parse_monitor_message

from headrace.clock import monotonic
from headrace.peers import TELLS_PROCESSES, Peer, credentials, inode, is_connected, refusal_of_peer, shut
from headrace.trusted_directory import refusal_of
from headrace.wire.messages import MAX_FRAME_BYTES

logger = logging.getLogger(__name__)

# Plain ints: an enum costs a microsecond where it is turned into one.
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE_NOBLOCK = int(zmq.SNDMORE) | _NOBLOCK
_POLLIN = int(zmq.POLLIN)

FOREIGN_PEER = "this engine is another user's"
"""Why a peer is refused that the kernel says is another user's process."""

OTHER_PROCESS = "another process listens there than the one that should"
"""Why a process of this user is told nothing."""

CLOSED = ".full"
"""What is added to the name of a socket that takes no further connections."""
_REOPENS_AT = 0.9
"""The share of the connections that there may be, below which further ones are let in again."""

_CONTEXT_DESCRIPTORS = 16
"""More than a context's threads and first sockets need."""

_SILENCE = 10.0
"""Seconds within which whoever connects must have said something that is a message."""

_GONE_KEPT = 10_000
"""Departed peers whose unread messages are known to be such."""

_monitor_numbers = itertools.count()


class SendResult(enum.Enum):
    """What became of a message that a :class:`Router` was to send."""

    SENT = "sent"
    FULL = "full"  # the peer's queue is at its bound: a breach of credit, or a peer that is stuck
    GONE = "gone"  # no such peer any more


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context for one thread's sockets. Raises OSError where there are no descriptors for it."""
    # ZeroMQ ends the process when it has none for its threads, so that they are looked for here.
    with contextlib.ExitStack() as stack:
        for _ in range(_CONTEXT_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
    context.set(zmq.MAX_SOCKETS, 1023)
    return context


class Dealer:
    """One connection to one peer, which must be a process of this user.

    Nothing is sent before the kernel has said whose process serves there, and nothing that was received before is believed.
    Until then frames are kept here. It connects once: ZeroMQ's own attempts would give to whoever is there next what was meant for
    this peer. Where the peer is not there, or goes away, :meth:`is_disconnected` says so, and its owner makes another.

    Raises OSError where there is no descriptor for it, FileNotFoundError where the socket's directory does not exist, and
    UntrustedDirectoryError where that is not to be trusted. ``expects`` is asked whether a process, by its pid, is the right one; it is
    not asked where the kernel tells no processes.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        expects: Callable[[int], bool] | None = None,
    ) -> None:
        if (refusal := refusal_of(Path(endpoint.removeprefix("ipc://")).parent)) is not None:
            raise refusal
        self.has_peer = False
        """Whether there is a peer, or was one, that is a process of this user."""
        self.peer_pid = 0
        """The process that listens there; 0 while that is unknown, or where it has no number here, as across containers."""
        self.refusal: str | None = None
        """Why the peer was sent nothing; None where it was not refused."""
        self._endpoint = endpoint
        self._expects = expects if TELLS_PROCESSES else None
        self._held: list[bytes] = []
        self._is_over = False
        self._socket = _new_socket(context, zmq.DEALER)
        _set_common(self._socket)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # What a worker may send is bounded by credit; a bound here would only make ZeroMQ stop reading.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._monitor = _monitor(self._socket, int(zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED))
        self.fd: int = _number(self._socket, zmq.FD)
        self.monitor_fd: int = _number(self._monitor, zmq.FD)
        self._socket.connect(endpoint)

    def send(self, frame: bytes) -> None:
        """Queue a frame: kept here until there is a peer, dropped once its connection has ended."""
        if self.has_peer:
            with contextlib.suppress(zmq.Again):  # the connection has ended: the monitor tells
                self._socket.send(frame, _NOBLOCK)
        else:
            self._held.append(frame)

    def unsent(self) -> list[bytes]:
        """Return the frames that no peer was given, and forget them: they are for the next attempt."""
        held, self._held = self._held, []
        return held

    def has_input(self) -> bool:
        """Return whether a frame waits. To be asked after each send: a send may swallow the descriptor's signal."""
        return self.has_peer and bool(_number(self._socket, zmq.EVENTS) & _POLLIN)

    def receive(self) -> Iterator[bytes]:
        """Yield the frames that wait, until there is none; a message of several frames yields empty bytes."""
        read = self._socket.recv
        while self.has_peer:
            try:
                frame = read(_NOBLOCK)
            except zmq.Again:
                return
            if self._socket.getsockopt(zmq.RCVMORE):
                while self._socket.getsockopt(zmq.RCVMORE):
                    read(_NOBLOCK)
                frame = b""
            yield frame

    def is_disconnected(self) -> bool:
        """Find out what became of the connection: return whether it has ended, could not be made, or is refused.

        To be called when ``monitor_fd`` is readable. Where it returns False and ``has_peer`` is true, input may wait.
        """
        connected = self._events()
        if connected is not None and not self._is_over:
            self._meet(connected)
        return self._is_over

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
        if self._held and linger and not self._is_over and not self._socket.closed:
            self._monitor.poll(int(linger * 1000))
            self.is_disconnected()
        self._is_over = True
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))

    def _events(self) -> int | None:
        """Take note of the connection's end; return its descriptor where it has just begun."""
        connected = None
        for event, fd in _monitor_events(self._monitor):
            if event == zmq.EVENT_CONNECTED:
                connected = fd
            else:
                self._is_over = True
        return connected

    def _meet(self, fd: int) -> None:
        """Find out who the peer is; send what was kept to a process of this user, and end the connection to another's."""
        pid, uid = credentials(fd)
        # ZeroMQ tells of an end before it closes the descriptor. Without such word now, nobody else had it a moment ago.
        self._events()
        if self._is_over:
            return
        self.refusal = refusal_of_peer(uid)
        if self.refusal is None and self._expects is not None and not self._expects(pid or 0):
            self.refusal = OTHER_PROCESS
        if self.refusal is not None:
            self._is_over = True
            with contextlib.suppress(zmq.ZMQError):  # it has just ended by itself
                self._socket.disconnect(self._endpoint)
            return
        self.peer_pid = pid or 0
        self.has_peer = True
        for frame in self.unsent():
            self.send(frame)


class Router:
    """A bound socket with many peers, each known by the bytes that ZeroMQ gave it.

    With ``max_peers`` connections it takes no further ones, until some have ended: ZeroMQ ends the process that accepts one for
    which it has no descriptor. Whoever waits to connect finds no socket meanwhile, and tries again.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        max_peers: int = 1_000_000,
        max_unread: int = 100_000,
    ) -> None:
        self._path = Path(endpoint.removeprefix("ipc://"))
        self._max_peers = max_peers
        # When each was accepted, and its inode: a descriptor is used again.
        self._connections: dict[int, tuple[float, int | None]] = {}
        self.is_full = False
        self._socket = _new_socket(context, zmq.ROUTER)
        _set_common(self._socket)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # Streams are bounded by credit. A peer that reads nothing at all is cut off here, long after that.
        self._socket.setsockopt(zmq.SNDHWM, max_unread)
        self._socket.setsockopt(zmq.RCVHWM, 10_000)
        self._socket.setsockopt(zmq.BACKLOG, min(1024, max_peers))
        self._monitor = _monitor(self._socket, int(zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED))
        self.fd: int = _number(self._socket, zmq.FD)
        self.monitor_fd: int = _number(self._monitor, zmq.FD)
        self._peers: dict[bytes, Peer] = {}
        self._by_fd: dict[int, bytes] = {}
        # Peers whose descriptors others have now; they are heard until :meth:`departed` has told of them.
        self._replaced: list[bytes] = []
        # Those it has told of, of whom something may be unread: a peer would be made of it that has another's descriptor.
        self._gone: dict[bytes, None] = {}
        # A message of many parts is left behind a piece at a time, so that nobody waits for it.
        self._is_skipping = False
        self._socket.bind(endpoint)

    def peer(self, identity: bytes) -> Peer | None:
        """Return what is known of a peer that has spoken."""
        return self._peers.get(identity)

    def pid(self, identity: bytes) -> int:
        """Return the process of a peer that has spoken, 0 where the kernel does not tell it."""
        peer = self._peers.get(identity)
        return (peer.pid or 0) if peer is not None else 0

    def connected_at(self, identity: bytes) -> float:
        """Return when a peer's connection was made, by the monotonic clock; the present where that is not known yet."""
        peer = self._peers.get(identity)
        accepted_at, number = self._connections.get(peer.fd, (monotonic(), None)) if peer is not None else (0.0, None)
        return accepted_at if peer is not None and number == peer.inode else monotonic()

    def is_connected(self, identity: bytes) -> bool:
        """Return whether a peer is still there. What it said last may be read long after it has gone."""
        peer = self._peers.get(identity)
        return peer is not None and is_connected(peer)

    def is_foreign(self, identity: bytes) -> bool:
        """Return whether a peer is another user's process, or one of whom the kernel does not say whose it is."""
        peer = self._peers.get(identity)
        return peer is None or peer.uid != os.geteuid()

    def send(self, identity: bytes, frame: bytes) -> SendResult:
        """Queue a frame for one peer; never blocks."""
        try:
            # What can fail fails at the first part: after it the second is always taken.
            self._socket.send(identity, _SNDMORE_NOBLOCK)
            self._socket.send(frame, _NOBLOCK)
        except zmq.Again:
            return SendResult.FULL
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return SendResult.GONE
            raise
        return SendResult.SENT

    def has_input(self) -> bool:
        """Return whether a message waits. To be asked after each send: a send may swallow the descriptor's signal."""
        return bool(_number(self._socket, zmq.EVENTS) & _POLLIN)

    def receive(self, limit: int = 1000) -> Iterator[tuple[bytes, bytes]]:
        """Yield up to ``limit`` waiting messages as (peer, frame); one of the wrong shape has an empty frame."""
        source = self._socket
        for _ in range(limit):
            try:
                identity = source.recv(_NOBLOCK)
            except zmq.Again:
                return
            has_more = bool(source.getsockopt(zmq.RCVMORE))
            if self._is_skipping or not has_more:
                self._is_skipping = has_more
                continue
            is_known = identity in self._peers
            if is_known:
                frame = source.recv(_NOBLOCK)
            else:
                whole = source.recv(_NOBLOCK, copy=False)
                is_known = self._learn(identity, whole)
                frame = whole.bytes
            if source.getsockopt(zmq.RCVMORE):
                self._is_skipping = True
                frame = b""
            if is_known:
                yield identity, frame

    def departed(self) -> Iterator[bytes]:
        """Yield the routing ids of the peers whose connections have ended since the last call."""
        replaced, self._replaced = self._replaced, []
        for left in replaced:
            self._forget(left)
            yield left
        for event, fd in _monitor_events(self._monitor):
            if event == zmq.EVENT_ACCEPTED:
                self._connections[fd] = monotonic(), inode(fd)
                self._mind_the_door()
                continue
            self._connections.pop(fd, None)
            # The event may be older than the connection that has the descriptor now.
            identity = self._by_fd.get(fd)
            if identity is not None and not is_connected(self._peers[identity]):
                del self._by_fd[fd]
                self._forget(identity)
                yield identity
        self._mind_the_door()

    def end_silent(self) -> None:
        """End the connections on which no message has come within 10 s of their beginning. To be called now and then."""
        latest = monotonic() - _SILENCE
        for fd, (accepted_at, number) in self._connections.items():
            if accepted_at > latest:
                break
            if fd not in self._by_fd:
                shut(fd, number)

    def _mind_the_door(self) -> None:
        """Rename the socket's file while there are ``max_peers`` connections, so that nobody connects; rename it back later.

        The connections that there are stay as they are.
        """
        count = len(self._connections)
        closed = self._path.with_name(self._path.name + CLOSED)
        if not self.is_full and count >= self._max_peers:
            self.is_full = True
            logger.warning("no room for further connections", extra={"connections": count})
            with contextlib.suppress(OSError):
                self._path.rename(closed)
        elif self.is_full and count < self._max_peers * _REOPENS_AT:
            self.is_full = False
            with contextlib.suppress(OSError):
                closed.rename(self._path)

    def disconnect(self, identity: bytes) -> None:
        """End one peer's connection. ZeroMQ has no call for it; shutting its descriptor down has the same effect."""
        peer = self._peers.get(identity)
        if peer is not None and self._by_fd.get(peer.fd) == identity:
            shut(peer.fd, peer.inode)  # another may have its descriptor by now, of whom nothing is known yet

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))

    def _learn(self, identity: bytes, frame: zmq.Frame) -> bool:
        """Find out who a new peer is; return False for one that cannot be known, and is not to be heard."""
        if identity in self._gone:
            return False
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return False  # it greeted as ZeroMQ did long ago
        pid, uid = credentials(fd)
        # A descriptor is used again after a disconnect, perhaps before the monitor told of it.
        previous = self._by_fd.get(fd)
        if previous is not None:
            if not _is_generated(identity) and is_connected(self._peers[previous]):
                return False
            self._replaced.append(previous)
        peer = self._peers[identity] = Peer(fd, inode(fd), pid, uid)
        self._by_fd[fd] = identity
        if not is_connected(peer):
            # It has left already, and the event that told so, which named nobody known, may be behind us.
            self._replaced.append(identity)
            del self._by_fd[fd]
        return True

    def _forget(self, identity: bytes) -> None:
        del self._peers[identity]
        if _is_generated(identity):  # and so never that of another
            self._gone[identity] = None
            if len(self._gone) > _GONE_KEPT:
                del self._gone[next(iter(self._gone))]


def _is_generated(identity: bytes) -> bool:
    """Return whether ZeroMQ made the routing id: it begins with a zero byte. An id that a peer chose does not."""
    return identity.startswith(b"\0")


def _number(source: zmq.Socket[bytes], option: zmq.SocketOption) -> int:
    return cast("int", source.getsockopt(option))


def _set_common(target: zmq.Socket[bytes]) -> None:
    target.setsockopt(zmq.LINGER, 0)
    target.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + 1024)
    target.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    target.setsockopt(zmq.RECONNECT_IVL, 20)
    # An engine that starts is waited for; longer steps would be seen as a slower start.
    target.setsockopt(zmq.RECONNECT_IVL_MAX, 80)


def _new_socket(context: zmq.Context[zmq.Socket[bytes]], kind: zmq.SocketType) -> zmq.Socket[bytes]:
    try:
        made: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from None
    return made


def _monitor(target: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    # An undrained monitor blocks ZeroMQ's I/O thread at its high-water mark: it hears of what is needed, without a mark.
    # Its address is never used again: that of a socket which was closed is taken for a moment longer.
    address = f"inproc://monitor-{next(_monitor_numbers)}"
    try:
        target.monitor(address, events)
        monitor = _new_socket(target.context, zmq.PAIR)
    except OSError:
        target.close(0)
        raise
    except zmq.ZMQError as error:
        target.close(0)
        raise OSError(error.errno, error.strerror) from None
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    # A pipe that was never found empty does not signal its descriptor.
    for _ in _monitor_events(monitor):
        pass
    return monitor


def _monitor_events(monitor: zmq.Socket[bytes]) -> Iterator[tuple[int, int]]:
    """Yield what happened to which descriptor."""
    while True:
        try:
            message = monitor.recv_multipart(_NOBLOCK)
        except zmq.Again:
            return
        event = parse_monitor_message(message)
        yield int(event["event"]), int(event["value"])
