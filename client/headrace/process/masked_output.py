"""Standard output and errors of an engine process without secrets: log lines, tracebacks, and what a hook prints, whoever writes them.

For a process of the engine only: a program's own streams are the program's.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TextIO, cast

from headrace.text.secret_mask import SecretMask


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return what takes ``secrets`` out of a line: those of :mod:`headrace.settings.known_secrets`, which has left dummies out."""
    return SecretMask(secrets).masked


def mask_output(masked: Callable[[str], str]) -> None:
    """From now on ``masked`` goes through all that this process writes by way of Python. Called again, it replaces the one before."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(_stream(handler.stream, masked))
    sys.stdout, sys.stderr = _stream(sys.stdout, masked), _stream(sys.stderr, masked)
    errors = sys.stderr

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # The streams that were there at first may be back when the interpreter tells of its last error.
        errors.write("".join(traceback.format_exception(kind, error, trace)))

    sys.excepthook = tell


class _Masked:
    """A text stream whose every write is masked; in all else it is the stream."""

    def __init__(self, stream: TextIO, masked: Callable[[str], str]) -> None:
        self._stream = stream
        self.masked = masked

    def write(self, text: str) -> int:
        """Write ``text`` without secrets; return its own length."""
        self._stream.write(self.masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, which bring their ends."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def _stream(stream: Any, masked: Callable[[str], str]) -> TextIO:
    if isinstance(stream, _Masked):
        stream.masked = masked
        return cast("TextIO", stream)
    return cast("TextIO", stream if stream is None else _Masked(stream, masked))
