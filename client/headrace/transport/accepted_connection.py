"""One accepted connection of a Router: who the peer is, and its frames that wait to be yielded."""

from __future__ import annotations

import socket
from collections import deque

from headrace.transport.zmtp import OF_ROUTER, ROUTER, FrameParser, opening
from headrace.transport.zmtp_connection import ZmtpConnection

_OPENING = opening(ROUTER)


class AcceptedConnection:
    """A peer's connection, with its waiting frames. ``pid`` and ``uid`` are None if the kernel does not tell them."""

    __slots__ = (
        "accepted_at",
        "began_at",
        "identity",
        "is_deaf",
        "is_known",
        "is_queued",
        "pid",
        "uid",
        "waiting",
        "waiting_bytes",
        "watched",
        "wire",
    )

    def __init__(
        self, connection: socket.socket, identity: bytes, who: tuple[int | None, int | None], max_frame: int, now: float
    ) -> None:
        self.wire = ZmtpConnection(connection, _OPENING, FrameParser(max_frame, OF_ROUTER))
        self.identity = identity
        self.pid, self.uid = who
        self.accepted_at = now
        self.began_at = now
        """When the present frame began to arrive."""
        self.waiting: deque[bytes] = deque()
        """Frames that have been read and not yielded yet."""
        self.waiting_bytes = 0
        self.is_queued = False
        self.is_known = False
        """Whether a frame of the peer has been yielded."""
        self.watched = 0
        """The events that the router asks the kernel for."""
        self.is_deaf = False
        """Whether nothing more is read from the peer."""
