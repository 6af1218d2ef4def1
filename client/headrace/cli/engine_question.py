"""Asks an engine one question from the command line, over its checked socket, and waits for the answer."""

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
    """Have ``ask`` put a question to the engine at ``address``; return the answer, for which it has ``timeout`` seconds.

    Raises ConfigurationError for an address that is none, EngineUnavailableError when nothing answers in time, and the error that
    is the answer.
    """
    directory_of(address)
    answers: queue.SimpleQueue[T | HeadraceError] = queue.SimpleQueue()
    process = current_process()
    ask(process.connection(address, timeout, _OWNER), answers.put)
    try:
        answer = answers.get(timeout=timeout + 0.2)  # the connection's own word, which says more, comes first
    except queue.Empty:
        raise EngineUnavailableError(address, f"it did not answer within {timeout:g} s") from None
    finally:
        process.release(address, _OWNER)
    if isinstance(answer, HeadraceError):
        raise answer
    return answer
