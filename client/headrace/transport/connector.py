"""Connects to one peer: tries again until the peer is there, and keeps the frames that are sent meanwhile.

Each attempt is a new :class:`FrameSocket`, which checks the directory and the peer's process again. To be used on the loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.process.event_loop import EventLoop
from headrace.transport.frame_socket import FrameSocket

_DELAY = 0.04
"""Seconds between two attempts. A longer delay would make the start of an engine slower."""
_PATIENT_DELAY = 0.2
"""Seconds between two attempts after :data:`_PATIENT_AFTER` attempts."""
_PATIENT_AFTER = 100


class Connector:
    """One connection, from the first attempt to its end.

    ``socket`` is the first attempt, or None if there is no socket yet. ``again`` makes each further attempt; without it there is
    only one. ``received`` is called with frames that the peer has sent. ``ended`` is called once: with None when the peer has gone, or with the
    reason why it may not be used (another user's process, or a directory that is not to be trusted).
    """

    def __init__(
        self,
        loop: EventLoop,
        socket: FrameSocket | None,
        again: Callable[[], FrameSocket] | None,
        received: Callable[[Sequence[bytes]], None],
        ended: Callable[[str | None], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._again = again
        self._received = received
        self._ended = ended
        self._held: list[bytes] = []
        self._attempts = 1
        self._is_closed = False
        if socket is None:
            loop.call_later(0.0, self._try)
        else:
            self._watch(socket)

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there, or was there and its end is not known yet."""
        return self._socket is not None and self._socket.has_peer

    @property
    def peer_pid(self) -> int:
        """The process that listens, as the kernel says. 0 while it is unknown."""
        return self._socket.peer_pid if self._socket is not None else 0

    def send(self, frame: bytes) -> None:
        """Send a frame, or keep it until the peer is there."""
        if self._socket is None:
            self._held.append(frame)
        else:
            self._socket.send(frame)

    def close(self, linger: float = 0.0) -> None:
        """Close; ``ended`` is not called any more. May be called twice. ``linger``: how long frames may take to leave, in seconds."""
        self._is_closed = True
        self._drop(linger)

    def _watch(self, socket: FrameSocket) -> None:
        socket.watch(self._loop, self._look)

    def _look(self) -> None:
        """Read frames that wait, and find out whether the connection has ended."""
        socket = self._socket
        if socket is None:
            return
        frames = socket.receive()
        if frames:
            self._received(frames)
        if socket is not self._socket or not socket.is_disconnected:
            return
        if socket.has_peer or socket.refusal is not None:
            self._end(socket.refusal)
        else:
            self._failed(socket)

    def _failed(self, socket: FrameSocket) -> None:
        """The peer is not there: try again."""
        self._held = socket.unsent()
        self._drop()
        if self._again is None:
            self._end(None)
        else:
            self._try_later()

    def _try_later(self) -> None:
        self._attempts += 1
        self._loop.call_later(_DELAY if self._attempts < _PATIENT_AFTER else _PATIENT_DELAY, self._try)

    def _try(self) -> None:
        if self._is_closed or self._again is None:
            return
        try:
            socket = self._again()
        except UntrustedDirectoryError as error:
            self._end(error.strerror)
            return
        except OSError:  # there is no socket yet, or no descriptor at this moment
            self._try_later()
            return
        held, self._held = self._held, []
        for frame in held:
            socket.send(frame)
        self._socket = socket
        self._watch(socket)

    def _end(self, reason: str | None) -> None:
        if self._socket is not None:
            self._socket.unwatch(self._loop)  # a descriptor stays readable after the end
        if not self._is_closed:
            self._ended(reason)

    def _drop(self, linger: float = 0.0) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.unwatch(self._loop)
            socket.close(linger)
