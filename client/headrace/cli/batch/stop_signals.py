"""Ctrl-C and SIGTERM for a batch job: the first lets what runs finish, the second stops it, the third ends the process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST = 2
"""Signals that are passed on. After them, the next one ends the process at once."""


@contextlib.contextmanager
def stop_signals(interrupt: Callable[[], object]) -> Iterator[None]:
    """Inside the block, the first two signals call ``interrupt``. A signal that the process ignores (``nohup``) stays ignored."""
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = 0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard == _LAST:
            for each in handled:
                signal.signal(each, signal.SIG_DFL)
        interrupt()

    handled = [number for number, handler in previous.items() if handler is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number])
