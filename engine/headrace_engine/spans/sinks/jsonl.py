"""The sink for a file: one span as JSON on each line, as ``headrace spans export`` writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.files.file_locks import take_lock
from headrace.files.private_files import open_named
from headrace.files.state_directory import expanded
from headrace.settings.settings import SinkConfig
from headrace.spans.data_directory import StoredSpan, fields_of
from headrace.spans.span import SpanContent
from headrace.text.escaping import escaped
from headrace_engine.spans.sinks.answer_policy import Delivered, Retry, Verdict
from headrace_engine.spans.sinks.encoding import encoded
from headrace_engine.spans.sinks.sink import SinkUnusableError

_LOCK_TIMEOUT = 5.0
"""Seconds for other engines that append a batch to the same file."""
_encode = msgspec.json.Encoder().encode


class JsonLinesSink:
    """Appends to a file, which other engines may append to as well, and which may be moved away at any time."""

    def __init__(self, config: SinkConfig) -> None:
        """Raises SinkUnusableError."""
        if not config.path:
            raise SinkUnusableError("path must name the file to append to")
        self.batch_size = config.batch_size
        try:
            self._path = expanded(config.path)
        except RuntimeError:
            reason = "there is no such home directory; name the file without ~"
            raise SinkUnusableError(f"path {config.path}: {reason}") from None

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:  # noqa: ARG002 - a file does not get tired
        """Append all lines, or none."""
        whole, aside = encoded(spans, line)
        lines = b"".join([each for _, each in whole])
        try:
            with _opened(self._path) as descriptor:
                _append(descriptor, lines)
        except OSError as error:
            return Retry(error.strerror or type(error).__name__)
        return Delivered(len(spans), len(aside), reason=aside[-1].reason if aside else "", aside=aside)

    def close(self) -> None:
        """Nothing is held between batches."""


def line(stored: StoredSpan) -> bytes:
    """Return a span as ``headrace spans export`` writes it: all fields, zeros included, its cost, and its content as an object."""
    fields = fields_of(stored)
    fields["content"] = _content(stored.span.content)
    return _without_controls(_encode(fields)) + b"\n"


def _content(content: bytes) -> msgspec.Raw | dict[str, Any] | None:
    """Return content as it is stored where that is JSON on one line; a peer may have sent anything."""
    if not content:
        return None
    try:
        msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.to_builtins(SpanContent())  # type: ignore[no-any-return]
    return msgspec.Raw(content if b"\n" not in content else msgspec.json.format(content, indent=-1))


def _without_controls(data: bytes) -> bytes:
    """Return JSON in which what steers a terminal is escaped; it has the same value."""
    return data if data.isascii() and b"\x7f" not in data else escaped(data.decode()).encode()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open the file for one batch, for ourselves alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = open_named(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        take_lock(descriptor, path, _LOCK_TIMEOUT)
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, lines: bytes) -> None:
    size = os.fstat(descriptor).st_size
    # A writer that was killed in the middle of a line must not spoil the next one.
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    written = 0
    try:
        while written < len(lines):
            written += os.write(descriptor, lines[written:])
    except OSError:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_size == size + written:  # else somebody has written behind it
                os.ftruncate(descriptor, size)
        raise
