"""Takes secrets out of what an engine process writes: log lines, tracebacks, and what a redaction hook prints.

For processes of the engine only. A program's own output is not changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TextIO, cast

from headrace.process.logs import LogLineHandler
from headrace.text.secret_mask import SecretMask

logger = logging.getLogger(__name__)


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that takes ``secrets`` out of a text.

    ``secrets`` come from :mod:`headrace.settings.known_secrets`, which leaves out dummy keys.
    """
    return SecretMask(secrets).masked


def mask_output(masked: Callable[[str], str]) -> None:
    """From now on ``masked`` changes every text that Python code of this process writes. A second call replaces the first."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogLineHandler):
            handler.mask(masked)  # the parts of a line, before they are escaped: the line keeps its form
        elif isinstance(handler, logging.StreamHandler):
            handler.setStream(_stream(handler.stream, masked))
    sys.stdout, sys.stderr = _stream(sys.stdout, masked), _stream(sys.stderr, masked)

    def log_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # Python's own hook writes to the first stream, which masks nothing and escapes nothing.
        logger.critical("process failed", exc_info=(kind, error, trace))

    sys.excepthook = log_failure


class _MaskedStream:
    """A text stream that masks each text before it writes it. Everything else is the stream's own."""

    def __init__(self, stream: TextIO, masked: Callable[[str], str]) -> None:
        self._stream = stream
        self.masked = masked

    def write(self, text: str) -> int:
        """Write ``text`` without secrets; return the length of ``text`` itself."""
        self._stream.write(self.masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines. Each line brings its own line end."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def _stream(stream: Any, masked: Callable[[str], str]) -> TextIO:
    if isinstance(stream, _MaskedStream):
        stream.masked = masked
        return cast("TextIO", stream)
    return cast("TextIO", stream if stream is None else _MaskedStream(stream, masked))
