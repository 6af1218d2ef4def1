"""One client's connection to the simulated provider: HTTP/1.1 requests in, one reply at a time out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from headrace.testing.sender import ReplySender
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.openai_errors import refused
from headrace.testing.shared.reply import Reply
from headrace.testing.shared.request_log import LogEntry
from headrace.testing.simulation import ServedConnections
from headrace.testing.ticker import Ticker

_WRITE_BUFFER_LIMIT = 64 * 1024


class RequestAnswering(Protocol):
    """Makes the replies of a server, and keeps the log of its requests. Never waits."""

    def arrived(self, request: Request, connection: int, now: float) -> LogEntry:
        """Open the log entry of a request."""

    def reply_to(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a client's request."""

    def control(self, request: Request, connections: ServedConnections) -> Reply:
        """Carry out a control request."""


class ProviderConnections:
    """The open connections: of clients, and of ``SimulatedProvider`` itself (control). ``set_listening`` is the server's."""

    def __init__(self, set_listening: Callable[[bool], None]) -> None:
        self.all: set[ProviderConnection] = set()
        self._opened = 0
        self._set_listening = set_listening

    def accept(self, are_accepted: bool) -> None:
        """Take new connections, or refuse them and close those of clients that wait for nothing. Takes effect soon."""
        self._set_listening(are_accepted)
        if not are_accepted:
            for connection in list(self.all):
                if connection.is_idle:
                    connection.abort()

    def opened(self, connection: ProviderConnection) -> int:
        """Add a connection and return its number."""
        self._opened += 1
        self.all.add(connection)
        return self._opened

    def count(self) -> int:
        """Return the number of open connections of clients."""
        return sum(not connection.is_control for connection in self.all)

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in list(self.all):
            connection.abort()


class ProviderConnection(asyncio.Protocol):
    """Parses the requests of one client, answers them in order, and notices at once when the client closes.

    If the client closes only its sending side, this counts as a close: LLM clients never do it.
    """

    def __init__(self, answering: RequestAnswering, connections: ProviderConnections, ticker: Ticker) -> None:
        self.is_control = False
        self._answering = answering
        self._connections = connections
        self._ticker = ticker
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, LogEntry]] = deque()
        self._sender: ReplySender | None = None
        self._entry: LogEntry | None = None
        self._is_paused = False
        self._start_request()

    @property
    def is_idle(self) -> bool:
        """Whether a client waits for no answer on it."""
        return not self.is_control and self._sender is None and not self._waiting

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and count the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_LIMIT)
        self._number = self._connections.opened(self)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes. ``on_message_complete`` gets each whole request."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._closed()
            reply = refused(400, f"Bad request: {error}")
            body = b"".join(frame[0] for frame in reply.frames)
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            self._transport.close()

    def eof_received(self) -> None:
        """Treat the end of input as the client's close."""
        self._closed()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop sending, and note the time."""
        self._closed()
        self._connections.all.discard(self)

    def pause_writing(self) -> None:
        """Tell the sender that the client does not read."""
        self._is_paused = True
        if self._sender is not None:
            self._sender.pause()

    def resume_writing(self) -> None:
        """Tell the sender that the client reads again."""
        self._is_paused = False
        if self._sender is not None:
            self._sender.resume()

    # httptools

    def on_url(self, url: bytes) -> None:
        """Collect the path and the query."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Answer ``Expect: 100-continue``, so that the client sends its body."""
        if self._headers.get("expect", "").lower() == "100-continue" and self._sender is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Answer the request, or queue it until the request before it is answered."""
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(self._parser.get_method().decode(), path, self._headers, b"".join(self._body), query)
        self.is_control = self.is_control or request.is_control
        self._waiting.append((request, self._answering.arrived(request, self._number, time.monotonic())))
        self._start_request()
        self._answer_next()

    def abort(self) -> None:
        """Close the connection without sending anything more."""
        self._closed()
        self._transport.abort()

    def _start_request(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def _answer_next(self) -> None:
        if self._sender is not None or not self._waiting or self._transport.is_closing():
            return
        request, self._entry = self._waiting.popleft()
        if request.is_control:
            reply = self._answering.control(request, self._connections)
        else:
            reply = self._answering.reply_to(request, self._entry, int(time.time()))
        self._sender = ReplySender(
            reply, self._entry, self._transport, self._ticker, self._answered, is_paused=self._is_paused
        )
        self._sender.start()

    def _answered(self) -> None:
        self._sender = None
        if self._waiting:
            self._ticker.loop.call_soon(self._answer_next)

    def _closed(self) -> None:
        now = time.monotonic()
        if self._sender is not None:
            self._sender.stop()
        if self._entry is not None:
            self._entry.end("closed_by_client", now)
        while self._waiting:
            _, entry = self._waiting.popleft()
            entry.end("closed_by_client", now)
