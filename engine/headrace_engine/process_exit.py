"""The exit codes of the engine's processes."""

from __future__ import annotations

import enum


class EngineExitCode(enum.IntEnum):
    """Exit code of ``python -m headrace_engine``."""

    OK = 0  # it was told to end, or its program ended
    USAGE = 2  # the command line or the settings are wrong
    CANNOT_START = 3  # the directory cannot be used or is locked, or a process failed at its start
