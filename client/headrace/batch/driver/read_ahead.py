"""ReadAhead: reads an input that may block in a thread of its own, so that a batch job goes on while it waits for rows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from headrace.batch.row import BadRow, Row
from headrace.process.clock import monotonic

_TOGETHER = 0.005
"""Seconds that rows which were read wait for others, so that they are started together."""


class ReadAhead:
    """Rows of an iterator. One thread takes them. No more rows are read than were asked for.

    The thread that reads is a daemon: an input that blocks for ever holds up nobody.
    """

    def __init__(self, rows: Iterator[Row | BadRow]) -> None:
        self._rows = rows
        self._changed = threading.Condition()
        self._read: deque[Row | BadRow] = deque()
        self._wanted = 0
        """How many rows may be in :attr:`_read`."""
        self._is_started = False
        self._is_closed = False
        self._has_ended = False
        self._error: BaseException | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no row is left. :attr:`error` says whether the input broke off."""
        with self._changed:
            return self._has_ended and not self._read

    @property
    def error(self) -> BaseException | None:
        """What the input has raised, None if nothing."""
        return self._error

    def take(self, count: int, patience: float) -> list[Row | BadRow]:
        """Return the next rows, at most ``count``. If there are none yet, wait for one, ``patience`` seconds at most."""
        until = monotonic() + patience
        with self._changed:
            self._wanted = count
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._work, name="headrace-batch-input", daemon=True).start()
            self._changed.notify_all()
            self._changed.wait_for(self._has_some, max(until - monotonic(), _TOGETHER))
            self._changed.wait_for(lambda: len(self._read) >= count or self._has_ended, _TOGETHER)
            taken = [self._read.popleft() for _ in range(min(count, len(self._read)))]
            self._wanted = count - len(taken)
        return taken

    def close(self) -> None:
        """Read no further rows. Returns at once."""
        with self._changed:
            self._is_closed = self._has_ended = True
            self._changed.notify_all()

    def _has_some(self) -> bool:
        return bool(self._read) or self._has_ended

    def _may_go_on(self) -> bool:
        return self._is_closed or len(self._read) < self._wanted

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            while self._is_wanted():
                row = next(self._rows, None)
                if row is None:
                    break
                with self._changed:
                    self._read.append(row)
                    if len(self._read) == 1 or len(self._read) >= self._wanted:
                        self._changed.notify_all()
        except BaseException as raised:  # noqa: BLE001 - the job gets it
            error = raised
        with self._changed:
            self._error = error
            self._has_ended = True
            self._changed.notify_all()

    def _is_wanted(self) -> bool:
        """Wait until a further row is asked for. Returns False if none will be."""
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            return not self._is_closed
