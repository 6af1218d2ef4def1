"""The state of Headrace in one process of a program: its I/O thread, and one connection for each engine address.

The first run starts the thread. If the thread has ended, the next run starts another one, with new connections
(``process/watchdog.py`` has the rule). A forked child starts with nothing: it never touches the sockets of its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

from headrace.connections.connection import Connection
from headrace.connections.embedded_engine import EmbeddedEngine
from headrace.connections.engine_source import EngineSource, ExternalEngine
from headrace.connections.io_thread import start_io_thread
from headrace.connections.program_end import at_program_end, has_begun
from headrace.errors import EngineUnavailableError
from headrace.process.callbacks import drain, forget_threads, is_io_thread, log
from headrace.process.clock import monotonic
from headrace.process.epoch import new_epoch
from headrace.process.own_process import own_process
from headrace.process.watchdog import Watchdog
from headrace.runs.open_runs import OpenRun
from headrace.settings.settings import EMBEDDED, EngineConfig
from headrace.transport.reactor import Reactor

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 2.0
"""Seconds that closing a client waits for the I/O thread."""
_EXIT_TIMEOUT = 1.8
"""Seconds that the end of the program waits for everything together. The interpreter needs some time too."""
_TOTAL_TIMEOUT = EngineConfig().total_timeout

_is_hooked = False
_never_closed: list[object] = []
"""Objects of a parent process, and connections of a thread that has ended. They must not be used, closed or freed."""


class ClientProcess:
    """The I/O thread of one process, and its connections."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.epoch = new_epoch()
        self.embedded = EmbeddedEngine()
        self._reactor: Reactor | None = None
        self._thread: threading.Thread | None = None
        self._connections: dict[str, Connection] = {}
        self._connection_count = 0
        self._watchdog = Watchdog(self._runs)

    def connection(
        self, address: str | None, connect_timeout: float, owner: int, total_timeout: float = _TOTAL_TIMEOUT
    ) -> Connection:
        """Return the connection to the engine at ``address`` (``None``: the embedded engine).

        ``owner`` is the number of the client. ``total_timeout`` is in seconds: a guess, until the engine says its own.
        Raises EngineUnavailableError where nothing can be opened or started, as at the end of the program.
        """
        key = address or EMBEDDED
        with self.lock:
            if has_begun():
                raise EngineUnavailableError(key, "the program is ending, and Headrace has closed everything")
            connection = self._connections.get(key)
            if connection is None or connection.is_lost:
                connection = self._connections[key] = self._connect(key, address, connect_timeout, total_timeout)
            connection.owners.add(owner)
            return connection

    def submit(self, connection: Connection, run: OpenRun) -> None:
        """Start a run. The watchdog ends it if it does not end in time."""
        self.submit_all(connection, (run,))

    def submit_all(self, connection: Connection, runs: Sequence[OpenRun]) -> None:
        """Start runs together. See :meth:`submit`."""
        connection.submit_all(runs)
        self._watchdog.run_added()

    def is_connected(self, address: str | None) -> bool:
        """Return whether a connection to the engine at ``address`` is open."""
        with self.lock:
            connection = self._connections.get(address or EMBEDDED)
            return connection is not None and not connection.is_lost

    def release(self, address: str | None, owner: int) -> None:
        """Abort the runs of one client, and wait for that. Close the connection if no other client uses it."""
        with self.lock:
            connection = self._connections.get(address or EMBEDDED)
            if connection is None or owner not in connection.owners:
                return
            connection.owners.discard(owner)
            is_last = not connection.owners
            if is_last:
                del self._connections[address or EMBEDDED]
        post = connection.post_close if is_last else partial(connection.post_abort_all, owner)
        if self._wait_for(connection, post, _CLOSE_TIMEOUT):
            return
        connection.give_up_all(EngineUnavailableError(address or EMBEDDED, "the client was closed"), owner)
        if is_last and connection.is_lost:
            connection.close_source()

    def _wait_for(self, connection: Connection, post: Callable[[Callable[[], None]], None], timeout: float) -> bool:
        """Post something to the I/O thread and wait.

        Returns whether it was done; True on the I/O thread, which does it next.
        """
        if connection.is_lost:
            return False
        done = threading.Event()
        post(done.set)
        return is_io_thread() or done.wait(timeout)

    def shut_down(self) -> None:
        """Close everything. Called when the interpreter ends."""
        if self.pid != os.getpid():
            return
        until = monotonic() + _EXIT_TIMEOUT
        with self.lock:
            connections = list(self._connections.items())
        for key, connection in connections:
            if not self._wait_for(connection, connection.post_close, max(until - monotonic(), 0.0)):
                connection.give_up_all(EngineUnavailableError(key, "the program is ending"))
                if connection.is_lost:
                    connection.close_source()
        self._watchdog.stop()
        if self._reactor is not None and self._thread is not None:
            self._reactor.stop()
            self._thread.join(max(until - monotonic(), 0.0))
        drain(max(until - monotonic(), 0.0))

    def _connect(self, key: str, address: str | None, connect_timeout: float, total_timeout: float) -> Connection:
        if (lost := self._connections.pop(key, None)) is not None:
            _never_closed.append(lost)
        source: EngineSource = self.embedded if address is None else ExternalEngine(address)
        try:
            reactor = self._running_reactor()
            connection = Connection(reactor, source, self._next_epoch(), connect_timeout, total_timeout)
        except OSError as error:
            reason = f"this process cannot open a connection: {error.strerror}"
            raise EngineUnavailableError(key, reason) from error
        except RuntimeError as error:  # no memory for a thread, or the interpreter is ending
            raise EngineUnavailableError(key, f"this process cannot start a thread: {error}") from error
        # A signal handler may have connected meanwhile, in this thread.
        return self._connections.get(key, connection)

    def _next_epoch(self) -> int:
        """Return an epoch that no other connection has.

        Two addresses may lead to one engine, which keeps one connection of each epoch.
        """
        epoch = self.epoch + (self._connection_count << 32)
        self._connection_count += 1
        return epoch

    def _running_reactor(self) -> Reactor:
        reactor = self._reactor
        if reactor is None or reactor.has_ended:
            reactor = self._new_reactor(reactor)
        self._watchdog.start()
        return reactor

    def _new_reactor(self, former: Reactor | None) -> Reactor:
        """Start an I/O thread and return its loop. ``former`` is the loop of an earlier thread that has ended."""
        reactor, thread = start_io_thread(self._serve)
        if self._reactor is not None and self._reactor is not former:
            reactor.stop()  # a signal handler has started another thread meanwhile
            return self._reactor
        self._reactor, self._thread = reactor, thread
        return reactor

    def _serve(self, reactor: Reactor) -> None:
        """Be the I/O thread. It raises nothing, and no run outlives it."""
        try:
            reactor.run()
        except BaseException as error:  # noqa: BLE001 - threading.excepthook is users' code
            log(logger, logging.ERROR, "client I/O thread failed", error=error)
        finally:
            for connection in list(self._connections.values()):
                if connection.is_lost:
                    with contextlib.suppress(BaseException):
                        connection.thread_ended()

    def _runs(self) -> list[OpenRun]:
        return [run for connection in list(self._connections.values()) for run in list(connection.runs)]


_process: ClientProcess | None = None
# Reentrant: a finalizer or a signal handler may start a run while this thread holds the lock.
_lock = threading.RLock()


def current_process() -> ClientProcess:
    """Return the state of this process. It is made on first use, and anew in a forked child."""
    global _process  # noqa: PLW0603 - one per process is the point
    process = _process
    if process is not None and process.pid == os.getpid():
        return process
    with _lock:
        _hook()
        if _process is None:
            made = ClientProcess()
            if _process is None:
                _process = made
        elif _process.pid != os.getpid():
            _leave_to_parent(_process)
        return _process


def _hook() -> None:
    global _is_hooked  # noqa: PLW0603
    if not _is_hooked:
        _is_hooked = True
        os.register_at_fork(after_in_child=_after_fork)
        at_program_end(_shut_down)


def _after_fork() -> None:
    """Start with nothing in a forked child. The parent's threads do not exist there, and may have held locks."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    forget_threads()
    if _process is not None:
        _leave_to_parent(_process)


def _leave_to_parent(parent: ClientProcess) -> None:
    """Leave untouched what belongs to the parent. The child may use the parent's embedded engine."""
    global _process  # noqa: PLW0603
    own_process.look()
    _never_closed.append(parent)
    _process = ClientProcess()
    _process.embedded = parent.embedded.in_child()


def _shut_down() -> None:
    if _process is not None:
        _process.shut_down()
