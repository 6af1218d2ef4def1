"""Reads the lines of a log file, also while its engine writes to it and cuts it."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.files.private_files import open_to_read
from headrace.text.escaping import escaped

_BLOCK = 64 * 1024
_REMEMBERED = 1000
"""Bytes of the newest line that are searched for in a log that was cut."""


class LogReader:
    """One log file. Each call of :meth:`lines` yields what is new."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError if it cannot be opened or is no regular file; links are not followed."""
        self._descriptor = open_to_read(path)
        self._position = 0
        self._rest = b""
        self._last = b""
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError(f"{path} is no file")

    def lines(self, newest: int | None = None) -> Iterator[str]:
        """Yield the lines that were not yielded yet, with control characters escaped; only the ``newest`` of them."""
        lines = self._raw_lines()
        for line in lines if newest is None else deque(lines, newest):
            yield escaped(line.decode(errors="replace"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def rest(self) -> Iterator[str]:
        """Yield the last line of a log that nobody writes to any more, if it has no end."""
        if self._rest:
            yield escaped(self._rest.decode(errors="replace"))
            self._rest = b""

    def _raw_lines(self) -> Iterator[bytes]:
        if os.fstat(self._descriptor).st_size < self._position:
            self._find_place()
        while block := os.pread(self._descriptor, _BLOCK, self._position):
            self._position += len(block)
            *whole, self._rest = (self._rest + block).split(b"\n")
            for line in whole:
                self._last = line
                yield line

    def _find_place(self) -> None:
        """The log was cut: go on behind the last line that was yielded, or at the beginning if that line is gone."""
        size = os.fstat(self._descriptor).st_size
        known = self._last[-_REMEMBERED:] + b"\n"
        found = os.pread(self._descriptor, size, 0).rfind(known)
        self._position = 0 if found < 0 else found + len(known)
        self._rest = b""
