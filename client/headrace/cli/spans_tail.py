"""``headrace spans tail``: spans as they are written, by any engine, in files that are there or come to be."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from headrace.spans.data_directory import StoredSpan
from headrace.spans.reading import span_query as spans_query
from headrace.spans.reading.span_query import Filters
from headrace.spans.reading.stored_spans import Complain, SpanFile, paths

_BETWEEN_LOOKS = 0.25


class Tail:
    """Knows how far each file has been read. A span that is written again, with more in it, is seen again."""

    def __init__(self, directory: Path, filters: Filters, complain: Complain) -> None:
        self._directory = directory
        self._filters = filters
        self._complain = complain
        self._read: dict[Path, tuple[SpanFile, int]] = {}
        self._unreadable: set[Path] = set()

    def skip(self) -> None:
        """Take what is there now as seen."""
        for path in paths(self._directory):
            if (file := self._open(path)) is not None:
                self._read[path] = (file, _last(file))

    def look(self) -> Iterator[StoredSpan]:
        """Yield what has been written since the last look."""
        there = paths(self._directory)
        for path in self._read.keys() - set(there):  # its days are over
            self._read.pop(path)[0].close()
        for path in there:
            if path not in self._read and (opened := self._open(path)) is not None:
                self._read[path] = (opened, 0)
            if path in self._read:
                file, after = self._read[path]
                upto = _last(file)
                self._read[path] = (file, upto)
                if upto > after:
                    yield from file.spans(file.rows(*spans_query.rows_after(self._filters, after, upto)))

    def close(self) -> None:
        """Close all files."""
        for file, _ in self._read.values():
            file.close()

    def _open(self, path: Path) -> SpanFile | None:
        if path in self._unreadable:
            return None
        file = SpanFile(path, self._complained(path))
        return file if file.is_readable else None

    def _complained(self, path: Path) -> Complain:
        def complain(text: str) -> None:
            self._unreadable.add(path)
            self._complain(text)

        return complain


def follow(tail: Tail, show: Callable[[StoredSpan], None], out: TextIO) -> None:
    """Show what comes until Ctrl-C; raises BrokenPipeError when nobody reads ``out`` any more, even if nothing comes."""
    hang_up = select.poll()
    hang_up.register(out.fileno(), 0)
    while True:
        for stored in tail.look():
            show(stored)
        out.flush()
        # poll() names a reader that has gone, unasked. A file that cannot be polled would make it return at once.
        before = time.monotonic()
        if any(happened & select.POLLERR for _, happened in hang_up.poll(_BETWEEN_LOOKS * 1000)):
            raise BrokenPipeError
        time.sleep(max(_BETWEEN_LOOKS - (time.monotonic() - before), 0))


def _last(file: SpanFile) -> int:
    return file.value("SELECT coalesce(max(seq), 0) FROM spans") or 0
