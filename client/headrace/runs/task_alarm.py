"""Wakes the tasks that wait for a run. Each event loop is woken once for all of its tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from headrace.process.callbacks import is_io_thread

if TYPE_CHECKING:
    import asyncio


class Turns(Protocol):
    """Whose turns these are: the reactor."""

    turn_loop: asyncio.AbstractEventLoop | None
    """The event loop that has a turn in its own thread just now. None while another thread has it."""

    def at_turn_end(self, action: Callable[[], None], /) -> None:
        """Call ``action`` once, at the end of the present turn."""

    def offer(self, loop: asyncio.AbstractEventLoop, /) -> None:
        """A task of ``loop``, which runs in this thread, was woken by another thread."""


class TasksToWake:
    """The tasks to wake. A task of the loop that has the turn is woken at once: it runs after the turn. Others are woken at its end.

    ``turns``: None outside of turns. The caller then calls :meth:`wake`.
    """

    __slots__ = ("_turns", "futures")

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns
        self.futures: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        """What tasks of other loops wait on, by the loop of the task."""

    def add(self, future: asyncio.Future[None]) -> None:
        """Wake the task that waits on ``future``."""
        loop = future.get_loop()
        if self._turns is not None and loop is self._turns.turn_loop:
            if not future.done():
                future.set_result(None)
            return
        if self._turns is not None and not self.futures:
            self._turns.at_turn_end(self.wake)
        self.futures.setdefault(loop, []).append(future)

    def wake(self) -> None:
        """Wake the tasks of other loops soon, each loop once. May be called from any thread."""
        while self.futures:
            loop, futures = next(iter(self.futures.items()))
            with contextlib.suppress(Exception):  # the loop is closed, and has no task left to wake
                loop.call_soon_threadsafe(self._resolve, loop, futures)
            del self.futures[loop]  # only now: if a signal handler has raised, this is called again

    def _resolve(self, loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[None]]) -> None:
        """Wake tasks of ``loop``, in its thread."""
        if self._turns is not None:
            self._turns.offer(loop)
        for future in futures:
            if not future.done():
                future.set_result(None)


class TaskAlarm:
    """Wakes one task, from any thread."""

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """Wake the task soon."""
        with contextlib.suppress(Exception):  # the loop is closed, and has no task left to wake
            self.loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def is_own_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether ``loop`` reads the sockets itself just now. Then its tasks need no wake-up from another thread."""
    if not is_io_thread():
        return False
    from asyncio import _get_running_loop  # a program without tasks does not import it

    return _get_running_loop() is loop
