"""A proxy between a Unix socket and its clients.

It passes bytes on in small pieces, or cuts connections in the middle of a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random


class SocketProxy:
    """The proxy's own thread. A socket's path is given to the proxy; the socket itself is reached under another name."""

    def __init__(self, path: Path, random: Random, noticed: Callable[[], object]) -> None:
        self.piece: int | None = None
        """Pass on so many bytes at a time; None for as many as have come."""
        self.connections = 0
        self.cuts = 0
        self._path = path
        self._real = path.with_name(f"{path.name}.r")
        self._random = random
        self._noticed = noticed
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut_after: int | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._is_listening = threading.Event()

    def start(self) -> None:
        """Take the socket's place."""
        self._path.rename(self._real)
        self._thread.start()
        assert self._is_listening.wait(60)

    def cut(self) -> None:
        """End all connections once a few more bytes have passed, wherever in a frame that is."""
        self._loop.call_soon_threadsafe(self._cut)

    def stop(self) -> None:
        """End all connections, and give the socket its name back."""
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join(60)
        with contextlib.suppress(FileNotFoundError):
            self._real.rename(self._path)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_over = asyncio.Event()
        server = await asyncio.start_unix_server(self._serve, self._path)
        self._is_listening.set()
        await self._is_over.wait()
        server.close()
        self._close_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_unix_connection(self._real)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(self.piece or 65536):
                if self._cut_after is not None:
                    self._cut_after -= len(data)
                    if self._cut_after <= 0:
                        writer.write(data[: self._cut_after or None])
                        self._cut_after = None
                        self.cuts += 1
                        await writer.drain()
                        self._close_all()
                        return
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def _cut(self) -> None:
        self._cut_after = self._random.randint(1, 2000)

    def _close_all(self) -> None:
        self._noticed()
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()


@contextmanager
def proxied(path: Path, random: Random, noticed: Callable[[], object]) -> Iterator[SocketProxy]:
    """Put a proxy before the socket at ``path``; ``noticed`` is called, on its thread, just before connections end."""
    proxy = SocketProxy(path, random, noticed)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
