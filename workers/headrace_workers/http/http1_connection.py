"""One HTTP/1.1 connection that pushes a response to its receiver as it is read. Never awaits, connects, pools or logs.

There is no task, future or iterator per chunk: what one ``data_received`` brought is handed over by one ``on_bytes``.
The parser's callbacks only record; the receiver is called after the parser has returned, so that it may close, pause or
release its exchange from inside any call.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from headrace_workers.http.body_decoding import BadResponseError, BodyDecoder, decoder_for
from headrace_workers.http.exchange import CUT_REASON, DirectExchange

# A server may not make us hold more than this of what is no body: status line, headers, chunk extensions, trailers.
MAX_HEAD_BYTES = 64 * 1024

# A server's close of an idle connection crosses our request on the way, so it shows within a round trip.
STALE_WITHIN = 2.0

TURN_BYTES = 256 * 1024
"""Bytes of one connection that are read in one turn of the loop: others come next."""
_FIELD_BYTES = 4
"""Bytes of a field beside its name and value."""


class ConnectionOwner(Protocol):
    """What a connection tells its pool."""

    def connection_free(self, connection: Connection) -> None:
        """Take the connection back for another request."""

    def connection_gone(self, connection: Connection) -> None:
        """Give the connection to nobody any more; may be called twice."""

    def connection_closed(self, connection: Connection) -> None:
        """Note that its socket is closed."""


class Connection(asyncio.Protocol):
    """A connection to one origin; serves one exchange after the other. Idle while ``exchange`` is None.

    The parser calls the methods whose names httptools gives: ``on_message_begin`` and so on.
    """

    __slots__ = (
        "_close_timer",
        "_decoder",
        "_fault",
        "_goes_on",
        "_has_unsent",
        "_head_bytes",
        "_headers",
        "_is_close_delimited",
        "_is_head_new",
        "_is_keep_alive",
        "_is_reading",
        "_is_resting",
        "_linger",
        "_loop",
        "_owner",
        "_parser",
        "_pieces",
        "_quiet_bytes",
        "_stale_until",
        "_status",
        "_turn_bytes",
        "_unreadable",
        "exchange",
        "is_complete",
        "is_held",
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
        self._is_resting = False  # until the next turn of the loop
        self._turn_bytes = 0  # read since the last rest
        self._goes_on = False  # with unpacking, in the next turn of the loop
        self._pieces: list[bytes] = []
        # The parser calls list.append itself: no Python frame for a piece of the body.
        self.on_body = self._pieces.append
        self._reset()
        self._parser = HttpResponseParser(self)

    def _reset(self) -> None:
        self.is_complete = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._decoder: BodyDecoder | None = None
        self._unreadable: str | None = None
        self.is_held = False  # whether there is something to unpack before anything else happens
        self._fault: str | None = None  # of the response, to be told after what was there before it
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
            self.look_at_reading()
        transport.write(payload)

    def look_at_reading(self) -> None:
        """Read from the socket, and unpack, unless there is a reason not to."""
        is_paused = self.exchange is not None and self.exchange.is_paused
        has_more = self._decoder is not None and self._decoder.has_more
        if has_more and not is_paused:
            self._go_on_soon()
        is_reading = not (is_paused or has_more or self._is_resting)
        if self._is_reading == is_reading or self.transport is None or self.transport.is_closing():
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def linger(self) -> None:
        """Close unless the body ends in time. A response that is complete already goes the usual way."""
        if self.exchange is not None:
            self.exchange.is_paused = False
        self._decoder = None  # nobody wants it unpacked
        self.look_at_reading()
        if self.is_held and self.is_complete and self.exchange is not None:
            self._finish(self.exchange, is_clean=self._fault is None)
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
        self._turn_bytes += len(data)
        if self._turn_bytes >= TURN_BYTES:
            self._rest()
        self._deliver_safely(exchange, fault)

    def _deliver_safely(self, exchange: DirectExchange, fault: str | None) -> None:
        try:
            self._deliver(exchange, fault)
        except BaseException:
            # The receiver's own fault, which the loop reports. Another exchange may have the connection by now.
            exchange.receiver = None
            if self.exchange is None or self.exchange is exchange:
                self.abort()
            raise

    def _rest(self) -> None:
        """Let others have their turn: a loop may read from one socket for as long as there is anything."""
        self._turn_bytes = 0
        if not self._is_resting:
            self._is_resting = True
            self._loop.call_soon(self._rested)
            self.look_at_reading()

    def _rested(self) -> None:
        self._is_resting = False
        self.look_at_reading()

    def _go_on_soon(self) -> None:
        """Unpack more in the next turn of the loop."""
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        exchange = self.exchange
        if exchange is not None and not exchange.is_paused:
            self._deliver_safely(exchange, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_gone(self)
        self._owner.connection_closed(self)
        exchange = self.exchange
        if exchange is not None and self.is_complete:
            self.transport = None  # all of it is here; what is left of it to unpack is told of in its turn
            return
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
        self._head_bytes += len(name) + len(value) + _FIELD_BYTES
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
        if self._pieces:
            self._deliver_body(exchange)
        decoder = self._decoder
        if decoder is not None and decoder.has_more and not self._unpack(exchange, decoder):
            # The rest in the next turn of the loop, before anything else is read.
            self._fault, self.is_held = fault or self._fault, True
            return
        if self.exchange is not exchange:
            return  # closed from inside one of the calls
        fault = fault or self._fault
        if self.is_complete:
            self._finish(exchange, is_clean=fault is None)
        elif fault is not None:
            self._fail(exchange, fault)

    def _deliver_body(self, exchange: DirectExchange) -> None:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if exchange.receiver is None:
            pass
        elif self._decoder is None:
            exchange.receiver.on_bytes(data)
        else:
            self._decoder.feed(data)

    def _unpack(self, exchange: DirectExchange, decoder: BodyDecoder) -> bool:
        """Unpack a piece and hand it over. Return whether that was all there is."""
        try:
            unpacked = decoder.piece()
        except BadResponseError as error:
            self._fail(exchange, str(error))
            return True
        if unpacked and exchange.receiver is not None:
            exchange.receiver.on_bytes(unpacked)
        if self.exchange is exchange:
            self.look_at_reading()
        return self._decoder is not decoder or not decoder.has_more

    def _finish(self, exchange: DirectExchange, *, is_clean: bool) -> None:
        self._detach()
        if is_clean and self._is_keep_alive and not self._has_unsent and self.is_usable:
            self.look_at_reading()
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
