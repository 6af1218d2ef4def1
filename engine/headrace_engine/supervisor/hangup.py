"""What SIGHUP means: that the terminal is gone, or, from whoever else sends it, that new workers are wanted."""

from __future__ import annotations

import os
import signal


class Hangup:
    """Made at the process's start, before it handles SIGHUP: whether it then had a terminal, and minds."""

    def __init__(self) -> None:
        # Whoever starts a program with nohup wants it to outlive the terminal.
        self._minds = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def is_terminals_end(self) -> bool:
        """Return whether the SIGHUP that has come is that of a terminal which was closed."""
        return self._minds and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
