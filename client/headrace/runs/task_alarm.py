"""Wakes the tasks that wait for a run. Each event loop is woken once for all of its tasks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from headrace.process.callbacks import is_io_thread

if TYPE_CHECKING:
    import asyncio

TasksToWake = dict["asyncio.AbstractEventLoop", list["asyncio.Future[None]"]]
"""What tasks wait on, by the loop of the task."""


class TaskAlarm:
    """Wakes one task, from any thread."""

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """Wake the task soon."""
        _wake_loop(self.loop, [self.future])


def wake_tasks(to_wake: TasksToWake) -> None:
    """Wake tasks soon, from any thread."""
    for loop, futures in to_wake.items():
        _wake_loop(loop, futures)


def is_own_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether ``loop`` reads the sockets itself just now. Then its tasks need no wake-up from another thread."""
    if not is_io_thread():
        return False
    from asyncio import _get_running_loop  # a program without tasks does not import it

    return _get_running_loop() is loop


def _wake_loop(loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[None]]) -> None:
    if is_own_turn(loop):
        _resolve(futures)
        return
    with contextlib.suppress(Exception):  # the loop is closed, and has no task left to wake
        loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
