"""The sink that appends spans to a file: one JSON object on each line, as ``headrace spans export`` writes it."""

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
from headrace.spans.span import SpanContent
from headrace.spans.span_database import StoredSpan, fields_of
from headrace.text.escaping import escaped
from headrace_engine.spans.sinks.answer_policy import Delivered, Retry, Verdict
from headrace_engine.spans.sinks.encoding import encoded
from headrace_engine.spans.sinks.sink import SinkUnusableError

_LOCK_TIMEOUT = 5.0
"""Seconds for other engines that append a batch to the same file."""
_encode = msgspec.json.Encoder().encode


class JsonLinesSink:
    """Appends to a file. Other engines may append to it too, and it may be moved away at any time."""

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

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:  # noqa: ARG002 - for HTTP sinks
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
    """Return a span as one line of JSON: all fields (zeros too), its cost, and its content as an object."""
    fields = fields_of(stored)
    fields["content"] = _content(stored.span.content)
    return _without_controls(_encode(fields)) + b"\n"


def _content(content: bytes) -> msgspec.Raw | dict[str, Any] | None:
    """Return stored content as JSON on one line; empty content if it is not valid: a peer may have sent any bytes."""
    if not content:
        return None
    try:
        msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.to_builtins(SpanContent())  # type: ignore[no-any-return]
    return msgspec.Raw(content if b"\n" not in content else msgspec.json.format(content, indent=-1))


def _without_controls(data: bytes) -> bytes:
    """Return JSON with control characters escaped. Its value stays the same."""
    return data if data.isascii() and b"\x7f" not in data else escaped(data.decode()).encode()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open and lock the file for one batch."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = open_named(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        take_lock(descriptor, path, _LOCK_TIMEOUT)
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, lines: bytes) -> None:
    size = os.fstat(descriptor).st_size
    # If a writer was killed in the middle of a line, begin a new line.
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    written = 0
    try:
        while written < len(lines):
            written += os.write(descriptor, lines[written:])
    except OSError:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_size == size + written:  # else another process has written after it
                os.ftruncate(descriptor, size)
        raise
