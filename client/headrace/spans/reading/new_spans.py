"""Finds the spans that engines write from now on, in the database files that exist and in files that are made later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from headrace.spans.reading import span_query
from headrace.spans.reading.span_query import Filters
from headrace.spans.reading.stored_spans import Complain, SpanFile, paths
from headrace.spans.span_database import StoredSpan


class NewSpans:
    """Remembers how far each file has been read. A span that is written again, with more content, is new again."""

    def __init__(self, directory: Path, filters: Filters, complain: Complain) -> None:
        self._directory = directory
        self._filters = filters
        self._complain = complain
        self._read: dict[Path, tuple[SpanFile, int]] = {}
        self._unreadable: set[Path] = set()

    def skip(self) -> None:
        """Treat all spans that are written now as seen."""
        for path in paths(self._directory):
            if (file := self._open(path)) is not None:
                self._read[path] = (file, _last(file))

    def look(self) -> Iterator[StoredSpan]:
        """Yield the spans that were written since the last look."""
        existing = paths(self._directory)
        for path in self._read.keys() - set(existing):  # removed: its days are over
            self._read.pop(path)[0].close()
        for path in existing:
            if path not in self._read and (opened := self._open(path)) is not None:
                self._read[path] = (opened, 0)
            if path in self._read:
                file, after = self._read[path]
                upto = _last(file)
                self._read[path] = (file, upto)
                if upto > after:
                    yield from file.spans(file.rows(*span_query.rows_after(self._filters, after, upto)))

    def close(self) -> None:
        """Close all files."""
        for file, _ in self._read.values():
            file.close()

    def _open(self, path: Path) -> SpanFile | None:
        if path in self._unreadable:
            return None
        file = SpanFile(path, self._complaint_of(path))
        return file if file.is_readable else None

    def _complaint_of(self, path: Path) -> Complain:
        def complain(text: str) -> None:
            self._unreadable.add(path)
            self._complain(text)

        return complain


def _last(file: SpanFile) -> int:
    """Return the highest sequence number in a file."""
    return file.value("SELECT coalesce(max(seq), 0) FROM spans") or 0
