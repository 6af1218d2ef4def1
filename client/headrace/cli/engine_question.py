"""Sends one question to an engine, over its checked socket, and waits for the answer."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TypeVar

from headrace.connections.client_process import current_process
from headrace.connections.connection import Connection
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.settings.settings import directory_of

T = TypeVar("T")

_OWNER = 0  # clients count from 1


def answer_of(
    address: str, timeout: float, ask: Callable[[Connection, Callable[[T | HeadraceError], None]], None]
) -> T:
    """Let ``ask`` send a question to the engine at ``address``. Return the answer; wait ``timeout`` seconds for it.

    Raises ConfigurationError for an invalid address, EngineUnavailableError if no answer comes in time, and any error
    that is itself the answer.
    """
    directory_of(address)
    answers: queue.SimpleQueue[T | HeadraceError] = queue.SimpleQueue()
    process = current_process()
    ask(process.connection(address, timeout, _OWNER), answers.put)
    try:
        answer = answers.get(
            timeout=timeout + 0.2
        )  # the connection's own timeout has a better error text: let it come first
    except queue.Empty:
        raise EngineUnavailableError(address, f"it did not answer within {timeout:g} s") from None
    finally:
        process.release(address, _OWNER)
    if isinstance(answer, HeadraceError):
        raise answer
    return answer
