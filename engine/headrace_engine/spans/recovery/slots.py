"""Slots: the parts of the data directory. Each running engine has one slot; only the process that holds its lock may write in it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from headrace.files.private_files import open_private
from headrace.files.trusted_directory import check_private
from headrace.spans.data_directory import SLOT_LOCK

_MAX_SLOTS = 1000
"""No user runs so many engines."""


class SlotError(Exception):
    """The data directory cannot be used; the text says why and what to do."""


class Slot:
    """A slot that this process has locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Unlock the slot. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take_slot(directory: Path) -> Slot:
    """Lock and return the free slot with the lowest number. Makes the directory and the slot if they do not exist.

    Raises SlotError if other users may write in the directory, or if this user cannot.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (problem := check_private(directory)) is not None:
            raise SlotError(f"{problem}; mend that, or name another directory with HEADRACE_DATA")
        for number in range(_MAX_SLOTS):
            path = directory / str(number)
            path.mkdir(mode=0o700, exist_ok=True)
            if (slot := try_slot(path)) is not None:
                return slot
    except OSError as error:
        reason = f"{directory} cannot be used: {error.strerror or error}"
        raise SlotError(f"{reason}; mend that, or name another directory with HEADRACE_DATA") from error
    raise SlotError(f"all {_MAX_SLOTS} slots of {directory} are taken")


def try_slot(path: Path) -> Slot | None:
    """Lock and return an existing slot, or None if another process has locked it. Raises OSError."""
    descriptor = open_private(path / SLOT_LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return Slot(path, descriptor)
