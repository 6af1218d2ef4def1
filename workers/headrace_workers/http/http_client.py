"""The worker's HTTP client: connection pools, connecting, and request heads.

Never repeats a request that a model may have seen.

Requests go over pooled HTTP/1.1 connections (``http1_connection``). If the environment names a proxy for the URL, they
go through httpx (``proxy_client``), which costs more and behaves the same. All calls are made on the loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from headrace.settings.proxy_choice import proxy_of
from headrace.version import VERSION
from headrace_workers.http.direct_exchange import DirectExchange, Receiver, WholeReceiver
from headrace_workers.http.http1_connection import Http1Connection
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.http.proxy_client import ProxyTransport

__all__ = ["HttpClient", "HttpExchange", "Receiver"]

# Headers that this client sets. With a second one, servers could read the request in different ways.
_OWN_HEADERS = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[!-~]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HEADS = 1024


class HttpExchange(Protocol):
    """One request and its response, as a run controls it. No method calls the receiver."""

    is_connected: bool

    @property
    def is_read(self) -> bool:
        """Whether the whole response has been read from the socket: the receiver is told of its end without further waiting."""

    def pause(self) -> None:
        """Stop reading the response from the socket. Bytes that were read may still be delivered."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """End the exchange.

        No call of the receiver follows. The connection is closed at once, unless the response is complete.
        """

    def release(self) -> None:
        """Deliver nothing more. No call of the receiver follows. The connection is kept if the body ends soon."""


class HttpOrigin(msgspec.Struct, frozen=True):
    """Scheme, host and port of a URL. Requests to the same origin share connections."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Pool:
    """Owns the connections to one origin. Takes the connection that was used last, so that the others can expire."""

    def __init__(self, origin: HttpOrigin, loop: asyncio.AbstractEventLoop, keepalive: float, max_idle: int) -> None:
        self.origin = origin
        self.proxy = proxy_of(origin.scheme, origin.host, origin.port)
        self.connections: set[Http1Connection] = set()
        self.open: Callable[[DirectExchange], None] | None = None
        """Sends an exchange over a new connection."""
        self._idle: dict[Http1Connection, float] = {}  # idle connection → when it expires; the oldest first
        self._loop = loop
        self._keepalive = keepalive
        self._max_idle = max_idle
        self._expiry: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def take(self) -> Http1Connection | None:
        """Return an idle connection that is usable, or None."""
        while self._idle:
            connection, expires_at = self._idle.popitem()
            if connection.is_usable and self._loop.time() < expires_at:
                return connection
            connection.abort()
        return None

    def connection_free(self, connection: Http1Connection) -> None:
        if len(self._idle) >= self._max_idle:
            connection.abort()
            return
        expires_at = self._loop.time() + self._keepalive
        self._idle[connection] = expires_at
        if self._expiry is None:
            self._expiry = self._loop.call_at(expires_at, self._expire)

    def connection_gone(self, connection: Http1Connection) -> None:
        self._idle.pop(connection, None)

    def connection_closed(self, connection: Http1Connection) -> None:
        self.connections.discard(connection)
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    def close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange.receiver = None
            connection.abort()

    async def wait_closed(self) -> None:
        if self.connections:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _expire(self) -> None:
        self._expiry = None
        now = self._loop.time()
        for connection, expires_at in list(self._idle.items()):
            if expires_at > now:
                self._expiry = self._loop.call_at(expires_at, self._expire)
                return
            connection.abort()


class _Head(msgspec.Struct, frozen=True):
    """A checked request head, up to the value of content-length, and the pool for it."""

    pool: _Pool
    text: bytes
    url: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "<_Head>"  # the others may hold credentials


class HttpClient:
    """Sends requests and pushes their responses to receivers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        connect_timeout: float,
        keepalive: float = 30.0,
        max_idle_per_origin: int = 512,
        linger: float = 0.5,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = loop
        self._connect_timeout = connect_timeout
        self._keepalive = keepalive
        self._max_idle = max_idle_per_origin
        self._linger = linger
        self._tls: asyncio.Future[ssl.SSLContext] | None = None
        if ssl_context is not None:
            self._tls = loop.create_future()
            self._tls.set_result(ssl_context)
        self._user_agent = f"headrace/{VERSION}"
        self._pools: dict[HttpOrigin, _Pool] = {}
        self._heads: dict[tuple[str, tuple[tuple[str, str], ...]], _Head] = {}
        self._last_head: _Head | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._proxies = ProxyTransport(loop, self._tls_context, connect_timeout, linger, self._user_agent)
        self._is_closed = False

    def send(self, request: HttpRequest, receiver: Receiver, on_whole: WholeReceiver | None = None) -> HttpExchange:
        """Start the request. The receiver is called by the loop only, after this method has returned.

        ``on_whole``: what is called once, in place of the receiver, if the response comes in one piece. Then the exchange is over.
        """
        if self._is_closed:
            return self._refuse(receiver, "connect", "the HTTP client is closed")
        try:
            head = self._last_head
            # Most requests have the very address and headers of the one before: wire formats keep them.
            if head is None or request.headers is not head.headers or request.url is not head.url:
                head = self._heads.get((request.url, request.headers)) or self._prepare(request)
                self._last_head = head
        except ValueError as error:
            return self._refuse(receiver, "settings", str(error))
        pool = head.pool
        if pool.proxy is not None:
            return self._proxies.send(request, pool.proxy, receiver)
        exchange = DirectExchange(receiver, b"%b%d\r\n\r\n%b" % (head.text, len(request.body), request.body), on_whole)
        connection = pool.take()
        if connection is None:
            self._open(pool, exchange)
        else:
            exchange.resend = pool.open
            connection.start(exchange, is_reused=True)
        return exchange

    def close(self) -> None:
        """Close everything at once. Running exchanges end without a call of their receivers. May be called twice."""
        self._is_closed = True
        for task in self._connecting:
            task.cancel()
        for pool in self._pools.values():
            pool.close()
        self._proxies.close()

    async def aclose(self) -> None:
        """Close, and wait until every socket is closed."""
        self.close()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for pool in self._pools.values():
            await pool.wait_closed()
        await self._proxies.wait_closed()

    def _refuse(self, receiver: Receiver, stage: str, reason: str) -> HttpExchange:
        exchange = DirectExchange(receiver, b"")
        self._loop.call_soon(exchange.fail, stage, reason)
        return exchange

    def _prepare(self, request: HttpRequest) -> _Head:
        origin, target = split_url(request.url)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool(origin, self._loop, self._keepalive, self._max_idle)
            pool.open = partial(self._open, pool)
        text = request_head(origin, target, request.headers, self._user_agent)
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        head = self._heads[(request.url, request.headers)] = _Head(pool, text, request.url, request.headers)
        return head

    def _open(self, pool: _Pool, exchange: DirectExchange) -> None:
        task = self._loop.create_task(self._connect(pool, exchange))
        exchange.is_connected = False
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, pool: _Pool, exchange: DirectExchange) -> None:
        connection = Http1Connection(self._loop, pool, self._linger)
        deadline = asyncio.timeout(self._connect_timeout)
        try:
            async with deadline:
                await self._open_socket(pool.origin, connection)
            self._begin(pool, connection, exchange)
        except Exception as error:  # noqa: BLE001 - the run must hear of every error
            connection.abort()
            is_late = deadline.expired()
            reason = self._late_reason(pool.origin) if is_late else connect_reason(pool.origin, error)
            self._loop.call_soon(exchange.fail, "connect", reason)
        except BaseException:
            connection.abort()
            raise

    def _begin(self, pool: _Pool, connection: Http1Connection, exchange: DirectExchange) -> None:
        exchange.connecting = None
        if not connection.is_usable:
            # The server accepted and closed the connection before this task ran again.
            connection.abort()
            self._loop.call_soon(exchange.fail, "connect", f"{pool.origin} closed the connection at once")
            return
        pool.connections.add(connection)
        connection.start(exchange, is_reused=False)

    async def _open_socket(self, origin: HttpOrigin, connection: Http1Connection) -> None:
        if origin.scheme == "http":
            await self._loop.create_connection(lambda: connection, origin.host, origin.port)
            return
        context = await self._tls_context()
        await self._loop.create_connection(
            lambda: connection, origin.host, origin.port, ssl=context, server_hostname=origin.host
        )

    def _late_reason(self, origin: HttpOrigin) -> str:
        return f"no connection to {origin} within {self._connect_timeout:g} s"

    async def _tls_context(self) -> ssl.SSLContext:
        # Importing httpx and reading the certificates takes over 100 ms. Do it once, and not on the loop's thread.
        if self._tls is None:
            self._tls = self._loop.run_in_executor(None, _create_tls_context)
        made = self._tls
        try:
            return await asyncio.shield(made)
        except Exception:
            # Try again for the next request: a missing descriptor, for example, may be free then.
            if self._tls is made:
                self._tls = None
            raise


def split_url(url: str) -> tuple[HttpOrigin, str]:
    """Return a URL's origin and request target. Raises ValueError for a URL that this client cannot use."""
    if not _URL.fullmatch(url):
        raise ValueError("the URL holds characters that are not allowed in a URL")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("the URL is not http:// or https:// with a host")
    if parts.username is not None:
        raise ValueError("the URL holds credentials: put them into a header")
    origin = HttpOrigin(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
    target = parts.path or "/"
    return origin, f"{target}?{parts.query}" if parts.query else target


def request_head(origin: HttpOrigin, target: str, headers: tuple[tuple[str, str], ...], user_agent: str) -> bytes:
    """Return the head, up to the value of content-length. Raises ValueError for an unsafe header, without its value."""
    host = str(origin)
    if origin.port == _DEFAULT_PORTS[origin.scheme]:
        host = host.rpartition(":")[0]
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}"]
    names = {name.lower() for name, _ in headers}
    if "user-agent" not in names:
        lines.append(f"User-Agent: {user_agent}")
    if names & _OWN_HEADERS:
        raise ValueError(f"a request may not set the header {min(names & _OWN_HEADERS)}")
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("a header's name holds characters that HTTP does not allow")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name} holds characters that HTTP does not allow")
        lines.append(f"{name}: {value.strip()}")
    lines.append("Accept-Encoding: identity")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode("latin-1")


def connect_reason(origin: HttpOrigin, error: Exception) -> str:
    """Return why connecting failed, as a text for users."""
    match error:
        case socket.gaierror():
            return f"the host name of {origin} could not be resolved: {error.strerror}"
        case ssl.SSLError():
            return f"TLS with {origin} failed: {_tls_fault(error)}"
        case OSError() if error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error):
            return f"{origin} refused the connection"
        case OSError() if error.errno in (errno.EMFILE, errno.ENFILE):
            return f"no descriptor is left for a connection to {origin}: raise the limit on open files where the engine starts"
        case ConnectionError() if origin.scheme == "https":
            return f"TLS with {origin} failed: the connection was closed during the handshake"
        case _:
            return f"no connection to {origin}: {error}"


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "certificate not valid"
    return error.reason or error.strerror or "unknown reason"


def _create_tls_context() -> ssl.SSLContext:
    import httpx

    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
