"""One accepted connection of a Router: reads frames, writes frames, and keeps the bytes that the kernel does not take yet."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from itertools import islice

from headrace.transport.zmtp import FrameParser, frame_head, opening

_READ = 64 * 1024
_READ_LARGE = 256 * 1024
"""Bytes of one read while a large frame arrives. A larger read costs more memory than it saves time."""
_JOINED = 16 * 1024
"""Largest frame that is joined with its head into one buffer. A larger frame is given to the kernel as a second buffer."""
_BUFFERS = 64
"""Waiting buffers that are given to the kernel in one call."""
FRAME_COST = 64
"""Bytes of memory that a waiting frame takes in addition to its own bytes."""

_OPENING = opening()


class AcceptedConnection:
    """A peer's connection, with its waiting frames and unsent bytes. ``pid`` and ``uid`` are None if the kernel does not tell them."""

    __slots__ = (
        "_connection",
        "_unsent",
        "accepted_at",
        "began_at",
        "fd",
        "identity",
        "is_deaf",
        "is_known",
        "is_over",
        "is_queued",
        "parser",
        "pid",
        "uid",
        "unsent_bytes",
        "waiting",
        "waiting_bytes",
    )

    def __init__(
        self, connection: socket.socket, identity: bytes, who: tuple[int | None, int | None], max_frame: int, now: float
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self.fd = connection.fileno()
        self.identity = identity
        self.pid, self.uid = who
        self.accepted_at = now
        self.parser = FrameParser(max_frame)
        self.began_at = now
        """When the present frame began to arrive."""
        self.waiting: deque[bytes] = deque()
        """Frames that have been read and not yielded yet."""
        self.waiting_bytes = 0
        self.is_queued = False
        self.is_known = False
        """Whether a frame of the peer has been yielded."""
        self.is_deaf = False
        """Whether nothing more is read from the peer."""
        self.is_over = False
        """Whether the connection has ended."""
        self._unsent: deque[bytes | memoryview] = deque()
        self.unsent_bytes = 0
        with contextlib.suppress(OSError):
            connection.send(_OPENING)

    def is_connected(self) -> bool:
        """Return whether the peer is still there, as far as is known without reading more."""
        if self.is_over:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def read(self) -> list[bytes]:
        """Read once. Return the frames that are complete now. At the end of the connection ``is_over`` becomes true."""
        missing = self.parser.missing
        try:
            data = self._connection.recv(_READ if missing <= _READ else _READ_LARGE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return []
        frames = self.parser.received(data)
        if self.parser.replies:
            for reply in self.parser.replies:
                self._write(reply)
            self.parser.replies.clear()
        return frames

    def send(self, frame: bytes) -> bool:
        """Write a frame, and keep the part that the kernel does not take now. Return False if the peer can receive nothing more."""
        head = frame_head(len(frame))
        return self._write(head + frame) if len(frame) <= _JOINED else self._write(head, frame)

    def _write(self, *pieces: bytes) -> bool:
        count = 0
        if not self._unsent:
            try:
                count = self._connection.send(pieces[0]) if len(pieces) == 1 else self._connection.sendmsg(pieces)
            except BlockingIOError:
                pass
            except OSError:
                return False  # the peer's last frames are still read
        for piece in pieces:
            if count < len(piece):
                self._keep(memoryview(piece)[count:] if count else piece)
            count = max(count - len(piece), 0)
        return True

    def _keep(self, data: bytes | memoryview) -> None:
        self._unsent.append(data)
        self.unsent_bytes += len(data) + FRAME_COST

    def flush(self) -> None:
        """Write the kept bytes, as far as the kernel takes them."""
        unsent = self._unsent
        try:
            while unsent:
                count = self._connection.sendmsg(list(islice(unsent, _BUFFERS)))
                while count:
                    first = unsent[0]
                    if count < len(first):
                        unsent[0] = memoryview(first)[count:]
                        self.unsent_bytes -= count
                        break
                    count -= len(first)
                    self.unsent_bytes -= len(first) + FRAME_COST
                    unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            unsent.clear()
            self.unsent_bytes = 0

    def close(self) -> None:
        """Close. The bytes that the kernel has taken are still delivered."""
        self.is_over = True
        self.fd = -1  # from here on another connection may have this number
        self._unsent.clear()
        self.unsent_bytes = 0
        self._connection.close()
