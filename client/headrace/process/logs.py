"""Where log lines go when ``HEADRACE_LOG`` sets a level: to standard error, of the program and of its engine alike.

A line that standard error cannot take at once is left out: a log that nobody reads must not hold up a stream.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from headrace.text.escaping import escaped

VARIABLE = "HEADRACE_LOG"
COPY_VARIABLE = "HEADRACE_LOG_COPY"
"""Set by a program for the engine that it starts: the engine's standard output is the program's standard error."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_level(environ: Mapping[str, str]) -> int | None:
    """Return the level that ``HEADRACE_LOG`` asks for; None where it is unset, or no level (settings refuse that)."""
    return logging.getLevelNamesMapping().get(environ.get(VARIABLE, "").upper())


def log_to_stderr(name: str) -> None:
    """Log this engine process's events to standard error, and to its program's where that asked for it; default level: WARNING."""
    handlers: list[logging.Handler] = [_LineHandler(sys.stderr, name)]
    if os.environ.get(COPY_VARIABLE) and sys.stdout is not None:
        handlers.append(_LineHandler(sys.stdout, name))
    logging.basicConfig(handlers=handlers, level=log_level(os.environ) or logging.WARNING)


def log_in_program() -> None:
    """Log the client's events to standard error where ``HEADRACE_LOG`` asks for it, unless the program configures logging itself."""
    level = log_level(os.environ)
    logger = logging.getLogger("headrace")
    if level is None:
        return
    logger.setLevel(level)
    if sys.stderr is not None and not any(isinstance(handler, _LineHandler) for handler in logger.handlers):
        handler = _LineHandler(sys.stderr, "client")
        handler.addFilter(lambda _record: not logging.getLogger().handlers)
        logger.addHandler(handler)


def copy_of_log(environ: Mapping[str, str], log: int) -> tuple[int, dict[str, str]]:
    """Return what an embedded engine gets for standard output, and in its environment: this program's standard error if asked for.

    Its standard error is ``log`` in any case: what an engine says last is part of an error's text.
    """
    if log_level(environ) is None or not _is_open(sys.__stderr__):
        return log, {}
    assert sys.__stderr__ is not None  # noqa: S101 - it is open
    return sys.__stderr__.fileno(), {COPY_VARIABLE: "1"}


def _is_open(stream: TextIO | None) -> bool:
    try:
        return stream is not None and os.fstat(stream.fileno()) is not None
    except (OSError, ValueError):
        return False


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes one line for each event, with its fields; leaves the line out where writing it would block."""

    def __init__(self, stream: TextIO, process: str) -> None:
        super().__init__(stream)
        self.setFormatter(_LineFormatter(process))

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_writable():
            super().emit(record)

    def _is_writable(self) -> bool:
        try:
            poll = select.poll()
            poll.register(self.stream.fileno(), select.POLLOUT)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True  # no descriptor, as where a test captures it: nothing to block on


class _LineFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))  # a traceback, too, may quote what a provider said

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        fields = "".join(f" {name}={value!r}" for name, value in vars(record).items() if name not in _STANDARD)
        return _one_line(super().formatMessage(record) + fields)


def _indented(text: str) -> str:
    """Return the lines that follow an event's own: none of them, whatever an error quotes, looks like an event."""
    return "\n".join([f"    {line}" for line in text.split("\n")])


def _one_line(text: str) -> str:
    """Return the line of one event: a line break in it would begin a line that nobody logged."""
    return text.replace("\n", "\\n")
