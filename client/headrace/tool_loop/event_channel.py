"""The events of ``run_tools`` on their way from the thread that runs the loop to the thread that reads them."""

from __future__ import annotations

import threading
from collections import deque

from headrace.tool_loop.tool_events import ToolRunEvent

MAX_EVENTS = 256
"""Events that wait for a slow reader at most. More of them make the loop wait, and so the model's run."""


class EventChannel:
    """A queue between two threads. It may be closed from a third."""

    def __init__(self) -> None:
        self._events: deque[ToolRunEvent] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._has_bound = True

    def put(self, event: ToolRunEvent) -> None:
        """Add an event. Waits while there are too many. Drops the event if the channel is closed."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            if not self._is_closed:
                self._events.append(event)
                self._changed.notify_all()

    def take(self) -> list[ToolRunEvent]:
        """Wait for events and return them. An empty list: there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._is_closed)
            events = list(self._events)
            self._events.clear()
            self._changed.notify_all()
            return events

    def lift_bound(self) -> None:
        """Let the loop go on without a reader."""
        with self._changed:
            self._has_bound = False
            self._changed.notify_all()

    def close(self, *, drop: bool = False) -> None:
        """Say that there will be no more events. ``drop``: take back the events that were not read."""
        with self._changed:
            self._is_closed = True
            if drop:
                self._events.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._events) < MAX_EVENTS or self._is_closed or not self._has_bound
