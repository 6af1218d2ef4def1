"""What Ctrl-C does. The first is handled, the second ends the process at once; neither shows a traceback."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def on_interrupt(action: Callable[[], object]) -> Iterator[None]:
    """Within, the first Ctrl-C calls ``action``. Where Ctrl-C is ignored (``nohup``, background jobs) it stays so."""
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
    """Raise KeyboardInterrupt: the action where nothing better is known."""
    raise KeyboardInterrupt


def end_on_interrupt() -> None:
    """From here on the first Ctrl-C ends the process at once: all that is left is to leave."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
