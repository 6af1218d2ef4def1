"""Runs the simulated provider: opens its socket, runs its event loop, and closes both."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.testing.provider_connection import ProviderConnection, ProviderConnections, RequestAnswering
from headrace.testing.shared.script import Script
from headrace.testing.simulation import ProviderSimulation
from headrace.testing.ticker import Ticker

try:
    import uvloop
except ImportError:
    _new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_loop = uvloop.new_event_loop

_BACKLOG = 4096
_SEND_BUFFER_BYTES = 128 * 1024  # small, so that the sender soon stops when a client stops reading


async def serve(
    host: str,
    port: int,
    script: Script | None = None,
    *,
    on_ready: Callable[[int], None],
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set. ``on_ready`` is called with the port; ``port`` 0 means a free port."""
    await serve_answers(host, port, ProviderSimulation(script), on_ready=on_ready, stop=stop)


async def serve_answers(
    host: str, port: int, answering: RequestAnswering, *, on_ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set. ``answering`` makes the answers. Otherwise as :func:`serve`."""
    loop = asyncio.get_running_loop()
    connections, ticker = ProviderConnections(), Ticker(loop)
    listener = listen(host, port)
    server = await loop.create_server(
        lambda: ProviderConnection(answering, connections, ticker), sock=listener, backlog=_BACKLOG
    )
    try:
        on_ready(listener.getsockname()[1])
        await stop.wait()
    finally:
        server.close()
        connections.abort()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop
        await server.wait_closed()


def run_server(
    host: str = "127.0.0.1",
    port: int = 0,
    script: Script | None = None,
    on_ready: Callable[[int], None] = lambda _port: None,
    until: Callable[[], object] | None = None,
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM, or until the blocking call ``until`` returns.

    Main thread only.
    """

    async def main(stop: asyncio.Event) -> None:
        await serve(host, port, script, on_ready=on_ready, stop=stop)

    run_until_signal(main, until)


def run_until_signal(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], until: Callable[[], object] | None = None
) -> None:
    """Run ``main`` in an event loop. Set its event at SIGINT or SIGTERM, or when the blocking call ``until`` returns.

    Main thread only.
    """

    async def stoppable() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if until is not None:
            threading.Thread(target=_set_after, args=(until, loop, stop), daemon=True).start()
        try:
            await main(stop)
        finally:
            # The program may go on. A closed loop would swallow its signals.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(stoppable())
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: the handler was not set by Python
                signal.signal(number, handler)


class ServerThread:
    """A server of answers in a daemon thread of this process."""

    def __init__(self, answering: RequestAnswering, port: int) -> None:
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: OSError | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(answering, port), name="headrace-simulated-provider", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop serving and close all connections. May be called twice."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, answering: RequestAnswering, port: int) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await serve_answers("127.0.0.1", port, answering, on_ready=self._on_ready, stop=self._stop)

        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(main())
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()

    def _on_ready(self, port: int) -> None:
        self.port = port
        self._ready.set()


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. ``port`` 0 means a free port. Raises OSError or OverflowError if it cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted sockets inherit it
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    except (TypeError, UnicodeError):  # Python cannot encode the name
        listener.close()
        raise OSError(errno.EINVAL, "this is no name of a host") from None
    return listener


def _set_after(until: Callable[[], object], loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    until()
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop.set)
