"""Readers that a test can stall and let go on: a task of a shared client, and a whole client process.

What they read is the provider's own script, so that their requests are small.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from headrace import Client
from headrace.testing import Script
from tests.conftest import HELLO

CHUNK = "x" * 9_999 + " "


def answer(count: int) -> Script:
    """Return a script of so many large chunks. A stalled stream may hold one window: seven chunks."""
    return Script(chunks=[CHUNK] * count)


class Stallable(Protocol):
    """A reader of one stream at a time. It checks all that it reads."""

    async def begin(self) -> None:
        """Start a stream; return when its first chunk has been read."""

    def stall(self) -> None:
        """Read nothing from here on."""

    async def finish(self) -> None:
        """Read the stream to its end; raises where it is not whole."""


class StallingTask:
    """A reader among others of the same client, which stops iterating."""

    def __init__(self, client: Client, count: int) -> None:
        self._client = client
        self._expected = CHUNK * count
        self._may_read = asyncio.Event()
        self._has_begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._may_read.set()
        self._has_begun.clear()
        self._task = asyncio.create_task(self._read())
        await self._has_begun.wait()

    def stall(self) -> None:
        self._may_read.clear()

    async def finish(self) -> None:
        assert self._task is not None
        self._may_read.set()
        await self._task

    async def _read(self) -> None:
        stream = await self._client.arun_local(model="gpt-4o", messages=HELLO, stream=True)
        texts = []
        async for chunk in stream:
            self._has_begun.set()
            texts.append(chunk)
            await self._may_read.wait()
        assert "".join(texts) == self._expected
        assert (await stream.result).finish_reason == "stop"


PROGRAM = """
import hashlib, sys
from headrace import Client

client = Client()
for _ in sys.stdin:
    stream = client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], stream=True)
    iterator = iter(stream)
    texts = [next(iterator)]
    print("begun", flush=True)
    texts += iterator
    assert stream.result.result().finish_reason == "stop"
    print(hashlib.sha256("".join(texts).encode()).hexdigest(), flush=True)
"""


class StoppedProcess:
    """A reader that is a process, which is stopped with all that it has."""

    def __init__(self, process: asyncio.subprocess.Process, count: int) -> None:
        self._process = process
        self._expected = hashlib.sha256((CHUNK * count).encode()).hexdigest()

    async def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        assert await self._line() == "begun"

    def stall(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    async def finish(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        assert await self._line() == self._expected

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def stalling_task(client: Client, address: str, count: int) -> AsyncIterator[Stallable]:
    """Yield a reader that uses ``client``, for answers of so many chunks."""
    yield StallingTask(client, count)


@asynccontextmanager
async def stopped_process(client: Client, address: str, count: int) -> AsyncIterator[Stallable]:
    """Yield a reader that is a process of its own."""
    environment = {**os.environ, "HEADRACE_ENGINE": address}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        yield StoppedProcess(process, count)
    finally:
        process.kill()
        await process.wait()
