"""Sends requests through an HTTP or SOCKS proxy, with httpx and one task per exchange. Used only if a proxy applies.

It behaves like a direct exchange (``HttpExchange``, ``Receiver``), but it is slower: each chunk costs a task switch.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from headrace_workers.http.body_decoding import BadResponseError, decoder_for
from headrace_workers.http.direct_exchange import CUT_REASON, Receiver
from headrace_workers.http.http_request import HttpRequest

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    import httpx

logger = logging.getLogger(__name__)

_PIECES_PER_TURN = 16
"""Pieces of a body that are delivered before other tasks have their turn. httpx is slow for each piece."""


def _no_cookies() -> CookieJar:
    """Return a jar that keeps no cookies, as for a direct exchange.

    A server's cookies would be sent with the runs of others, and would pile up.
    """
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # here: 15 ms, at the start of each worker

    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class ProxyExchange:
    """One request through a proxy."""

    def __init__(self, transport: ProxyTransport, request: HttpRequest, proxy: str, receiver: Receiver) -> None:
        self.request = request
        self.proxy = proxy
        self.receiver: Receiver | None = receiver
        self.is_connected = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self.task = transport.loop.create_task(transport.carry(self))
        self.task.add_done_callback(self._end)

    @property
    def is_read(self) -> bool:
        """Not known here: the receiver is told of the end in a turn of its own."""
        return False

    def pause(self) -> None:
        """Stop reading."""
        self.reading.clear()

    def resume(self) -> None:
        """Read again."""
        self.reading.set()

    def close(self) -> None:
        """End the exchange and its connection."""
        self.receiver = None
        self.task.cancel()

    def release(self) -> None:
        """Deliver nothing more. The connection is kept if the body ends within the linger time."""
        self.receiver = None
        self.reading.set()
        if not self.is_connected:
            self.task.cancel()
        elif self._timer is None and not self.task.done():
            self._timer = self._transport.loop.call_later(self._transport.linger, self.task.cancel)

    def deliver(self, data: bytes) -> None:
        """Give a piece of the body to the receiver, if there is still one."""
        if self.receiver is not None:
            self.receiver.on_bytes(data)

    def fail(self, stage: str, reason: str) -> None:
        """Report a failure to the receiver, if there is still one."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_failure(stage, reason)

    async def trace(self, event: str, _: dict[str, Any]) -> None:
        """Note the event of httpcore that says that the request is being sent."""
        if event.endswith("send_request_headers.started"):
            self.is_connected = True

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._transport.loop.call_exception_handler({"message": "HTTP receiver failed", "exception": error})
        if self.receiver is not None:
            self.fail("unreadable", f"the worker failed at the response: {type(error).__name__}")


class ProxyTransport:
    """Owns the httpx clients: one for each proxy, created for the first request through it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tls_context: Callable[[], Awaitable[ssl.SSLContext]],
        connect_timeout: float,
        linger: float,
        user_agent: str,
    ) -> None:
        self.loop = loop
        self._user_agent = user_agent
        self.linger = linger
        self._tls_context = tls_context
        self._connect_timeout = connect_timeout
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._exchanges: set[ProxyExchange] = set()

    def send(self, request: HttpRequest, proxy: str, receiver: Receiver) -> ProxyExchange:
        """Start a request through ``proxy``."""
        exchange = ProxyExchange(self, request, proxy, receiver)
        self._exchanges.add(exchange)
        exchange.task.add_done_callback(lambda _: self._exchanges.discard(exchange))
        return exchange

    def close(self) -> None:
        """Close all exchanges. May be called twice."""
        for exchange in self._exchanges:
            exchange.close()

    async def wait_closed(self) -> None:
        """Wait until the connections are closed."""
        await asyncio.gather(*(exchange.task for exchange in self._exchanges), return_exceptions=True)
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def carry(self, exchange: ProxyExchange) -> None:
        """Send one request and deliver its response. The receiver hears of every error."""
        try:
            response = await self._respond(exchange)
        except Exception as error:  # noqa: BLE001 - the receiver hears of it
            # Leave out the error's text: it may quote a part of the proxy's password.
            logger.warning("request cannot be sent through the proxy", extra={"error": type(error).__name__})
            exchange.fail("connect", f"the request cannot be sent through the proxy: {type(error).__name__}")
            return
        if response is None:
            return
        try:
            headers = _joined(response.headers.raw)
            if exchange.receiver is not None:
                exchange.receiver.on_response(response.status_code, headers)
            fault = await _pump(exchange, response, headers.get("content-encoding", ""))
            if fault is not None:
                exchange.fail(_stage_of(fault), fault)
        finally:
            # Neither the end of the iterator nor a cancellation closes the response.
            await asyncio.shield(response.aclose())
        receiver, exchange.receiver = exchange.receiver, None
        if receiver is not None:
            receiver.on_complete()

    async def _respond(self, exchange: ProxyExchange) -> httpx.Response | None:
        """Return the response, with its head read. On failure, report it to the receiver and return None."""
        try:
            client = await self._open_client(exchange.proxy)
        except ImportError as error:
            # SOCKS needs another package; httpx's error names it.
            exchange.fail("settings", f"the proxy in the environment cannot be used: {error}")
            return None
        import httpx

        sent = exchange.request
        request = client.build_request("POST", sent.url, headers=list(sent.headers), content=sent.body)
        request.extensions["trace"] = exchange.trace
        where = f"{request.url.host}:{request.url.port or (443 if request.url.scheme == 'https' else 80)}"
        try:
            return await client.send(request, stream=True)
        except httpx.ConnectTimeout:
            exchange.fail("connect", f"no connection to {where} through the proxy within {self._connect_timeout:g} s")
        except (httpx.ConnectError, httpx.ProxyError, httpx.PoolTimeout) as error:
            exchange.fail("connect", f"no connection to {where} through the proxy: {error}")
        except httpx.WriteError:
            exchange.fail("send", "connection closed before the request was sent")
        except httpx.HTTPError as error:
            reason = _read_reason(error)
            exchange.fail(_stage_of(reason), reason)
        return None

    async def _open_client(self, proxy: str) -> httpx.AsyncClient:
        context = await self._tls_context()  # imports httpx, unless the caller gave a context
        import httpx

        if proxy not in self._clients:
            for chatty in ("httpx", "httpcore"):
                logging.getLogger(chatty).setLevel(logging.WARNING)  # they log addresses and headers
            # With trust_env, httpx would also use proxies that do not apply, and .netrc.
            self._clients[proxy] = httpx.AsyncClient(
                verify=context,
                proxy=proxy,
                trust_env=False,
                timeout=httpx.Timeout(None, connect=self._connect_timeout),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookies=_no_cookies(),
                limits=httpx.Limits(max_connections=None),
            )
        return self._clients[proxy]


async def _pump(exchange: ProxyExchange, response: httpx.Response, encoding: str) -> str | None:
    """Deliver the body. Return why it was cut, or None."""
    import httpx

    try:
        decoder = decoder_for(encoding)
    except BadResponseError as error:
        return str(error)

    pieces = response.aiter_raw()
    for count in itertools.count(1):
        await exchange.reading.wait()
        if not count % _PIECES_PER_TURN:
            await asyncio.sleep(0)  # else pieces that have arrived already would be delivered without a break
        # The receiver is called outside of this try: its exceptions are not caught here.
        try:
            data = await anext(pieces, None)
        except httpx.HTTPError as error:
            return _read_reason(error)
        if data is None:
            return None if decoder is None or decoder.is_complete else CUT_REASON
        if decoder is None:
            exchange.deliver(data)
            continue
        decoder.feed(data)
        while decoder.has_more and exchange.receiver is not None:
            try:
                unpacked = decoder.piece()
            except BadResponseError as error:
                return str(error)
            if unpacked:
                exchange.deliver(unpacked)
            await asyncio.sleep(0)
            await exchange.reading.wait()
    return None


def _read_reason(error: httpx.HTTPError) -> str:
    # The error texts of httpx may quote the response: do not use them.
    match type(error).__name__:
        case "RemoteProtocolError" if "peer closed" not in str(error) and "disconnected" not in str(error):
            return "malformed HTTP response"
        case _:
            return CUT_REASON


def _stage_of(reason: str) -> str:
    return "read" if reason == CUT_REASON else "unreadable"


def _joined(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
