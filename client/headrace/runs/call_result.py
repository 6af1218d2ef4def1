"""Waits for the result of a call without a stream, in the thread or the task that made the call.

No future is made: nobody else can hold the result of such a call. A wait that is interrupted aborts the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.runs.delivery import Delivery

if TYPE_CHECKING:
    import asyncio

    from headrace.runs.typed_answer import TypedAnswer


def wait_for_result(delivery: Delivery, reader: TypedAnswer | None = None) -> Any:
    """Wait, in a thread, and return the run's result. Raises the run's error.

    ``reader`` reads the answer into the ``response_type`` of the call.
    """
    outcome = delivery.outcome
    try:
        while not (outcome.has_ended or outcome.is_aborted):
            delivery.wait()
            delivery.take()  # a run without stream has no events; with one from elsewhere the wait would not wait
    except BaseException:
        delivery.abandon()
        raise
    return _result(delivery, reader)


async def await_result(delivery: Delivery, loop: asyncio.AbstractEventLoop, reader: TypedAnswer | None = None) -> Any:
    """Wait, in a task of ``loop``, and return the run's result, as :func:`wait_for_result` does.

    Cancelling the task aborts the run.
    """
    outcome = delivery.outcome
    try:
        while not (outcome.has_ended or outcome.is_aborted):
            await delivery.wait_async(loop)
            delivery.take()  # see above
    except BaseException:
        delivery.abandon()
        raise
    return _result(delivery, reader)


def _result(delivery: Delivery, reader: TypedAnswer | None) -> Any:
    result = delivery.see_result()
    if reader is not None:
        result = reader.read(result)
    if isinstance(result, HeadraceError):
        raise result
    return result
