"""The connecting sockets, with ZeroMQ: all of ZeroMQ that Headrace uses. No other file imports zmq.

The bound sockets are in ``transport/router.py``. The rules are explained in docs/protocol.md: Headrace chooses no routing id, sends
never block, and a socket is read until it is empty. A socket monitor reports when a connection begins and ends.
A socket belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import zmq

from headrace.files.engine_directory import CLOSED
from headrace.files.trusted_directory import directory_refusal
from headrace.process.event_loop import EventLoop
from headrace.transport.peer_identity import TELLS_PROCESSES, credentials, refusal_of_peer
from headrace.wire.messages import MAX_FRAME_BYTES

# Plain ints: to turn an enum into an int costs a microsecond.
_NOBLOCK = int(zmq.NOBLOCK)
_POLLIN = int(zmq.POLLIN)
_MONITOR_EVENT = struct.Struct("=Hi")
"""The first frame of a monitor's message: the kind of event, and a descriptor. (``zmq.utils.monitor`` imports asyncio: 40 ms.)"""

OTHER_PROCESS = "an unexpected process listens at this socket"
"""Why nothing is sent to a process of this user that is not the expected one."""

_CONTEXT_DESCRIPTORS = 16
"""Free descriptors that are required for a new context. Its threads and first sockets need fewer."""

_monitor_numbers = itertools.count()


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context for the sockets of one thread. Raises OSError if there are too few descriptors."""
    # ZeroMQ ends the process if there is no descriptor for its threads. So the check is made here.
    with contextlib.ExitStack() as stack:
        for _ in range(_CONTEXT_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
    context.set(zmq.MAX_SOCKETS, 1023)
    return context


class Dealer:
    """A :class:`~headrace.transport.frame_socket.FrameSocket` on ZeroMQ's DEALER: a connection to a process of this user.

    Nothing is sent or received before the kernel has said whose process listens. Until then frames are kept here. A dealer connects
    once: if ZeroMQ connected again by itself, the next process that listens would get the frames of this peer. If the peer is not
    there, or has gone, :meth:`is_disconnected` returns True, and the owner makes another dealer.

    ``expects`` says whether the process with a pid is the right one. It is not asked if the kernel does not tell the pids of peers.
    Raises OSError if there is no descriptor, FileNotFoundError if there is no socket at ``endpoint``, and UntrustedDirectoryError if
    its directory is not to be trusted.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        expects: Callable[[int], bool] | None = None,
    ) -> None:
        path = self._path = Path(endpoint.removeprefix("ipc://"))
        path.lstat()  # raises if there is no socket: the rest would cost a hundred times as much
        if (refusal := directory_refusal(path.parent)) is not None:
            raise refusal
        self.has_peer = False
        """Whether there is a connection, or was one, and the peer is the right process of this user."""
        self.peer_pid = 0
        """The pid of the process that listens. 0 while it is unknown, or if it has no pid here because it runs in another container."""
        self.refusal: str | None = None
        """Why nothing was sent to the peer. None if the peer was not refused."""
        self._expects = expects if TELLS_PROCESSES else None
        self._held: list[bytes] = []
        self._is_over = False
        self._socket = _new_socket(context, zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + 1024)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # Credit limits what a worker may send. With a limit here ZeroMQ would stop reading.
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
        """Queue a frame. It is kept here until there is a peer, and dropped after the connection has ended."""
        if self.has_peer:
            with contextlib.suppress(zmq.Again):  # the connection has ended: the monitor reports it
                self._socket.send(frame, _NOBLOCK)
        else:
            self._held.append(frame)

    def unsent(self) -> list[bytes]:
        """Return the frames that wait for a peer, and forget them. They belong to the next attempt."""
        held, self._held = self._held, []
        return held

    def has_input(self) -> bool:
        """Return whether a frame waits. To be asked after each send: a send may hide the signal of the descriptor."""
        return self.has_peer and bool(_number(self._socket, zmq.EVENTS) & _POLLIN)

    def receive(self) -> Iterator[bytes]:
        """Yield the waiting frames until there is none. A message of several frames is yielded as empty bytes."""
        # Ask before each further read: the exception that an empty socket raises costs ten times as much.
        socket, read = self._socket, self._socket.recv
        is_first = True
        while self.has_peer and (is_first or _number(socket, zmq.EVENTS) & _POLLIN):
            is_first = False
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
        """Look at the connection. Return whether it has ended, could not be made, or is refused.

        Call it when ``monitor_fd`` is readable. If it returns False and ``has_peer`` is true, input may wait.
        """
        connected = self._events()
        if connected is not None and not self._is_over:
            self._meet(connected)
        return self._is_over

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. Queued frames may take up to ``linger`` seconds to leave."""
        if self._held and linger and not self._is_over and not self._socket.closed:
            self._monitor.poll(int(linger * 1000))
            self.is_disconnected()
        self._is_over = True
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))

    def _events(self) -> int | None:
        """Read the monitor's events, and note the end of the connection. Return its descriptor if it has just begun."""
        connected = None
        for event, fd in _monitor_events(self._monitor):
            if event == zmq.EVENT_CONNECTED:
                connected = fd
            else:
                self._is_over = True
        return connected

    def _meet(self, fd: int) -> None:
        """Find out who the peer is. If it is the right process of this user, send it the kept frames; if not, refuse it."""
        pid, uid = credentials(fd)
        # ZeroMQ reports the end before it closes the descriptor. If there is no report now, the descriptor was still this connection's.
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
        """Return why the socket's file is not to be trusted: another user has made it. Return None if this user has.

        The kernel tells only which process called ``listen``. That process may have got the socket from another user, who can still
        read what is sent there.
        """
        for path in (self._path, self._path.with_name(self._path.name + CLOSED)):
            with contextlib.suppress(FileNotFoundError):
                owner = path.stat().st_uid
                if owner == os.geteuid():
                    return None
                return f"user {owner} has made the socket {path}, not user {os.geteuid()}; nothing was sent to it"
        self._is_over = True  # the process that listens has gone, or will go soon
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
    # A monitor that is not read blocks ZeroMQ's I/O thread at its high-water mark. So it has none, and reports few kinds of events.
    # An address is used once: the address of a closed socket stays in use for a moment.
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
    # The descriptor signals nothing until the pipe was found empty once.
    for _ in _monitor_events(monitor):
        pass
    return monitor


def _monitor_events(monitor: zmq.Socket[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the waiting events, each as (kind of event, descriptor of the connection)."""
    while True:
        try:
            frames = monitor.recv_multipart(_NOBLOCK)
        except zmq.Again:
            return
        kind, descriptor = _MONITOR_EVENT.unpack(frames[0])
        yield kind, descriptor
