"""All of ZeroMQ that Headrace uses, the connecting end, and the only file that imports zmq. ``transport/router.py`` is the bound end.

Facts behind the choices are in docs/protocol.md: routing ids are never chosen; sends never block; every socket
is read until it is empty; a peer's coming and going is seen by a socket monitor that hears of nothing else.
A socket belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import zmq
from zmq.utils.monitor import parse_monitor_message

from headrace.files.engine_directory import CLOSED
from headrace.files.trusted_directory import directory_refusal
from headrace.process.event_loop import EventLoop
from headrace.transport.peer_identity import TELLS_PROCESSES, credentials, refusal_of_peer
from headrace.wire.messages import MAX_FRAME_BYTES

# Plain ints: an enum costs a microsecond where it is turned into one.
_NOBLOCK = int(zmq.NOBLOCK)
_POLLIN = int(zmq.POLLIN)

OTHER_PROCESS = "another process listens there than the one that should"
"""Why a process of this user is told nothing."""

_CONTEXT_DESCRIPTORS = 16
"""More than a context's threads and first sockets need."""

_monitor_numbers = itertools.count()


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

    Raises OSError where there is no descriptor for it, FileNotFoundError where there is no socket, and UntrustedDirectoryError where
    its directory is not to be trusted. ``expects`` is asked whether a process, by its pid, is the right one; it is
    not asked where the kernel tells no processes.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        expects: Callable[[int], bool] | None = None,
    ) -> None:
        path = self._path = Path(endpoint.removeprefix("ipc://"))
        path.lstat()  # where there is no socket, the rest would cost a hundred times as much
        if (refusal := directory_refusal(path.parent)) is not None:
            raise refusal
        self.has_peer = False
        """Whether there is a peer, or was one, that is a process of this user."""
        self.peer_pid = 0
        """The process that listens there; 0 while that is unknown, or where it has no number here, as across containers."""
        self.refusal: str | None = None
        """Why the peer was sent nothing; None where it was not refused."""
        self._expects = expects if TELLS_PROCESSES else None
        self._held: list[bytes] = []
        self._is_over = False
        self._socket = _new_socket(context, zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + 1024)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # What a worker may send is bounded by credit; a bound here would only make ZeroMQ stop reading.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._monitor = _monitor(self._socket, int(zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED))
        self.fd: int = _number(self._socket, zmq.FD)
        self.monitor_fd: int = _number(self._monitor, zmq.FD)
        self._socket.connect(endpoint)

    def watch(self, loop: EventLoop, readable: Callable[[], None], changed: Callable[[], None]) -> None:
        """Call ``readable`` when frames wait, and ``changed`` when :meth:`is_disconnected` may have a new answer."""
        loop.add_reader(self.fd, readable)
        loop.add_reader(self.monitor_fd, changed)

    def unwatch(self, loop: EventLoop) -> None:
        """Undo :meth:`watch`."""
        loop.remove_reader(self.fd)
        loop.remove_reader(self.monitor_fd)

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
        self.refusal = refusal_of_peer(uid) or self._refusal_of_place()
        if self._is_over:
            return
        if self.refusal is None and self._expects is not None and not self._expects(pid or 0):
            self.refusal = OTHER_PROCESS
        if self.refusal is not None:
            self._is_over = True  # its owner closes it
            return
        self.peer_pid = pid or 0
        self.has_peer = True
        for frame in self.unsent():
            self.send(frame)

    def _refusal_of_place(self) -> str | None:
        """Return that another user has made the socket, who may have it open still, and take what is said there.

        The kernel tells who called ``listen``, and that may have been a process of this user that was handed another's socket.
        """
        for path in (self._path, self._path.with_name(self._path.name + CLOSED)):
            with contextlib.suppress(FileNotFoundError):
                owner = path.stat().st_uid
                if owner == os.geteuid():
                    return None
                return f"user {owner} has made the socket {path}, not user {os.geteuid()}; nothing was sent to it"
        self._is_over = True  # who listens has gone, or is about to
        return None


def _number(source: zmq.Socket[bytes], option: zmq.SocketOption) -> int:
    return cast("int", source.getsockopt(option))


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
