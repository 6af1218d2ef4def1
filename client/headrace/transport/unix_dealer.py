"""The connecting end of a Unix socket (ZeroMQ's DEALER), without libzmq: checks whose process listens, and speaks ZMTP with it.

It connects once. It never blocks, and has no thread of its own: its owner's event loop watches the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.files.engine_directory import CLOSED
from headrace.files.trusted_directory import directory_refusal
from headrace.process.clock import monotonic
from headrace.process.event_loop import EventLoop
from headrace.transport.peer_identity import TELLS_PROCESSES, credentials, refusal_of_peer
from headrace.transport.zmtp import DEALER, OF_DEALER, FrameParser, opening
from headrace.transport.zmtp_connection import ZmtpConnection
from headrace.wire.messages import MAX_FRAME_BYTES

OTHER_PROCESS = "an unexpected process listens at this socket"
"""Why nothing is sent to a process of this user that is not the expected one."""

_HANDSHAKE_TIMEOUT = 5.0
"""Seconds that the peer may take for the handshake of ZMTP."""
_MANY_UNSENT = 64 * 1024 * 1024
_STALLED_AFTER = 10.0
"""A peer that has read nothing for this many seconds, while more than :data:`_MANY_UNSENT` bytes wait for it, loses its connection."""
_MAX_FRAME = MAX_FRAME_BYTES + 1024
_OPENING = opening(DEALER)


class UnixDealer:
    """A :class:`~headrace.transport.frame_socket.FrameSocket` on a Unix socket: a connection to a process of this user.

    Nothing is sent before the kernel has said whose process listens, and no frame before the peer has said READY. If no process
    listens, or the peer has gone, :meth:`is_disconnected` returns True, and the owner makes another dealer.

    ``expects`` says whether the process with a pid is the right one. It is not asked if the kernel does not tell the pids of peers.
    Raises OSError if there is no descriptor or the path is too long for a socket, FileNotFoundError if there is no socket at
    ``endpoint``, and UntrustedDirectoryError if its directory is not to be trusted.
    """

    def __init__(self, endpoint: str, expects: Callable[[int], bool] | None = None) -> None:
        path = self._path = Path(endpoint.removeprefix("ipc://"))
        path.lstat()  # raises if there is no socket: the rest would cost a hundred times as much
        if (refusal := directory_refusal(path.parent)) is not None:
            raise refusal
        self.fd = -1
        """The descriptor of the connection. -1 if there is none."""
        self.has_peer = False
        """Whether there is a connection, or was one, and the peer is the right process of this user."""
        self.peer_pid = 0
        """The pid of the process that listens. 0 while it is unknown, or if it has no pid here because it runs in another container."""
        self.refusal: str | None = None
        """Why the peer may not be used. None if it was not refused."""
        self._is_ready = False  # whether the peer has said READY
        self._is_over = True
        self._held: list[bytes] = []
        self._loop: EventLoop | None = None
        self._is_writing = False  # whether the loop watches for room in the kernel's buffer
        self._stalled_since = 0.0
        connected = _connected(path)
        if connected is not None:
            with contextlib.ExitStack() as stack:
                stack.callback(connected.close)
                if self._may_be_used(connected, expects if TELLS_PROCESSES else None):
                    self._wire = ZmtpConnection(connected, _OPENING, FrameParser(_MAX_FRAME, OF_DEALER))
                    self.fd = self._wire.fd
                    self.has_peer = True
                    self._is_over = False
                    stack.pop_all()

    def _may_be_used(self, connected: socket.socket, expects: Callable[[int], bool] | None) -> bool:
        """Find out who the peer is. Return whether it is the right process of this user. If not, ``refusal`` may say why."""
        pid, uid = credentials(connected)
        self.refusal = refusal_of_peer(uid)
        if self.refusal is None:
            owner = _owner_of_place(self._path)
            if owner is None:
                return False  # the process that listens has gone, or will go soon
            if owner != os.geteuid():
                self.refusal = (
                    f"user {owner} has made the socket {self._path}, not user {os.geteuid()}; nothing was sent to it"
                )
            elif expects is not None and not expects(pid or 0):
                self.refusal = OTHER_PROCESS
        if self.refusal is None:
            self.peer_pid = pid or 0
        return self.refusal is None

    def watch(self, loop: EventLoop, ready: Callable[[], None]) -> None:
        """Call ``ready`` when frames wait, or when :meth:`is_disconnected` may have a new answer."""
        self._loop = loop
        self._ready = ready
        if self._is_over:
            loop.call_soon(ready)
            return
        loop.add_reader(self.fd, ready)
        if not self._is_ready:
            loop.call_later(_HANDSHAKE_TIMEOUT, self._check_handshake)
        self._watch_writing()

    def unwatch(self, loop: EventLoop) -> None:
        """Undo :meth:`watch`."""
        self._loop = None
        if self.fd >= 0:
            loop.remove_reader(self.fd)
            if self._is_writing:
                self._is_writing = False
                loop.remove_writer(self.fd)

    def _check_handshake(self) -> None:
        if not self._is_ready and not self._is_over:
            self._wire.end()  # the loop reports the end

    def send(self, frame: bytes) -> None:
        """Send a frame, or keep the part that the kernel does not take now. It is kept until the peer has said READY.

        It is dropped after the connection has ended.
        """
        if not self._is_ready:
            if not (self._is_over and self.has_peer):
                self._held.append(frame)
            return
        if self._is_over:
            return
        wire = self._wire
        wire.send(frame)
        if wire.unsent_bytes:
            self._watch_writing()
            if wire.unsent_bytes > _MANY_UNSENT and monotonic() > self._stalled_since + _STALLED_AFTER:
                wire.end()

    def _watch_writing(self) -> None:
        loop, must_write = self._loop, self._wire.unsent_bytes > 0
        if must_write and not self._is_writing:
            self._stalled_since = monotonic()
            if loop is not None:
                self._is_writing = True
                loop.add_writer(self.fd, self._flush)
        elif self._is_writing and not must_write and loop is not None:
            self._is_writing = False
            loop.remove_writer(self.fd)

    def _flush(self) -> None:
        before = self._wire.unsent_bytes
        self._wire.flush()
        if self._wire.unsent_bytes != before:
            self._stalled_since = monotonic()
        self._watch_writing()

    def unsent(self) -> list[bytes]:
        """Return the frames that wait for a peer, and forget them. They belong to the next attempt."""
        held, self._held = self._held, []
        return held

    def receive(self) -> Sequence[bytes]:
        """Read once. Return the frames that are complete now. Bytes that break the rules of ZMTP are returned as one empty frame."""
        if self._is_over:
            return ()
        wire = self._wire
        if wire.unsent_bytes:
            self._flush()
        frames = wire.read()
        if wire.is_over:
            self._is_over = True
        elif wire.parser.breach:
            self._is_over = True
            if self._is_ready or wire.parser.is_ready:
                frames.append(b"")
            else:
                self.refusal = (
                    f"process {self.peer_pid} at {self._path} does not speak this protocol: {wire.parser.breach}"
                )
        elif not self._is_ready and wire.parser.is_ready:
            self._is_ready = True
            for frame in self.unsent():
                self.send(frame)
        return frames

    def is_disconnected(self) -> bool:
        """Return whether the connection has ended, could not be made, or is refused."""
        return self._is_over

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. Waits for up to ``linger`` seconds until the peer has said READY and the frames have left."""
        if self.fd < 0:
            return
        if linger > 0:
            self._linger(monotonic() + linger)
        self._is_over = True
        self.fd = -1
        self._wire.close()

    def _linger(self, deadline: float) -> None:
        wire = self._wire
        while not self._is_over and (self._held or wire.unsent_bytes) and (left := deadline - monotonic()) > 0:
            poller = select.poll()
            # What the peer says is read only during the handshake. Later it may say much, and nobody takes it.
            poller.register(
                self.fd, (0 if self._is_ready else select.POLLIN) | (select.POLLOUT if wire.unsent_bytes else 0)
            )
            for _, events in poller.poll(left * 1000):
                if not self._is_ready:
                    self.receive()
                elif events & (select.POLLHUP | select.POLLERR):
                    return
                wire.flush()


def _connected(path: Path) -> socket.socket | None:
    """Return a connected socket. None if no process listens, or too many wait to be accepted. Raises OSError without a descriptor."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.connect(os.fspath(path))
    except OSError as error:
        made.close()
        if error.errno is None:  # Python's own check
            raise OSError(errno.ENAMETOOLONG, f"the path of the socket is too long: {path}") from None
        return None
    return made


def _owner_of_place(path: Path) -> int | None:
    """Return the user who has made the socket's file, also while it has the name of a socket that takes no connections.

    None if there is no file. The kernel tells only which process called ``listen``. That process may have got the socket from another
    user, who can still read what is sent there.
    """
    for place in (path, path.with_name(path.name + CLOSED)):
        with contextlib.suppress(FileNotFoundError):
            return place.stat().st_uid
    return None
