"""One end of a connection that speaks ZMTP: reads frames, writes frames, and keeps the bytes that the kernel does not take yet.

Both ends use it: a Router for each connection that it has accepted, and a UnixDealer for the connection that it has made. It never
blocks. Its owner watches the descriptor.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from itertools import islice

from headrace.process.clock import monotonic
from headrace.transport.zmtp import FrameParser, frame_head

_READ = 64 * 1024
_READ_LARGE = 256 * 1024
"""Bytes of one read while a large frame arrives. A larger read costs more memory than it saves time."""
_JOINED = 16 * 1024
"""Largest frame that is joined with its head into one buffer. A larger frame is given to the kernel as a second buffer."""
_BUFFERS = 64
"""Waiting buffers that are given to the kernel in one call."""
FRAME_COST = 64
"""Bytes of memory that a waiting frame takes in addition to its own bytes."""


class ZmtpConnection:
    """A connected Unix socket, the parser of what the peer says, and the bytes that are not sent yet.

    ``opening`` is sent at once: the greeting and READY of this end. The connection owns the socket ``connected``.
    """

    __slots__ = ("_connection", "_unsent", "fd", "is_over", "parser", "unsent_bytes")

    def __init__(self, connected: socket.socket, opening: bytes, parser: FrameParser) -> None:
        connected.setblocking(False)
        self._connection = connected
        self._unsent: deque[bytes | memoryview] = deque()
        self.fd = connected.fileno()
        """The descriptor. -1 after :meth:`close`."""
        self.parser = parser
        self.is_over = False
        """Whether the connection has ended, and all that the peer has said was read."""
        self.unsent_bytes = 0
        """Bytes that are kept until the kernel takes them, and the memory that they cost. Call :meth:`flush` when it may take them."""
        self._write(opening)

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
        parser = self.parser
        try:
            data = self._connection.recv(_READ if parser.missing <= _READ else _READ_LARGE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return []
        frames = parser.received(data)
        if parser.replies:
            self._reply()
        return frames

    def _reply(self) -> None:
        # A peer that pings takes every byte as a sign of life. So no answer is added to bytes that it has not read yet.
        for reply in self.parser.replies:
            if self._unsent:
                break
            self._write(reply)
        self.parser.replies.clear()

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
                self.end()
                return False
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
            self.end()

    def end(self) -> None:
        """Send and receive nothing more. What the peer has said before is still read, and then ``is_over`` becomes true."""
        self._unsent.clear()
        self.unsent_bytes = 0
        # After this the descriptor is readable, and a read returns first the unread bytes, then the end.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def finish(self, deadline: float) -> None:
        """Say that nothing more comes, and wait until the peer has ended the connection, or the time is ``deadline``. Drop what it says."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while (left := deadline - monotonic()) > 0 and poller.poll(left * 1000) and self._connection.recv(_READ):
                pass

    def close(self) -> None:
        """Close; may be called twice. The bytes that the kernel has taken are still delivered."""
        self.end()  # a forked process may have a copy of the descriptor, so that closing it would not end the connection
        self.is_over = True
        self.fd = -1  # from here on another connection may have this number
        self._connection.close()
