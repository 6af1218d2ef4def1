"""What this process holds: one I/O thread and one connection per engine address, opened on first use.

After a fork the child holds nothing: it forgets the parent's sockets without touching them, and connects anew.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from functools import partial

from headrace.connection import Connection
from headrace.embedded import EmbeddedEngine, EngineSource, ExternalEngine
from headrace.errors import EngineUnavailableError
from headrace.reactor import Reactor
from headrace.settings import EMBEDDED

_EXIT_TIMEOUT = 2.0

_is_hooked = False
_kept_after_fork: list[object] = []
"""What a child inherited and must neither use nor close."""


class Process:
    """The I/O thread of one process, and the connections on it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.epoch = secrets.randbits(31) + 1
        self.embedded = EmbeddedEngine()
        self._reactor: Reactor | None = None
        self._thread: threading.Thread | None = None
        self._connections: dict[str, Connection] = {}

    def connection(self, address: str | None, connect_timeout: float, owner: int) -> Connection:
        """Return the connection to the engine at ``address`` (``None``: this program's own), used by ``owner``."""
        key = address or EMBEDDED
        with self.lock:
            connection = self._connections.get(key)
            if connection is None:
                source: EngineSource = self.embedded if address is None else ExternalEngine(address)
                try:
                    connection = Connection(self._running_reactor(), source, self.epoch, connect_timeout)
                except OSError as error:
                    raise EngineUnavailableError(
                        key, f"this process cannot open a connection: {error.strerror}"
                    ) from error
                self._connections[key] = connection
            connection.owners.add(owner)
            return connection

    def is_connected(self, address: str | None) -> bool:
        """Return whether there is a connection to the engine at ``address``."""
        with self.lock:
            return (address or EMBEDDED) in self._connections

    def release(self, address: str | None, owner: int) -> None:
        """Abort the owner's runs; close the connection when it was the last one's, and wait until that is done."""
        with self.lock:
            connection = self._connections.get(address or EMBEDDED)
            if connection is None or owner not in connection.owners:
                return
            connection.owners.discard(owner)
            is_last = not connection.owners
            if is_last:
                del self._connections[address or EMBEDDED]
        self._wait_for(connection.post_close if is_last else partial(connection.post_abort_all, owner))

    def _wait_for(self, post: Callable[[Callable[[], None]], None]) -> None:
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            post(done.set)
            done.wait(_EXIT_TIMEOUT)

    def shut_down(self) -> None:
        """Close everything; called when the interpreter ends."""
        if self.pid != os.getpid():
            return
        with self.lock:
            connections = list(self._connections.values())
            self._connections.clear()
        for connection in connections:
            self._wait_for(connection.post_close)
        if self._reactor is not None and self._thread is not None:
            self._reactor.stop()
            self._thread.join(_EXIT_TIMEOUT)

    def _running_reactor(self) -> Reactor:
        if self._reactor is None:
            self._reactor = Reactor()
            self._thread = threading.Thread(target=self._reactor.run, name="headrace-io", daemon=True)
            self._thread.start()
        return self._reactor


_process: Process | None = None
_lock = threading.Lock()


def current_process() -> Process:
    """Return what this process holds."""
    global _process  # noqa: PLW0603 - one per process is the point
    process = _process
    if process is not None and process.pid == os.getpid():
        return process
    with _lock:
        _hook()
        if _process is None:
            _process = Process()
        elif _process.pid != os.getpid():
            _leave_to_parent(_process)
        return _process


def _hook() -> None:
    global _is_hooked  # noqa: PLW0603
    if not _is_hooked:
        _is_hooked = True
        os.register_at_fork(after_in_child=_after_fork)
        atexit.register(_shut_down)


def _after_fork() -> None:
    """Start afresh in a forked child, whatever the parent's threads were doing."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _process is not None:
        _leave_to_parent(_process)


def _leave_to_parent(parent: Process) -> None:
    """Keep what belongs to the parent untouched; its engine stays in reach."""
    global _process  # noqa: PLW0603
    _kept_after_fork.append(parent)
    _process = Process()
    _process.embedded = parent.embedded.in_child()


def _shut_down() -> None:
    if _process is not None:
        with contextlib.suppress(Exception):
            _process.shut_down()
