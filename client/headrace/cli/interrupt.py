"""Handles Ctrl-C: the first one calls an action, the second one ends the process at once. Neither shows a traceback."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def on_interrupt(action: Callable[[], object]) -> Iterator[None]:
    """Inside the block, the first Ctrl-C calls ``action``.

    If the process ignores Ctrl-C (``nohup``, background jobs), it still does.
    """
    previous = signal.getsignal(signal.SIGINT)
    if previous in (signal.SIG_IGN, signal.SIG_DFL):
        yield
        return

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        action()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:
            signal.signal(signal.SIGINT, previous)


def raise_interrupt() -> None:
    """Raise KeyboardInterrupt: the default action for Ctrl-C."""
    raise KeyboardInterrupt


def end_on_interrupt() -> None:
    """From now on, the first Ctrl-C ends the process at once. Called when the command is done."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
