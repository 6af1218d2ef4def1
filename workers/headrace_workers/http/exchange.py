"""One request and its response on a connection of ours: what the run holds of it, and what both ends tell each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

CUT_REASON = "connection closed before the response was complete"


class Receiver(Protocol):
    """Takes one response. After exactly one of ``on_complete`` and ``on_failure``, or after ``close``, no call follows."""

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        """Take the head; names are in lower case, repeated fields are joined by a comma."""

    def on_bytes(self, data: bytes) -> None:
        """Take the body's bytes of one read of the socket."""

    def on_complete(self) -> None:
        """Note that the body ended as HTTP says."""

    def on_failure(self, stage: str, reason: str) -> None:
        """Note that no more comes. ``stage`` is ``settings``, ``connect``, ``send`` or ``read``; ``reason`` holds no header."""


class Carrier(Protocol):
    """The connection that carries an exchange."""

    is_complete: bool
    is_held: bool

    def look_at_reading(self) -> None:
        """Read, unless there is a reason not to."""

    def linger(self) -> None:
        """Be of use again, if the body ends soon."""

    def abort(self) -> None:
        """Close at once."""


class DirectExchange:
    """One request and its response, on a connection of ours. What the run holds of it is ``http.Exchange``."""

    __slots__ = ("connecting", "connection", "is_connected", "is_paused", "payload", "receiver", "resend")

    def __init__(self, receiver: Receiver, payload: bytes) -> None:
        self.receiver: Receiver | None = receiver
        self.payload = payload
        self.connection: Carrier | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.resend: Callable[[], None] | None = None
        self.is_connected = False
        self.is_paused = False

    def pause(self) -> None:
        """Stop reading from the socket, and unpacking. What has been read in this turn may still be delivered."""
        self.is_paused = True
        if self.connection is not None:
            self.connection.look_at_reading()

    def resume(self) -> None:
        """Go on reading."""
        self.is_paused = False
        if self.connection is not None:
            self.connection.look_at_reading()

    def close(self) -> None:
        """End the exchange; the connection is closed at once, unless the response is complete."""
        self.receiver = None
        self._stop_connecting()
        if self.connection is not None and (self.connection.is_held or not self.connection.is_complete):
            self.connection.abort()

    def release(self) -> None:
        """Need nothing more; the connection is kept if the body ends within its linger."""
        self.receiver = None
        self._stop_connecting()
        if self.connection is not None:
            self.connection.linger()

    def fail(self, stage: str, reason: str) -> None:
        """Tell the receiver, if it still listens."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_failure(stage, reason)

    def _stop_connecting(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
