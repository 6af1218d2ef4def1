"""Calls functions off the caller's thread: a plain function in a daemon thread, a coroutine in one event loop for all.

A thread cannot be stopped: whoever gives a call up drops its future, and what the thread returns later is dropped too.
No call delays the end of the program.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The event loop for coroutines, by the id of its process: a forked child makes one of its own."""
_STOP = 1.0
"""Seconds that the end of the program waits for the event loop."""


def is_async(function: Any) -> bool:
    """Tell whether a function is written with ``async def``; also inside a partial, or as ``__call__`` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def call_in_thread(function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Call a function in a thread of its own, with the context variables of the caller."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    context = contextvars.copy_context()
    thread = threading.Thread(target=_call, args=(future, context, function), name="headrace-tool", daemon=True)
    thread.start()
    return future


def call_in_loop(coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Run a coroutine in the event loop of this process's tools, with the context variables of the caller.

    Cancelling the future cancels the coroutine. All calls share one loop: so an HTTP client that a coroutine made can
    be used by the next.
    """
    import asyncio

    return asyncio.run_coroutine_threadsafe(coroutine, _loop())


async def awaited(function: Callable[[], Any]) -> Any:
    """Call a function, and await what it returns if that can be awaited."""
    value = function()
    return await value if inspect.isawaitable(value) else value


def _call(future: concurrent.futures.Future[Any], context: contextvars.Context, function: Callable[[], Any]) -> None:
    try:
        value = context.run(function)
    except BaseException as error:  # noqa: BLE001 - whoever waits for the call decides
        outcome = functools.partial(future.set_exception, error)
    else:
        outcome = functools.partial(future.set_result, value)
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # nobody waits any more
        outcome()


def _loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of this process's tools. Starts it, in a daemon thread, at its first use."""
    import asyncio

    if (loop := _loops.get(os.getpid())) is not None:
        return loop
    made = asyncio.new_event_loop()
    loop = _loops.setdefault(os.getpid(), made)
    if loop is made:
        thread = threading.Thread(target=made.run_forever, name="headrace-tools", daemon=True)
        thread.start()
        atexit.register(_stop, made, thread)
    else:
        made.close()  # another thread was faster
    return loop


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Stop the event loop at the end of the program. A coroutine that blocks it delays the end by a second at most."""
    if _loops.pop(os.getpid(), None) is loop:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP)
        if not thread.is_alive():
            loop.close()
