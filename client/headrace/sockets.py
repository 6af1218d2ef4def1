"""All of ZeroMQ that Headrace uses, and the only file that imports zmq.

Facts behind the choices are in docs/protocol.md: routing ids are generated, never chosen; sends never block; every socket
is read until it is empty; a peer's departure is seen by a socket monitor that hears of disconnects only.
A socket belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import socket
import struct
from collections.abc import Iterator
from typing import cast

import zmq
from zmq.utils.monitor import parse_monitor_message

from headrace.wire.messages import MAX_FRAME_BYTES

# Plain ints: an enum costs a microsecond where it is turned into one.
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE_NOBLOCK = int(zmq.SNDMORE) | _NOBLOCK
_POLLIN = int(zmq.POLLIN)

FOREIGN_PEER = "this engine is another user's"
"""Why a peer is refused that the kernel says is another user's process."""

_UCRED = struct.Struct("3i")


class SendResult(enum.Enum):
    """What became of a message."""

    SENT = "sent"
    FULL = "full"  # the peer's queue is at its bound: a breach of credit, or a peer that is stuck
    GONE = "gone"  # no such peer any more


class Peer:
    """Who is at the other end of a connection, as the kernel tells it; ``None`` where it cannot (tcp, not Linux)."""

    __slots__ = ("fd", "inode", "pid", "uid")

    def __init__(self, fd: int, inode: int | None, pid: int | None, uid: int | None) -> None:
        self.fd = fd
        self.inode = inode
        self.pid = pid
        self.uid = uid


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context for one thread's sockets."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
    context.set(zmq.MAX_SOCKETS, 1023)
    return context


class Dealer:
    """A connection to one peer. Reconnects by itself; :meth:`is_disconnected` tells when the first one ended."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        _set_common(self._socket)
        # What a worker may send is bounded by credit; a bound here would only make ZeroMQ stop reading.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._monitor = _monitor(self._socket)
        self.fd: int = _number(self._socket, zmq.FD)
        self.monitor_fd: int = _number(self._monitor, zmq.FD)
        self._socket.connect(endpoint)

    def send(self, frame: bytes) -> None:
        """Queue a frame. A DEALER keeps frames until its peer is there."""
        self._socket.send(frame, _NOBLOCK)

    def has_input(self) -> bool:
        """Return whether a frame waits. To be asked after each send: a send may swallow the descriptor's signal."""
        return bool(_number(self._socket, zmq.EVENTS) & _POLLIN)

    def receive(self) -> Iterator[bytes]:
        """Yield the frames that wait, until there is none; a message of several frames yields empty bytes."""
        read = self._socket.recv
        while True:
            try:
                frame = read(_NOBLOCK)
            except zmq.Again:
                return
            if self._socket.getsockopt(zmq.RCVMORE):
                _skip_rest(self._socket)
                frame = b""
            yield frame

    def is_disconnected(self) -> bool:
        """Return whether the peer's connection has ended since the last call."""
        return any(True for _ in _monitor_events(self._monitor))

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))


class Router:
    """A bound socket with many peers, each known by the bytes that ZeroMQ gave it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.ROUTER)
        _set_common(self._socket)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # Streams are bounded by credit. A peer that reads nothing at all is cut off here, long after that.
        self._socket.setsockopt(zmq.SNDHWM, 100_000)
        self._socket.setsockopt(zmq.RCVHWM, 10_000)
        self._socket.setsockopt(zmq.BACKLOG, 1024)
        self._monitor = _monitor(self._socket)
        self.fd: int = _number(self._socket, zmq.FD)
        self.monitor_fd: int = _number(self._monitor, zmq.FD)
        self._peers: dict[bytes, Peer] = {}
        self._by_fd: dict[int, bytes] = {}
        # Peers whose descriptors others have now; :meth:`departed` tells of them with the event that is still to come.
        self._replaced: list[bytes] = []
        self._socket.bind(endpoint)

    def peer(self, identity: bytes) -> Peer | None:
        """Return what is known of a peer that has spoken."""
        return self._peers.get(identity)

    def is_foreign(self, identity: bytes) -> bool:
        """Return whether a peer is known to be another user's process."""
        peer = self._peers.get(identity)
        return peer is not None and peer.uid is not None and peer.uid != os.getuid()

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
            if not source.getsockopt(zmq.RCVMORE):
                continue
            if identity in self._peers:
                frame = source.recv(_NOBLOCK)
            else:
                whole = source.recv(_NOBLOCK, copy=False)
                self._learn(identity, whole)
                frame = whole.bytes
            if source.getsockopt(zmq.RCVMORE):
                _skip_rest(source)
                frame = b""
            yield identity, frame

    def departed(self) -> Iterator[bytes]:
        """Yield the peers whose connections have ended since the last call."""
        replaced, self._replaced = self._replaced, []
        yield from replaced
        for fd in _monitor_events(self._monitor):
            # The event may be older than the connection that has the descriptor now.
            identity = self._by_fd.get(fd)
            if identity is not None and not _is_connected(self._peers[identity]):
                del self._by_fd[fd], self._peers[identity]
                yield identity

    def disconnect(self, identity: bytes) -> None:
        """End one peer's connection. ZeroMQ has no call for it; shutting its descriptor down has the same effect."""
        peer = self._peers.get(identity)
        if peer is None:
            return
        with contextlib.suppress(OSError), _duplicate(peer.fd) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))

    def _learn(self, identity: bytes, frame: zmq.Frame) -> None:
        fd = int(frame.get(zmq.SRCFD))
        pid, uid = _credentials(fd)
        # A descriptor is used again after a disconnect, perhaps before the monitor told of it.
        previous = self._by_fd.get(fd)
        if previous is not None and self._peers.pop(previous, None) is not None:
            self._replaced.append(previous)
        self._peers[identity] = Peer(fd, _inode(fd), pid, uid)
        self._by_fd[fd] = identity


def _number(source: zmq.Socket[bytes], option: zmq.SocketOption) -> int:
    return cast("int", source.getsockopt(option))


def _set_common(target: zmq.Socket[bytes]) -> None:
    target.setsockopt(zmq.LINGER, 0)
    target.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + 1024)
    target.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    target.setsockopt(zmq.RECONNECT_IVL, 20)
    # An engine that starts is waited for; longer steps would be seen as a slower start.
    target.setsockopt(zmq.RECONNECT_IVL_MAX, 80)


def _monitor(target: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    # An undrained monitor blocks ZeroMQ's I/O thread at its high-water mark: it hears disconnects only, without a mark.
    address = f"inproc://monitor-{os.getpid()}-{id(target)}"
    target.monitor(address, zmq.EVENT_DISCONNECTED)
    monitor: zmq.Socket[bytes] = target.context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    # A pipe that was never found empty does not signal its descriptor.
    for _ in _monitor_events(monitor):
        pass
    return monitor


def _monitor_events(monitor: zmq.Socket[bytes]) -> Iterator[int]:
    """Yield the descriptor of each connection that ended."""
    while True:
        try:
            message = monitor.recv_multipart(_NOBLOCK)
        except zmq.Again:
            return
        event = parse_monitor_message(message)
        if event["event"] == zmq.EVENT_DISCONNECTED:
            yield int(event["value"])


def _skip_rest(source: zmq.Socket[bytes]) -> None:
    while source.getsockopt(zmq.RCVMORE):
        source.recv(_NOBLOCK)


def _duplicate(fd: int) -> socket.socket:
    return socket.socket(fileno=os.dup(fd))


def _inode(fd: int) -> int | None:
    """Return what tells a connection from all others that have had its descriptor."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def _is_connected(peer: Peer) -> bool:
    """Return whether a peer's connection still has its descriptor, and the other end is there."""
    if _inode(peer.fd) != peer.inode:
        return False
    try:
        with _duplicate(peer.fd) as connection:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _credentials(fd: int) -> tuple[int | None, int | None]:
    if not hasattr(socket, "SO_PEERCRED"):
        return None, None
    try:
        with _duplicate(fd) as connection:
            if connection.family != socket.AF_UNIX:
                return None, None
            pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError:
        return None, None
    return pid, uid
