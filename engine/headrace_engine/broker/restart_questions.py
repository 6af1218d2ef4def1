"""Keeps the clients that asked for new workers until the supervisor has answered. Pure.

The supervisor is asked one question at a time. A client that asks meanwhile gets the answer to the next question. A
supervisor that connects later, as after the start of a broker, is asked the open question.
"""

from __future__ import annotations


class RestartQuestions:
    """The clients that wait for an answer, in the order in which they asked."""

    def __init__(self) -> None:
        # A dict is a set that keeps its order.
        self._asking: dict[bytes, None] = {}
        self._waiting: dict[bytes, None] = {}
        self._number = 0
        self._is_open = False

    @property
    def open(self) -> int | None:
        """The number of the question that has no answer yet; ``None`` if there is no such question."""
        return self._number if self._is_open else None

    def asked(self, peer: bytes) -> int | None:
        """A client asks. Return the number of the question to ask the supervisor now; ``None`` while one is open."""
        self._waiting[peer] = None
        return self._next()

    def answered(self, number: int) -> tuple[list[bytes], int | None]:
        """The supervisor answers. Return the clients to tell, and the number of the next question, if there is one."""
        if not self._is_open or number != self._number:
            return [], None
        told = list(self._asking)
        self._is_open = False
        return told, self._next()

    def left(self, peer: bytes) -> None:
        """A client has gone. An unknown one does no harm."""
        self._asking.pop(peer, None)
        self._waiting.pop(peer, None)

    def _next(self) -> int | None:
        if self._is_open or not self._waiting:
            return None
        self._asking, self._waiting = self._waiting, {}
        self._number += 1
        self._is_open = True
        return self._number
