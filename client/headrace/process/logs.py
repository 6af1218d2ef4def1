"""Sends log records to standard error: of an engine process, and of a program that sets ``HEADRACE_LOG``.

Each record becomes one line: see :mod:`headrace.process.log_lines`. A line that standard error cannot take at once is left out:
a log that nobody reads must not hold up a stream.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TextIO

from headrace.process.log_lines import LogLineFormatter
from headrace.process.standard_streams import OutputLostError
from headrace.settings.log_variables import FORMAT_VARIABLE, LogFormat, log_format, log_level

COPY_VARIABLE = "HEADRACE_LOG_COPY"
"""A program sets it for the engine that it starts: the engine's standard output is the program's standard error."""
KEEP_VARIABLE = "HEADRACE_LOG_KEEP"
"""A program sets it for the engine that it starts: the engine's standard error is a log file of its own, which is kept."""

_PACKAGES = ("headrace", "headrace_engine", "headrace_workers")

logger = logging.getLogger(__name__)


def log_to_stderr(name: str) -> None:
    """Log this engine process's events to standard error. ``name`` is the process's role.

    The level is WARNING if ``HEADRACE_LOG`` is not set; and INFO for Headrace's own events in a log file that is kept.

    If the program that started the engine asked for a copy, standard output gets the same events. Then the copy has the format
    that ``HEADRACE_LOG_FORMAT`` names, and standard error has text: its last lines become part of an error's text.
    """
    chosen = log_format(os.environ)
    copy = sys.stdout if os.environ.get(COPY_VARIABLE) else None
    handlers: list[logging.Handler] = [LogLineHandler(sys.stderr, name, chosen if copy is None else "text")]
    if copy is not None:
        handlers.append(LogLineHandler(copy, name, chosen))
    level = log_level(os.environ)
    logging.basicConfig(handlers=handlers, level=level or logging.WARNING)
    if level is None and os.environ.get(KEEP_VARIABLE):
        for package in _PACKAGES:
            logging.getLogger(package).setLevel(logging.INFO)
    threading.excepthook = _thread_failed


def logged(program: Callable[[], int]) -> int:
    """Run ``program`` and return its exit code; log what it raises, and return 1."""
    try:
        return program()
    except OutputLostError:
        raise
    except Exception:
        logger.critical("process failed", exc_info=True)
        return 1


def report_start_failure(reason: str) -> None:
    """Say on standard error why this process cannot start: as a sentence, or as a log line if the log is JSON."""
    if log_format(os.environ) == "json":
        logger.critical("process cannot start", extra={"reason": reason})
    else:
        print(f"headrace: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - for people, and part of an error's text


def log_in_program() -> None:
    """Log the client's events to standard error: those of the level of ``HEADRACE_LOG``, warnings if it is not set.

    Nothing is written if the program has log handlers of its own. Without any handler, Python itself writes the message of a
    warning to standard error, but not its fields.
    """
    level = log_level(os.environ)
    headrace_logger = logging.getLogger("headrace")
    if level is not None:
        headrace_logger.setLevel(level)
    if sys.stderr is None:
        return
    for earlier in [handler for handler in headrace_logger.handlers if isinstance(handler, LogLineHandler)]:
        headrace_logger.removeHandler(earlier)  # the variables, or standard error, may be others by now
    handler = LogLineHandler(sys.stderr, "client", log_format(os.environ))
    handler.setLevel(logging.NOTSET if level is not None else logging.WARNING)
    handler.addFilter(_has_no_other_handler)
    headrace_logger.addHandler(handler)


def _has_no_other_handler(record: logging.LogRecord) -> bool:
    """Return whether the program has no handler of its own for a record."""
    found: logging.Logger | None = logging.getLogger(record.name)
    while found is not None:
        if any(not isinstance(handler, LogLineHandler) for handler in found.handlers):
            return False
        found = found.parent if found.propagate else None
    return True


def copy_of_log(environ: Mapping[str, str], log: int) -> tuple[int, dict[str, str]]:
    """Return what an embedded engine gets as standard output, and variables for its environment.

    The standard output is this program's standard error if ``HEADRACE_LOG`` is set, else ``log``. The engine's standard error is
    ``log`` in both cases, as text: what an engine says last is part of an error's text.
    """
    if log_level(environ) is None or not _is_open(sys.__stderr__):
        return log, {FORMAT_VARIABLE: "text", KEEP_VARIABLE: "1"}
    assert sys.__stderr__ is not None  # noqa: S101 - it is open
    return sys.__stderr__.fileno(), {COPY_VARIABLE: "1", KEEP_VARIABLE: "1"}


def _is_open(stream: TextIO | None) -> bool:
    try:
        return stream is not None and os.fstat(stream.fileno()) is not None
    except (OSError, ValueError):
        return False


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Log what a thread raised: Python's own hook would print a traceback that is not escaped."""
    if failure.exc_value is not None and failure.exc_type is not SystemExit:
        name = failure.thread.name if failure.thread is not None else "unknown"
        logger.critical("thread failed", exc_info=failure.exc_value, extra={"thread_name": name})


class LogLineHandler(logging.StreamHandler[TextIO]):
    """Writes one line for each record; leaves the line out where writing it would block."""

    def __init__(self, stream: TextIO, process: str, chosen: LogFormat = "text") -> None:
        super().__init__(stream)
        self._lines = LogLineFormatter(process, chosen)
        self.setFormatter(self._lines)

    def mask(self, masked: Callable[[str], str]) -> None:
        """From now on ``masked`` takes secrets out of each text before it is written."""
        self._lines.masked = masked

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, if the stream takes it at once."""
        if self._is_writable():
            super().emit(record)

    def _is_writable(self) -> bool:
        try:
            poll = select.poll()
            poll.register(self.stream.fileno(), select.POLLOUT)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True  # no descriptor, as where a test captures it: nothing to block on
