"""Runs the simulated provider: opens its socket, runs its event loop, and closes both."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.process.descriptors import raise_limit
from headrace.testing.provider_connection import ProviderConnection, ProviderConnections, RequestAnswering
from headrace.testing.shared.provider_limits import ProviderLimits
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
_ACCEPTS = 64  # connections in one turn of the loop
_CLOSING_PAUSE = 0.001  # seconds
_DESCRIPTOR_PAUSE = 0.1  # seconds
_SEND_BUFFER_BYTES = 128 * 1024  # small, so that the sender soon stops when a client stops reading


async def serve(
    host: str,
    port: int,
    script: Script | None = None,
    *,
    on_ready: Callable[[int], None],
    stop: asyncio.Event,
    limits: ProviderLimits | None = None,
) -> None:
    """Serve until ``stop`` is set. ``on_ready`` is called with the port; ``port`` 0 means a free port."""
    await serve_answers(host, port, ProviderSimulation(script, limits), on_ready=on_ready, stop=stop)


async def serve_answers(
    host: str, port: int, answering: RequestAnswering, *, on_ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set. ``answering`` makes the answers. Otherwise as :func:`serve`."""
    ticker = Ticker(asyncio.get_running_loop())
    listener = Listener(host, port, lambda: ProviderConnection(answering, connections, ticker))
    connections = ProviderConnections(listener.set_listening)
    await listener.open()
    try:
        on_ready(listener.port)
        await stop.wait()
    finally:
        connections.abort()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop
        await listener.close()


def run_server(
    host: str = "127.0.0.1",
    port: int = 0,
    script: Script | None = None,
    on_ready: Callable[[int], None] = lambda _port: None,
    until: Callable[[], object] | None = None,
    limits: ProviderLimits | None = None,
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM, or until the blocking call ``until`` returns.

    Main thread only. Raises the process's limit of open files as far as it may: each stream needs a connection.
    """
    raise_limit()

    async def main(stop: asyncio.Event) -> None:
        await serve(host, port, script, on_ready=on_ready, stop=stop, limits=limits)

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


class Listener:
    """Takes connections at one address. While it does not listen it keeps the port, so that connections are refused."""

    def __init__(self, host: str, port: int, make_connection: Callable[[], asyncio.Protocol]) -> None:
        self._socket = listen(host, port)
        self._host = host
        self.port: int = self._socket.getsockname()[1]
        self._make_connection = make_connection
        self._is_listening = False
        self._beginning: set[asyncio.Task[None]] = set()
        self._change: asyncio.Task[None] | None = None
        self._is_wanted = True

    async def open(self) -> None:
        """Begin to listen, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._socket.listen(_BACKLOG)
        self._loop.add_reader(self._socket, self._accept)
        self._is_listening = True

    def _accept(self) -> None:
        """Take the connections that wait. uvloop's own server takes one in each turn of the loop: too few while turns are long."""
        for _ in range(_ACCEPTS):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # there is no descriptor: one may be free soon
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_DESCRIPTOR_PAUSE, self._accept_again)
                return
            task = self._loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make_connection, connection)
        except OSError:  # the client has gone already
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _accept_again(self) -> None:
        if self._is_listening:
            self._loop.add_reader(self._socket, self._accept)

    def _stop(self) -> None:
        """Listen no longer: close the socket."""
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._socket)
        self._socket.close()

    async def close(self) -> None:
        """Give up the port."""
        if self._change is not None:
            await self._change
        self._stop()

    def set_listening(self, is_wanted: bool) -> None:
        """Listen, or refuse connections, soon."""
        self._is_wanted = is_wanted
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while self._is_wanted != self._is_listening:
            if self._is_wanted:
                await self.open()
            else:
                self._stop()
                self._socket = await self._port_without_listening()

    async def _port_without_listening(self) -> socket.socket:
        while True:  # until the loop has closed the socket that listened
            try:
                return listen(self._host, self.port)
            except OSError:
                await asyncio.sleep(_CLOSING_PAUSE)


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
