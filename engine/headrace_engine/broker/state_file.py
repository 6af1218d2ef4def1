"""The file ``limits.state`` in the engine's directory: what a new broker must know of the limits of the broker before it.

Its times are on the monotonic clock, so it counts only until the machine starts again.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from headrace.files.engine_directory import LIMITS_FILE, NEW_LIMITS_FILE
from headrace.files.private_files import open_private

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 64 * 1024 * 1024


class SavedState(msgspec.Struct, frozen=True, array_like=True):
    """What is in the file. ``saved_at`` is on the monotonic clock of the boot with the id ``boot``."""

    boot: str
    saved_at: float
    state: bytes


class StateFile:
    """The file in the directory of one engine."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LIMITS_FILE
        self._new = directory / NEW_LIMITS_FILE

    def read(self, now: float) -> bytes | None:
        """Return the state of an earlier broker of this boot; None if there is none.

        Raises OSError if the file cannot be read, and msgspec.DecodeError if it is damaged.
        """
        try:
            descriptor = open_private(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            saved = msgspec.msgpack.decode(file.read(_MAX_BYTES), type=SavedState)
        is_of_this_boot = bool(saved.boot) and saved.boot == _boot() and saved.saved_at <= now
        return saved.state if is_of_this_boot else None

    def write(self, state: bytes, now: float) -> None:
        """Replace the file. Whoever reads it meanwhile gets the earlier state or this one. Raises OSError."""
        data = msgspec.msgpack.encode(SavedState(_boot(), now, state))
        with open(open_private(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(data)
        self._new.replace(self._path)


def _boot() -> str:
    """Return the id of this start of the machine; empty if the kernel does not tell it."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
