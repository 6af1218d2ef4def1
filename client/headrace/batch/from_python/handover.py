"""Handover: passes ended rows from the thread of a batch job to the thread or the task that takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """Groups of rows on their way from one thread to another. ``most``: rows beyond which the taker is behind."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._groups: deque[list[T]] = deque()
        self._size = 0
        self._waiters: list[Callable[[], object]] = []
        self._has_room = threading.Event()
        self._has_room.set()
        self._is_closed = False
        self.has_ended = False
        self.error: BaseException | None = None

    @property
    def is_full(self) -> bool:
        """Whether the taker is behind. Then the job starts no further rows."""
        return self._size >= self._most

    @property
    def is_closed(self) -> bool:
        """Whether nobody takes rows any more."""
        return self._is_closed

    def put(self, group: list[T]) -> None:
        """Pass rows on. Does not wait."""
        if not group:
            return
        with self._lock:
            if not self._is_closed:
                self._groups.append(group)
                self._size += len(group)
                if self._size >= self._most:
                    self._has_room.clear()
        self._wake()

    def wait_for_room(self) -> None:
        """Wait until the taker is not behind."""
        self._has_room.wait()

    def end(self, error: BaseException | None = None) -> None:
        """No further rows come. ``error`` is for the taker."""
        self.error = error
        self.has_ended = True
        self._wake()

    def take(self) -> list[T] | None:
        """Return the next group, None if there is none now."""
        with self._lock:
            if not self._groups:
                return None
            group = self._groups.popleft()
            self._size -= len(group)
            if self._size < self._most:
                self._has_room.set()
            return group

    def close(self) -> None:
        """Take no further rows."""
        with self._lock:
            self._is_closed = True
            self._groups.clear()
            self._size = 0
            self._has_room.set()
        self._wake()

    def call_when_ready(self, action: Callable[[], object]) -> None:
        """Call ``action`` once there is a group or the end, from any thread; at once if that is so already."""
        with self._lock:
            if not (self._groups or self.has_ended or self._is_closed):
                self._waiters.append(action)
                return
        action()

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for action in waiters:
            action()
