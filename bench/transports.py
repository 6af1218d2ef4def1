"""What moving bytes costs: CPU per chunk of four HTTP clients, each in a process of its own, against ``sse_server.py``.

Run ``python bench/transports.py``; docs/decisions/2026-11-23-http-transport.md holds what it said. Only the bytes are
moved: no client decodes an event. The server's CPU is not counted.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import h11
import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport

from headrace_workers.http.http_client import HttpClient, request_head, split_url
from headrace_workers.http.http_request import HttpRequest

ROUNDS = 3
SLOW = {"httpx"}  # measured once: three times would take a minute
# Not None, which httpx_aiohttp reads as aiohttp's default of 100.
LIMITS = httpx.Limits(max_connections=1000)
BODY = b'{"model":"bench","stream":true,"messages":[{"role":"user","content":"count"}]}'


class TransportWork(NamedTuple):
    """``streams`` requests, ``at_once`` of them open, each of ``chunks`` chunks, ``gap`` milliseconds apart."""

    streams: int
    at_once: int
    chunks: int
    gap: int

    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "x-chunks": str(self.chunks), "x-gap": str(self.gap)}


WORKS = {"W1": TransportWork(200, 32, 200, 0), "W2": TransportWork(500, 500, 50, 20)}
Call = Callable[[], Awaitable[int]]


async def _run_all(work: TransportWork, call: Call) -> int:
    """Make all requests of the work; return how many bytes came."""
    slots = asyncio.Semaphore(work.at_once)

    async def one() -> int:
        async with slots:
            return await call()

    return sum(await asyncio.gather(*(one() for _ in range(work.streams))))


async def _httpx(work: TransportWork, url: str, transport: Any = None) -> int:
    async with httpx.AsyncClient(timeout=60, limits=LIMITS, transport=transport) as client:

        async def call() -> int:
            size = 0
            async with client.stream("POST", url, content=BODY, headers=work.headers()) as response:
                async for data in response.aiter_bytes():
                    size += len(data)
            return size

        return await _run_all(work, call)


async def _httpx_aiohttp(work: TransportWork, url: str) -> int:
    return await _httpx(work, url, AiohttpTransport(limits=LIMITS))


async def _aiohttp(work: TransportWork, url: str) -> int:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> int:
            size = 0
            async with session.post(url, data=BODY, headers=work.headers()) as response:
                async for data in response.content.iter_any():
                    size += len(data)
            return size

        return await _run_all(work, call)


class _ReceivedCount:
    """A receiver that counts; its future is the one thing awaited per request."""

    def __init__(self) -> None:
        self.size = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        assert status == 200, headers

    def on_chunk(self, data: bytes) -> bool:  # noqa: ARG002 - the receiver's form
        return False

    def on_bytes(self, data: bytes) -> None:
        self.size += len(data)

    def on_complete(self) -> None:
        self.done.set_result(self.size)

    def on_failure(self, stage: str, reason: str) -> None:
        self.done.set_exception(RuntimeError(f"{stage}: {reason}"))


async def _headrace(work: TransportWork, url: str) -> int:
    client = HttpClient(asyncio.get_running_loop(), connect_timeout=10)
    request = HttpRequest(url, tuple(work.headers().items()), BODY)

    async def call() -> int:
        counter = _ReceivedCount()
        client.send(request, counter)
        return await counter.done

    size = await _run_all(work, call)
    await client.aclose()
    return size


class _H11Protocol(asyncio.Protocol):
    """The same push shape over h11: shows what the parser alone costs. A connection per request."""

    def __init__(self, request: bytes, counter: _ReceivedCount) -> None:
        self._request, self._counter = request, counter
        self._parser = h11.Connection(h11.CLIENT)
        self._parser.send(h11.Request(method="POST", target="/", headers=[("Host", "bench")]))
        self._parser.send(h11.EndOfMessage())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.receive_data(data)
        while (event := self._parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                self._counter.on_bytes(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._transport.close()
                self._counter.on_complete()
                return


async def _h11(work: TransportWork, url: str) -> int:
    loop = asyncio.get_running_loop()
    origin, target = split_url(url)
    head = request_head(origin, target, tuple(work.headers().items()), "bench")
    request = b"%b%d\r\n\r\n%b" % (head, len(BODY), BODY)

    async def call() -> int:
        counter = _ReceivedCount()
        await loop.create_connection(lambda: _H11Protocol(request, counter), origin.host, origin.port)
        return await counter.done

    return await _run_all(work, call)


CLIENTS = {
    "headrace": _headrace,
    "headrace's shape on h11": _h11,
    "aiohttp": _aiohttp,
    "httpx + aiohttp transport": _httpx_aiohttp,
    "httpx": _httpx,
}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _measure(client: str, work: TransportWork, url: str) -> tuple[float, float]:
    """Return CPU and wall seconds of the work, after one request that loads everything."""
    run = CLIENTS[client]
    await run(TransportWork(1, 1, 1, 0), url)
    cpu, wall = _cpu(), time.perf_counter()
    size = await run(work, url)
    cpu, wall = _cpu() - cpu, time.perf_counter() - wall
    assert size > work.streams * work.chunks * 100, f"{client}: only {size} bytes"
    return cpu, wall


def _child(client: str, work: str, url: str) -> tuple[float, float]:
    command = [sys.executable, __file__, client, work, url]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    cpu, wall = json.loads(finished.stdout)
    return float(cpu), float(wall)


def _compare(url: str) -> None:
    print(f"CPU µs per chunk (times headrace's), wall seconds; medians of {ROUNDS}, {', '.join(SLOW)} once")
    for name, work in WORKS.items():
        results: dict[str, list[tuple[float, float]]] = {client: [] for client in CLIENTS}
        for number in range(ROUNDS):
            for client in CLIENTS if number == 0 else CLIENTS.keys() - SLOW:
                results[client].append(_child(client, name, url))
        ours = statistics.median(cpu for cpu, _ in results["headrace"])
        print(f"\n{name}: {work}")
        for client, measured in results.items():
            cpu = statistics.median(cpu for cpu, _ in measured)
            wall = statistics.median(wall for _, wall in measured)
            per_chunk = cpu / work.streams / work.chunks * 1e6
            print(f"  {client:28}{per_chunk:8.1f}{cpu / ours:8.1f} x{wall:8.2f} s")


def main() -> None:
    if len(sys.argv) == 4:
        client, work, url = sys.argv[1:]
        print(json.dumps(uvloop.run(_measure(client, WORKS[work], url))))
        return
    server = Path(__file__).with_name("sse_server.py")
    with subprocess.Popen([sys.executable, server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            _compare(f"http://127.0.0.1:{int(process.stdout.readline())}/v1/chat/completions")
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
