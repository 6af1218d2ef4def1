"""The displays of ``headrace batch``: live on a terminal, a line now and then in a pipe, or nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from headrace.cli.batch.figures import counted
from headrace.cli.batch.progress_view import JobView, plain_line, state_line
from headrace.cli.shared.terminal import one_line
from headrace.process.clock import monotonic

_LOOK_INTERVAL = 0.2
"""Seconds between two looks at the job's phase."""
_LINE_INTERVAL = 5.0
"""Seconds between two lines in a pipe."""

_STOPPING = ("finishing", "aborting")

Seen = JobView | int
"""The figures of a job, or how many rows were read so far."""


class Display(Protocol):
    """Shows a job while the context is open."""

    def watch(self, look: Callable[[], Seen]) -> None:
        """From now on, show what ``look`` returns. It is called from other threads."""

    def note(self, text: str) -> None:
        """Print a line that stays."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Show no more."""


def display_for(
    stream: TextIO, title: str, *, is_quiet: bool, may_be_live: bool, interval: float | None = None
) -> Display:
    """Return the display that suits ``stream``.

    It is live on a terminal, if rich is installed. ``may_be_live``: nothing else writes to this terminal.
    """
    if is_quiet:
        return NoDisplay()
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    # With HEADRACE_LOG, the processes of the engine write to the terminal themselves.
    if is_terminal and may_be_live and not os.environ.get("HEADRACE_LOG"):
        try:
            from headrace.cli.batch.live_display import LiveDisplay
        except ImportError:
            print("headrace: `pip install 'headrace[batch]'` shows a live display here", file=stream)
        else:
            return LiveDisplay(stream, title)
    return PlainDisplay(stream, title, _LINE_INTERVAL if interval is None else interval)


class NoDisplay:
    """Shows nothing."""

    def watch(self, look: Callable[[], Seen]) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Do nothing."""


class PlainDisplay:
    """Prints a line each ``interval`` seconds, and one when the job begins to stop."""

    def __init__(self, stream: TextIO, title: str, interval: float = _LINE_INTERVAL) -> None:
        self._stream = stream
        self._title = title
        self._interval = interval
        self._look: Callable[[], Seen] = int
        self._phase = "running"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, name="headrace-batch-display", daemon=True)

    def watch(self, look: Callable[[], Seen]) -> None:
        """From now on, show what ``look`` returns."""
        self._look = look

    def note(self, text: str) -> None:
        """Print a line."""
        print(f"headrace: {one_line(text)}", file=self._stream, flush=True)

    def __enter__(self) -> Self:
        """Begin."""
        self.note(self._title)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Print no more."""
        self._is_over.set()
        self._thread.join()

    def _print_lines(self) -> None:
        due = monotonic() + self._interval
        while not self._is_over.wait(min(_LOOK_INTERVAL, self._interval)):
            seen = self._look()
            if not isinstance(seen, int) and (phase := seen.progress.phase) in _STOPPING and phase != self._phase:
                self._phase = phase
                self.note(state_line(seen))
            if (now := monotonic()) >= due:
                due = now + self._interval
                self.note(f"reading the input: {counted(seen, 'row')}" if isinstance(seen, int) else plain_line(seen))
