"""One HTTP/1.1 connection: sends a request, and gives the response to its receiver.

Never awaits, connects, pools or logs.

A chunk needs no task, future or iterator: the bytes of one ``data_received`` go to one ``on_bytes``. A read that is one
whole HTTP chunk may not even need the parser: the receiver is asked first. The parser's callbacks only record. The receiver is called after the parser has returned, so it may close, pause or release its
exchange in any call.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from headrace_workers.http.body_decoding import BadResponseError, BodyDecoder, decoder_for
from headrace_workers.http.direct_exchange import CUT_REASON, DirectExchange, Receiver, WholeReceiver
from headrace_workers.http.lone_chunks import ends_with_chunk

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a response beside its body that are accepted: status line, headers, chunk extensions, trailers."""

STALE_WITHIN = 2.0
"""Seconds. A server may close an idle connection just when a request is sent. That shows within a round trip."""

TURN_BYTES = 256 * 1024
"""Bytes that one connection may read in one turn of the loop. Then the other connections have their turn."""
_NO_HEADERS: dict[str, str] = {}
_LARGE_READ = 4 * 1024
"""Bytes of a read that are counted as a part of the turn."""
_MAX_KNOWN_BYTES = 2 * 1024
"""Bytes of the names of a response's header fields that are remembered."""
_FIELD_BYTES = 4
"""Bytes of a header field beside its name and value."""


class ConnectionOwner(Protocol):
    """The pool of a connection, as the connection calls it."""

    def connection_free(self, connection: Http1Connection) -> None:
        """Take the connection back for another request."""

    def connection_gone(self, connection: Http1Connection) -> None:
        """Never use the connection for another request. May be called twice."""

    def connection_closed(self, connection: Http1Connection) -> None:
        """Note that the connection's socket is closed."""


class Http1Connection(asyncio.Protocol):
    """A connection to one origin. Carries one exchange after the other. Idle while ``exchange`` is None.

    The parser of httptools calls ``on_message_begin``, ``on_header`` and so on.
    """

    __slots__ = (
        "_chunk_taker",
        "_close_timer",
        "_decoder",
        "_fault",
        "_fields",
        "_has_unsent",
        "_head_bytes",
        "_headers",
        "_is_close_delimited",
        "_is_flowing",
        "_is_head_new",
        "_is_keep_alive",
        "_is_reading",
        "_is_resting",
        "_is_unpacking_scheduled",
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
        self._is_resting = False  # whether reading stops until the next turn of the loop
        self._turn_bytes = 0  # bytes read since the last rest
        self._is_unpacking_scheduled = False  # whether the next turn of the loop will unpack more
        self._pieces: list[bytes] = []
        # The parser calls list.append directly: no Python call for a piece of the body.
        self.on_body = self._pieces.append
        self._reset()
        self._parser = HttpResponseParser(self)

    def _reset(self) -> None:
        self.is_complete = False
        # Who may take the next read if it is one HTTP chunk. Set only between two chunks of the body.
        self._chunk_taker: Receiver | None = None
        self._status = 0
        self._headers = _NO_HEADERS
        self._fields: list[bytes] = []  # names and values of the head, as they came
        self._decoder: BodyDecoder | None = None
        self._unreadable: str | None = None
        self.is_held = False  # whether the rest must be unpacked before anything else happens
        self._fault: str | None = None  # a fault of the response, reported after the bytes before it
        self._head_bytes = 0
        self._quiet_bytes = 0  # bytes read since the last byte of the body
        self._stale_until = 0.0
        self._is_head_new = False
        # Whether the head was delivered, the body needs no unpacking, and there is no end or fault.
        self._is_flowing = False
        self._is_keep_alive = False
        self._is_close_delimited = False

    # Calls by the HTTP client and the exchange.

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
        """Start or stop reading and unpacking, as the state of the exchange and the connection requires."""
        is_paused = self.exchange is not None and self.exchange.is_paused
        has_more = self._decoder is not None and self._decoder.has_more
        if has_more and not is_paused:
            self._unpack_soon()
        is_reading = not (is_paused or has_more or self._is_resting)
        if self._is_reading == is_reading or self.transport is None or self.transport.is_closing():
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def linger(self) -> None:
        """Close the connection, unless the body ends within the linger time. A complete response ends as usual."""
        self._chunk_taker = None
        if self.exchange is not None:
            self.exchange.is_paused = False
        self._decoder = None  # the rest is read, and not unpacked
        self.look_at_reading()
        if self.is_held and self.is_complete and self.exchange is not None:
            self._finish(self.exchange, is_clean=self._fault is None)
        if not self.is_complete and self._close_timer is None:
            self._close_timer = self._loop.call_later(self._linger, self.abort)

    def abort(self) -> None:
        """Close at once, and call no receiver. May be called twice."""
        self._detach()
        self._owner.connection_gone(self)
        if self.transport is not None:
            self.transport.abort()

    def _detach(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._chunk_taker = None
        if exchange is not None:
            exchange.connection = None
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    # Calls by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Both event loops set TCP_NODELAY. With the limit 1, pause_writing says that bytes are unsent. The limit is not
        # 0, because then their TLS transports also pause when nothing is unsent.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=1, low=0)

    def pause_writing(self) -> None:
        self._has_unsent = True

    def resume_writing(self) -> None:
        self._has_unsent = False

    def data_received(self, data: bytes) -> None:
        taker = self._chunk_taker
        if taker is None or not taker.on_chunk(data):
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._chunk_taker = None
        exchange = self.exchange
        if exchange is None:
            # No request is under way: these bytes would be taken for the response to the next one.
            self.abort()
            return
        fault: str | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            fault = _describe(error)
            self._is_flowing = False
        if len(data) > _LARGE_READ:
            self._count_turn(len(data))
        pieces, receiver = self._pieces, exchange.receiver
        if not pieces or not self._is_flowing or receiver is None:
            self._take(exchange, len(data), fault)
            return
        self._quiet_bytes = 0
        if ends_with_chunk(data, pieces[-1]):
            self._chunk_taker = receiver
        body = b"".join(pieces)
        pieces.clear()
        try:
            receiver.on_bytes(body)
        except BaseException:
            self._receiver_failed(exchange)
            raise

    def _take(self, exchange: DirectExchange, size: int, fault: str | None) -> None:
        """Take a read of ``size`` bytes that has something else than bytes of the body."""
        if self._pieces:
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += size
            if self._quiet_bytes > MAX_HEAD_BYTES and fault is None:
                fault = f"response head over {MAX_HEAD_BYTES} bytes"
        self._deliver_safely(exchange, fault)

    def _deliver_safely(self, exchange: DirectExchange, fault: str | None) -> None:
        try:
            self._deliver(exchange, fault)
        except BaseException:
            self._receiver_failed(exchange)
            raise

    def _receiver_failed(self, exchange: DirectExchange) -> None:
        """The receiver has raised an exception, which the loop reports. Another exchange may use the connection by now."""
        exchange.receiver = exchange.on_whole = None
        if self.exchange is None or self.exchange is exchange:
            self.abort()

    def _count_turn(self, size: int) -> None:
        """Stop reading until the next turn after many bytes. Else the loop could read from one socket without end.

        A small read has emptied the socket: the loop does not read it again in the same turn.
        """
        self._turn_bytes += size
        if self._turn_bytes >= TURN_BYTES and not self._is_resting:
            self._turn_bytes = 0
            self._is_resting = True
            self._loop.call_soon(self._rested)
            self.look_at_reading()

    def _rested(self) -> None:
        self._is_resting = False
        self.look_at_reading()

    def _unpack_soon(self) -> None:
        """Unpack more in the next turn of the loop."""
        if not self._is_unpacking_scheduled:
            self._is_unpacking_scheduled = True
            self._loop.call_soon(self._unpack_more)

    def _unpack_more(self) -> None:
        self._is_unpacking_scheduled = False
        exchange = self.exchange
        if exchange is not None and not exchange.is_paused:
            self._deliver_safely(exchange, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_gone(self)
        self._owner.connection_closed(self)
        exchange = self.exchange
        if exchange is not None and self.is_complete:
            self.transport = None  # the whole body is here; the rest is unpacked in the next turns
            return
        self._detach()
        self.transport = None
        if exchange is None or exchange.receiver is None:
            return
        if self._is_close_delimited and exc is None:
            self._tell_end(exchange)
        elif self._is_stale() and exchange.resend is not None:
            exchange.resend(exchange)
        elif self._has_unsent and not self._status:
            exchange.fail("send", "connection closed before the request was sent")
        else:
            exchange.fail("read", CUT_REASON)

    def _is_stale(self) -> bool:
        # The server closed an idle connection just as we wrote to it. It has not seen the request, so it may be sent
        # again on a new connection. If a connection dies later, or after a byte of a response, the model may have seen
        # the request. Sending it again could cost twice: the run decides that, not this client.
        return not self._status and not self._quiet_bytes and self._loop.time() < self._stale_until

    # Calls by the parser.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise BadResponseError("a second response to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:  # a trailer: not used
            self._count_head(len(name) + len(value) + _FIELD_BYTES)
        else:
            self._fields.append(name)
            self._fields.append(value)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadResponseError(f"response head over {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        fields = self._fields
        self._fields = []
        names, values = b"\n".join(fields[::2]), b"\n".join(fields[1::2])  # no field has a line end within
        count = len(fields) // 2
        self._head_bytes += len(names) + len(values) + count * _FIELD_BYTES - 2 * max(count - 1, 0)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadResponseError(f"response head over {MAX_HEAD_BYTES} bytes")
        if status < 200:  # noqa: PLR2004 - informational: the response is still to come
            return
        headers = self._headers = _headers_of(names, values) if fields else {}
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
            self._unreadable = str(error)  # reported after the head, because its status counts

    def on_message_complete(self) -> None:
        if self._status:
            self.is_complete, self._is_flowing = True, False
            self._is_keep_alive = self._parser.should_keep_alive()

    # Calls of the receiver.

    def _deliver(self, exchange: DirectExchange, fault: str | None) -> None:
        if self._is_head_new:
            if self.is_complete and fault is None and exchange.on_whole is not None and self._is_plain(exchange):
                self._deliver_whole(exchange, exchange.on_whole)
                return
            self._is_head_new = False
            exchange.payload = b""
            is_plain = self._decoder is None and self._unreadable is None
            self._is_flowing = is_plain and fault is None and not self.is_complete
            if exchange.receiver is not None:
                exchange.receiver.on_response(self._status, self._headers)
                self._headers = _NO_HEADERS  # a stream may stay open for long
            if self._unreadable is not None and self.exchange is exchange:
                self._pieces.clear()
                self._fail(exchange, self._unreadable)
                return
        if self._pieces:
            self._deliver_body(exchange)
        decoder = self._decoder
        if decoder is not None and decoder.has_more and not self._unpack(exchange, decoder):
            # Unpack the rest in the next turn of the loop, before anything more is read.
            self._fault, self.is_held = fault or self._fault, True
            return
        if self.exchange is not exchange:
            return  # the receiver has closed the exchange in one of the calls
        fault = fault or self._fault
        if self.is_complete:
            self._finish(exchange, is_clean=fault is None)
        elif fault is not None:
            self._fail(exchange, fault)

    def _is_plain(self, exchange: DirectExchange) -> bool:
        """Return whether a response that has come in one piece needs no unpacking, and is wanted."""
        return self._decoder is None and self._unreadable is None and exchange.receiver is not None

    def _deliver_whole(self, exchange: DirectExchange, on_whole: WholeReceiver) -> None:
        self._is_head_new = False
        exchange.payload = b""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        exchange.receiver = exchange.on_whole = None  # else run and exchange hold each other
        self._end_exchange(is_clean=True)
        on_whole(self._status, self._headers, body)

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
        """Unpack one piece and deliver it. Return whether nothing is left to unpack."""
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
        self._end_exchange(is_clean=is_clean)
        self._tell_end(exchange)

    def _end_exchange(self, *, is_clean: bool) -> None:
        self._detach()
        if is_clean and self._is_keep_alive and not self._has_unsent and self.is_usable:
            if not self._is_reading or self._decoder is not None:
                self.look_at_reading()
            # Free the connection first, so that a request sent in on_complete can use it.
            self._owner.connection_free(self)
        else:
            self.abort()

    def _tell_end(self, exchange: DirectExchange) -> None:
        if self._decoder is not None and not self._decoder.is_complete:
            exchange.fail("read", CUT_REASON)
            return
        receiver, exchange.receiver, exchange.on_whole = exchange.receiver, None, None
        if receiver is not None:
            receiver.on_complete()

    def _fail(self, exchange: DirectExchange, reason: str) -> None:
        self.abort()
        exchange.fail("unreadable", reason)


def _headers_of(names: bytes, values: bytes) -> dict[str, str]:
    """Return the header fields: name in small letters → value. The values of a repeated field are joined by a comma.

    ``names``, ``values``: one a line, in the same order.
    """
    known = _known_names(names) if len(names) <= _MAX_KNOWN_BYTES else _names_of(names)
    said = values.decode("latin-1").split("\n")
    headers = dict(zip(known, said))  # noqa: B905 - they are of one length
    if len(headers) < len(known):
        headers = {}
        for name, value in zip(known, said, strict=True):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _names_of(names: bytes) -> list[str]:
    return names.decode("latin-1").lower().split("\n")


_known_names = functools.lru_cache(maxsize=256)(_names_of)
"""A server sends the same names in each response. Remembered, they need not be made and hashed again."""


def _describe(error: HttpParserError | HttpParserUpgrade) -> str:
    if isinstance(error, HttpParserUpgrade):
        return "the server switched to another protocol"
    if isinstance(error, HttpParserCallbackError) and isinstance(error.__context__, BadResponseError):
        return str(error.__context__)
    return f"malformed HTTP response: {error}"
