"""The connecting end of a Unix socket (ZeroMQ's DEALER), without libzmq: checks whose process listens, and speaks ZMTP with it.

It connects once. It never blocks, and has no thread of its own: its owner's event loop watches the descriptor.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence

from headrace.process.clock import monotonic
from headrace.process.event_loop import EventLoop
from headrace.transport.checked_connection import CheckedConnection, connect
from headrace.transport.zmtp import DEALER, OF_DEALER, FrameParser, opening
from headrace.transport.zmtp_connection import ZmtpConnection
from headrace.wire.messages import MAX_FRAME_BYTES

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
    listens, or the peer has gone, ``is_disconnected`` is true, and the owner makes another dealer.

    ``expects`` says whether the process with a pid is the right one; ``connect`` connects, and checks that. Raises what it raises:
    OSError if there is no descriptor, FileNotFoundError if there is no socket, UntrustedDirectoryError if its directory is not to be trusted.
    """

    def __init__(
        self,
        endpoint: str,
        expects: Callable[[int], bool] | None = None,
        connect: Callable[[str, Callable[[int], bool] | None], CheckedConnection] = connect,
    ) -> None:
        self._endpoint = endpoint
        connected, pid, refusal = connect(endpoint, expects)
        self.fd = -1
        """The descriptor of the connection. -1 if there is none."""
        self.has_peer = False
        """Whether there is a connection, or was one, and the peer is the right process of this user."""
        self.peer_pid = pid
        """The pid of the process that listens. 0 while it is unknown, or if it has no pid here because it runs in another container."""
        self.refusal = refusal
        """Why the peer may not be used. None if it was not refused."""
        self._is_ready = False  # whether the peer has said READY
        self.is_disconnected = True
        """Whether the connection has ended, could not be made, or is refused."""
        self._held: list[bytes] = []
        self._loop: EventLoop | None = None
        self._is_writing = False  # whether the loop watches for room in the kernel's buffer
        self._stalled_since = 0.0
        if connected is not None:
            self._wire = ZmtpConnection(connected, _OPENING, FrameParser(_MAX_FRAME, OF_DEALER))
            self.fd = self._wire.fd
            self.has_peer = True
            self.is_disconnected = False

    def watch(self, loop: EventLoop, ready: Callable[[], None]) -> None:
        """Call ``ready`` when frames wait, or when ``is_disconnected`` may have changed."""
        self._loop = loop
        self._ready = ready
        if self.is_disconnected:
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
        if not self._is_ready and not self.is_disconnected:
            self._wire.end()  # the loop reports the end

    def send(self, frame: bytes) -> None:
        """Send a frame, or keep the part that the kernel does not take now. It is kept until the peer has said READY.

        It is dropped after the connection has ended.
        """
        if not self._is_ready:
            if not (self.is_disconnected and self.has_peer):
                self._held.append(frame)
            return
        if self.is_disconnected:
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
        if self.is_disconnected:
            return ()
        wire = self._wire
        if wire.unsent_bytes:
            self._flush()
        frames = wire.read()
        if wire.is_over:
            self.is_disconnected = True
        elif wire.parser.breach:
            self.is_disconnected = True
            if self._is_ready or wire.parser.is_ready:
                frames.append(b"")
            else:
                self.refusal = (
                    f"process {self.peer_pid} at {self._endpoint} does not speak this protocol: {wire.parser.breach}"
                )
        elif not self._is_ready and wire.parser.is_ready:
            self._is_ready = True
            for frame in self.unsent():
                self.send(frame)
        return frames

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. Waits for up to ``linger`` seconds until the peer has read all frames, and has ended the connection too.

        A peer that is killed next has then taken what was said: for example, that runs are aborted.
        """
        if self.fd < 0:
            return
        if linger > 0:
            deadline = monotonic() + linger
            self._linger(deadline)
            if self._is_ready and not self.is_disconnected and not self._wire.unsent_bytes:
                self._wire.finish(deadline)
        self.is_disconnected = True
        self.fd = -1
        self._wire.close()

    def _linger(self, deadline: float) -> None:
        wire = self._wire
        while not self.is_disconnected and (self._held or wire.unsent_bytes) and (left := deadline - monotonic()) > 0:
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
