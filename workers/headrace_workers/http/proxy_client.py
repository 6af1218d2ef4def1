"""The slower way for requests that a proxy carries: httpx, one task per exchange. Never used where no proxy applies.

It keeps the promises of ``http.Exchange`` and ``http1.Receiver``, not their cost: a task switch per chunk.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections.abc import Awaitable, Callable
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any

from headrace_workers.http.body_decoding import BadResponseError, decoder_for
from headrace_workers.http.exchange import CUT_REASON, Receiver
from headrace_workers.http.request import HttpRequest

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

_PIECES_PER_TURN = 16
"""Pieces of a body that are handed over before others have their turn; httpx takes long for each."""


class _NoCookies(CookieJar):
    """Keeps none, as the direct way does: a server's would go with every other run to it, and would grow without end."""

    def extract_cookies(self, *_: object) -> None:
        pass

    def add_cookie_header(self, *_: object) -> None:
        pass


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

    def pause(self) -> None:
        """Stop reading."""
        self.reading.clear()

    def resume(self) -> None:
        """Go on reading."""
        self.reading.set()

    def close(self) -> None:
        """End the exchange and its connection."""
        self.receiver = None
        self.task.cancel()

    def release(self) -> None:
        """Need nothing more; the connection is kept if the body ends within the linger."""
        self.receiver = None
        self.reading.set()
        if not self.is_connected:
            self.task.cancel()
        elif self._timer is None and not self.task.done():
            self._timer = self._transport.loop.call_later(self._transport.linger, self.task.cancel)

    def deliver(self, data: bytes) -> None:
        """Hand a piece of the body to the receiver, if it still listens."""
        if self.receiver is not None:
            self.receiver.on_bytes(data)

    def fail(self, stage: str, reason: str) -> None:
        """Tell the receiver, if it still listens."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_failure(stage, reason)

    async def trace(self, event: str, _: dict[str, Any]) -> None:
        """Note httpcore's word that the request goes out."""
        if event.endswith("send_request_headers.started"):
            self.is_connected = True

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._transport.loop.call_exception_handler({"message": "HTTP receiver failed", "exception": error})
        if self.receiver is not None:
            self.fail("read", f"the worker failed at the response: {type(error).__name__}")


class ProxyTransport:
    """Owns the httpx clients: one for each proxy, made for the first request that it carries."""

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
        """Start the request, which ``proxy`` carries."""
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
        """Send one request and pump its response. Whatever goes wrong with sending it, its receiver is told."""
        try:
            response = await self._respond(exchange)
        except Exception as error:  # noqa: BLE001 - the receiver is told
            # Not the error's own words: they may quote a part of the proxy's password.
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
                exchange.fail("read", fault)
        finally:
            # Neither the iterator's end nor a cancellation closes the response for us.
            await asyncio.shield(response.aclose())
        receiver, exchange.receiver = exchange.receiver, None
        if receiver is not None:
            receiver.on_complete()

    async def _respond(self, exchange: ProxyExchange) -> httpx.Response | None:
        """Return the response with its head read; otherwise tell the receiver."""
        try:
            client = await self._open_client(exchange.proxy)
        except ImportError as error:
            # What SOCKS needs beside httpx; httpx says which package.
            exchange.fail("settings", f"the proxy of the environment cannot be used: {error}")
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
            exchange.fail("read", _read_reason(error))
        return None

    async def _open_client(self, proxy: str) -> httpx.AsyncClient:
        context = await self._tls_context()  # has imported httpx, unless the caller gave a context
        import httpx

        if proxy not in self._clients:
            for chatty in ("httpx", "httpcore"):
                logging.getLogger(chatty).setLevel(logging.WARNING)  # they write addresses and headers
            # With trust_env, httpx would look at the environment again: at proxies that do not apply, and at .netrc.
            self._clients[proxy] = httpx.AsyncClient(
                verify=context,
                proxy=proxy,
                trust_env=False,
                timeout=httpx.Timeout(None, connect=self._connect_timeout),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookies=_NoCookies(),
                limits=httpx.Limits(max_connections=None),
            )
        return self._clients[proxy]


async def _pump(exchange: ProxyExchange, response: httpx.Response, encoding: str) -> str | None:
    """Push the body; return why it was cut, if it was."""
    import httpx

    try:
        decoder = decoder_for(encoding)
    except BadResponseError as error:
        return str(error)

    pieces = response.aiter_raw()
    for count in itertools.count(1):
        await exchange.reading.wait()
        if not count % _PIECES_PER_TURN:
            await asyncio.sleep(0)  # what is there already is given without it, however many pieces there are
        # The receiver's own exceptions stay out of this try.
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
    # The texts of httpx quote the response, so they stay out.
    match type(error).__name__:
        case "RemoteProtocolError" if "peer closed" not in str(error) and "disconnected" not in str(error):
            return "malformed HTTP response"
        case _:
            return CUT_REASON


def _joined(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
