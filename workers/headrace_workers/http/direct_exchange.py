"""One request and its response on a connection of the HTTP client. Also the protocols of its two sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

CUT_REASON = "connection closed before the response was complete"


class Receiver(Protocol):
    """Takes one response.

    The last call is ``on_complete`` or ``on_failure``. After ``close`` of the exchange, no call follows.
    """

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        """Take the head. Names are in lower case. The values of a repeated field are joined by a comma."""

    def on_chunk(self, data: bytes) -> bool:
        """Take a read if it is exactly one chunk of HTTP's chunked coding, with size line and line ends, and if that is of use.

        Return False if not: then ``on_bytes`` follows for what the read has of the body. A receiver may always return False.
        """

    def on_bytes(self, data: bytes) -> None:
        """Take the bytes of the body from one read of the socket."""

    def on_complete(self) -> None:
        """Note that the body has come to the end that HTTP gives it."""

    def on_failure(self, stage: str, reason: str) -> None:
        """Note that the exchange failed.

        ``stage`` is ``settings``, ``connect``, ``send``, ``read`` or ``unreadable``. ``read``: the connection was closed
        before the response was complete. ``unreadable``: the response is no HTTP, or its body cannot be unpacked.
        ``reason`` quotes no header.
        """


WholeReceiver = Callable[[int, dict[str, str], bytes], None]
"""Takes status, header fields and body of a response that came in one piece, in place of all calls of :class:`Receiver`."""


class Carrier(Protocol):
    """The connection that carries an exchange."""

    is_complete: bool
    is_held: bool

    def look_at_reading(self) -> None:
        """Start or stop reading, as the state of the exchange and the connection requires."""

    def linger(self) -> None:
        """Wait a short time for the end of the body, so that the connection can be used again."""

    def abort(self) -> None:
        """Close at once."""


class DirectExchange:
    """One request and its response, on a connection of the HTTP client. A run uses it as :class:`HttpExchange`.

    ``on_whole``: who takes a response that comes in one piece, if not the receiver.
    """

    __slots__ = ("connecting", "connection", "is_connected", "is_paused", "on_whole", "payload", "receiver", "resend")

    def __init__(self, receiver: Receiver, payload: bytes, on_whole: WholeReceiver | None = None) -> None:
        self.receiver: Receiver | None = receiver
        self.on_whole = on_whole
        self.payload = payload
        self.connection: Carrier | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.resend: Callable[[DirectExchange], None] | None = None
        self.is_connected = False
        self.is_paused = False

    @property
    def is_read(self) -> bool:
        """Whether the whole response has been read from the socket: the receiver is told of its end without further waiting."""
        return self.connection is not None and self.connection.is_complete

    def pause(self) -> None:
        """Stop reading and unpacking. Bytes that were read in this turn may still be delivered."""
        self.is_paused = True
        if self.connection is not None:
            self.connection.look_at_reading()

    def resume(self) -> None:
        """Read again."""
        self.is_paused = False
        if self.connection is not None:
            self.connection.look_at_reading()

    def close(self) -> None:
        """End the exchange. Its connection is closed at once, unless the response is complete."""
        self.receiver = self.on_whole = None
        self._stop_connecting()
        if self.connection is not None and (self.connection.is_held or not self.connection.is_complete):
            self.connection.abort()

    def release(self) -> None:
        """Deliver nothing more. The connection is kept if the body ends within the linger time."""
        self.receiver = self.on_whole = None
        self._stop_connecting()
        if self.connection is not None:
            self.connection.linger()

    def fail(self, stage: str, reason: str) -> None:
        """Report a failure to the receiver, if there is still one."""
        receiver, self.receiver, self.on_whole = self.receiver, None, None
        if receiver is not None:
            receiver.on_failure(stage, reason)

    def _stop_connecting(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
