"""Passes requests on to the real providers, and records each request and its answer without keys."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from headrace.testing.recording.endpoints import endpoint_of
from headrace.testing.recording.key_overwriting import RequestSecrets, decoded
from headrace.testing.recording.passed_requests import BadRequestError, PassedRequest, read_request
from headrace.testing.recording.recorded_exchange import (
    Ending,
    RecordedExchange,
    RecordedRequest,
    RecordedResponse,
    name_of,
    next_number,
    write_recording,
)

_CONNECT_TIMEOUT = 30.0
_OF_ONE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that one connection has. The other connection gets its own."""


class Recorded(msgspec.Struct, frozen=True):
    """What happened to one request. ``name`` is the folder of its recording; None if nothing was recorded."""

    name: str | None
    status: int
    size: int
    seconds: float
    ending: Ending
    problem: str | None = None


async def serve_recorder(
    listener: socket.socket,
    folder: Path,
    upstreams: Mapping[str, str],
    *,
    on_recorded: Callable[[Recorded], None],
    stop: asyncio.Event,
) -> None:
    """Serve on a bound socket until ``stop`` is set, and close it.

    ``upstreams`` has the base URLs of ``openai``, ``anthropic`` and ``google``, as their SDKs take them. Each request
    becomes a folder in ``folder``. ``on_recorded`` is called after each request.
    """
    timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=timeout, limits=limits) as client:
        recorder = _Recorder(client, folder, upstreams, on_recorded)
        server = await asyncio.start_server(recorder.connected, sock=listener)
        try:
            await stop.wait()
        finally:
            server.close()
            await recorder.end()


class _Recorder:
    """Has one task for each connection of a client. A connection carries one request."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        folder: Path,
        upstreams: Mapping[str, str],
        on_recorded: Callable[[Recorded], None],
    ) -> None:
        self._client = client
        self._folder = folder
        self._upstreams = upstreams
        self._on_recorded = on_recorded
        self._number = next_number(folder)
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cut what still runs. It is recorded as far as it came."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader, writer)
            if request is not None:
                await self._pass_on_while_connected(request, reader, writer)
        except BadRequestError as error:
            _write_error(writer, 400, f"headrace record: this is no HTTP request: {error}")
        except ConnectionError:
            pass  # the client has gone
        finally:
            with suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    async def _pass_on_while_connected(
        self, request: PassedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass a request on. If the client closes its connection, close the provider's, as the client would have."""
        passing = asyncio.ensure_future(self._pass_on(request, writer))
        closing = asyncio.ensure_future(_closed(reader))
        try:
            await asyncio.wait({passing, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            passing.cancel()
            await asyncio.wait({passing, closing})
        if not passing.cancelled():
            passing.result()

    async def _pass_on(self, request: PassedRequest, writer: asyncio.StreamWriter) -> None:
        path = request.target.partition("?")[0]
        base_url = self._upstreams[endpoint_of(path).provider]
        answer = _Answer(request, base_url, self._number, writer)
        self._number += 1
        started = time.monotonic()
        problem = None
        try:
            await answer.pass_on(self._client)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"{base_url}: {str(error) or type(error).__name__}"
            answer.failed(problem)
        finally:
            name = None
            try:
                name = answer.write(self._folder)
            except OSError as error:
                problem = f"the recording could not be written: {error.filename}: {error.strerror}"
            seconds = time.monotonic() - started
            self._on_recorded(Recorded(name, answer.status, answer.size, seconds, answer.ending, problem))


class _Answer:
    """One request on its way to the provider, and the provider's answer on its way back."""

    def __init__(self, request: PassedRequest, base_url: str, number: int, writer: asyncio.StreamWriter) -> None:
        self._request = request
        self._url = _joined(base_url, request.target)
        self._number = number
        self._writer = writer
        self._headers: list[tuple[str, str]] = []
        self._encoding: str | None = None
        self._pieces: list[bytes] = []
        self.ending: Ending = "closed_by_client"
        self.status = 0

    @property
    def size(self) -> int:
        """The bytes of the body so far."""
        return sum(map(len, self._pieces))

    async def pass_on(self, client: httpx.AsyncClient) -> None:
        """Send the request to the provider, and each piece of the answer to the client. Raises httpx.HTTPError."""
        given = self._request
        headers = {name: value for name, value in given.headers.items() if name not in _OF_ONE_CONNECTION}
        headers["accept-encoding"] = "identity"  # a recording is to be readable
        async with client.stream(given.method, self._url, headers=headers, content=given.body) as response:
            self.status = response.status_code
            self._headers = response.headers.multi_items()
            self._encoding = response.headers.get("content-encoding")
            self._writer.write(self._head())
            async for piece in _pieces_of(response):
                self._pieces.append(piece)
                self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self._writer.drain()
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()
            self.ending = "complete"

    def failed(self, problem: str) -> None:
        """Tell the client that the provider could not be reached; or cut its answer, if that has begun."""
        self.ending = "cut"
        if self.status:
            self._writer.transport.abort()
        else:
            _write_error(self._writer, 502, f"headrace record: {problem}")

    def write(self, folder: Path) -> str | None:
        """Write the recording, and return its name; None if no answer came."""
        if not self.status:
            return None
        given, body = self._request, decoded(self._request.body)
        secrets = RequestSecrets(given.headers, given.target, body)
        request = RecordedRequest(
            method=given.method,
            host=urlsplit(self._url).netloc.rpartition("@")[2],
            path=secrets.overwritten_path(given.target),
            headers=secrets.request_headers(given.headers),
            body=None if body is None else decoded(secrets.overwritten(given.body)),
        )
        response = RecordedResponse(self.status, secrets.response_headers(self._headers))
        pieces = _like(self._pieces, secrets.overwritten(b"".join(self._pieces)))
        exchange = RecordedExchange(name_of(self._number, request), request, response, pieces, self.ending)
        facts = {"recorded_at": datetime.now(UTC).isoformat(timespec="seconds")}
        if self._encoding is not None:
            facts["recorded_content_encoding"] = self._encoding
        write_recording(folder, exchange, facts)
        return exchange.name

    def _head(self) -> bytes:
        kept = [
            (name, value)
            for name, value in self._headers
            if name.lower() not in _OF_ONE_CONNECTION and name.lower() != "content-encoding"
        ]
        lines = "".join(f"{name}: {value}\r\n" for name, value in kept)
        head = f"HTTP/1.1 {self.status} Passed On\r\n{lines}connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        return head.encode("latin-1", "replace")


async def _pieces_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the pieces of a body as they arrive, decompressed."""
    async for piece in response.aiter_bytes():
        if piece:
            yield piece


async def _closed(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed its connection. Ignore what it sends until then."""
    with suppress(ConnectionError):
        while await reader.read(1024):
            pass


def _joined(base_url: str, target: str) -> str:
    """Return the provider's address of a request. An OpenAI base URL ends in the version, which the target has too."""
    path, question, query = target.partition("?")
    base, _, base_query = base_url.partition("?")
    if endpoint_of(path).provider == "openai":
        path = path.removeprefix("/v1")
    both = "&".join(part for part in (base_query, query if question else "") if part)
    return base.rstrip("/") + path + (f"?{both}" if both else "")


def _like(pieces: list[bytes], data: bytes) -> list[bytes]:
    """Cut ``data`` into pieces of the same lengths."""
    cut: list[bytes] = []
    for piece in pieces:
        cut.append(data[: len(piece)])
        data = data[len(piece) :]
    return cut


def _write_error(writer: asyncio.StreamWriter, status: int, message: str) -> None:
    body = msgspec.json.encode({"error": {"message": message, "type": "proxy_error", "code": None}})
    writer.write(
        b"HTTP/1.1 %d Not Passed On\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
    )
