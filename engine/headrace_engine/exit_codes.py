"""How the engine's processes end."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit status of ``python -m headrace_engine``."""

    OK = 0  # it was told to end, or its program ended
    USAGE = 2  # the command line or the settings are wrong
    CANNOT_START = 3  # the directory, the lock or a process that fails at its start
