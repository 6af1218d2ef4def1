"""One HTTP/1.1 connection that pushes a response to its receiver as it is read. Never awaits, connects, pools or logs.

There is no task, future or iterator per chunk: what one ``data_received`` brought is handed over by one ``on_bytes``.
The parser's callbacks only record; the receiver is called after the parser has returned, so that it may close, pause or
release its exchange from inside any call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from headrace_workers.http_body import BadResponseError, BodyDecoder, LayeredDecoder, decoder_for

# A server may not make us hold more than this of what is no body: status line, headers, chunk extensions, trailers.
MAX_HEAD_BYTES = 64 * 1024

# A server's close of an idle connection crosses our request on the way, so it shows within a round trip.
STALE_WITHIN = 2.0

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


class ConnectionOwner(Protocol):
    """What a connection tells its pool."""

    def connection_free(self, connection: Connection) -> None:
        """Take the connection back for another request."""

    def connection_gone(self, connection: Connection) -> None:
        """Give the connection to nobody any more; may be called twice."""

    def connection_closed(self, connection: Connection) -> None:
        """Note that its socket is closed."""


class DirectExchange:
    """One request and its response, on a connection of ours. What the run holds of it is ``http.Exchange``."""

    __slots__ = ("connecting", "connection", "is_connected", "is_paused", "payload", "receiver", "resend")

    def __init__(self, receiver: Receiver, payload: bytes) -> None:
        self.receiver: Receiver | None = receiver
        self.payload = payload
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.resend: Callable[[], None] | None = None
        self.is_connected = False
        self.is_paused = False

    def pause(self) -> None:
        """Stop reading from the socket. What has been read already is still delivered."""
        self.is_paused = True
        if self.connection is not None:
            self.connection.set_reading(is_reading=False)

    def resume(self) -> None:
        """Go on reading."""
        self.is_paused = False
        if self.connection is not None:
            self.connection.set_reading(is_reading=True)

    def close(self) -> None:
        """End the exchange; the connection is closed at once, unless the response is complete."""
        self.receiver = None
        self._stop_connecting()
        if self.connection is not None and not self.connection.is_complete:
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


class Connection(asyncio.Protocol):
    """A connection to one origin; serves one exchange after the other. Idle while ``exchange`` is None.

    The parser calls the methods whose names httptools gives: ``on_message_begin`` and so on.
    """

    __slots__ = (
        "_close_timer",
        "_decoder",
        "_has_unsent",
        "_head_bytes",
        "_headers",
        "_is_close_delimited",
        "_is_head_new",
        "_is_keep_alive",
        "_is_reading",
        "_linger",
        "_loop",
        "_owner",
        "_parser",
        "_pieces",
        "_quiet_bytes",
        "_stale_until",
        "_status",
        "_unreadable",
        "exchange",
        "is_complete",
        "on_body",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: ConnectionOwner, linger: float) -> None:
        self._loop = loop
        self._owner = owner
        self._linger = linger
        self.transport: asyncio.Transport | None = None
        self.exchange: DirectExchange | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._has_unsent = False
        self._is_reading = True
        self._pieces: list[bytes] = []
        # The parser calls list.append itself: no Python frame for a piece of the body.
        self.on_body = self._pieces.append
        self._reset()
        self._parser = HttpResponseParser(self)

    def _reset(self) -> None:
        self.is_complete = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._decoder: BodyDecoder | LayeredDecoder | None = None
        self._unreadable: str | None = None
        self._head_bytes = 0
        self._quiet_bytes = 0  # read since the last byte of a body
        self._stale_until = 0.0
        self._is_head_new = False
        self._is_keep_alive = False
        self._is_close_delimited = False

    # What the client and the exchange ask.

    @property
    def is_usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def start(self, exchange: DirectExchange, *, is_reused: bool) -> None:
        """Send the exchange's request."""
        transport = self.transport
        assert transport is not None, "a connection starts after it was made"  # noqa: S101
        self._reset()
        self.exchange, exchange.connection = exchange, self
        exchange.is_connected = True
        payload = exchange.payload
        if is_reused:
            self._stale_until = self._loop.time() + STALE_WITHIN
        else:
            exchange.payload = b""
        if exchange.is_paused:
            self.set_reading(is_reading=False)
        transport.write(payload)

    def set_reading(self, *, is_reading: bool) -> None:
        if self._is_reading == is_reading or self.transport is None or self.transport.is_closing():
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def linger(self) -> None:
        """Close unless the body ends in time. A response that is complete already goes the usual way."""
        self.set_reading(is_reading=True)
        if not self.is_complete and self._close_timer is None:
            self._close_timer = self._loop.call_later(self._linger, self.abort)

    def abort(self) -> None:
        """Close without waiting for anything; no receiver is called. May be called twice."""
        self._detach()
        self._owner.connection_gone(self)
        if self.transport is not None:
            self.transport.abort()

    def _detach(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.connection = None
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Both loops set TCP_NODELAY themselves. The limit makes pause_writing say whether anything is unsent; it is
        # not 0, with which their TLS transports pause at nothing.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=1, low=0)

    def pause_writing(self) -> None:
        self._has_unsent = True

    def resume_writing(self) -> None:
        self._has_unsent = False

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Nothing was asked: a response to it would be given to the next request.
            self.abort()
            return
        fault: str | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            fault = _describe(error)
        if self._pieces:
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += len(data)
            if self._quiet_bytes > MAX_HEAD_BYTES and fault is None:
                fault = f"response head over {MAX_HEAD_BYTES} bytes"
        try:
            self._deliver(exchange, fault)
        except BaseException:
            # The receiver's own fault, which the loop reports. Another exchange may have the connection by now.
            exchange.receiver = None
            if self.exchange is None or self.exchange is exchange:
                self.abort()
            raise

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_gone(self)
        self._owner.connection_closed(self)
        exchange = self.exchange
        self._detach()
        self.transport = None
        if exchange is None or exchange.receiver is None:
            return
        if self._is_close_delimited and exc is None:
            self._tell_end(exchange)
        elif self._is_stale() and exchange.resend is not None:
            exchange.resend()
        elif self._has_unsent and not self._status:
            exchange.fail("send", "connection closed before the request was sent")
        else:
            exchange.fail("read", CUT_REASON)

    def _is_stale(self) -> bool:
        # The server closed an idle connection just as we wrote to it: it has not seen the request, and a fresh
        # connection is all that is missing. A connection that dies later, or after any byte of a response, may have
        # carried the request to a model, so the decision to pay twice is the run's, not ours.
        return not self._status and not self._quiet_bytes and self._loop.time() < self._stale_until

    # What the parser says.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise BadResponseError("a second response to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadResponseError(f"response head over {MAX_HEAD_BYTES} bytes")
        if self._status:
            return  # a trailer: nobody asks for it
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers = self._headers
        if status < 200:  # noqa: PLR2004 - informational: the response is still to come
            self._headers = {}
            return
        if "content-encoding" in headers:
            self._choose_decoder(headers["content-encoding"])
        codings = headers.get("transfer-encoding", "").lower()
        is_framed = codings.endswith("chunked") if codings else "content-length" in headers
        self._is_close_delimited = not is_framed
        self._status, self._is_head_new = status, True

    def _choose_decoder(self, content_encoding: str) -> None:
        try:
            self._decoder = decoder_for(content_encoding)
        except BadResponseError as error:
            self._unreadable = str(error)  # said after the head: its status counts all the same

    def on_message_complete(self) -> None:
        if self._status:
            self.is_complete = True
            self._is_keep_alive = self._parser.should_keep_alive()

    # What the receiver is told.

    def _deliver(self, exchange: DirectExchange, fault: str | None) -> None:
        if self._is_head_new:
            self._is_head_new = False
            exchange.payload = b""
            if exchange.receiver is not None:
                exchange.receiver.on_response(self._status, self._headers)
            if self._unreadable is not None and self.exchange is exchange:
                self._pieces.clear()
                self._fail(exchange, self._unreadable)
                return
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if exchange.receiver is None:
                pass
            elif self._decoder is None:
                exchange.receiver.on_bytes(data)
            else:
                self._deliver_decoded(exchange, self._decoder, data)
        if self.exchange is not exchange:
            return  # closed from inside one of the calls
        if self.is_complete:
            self._finish(exchange, is_clean=fault is None)
        elif fault is not None:
            self._fail(exchange, fault)

    def _deliver_decoded(self, exchange: DirectExchange, decoder: BodyDecoder | LayeredDecoder, data: bytes) -> None:
        def deliver(unpacked: bytes) -> bool:
            if exchange.receiver is not None:
                exchange.receiver.on_bytes(unpacked)
            return exchange.receiver is not None

        try:
            decoder.feed(data, deliver)
        except BadResponseError as error:
            self._fail(exchange, str(error))

    def _finish(self, exchange: DirectExchange, *, is_clean: bool) -> None:
        self._detach()
        if is_clean and self._is_keep_alive and not self._has_unsent and self.is_usable:
            self.set_reading(is_reading=True)
            # First the pool, so that a request sent from on_complete finds the connection.
            self._owner.connection_free(self)
        else:
            self.abort()
        self._tell_end(exchange)

    def _tell_end(self, exchange: DirectExchange) -> None:
        if self._decoder is not None and not self._decoder.is_complete:
            exchange.fail("read", CUT_REASON)
            return
        receiver, exchange.receiver = exchange.receiver, None
        if receiver is not None:
            receiver.on_complete()

    def _fail(self, exchange: DirectExchange, reason: str) -> None:
        self.abort()
        exchange.fail("read", reason)


def _describe(error: HttpParserError | HttpParserUpgrade) -> str:
    if isinstance(error, HttpParserUpgrade):
        return "the server switched to another protocol"
    if isinstance(error, HttpParserCallbackError) and isinstance(error.__context__, BadResponseError):
        return str(error.__context__)
    return f"malformed HTTP response: {error}"
