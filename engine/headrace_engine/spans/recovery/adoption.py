"""Sends unsent spans of slots that no engine uses: this engine's sinks take them, one slot at a time.

Otherwise these spans would wait until as many engines run at once again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from headrace.settings.settings import SinkConfig
from headrace.spans.data_directory import database_files, slots
from headrace.spans.span_database import open_for_reading
from headrace_engine.spans.recovery.slots import Slot, try_slot
from headrace_engine.spans.sinks.runner import Sinks

_CLOSE_TIMEOUT = 0.1


class Adoption:
    """Holds at most one other slot, while the sinks send its spans."""

    def __init__(self, own: Path, sinks: Mapping[str, SinkConfig]) -> None:
        self._own = own
        self._configs = sinks
        self._slot: Slot | None = None
        self._sinks: Sinks | None = None
        self._previous = own

    def look(self) -> None:
        """If the current slot is done, release it and look for another one."""
        if self._slot is not None and self._sinks is not None:
            if not self._sinks.is_caught_up(_marks(self._slot.path)):
                return
            self.close(_CLOSE_TIMEOUT)
        known = slots(self._own.parent)
        after = known.index(self._previous) + 1 if self._previous in known else 0
        for path in [*known[after:], *known[:after]]:  # in turns: with a sink that cannot work, no slot is ever done
            if path != self._own and _has_unsent(path, self._configs) and self._take(path):
                return

    def close(self, timeout: float) -> None:
        """Release the slot. The sinks may send for ``timeout`` seconds. May be called twice."""
        if self._sinks is not None:
            self._sinks.close(timeout)
            self._sinks = None
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def _take(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            self._slot = try_slot(path)
        if self._slot is None:
            return False
        self._previous = path
        self._sinks = Sinks(path, self._configs)
        self._sinks.start()
        return True


def _has_unsent(slot: Path, sinks: Mapping[str, SinkConfig]) -> bool:
    for path in database_files(slot):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(open_for_reading(path)) as connection:
            taken = dict.fromkeys(sinks, 0) | dict(
                connection.execute("SELECT sink, seq FROM cursors WHERE typeof(seq) = 'integer'")
            )
            if _last(connection) > min(taken[sink] for sink in sinks):
                return True
    return False


def _marks(slot: Path) -> dict[Path, int]:
    marks: dict[Path, int] = {}
    for path in database_files(slot):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(open_for_reading(path)) as connection:
            marks[path] = _last(connection)
    return marks


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM spans").fetchone()[0])
