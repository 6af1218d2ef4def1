"""PartialAnswer: the value of an answer that grows, read from the beginning of its JSON text each time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headrace.schemas.answer_text import NOTHING, partial_value
from headrace.schemas.response_type import ResponseType
from headrace.types import RunEvent

_SHARE = 0.2
"""The part of its time that a reader may spend with reading partial values."""
_SHORTEST_PAUSE = 0.001
"""Seconds. A shorter pause is left out."""
_LONGEST_PAUSE = 0.25


class PartialAnswer:
    """Reads what has arrived of an answer.

    Each reading begins at the start of the text, so the readings of a long answer cost more and more. A pause after each
    reading bounds their cost: whatever arrives meanwhile is read together.
    """

    def __init__(self, response_type: ResponseType, clock: Callable[[], float]) -> None:
        self._response_type = response_type
        self._clock = clock
        self._pieces: list[str] = [""]
        self._found: Any = NOTHING
        self.value: Any = NOTHING
        """The value so far. It belongs to the program, which may change it."""
        self._due = 0.0

    def pause(self) -> float:
        """Return for how many seconds the reader should let text arrive before it reads."""
        left = self._due - self._clock()
        return left if left > _SHORTEST_PAUSE else 0.0

    def add(self, events: Iterable[RunEvent]) -> None:
        """Add events that have arrived."""
        self._pieces += [event for event in events if type(event) is str]

    def read(self) -> bool:
        """Read the value so far. Return whether it is a new one."""
        if len(self._pieces) == 1:
            return False  # nothing has come since the last reading
        started = self._clock()
        self._pieces = ["".join(self._pieces)]
        is_new = self._is_new(self._pieces[0])
        ended = self._clock()
        self._due = ended + min((ended - started) * (1 / _SHARE - 1), _LONGEST_PAUSE)
        return is_new

    def _is_new(self, text: str) -> bool:
        found = partial_value(text)
        if found is NOTHING or (self._found is not NOTHING and found == self._found):
            return False
        self._found = found
        value = self._response_type.restored(found)
        if value is NOTHING or (self.value is not NOTHING and value == self.value):
            return False
        self.value = value
        return True
