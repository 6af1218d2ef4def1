"""One connection of a Router: reads frames, writes frames, keeps what the kernel does not take. Knows no other connection."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from itertools import islice

from headrace.transport.zmtp import Inbound, frame_head, opening

_READ = 64 * 1024
_READ_LARGE = 256 * 1024
"""Bytes asked for at once where a large frame is under way: the memory for more costs more than it saves."""
_JOINED = 16 * 1024
"""Up to so many bytes a frame and its head are joined; more are handed to the kernel as two."""
_BUFFERS = 64
"""Waiting pieces that are handed to the kernel at once."""
FRAME_COST = 64
"""What a waiting frame takes of memory beside its own bytes."""

_OPENING = opening()


class Accepted:
    """A peer, its process and user as the kernel tells them (``None`` where it does not), and what is on its way."""

    __slots__ = (
        "_connection",
        "_unsent",
        "accepted_at",
        "began_at",
        "fd",
        "identity",
        "inbound",
        "is_deaf",
        "is_known",
        "is_over",
        "is_queued",
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
        self.inbound = Inbound(max_frame)
        self.began_at = now
        """When the frame at hand began to come."""
        self.waiting: deque[bytes] = deque()
        """Frames that have been read and not been told of."""
        self.waiting_bytes = 0
        self.is_queued = False
        self.is_known = False
        """Whether a frame of it has been told of."""
        self.is_deaf = False
        """Whether nothing more is to be read of it."""
        self.is_over = False
        self._unsent: deque[bytes | memoryview] = deque()
        self.unsent_bytes = 0
        with contextlib.suppress(OSError):
            connection.send(_OPENING)

    def is_connected(self) -> bool:
        """Return whether the other end is there, as far as can be seen without reading on."""
        if self.is_over:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def read(self) -> list[bytes]:
        """Read once; return the frames that are whole now. ``is_over`` tells of the end."""
        missing = self.inbound.missing
        try:
            data = self._connection.recv(_READ if missing <= _READ else _READ_LARGE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return []
        frames = self.inbound.received(data)
        if self.inbound.replies:
            for reply in self.inbound.replies:
                self._write(reply)
            self.inbound.replies.clear()
        return frames

    def send(self, frame: bytes) -> bool:
        """Write a frame, or keep what the kernel does not take; return False where nobody hears it any more."""
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
                return False  # what it said before is still read to the end
        for piece in pieces:
            if count < len(piece):
                self._keep(memoryview(piece)[count:] if count else piece)
            count = max(count - len(piece), 0)
        return True

    def _keep(self, data: bytes | memoryview) -> None:
        self._unsent.append(data)
        self.unsent_bytes += len(data) + FRAME_COST

    def flush(self) -> None:
        """Write what waits, as far as the kernel takes it."""
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
        """Close; what the kernel has taken is still delivered."""
        self.is_over = True
        self.fd = -1  # another may have the number from here on
        self._unsent.clear()
        self.unsent_bytes = 0
        self._connection.close()
