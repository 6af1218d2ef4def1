"""Sends one question to an engine, over its checked socket, and waits for the answer. Used by commands and by Client."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TypeVar

from headrace.connections.client_process import current_process
from headrace.connections.connection import Connection
from headrace.connections.public_status import public_status, status_without_engine
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.settings.settings import EMBEDDED, directory_of
from headrace.status import EngineStatus

T = TypeVar("T")

Ask = Callable[[Connection, Callable[[T | HeadraceError], None]], None]
"""Sends a question over a connection. The I/O thread calls the function with the answer."""

_OWNER = 0  # clients count from 1
_MARGIN = 0.2
"""Seconds. The connection's own timeout has a better error text, so it may come first."""


def answer_of(address: str, timeout: float, ask: Ask[T]) -> T:
    """Let ``ask`` send a question to the engine at ``address``. Return the answer; wait ``timeout`` seconds for it.

    Raises ConfigurationError for an invalid address, EngineUnavailableError if no answer comes in time, and any error
    that is itself the answer.
    """
    directory_of(address)
    process = current_process()
    connection = process.connection(address, timeout, _OWNER)
    try:
        return answer_over(connection, address, timeout, ask)
    finally:
        process.release(address, _OWNER)


def status_of(address: str | None, connect_timeout: float, owner: int, timeout: float) -> EngineStatus:
    """Return the status of the engine at ``address`` (None: of this program's own engine) for the client ``owner``.

    Starts no engine. Raises EngineUnavailableError if an engine does not answer within ``timeout`` seconds.
    """
    process = current_process()
    embedded = process.embedded if address is None else None
    if embedded is not None and not embedded.is_running:
        return status_without_engine(has_started=embedded.log is not None, log=embedded.kept_log)
    connection = process.connection(address, connect_timeout, owner)
    try:
        answer = answer_over(connection, address or EMBEDDED, timeout, Connection.post_status)
    except EngineUnavailableError:
        if embedded is None or embedded.is_running:
            raise
        return status_without_engine(
            has_started=embedded.log is not None, log=embedded.kept_log
        )  # it has ended meanwhile
    return public_status(address or EMBEDDED, answer)


def answer_over(connection: Connection, address: str, timeout: float, ask: Ask[T]) -> T:
    """Ask over an open connection, and wait for the answer. Raises the same errors."""
    answers: queue.SimpleQueue[T | HeadraceError] = queue.SimpleQueue()
    ask(connection, answers.put)
    try:
        answer = answers.get(timeout=timeout + _MARGIN)
    except queue.Empty:
        raise EngineUnavailableError(address, f"it did not answer within {timeout:g} s") from None
    if isinstance(answer, HeadraceError):
        raise answer
    return answer
