"""Slots: the part of the data directory that is one engine's while it runs. Whoever holds a slot's lock may write in it."""

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
"""Far more than there are engines of one user."""


class SlotError(Exception):
    """The data directory cannot be used; the text says why and what to do."""


class Slot:
    """A slot that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take_slot(directory: Path) -> Slot:
    """Return the lowest slot that nobody has, making the directory and the slot where they are not there.

    Raises SlotError where the directory is not to be trusted, or cannot be written.
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
    """Return a slot that is there, if nobody has it; raises OSError."""
    descriptor = open_private(path / SLOT_LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return Slot(path, descriptor)
