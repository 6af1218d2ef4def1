"""Tells the two meanings of SIGHUP apart: the terminal was closed, or somebody wants new workers."""

from __future__ import annotations

import os
import signal


class TerminalHangup:
    """Made when the process starts, before it handles SIGHUP: it notes whether the process has a terminal."""

    def __init__(self) -> None:
        # A program that is started with nohup must outlive its terminal. nohup has SIGHUP ignored.
        self._ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def has_terminal_closed(self) -> bool:
        """Return whether the SIGHUP that came says that the terminal was closed."""
        return self._ends_with_terminal and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
