"""Who has asked for new workers, and has not been told yet whether the supervisor replaces them. Pure.

The supervisor is asked one question at a time, however many want to know: whoever comes meanwhile is meant by the next one. A
supervisor that comes later, as after the start of a broker, is asked the question that is open.
"""

from __future__ import annotations


class RestartQuestions:
    """The peers that wait for an answer, in the order in which they asked."""

    def __init__(self) -> None:
        # A dict is a set that keeps its order.
        self._asking: dict[bytes, None] = {}
        self._waiting: dict[bytes, None] = {}
        self._number = 0
        self._is_open = False

    @property
    def open(self) -> int | None:
        """The number of the question that nobody has answered, if there is one."""
        return self._number if self._is_open else None

    def asked(self, peer: bytes) -> int | None:
        """A peer asks; return the number of a question that the supervisor is to be asked now, None while there is one."""
        self._waiting[peer] = None
        return self._next()

    def answered(self, number: int) -> tuple[list[bytes], int | None]:
        """The supervisor answers; return who is to be told, and the number of the next question, if there is one."""
        if not self._is_open or number != self._number:
            return [], None
        told = list(self._asking)
        self._is_open = False
        return told, self._next()

    def left(self, peer: bytes) -> None:
        """A peer has gone; unknown ones are fine."""
        self._asking.pop(peer, None)
        self._waiting.pop(peer, None)

    def _next(self) -> int | None:
        if self._is_open or not self._waiting:
            return None
        self._asking, self._waiting = self._waiting, {}
        self._number += 1
        self._is_open = True
        return self._number
