"""Copies a job's folder at each moment in which a kill would leave it in another state: before each change of a file or of SQLite."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CALLS = ("fdatasync", "fsync", "ftruncate", "rename", "unlink", "fchmod", "open", "mkdir")


class Moments:
    """``copies``: the folder as it was at each moment, with what ``note`` returned then."""

    def __init__(self, folder: Path, place: Path, note: Callable[[], Any]) -> None:
        self.copies: list[tuple[Path, Any]] = []
        self._folder = folder
        self._place = place
        self._note = note
        self._last: list[tuple[str, bytes]] = []

    def take(self) -> None:
        """Copy the folder, if it has changed."""
        content = [
            (str(path.relative_to(self._folder)), path.read_bytes())
            for path in sorted(self._folder.rglob("*"))
            # The index of the write-ahead log is in shared memory: each start makes it anew.
            if path.is_file() and not path.name.endswith("-shm")
        ]
        if content == self._last:
            return
        self._last = content
        copy = self._place / f"{len(self.copies):04}"
        copy.mkdir(parents=True)
        for name, data in content:
            target = copy / name
            target.parent.mkdir(exist_ok=True, mode=0o700)
            target.write_bytes(data)
        self.copies.append((copy, self._note()))


@contextmanager
def observed(folder: Path, place: Path, note: Callable[[], Any]) -> Iterator[Moments]:
    """Take a copy at each moment of the block. A write is seen torn too: with a half of its bytes."""
    moments = Moments(folder, place, note)
    with pytest.MonkeyPatch.context() as patch:
        is_busy = False

        def look() -> None:
            nonlocal is_busy
            if not is_busy:
                is_busy = True
                try:
                    moments.take()
                finally:
                    is_busy = False

        for name in _CALLS:
            patch.setattr(os, name, _looking(getattr(os, name), look))
        write = os.pwrite

        def torn_write(descriptor: int, data: bytes, offset: int) -> int:
            look()
            write(descriptor, bytes(data)[: len(data) // 2], offset)
            look()
            return write(descriptor, data, offset)

        patch.setattr(os, "pwrite", torn_write)
        connect = sqlite3.connect

        def observed_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.set_trace_callback(lambda _: look())
            return connection

        patch.setattr(sqlite3, "connect", observed_connect)
        yield moments
    moments.take()


def copied(folder: Path, target: Path) -> Path:
    """Copy a folder of a job that is closed."""
    shutil.copytree(folder, target)
    return target


def _looking(call: Callable[..., Any], look: Callable[[], None]) -> Callable[..., Any]:
    def looking(*arguments: Any, **options: Any) -> Any:
        look()
        return call(*arguments, **options)

    return looking
