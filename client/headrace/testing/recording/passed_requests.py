"""Reads one HTTP/1.1 request from a stream of bytes."""

from __future__ import annotations

import asyncio

import httptools

_READ_BYTES = 64 * 1024


class PassedRequest:
    """A request. Header names are lower case. ``target`` is the path with the query."""

    def __init__(self) -> None:
        self.method = ""
        self.target = ""
        self.headers: dict[str, str] = {}
        self.body = b""


class BadRequestError(ValueError):
    """The bytes are no HTTP request."""


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> PassedRequest | None:
    """Return the next request; None if the client has closed the connection. Raises BadRequestError."""
    incoming = _Incoming(writer)
    while not incoming.is_whole:
        data = await reader.read(_READ_BYTES)
        if not data:
            return None
        try:
            incoming.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BadRequestError(str(error)) from None
    request = incoming.request
    request.method = incoming.parser.get_method().decode()
    request.body = b"".join(incoming.pieces)
    return request


class _Incoming:
    """A request that arrives. The parser of httptools calls ``on_url``, ``on_header`` and so on."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.request = PassedRequest()
        self.pieces: list[bytes] = []
        self.is_whole = False
        self._writer = writer
        self.on_body = self.pieces.append
        self.parser = httptools.HttpRequestParser(self)  # it looks for these methods now

    def on_url(self, url: bytes) -> None:
        """Collect the path and the query."""
        self.request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self.request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Answer ``Expect: 100-continue``, so that the client sends its body."""
        if self.request.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_message_complete(self) -> None:
        """Note the end."""
        self.is_whole = True
