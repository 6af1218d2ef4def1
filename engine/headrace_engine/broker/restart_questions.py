"""Keeps the clients that asked for new workers until the supervisor has answered. Pure.

The supervisor is asked one question at a time. A client that asks meanwhile gets the answer to a later question of its
kind: with the settings read again, or without. A supervisor that connects later, as after the start of a broker, is
asked the open question.
"""

from __future__ import annotations

from headrace.wire.messages import Restart


class RestartQuestions:
    """The clients that wait for an answer, in the order in which they asked."""

    def __init__(self) -> None:
        # A dict is a set that keeps its order.
        self._asking: dict[bytes, None] = {}
        # A client → whether it wants the settings read again.
        self._waiting: dict[bytes, bool] = {}
        self._last = Restart()
        self._is_open = False

    @property
    def open(self) -> Restart | None:
        """The question that has no answer yet; ``None`` if there is no such question."""
        return self._last if self._is_open else None

    def asked(self, peer: bytes, *, reload: bool = False) -> Restart | None:
        """A client asks. Return the question to ask the supervisor now; ``None`` while one is open."""
        self._waiting[peer] = reload
        return self._next()

    def answered(self, number: int) -> tuple[list[bytes], Restart | None]:
        """The supervisor answers. Return the clients to tell, and the next question, if there is one."""
        if not self._is_open or number != self._last.token:
            return [], None
        told = list(self._asking)
        self._is_open = False
        return told, self._next()

    def left(self, peer: bytes) -> None:
        """A client has gone. An unknown one does no harm."""
        self._asking.pop(peer, None)
        self._waiting.pop(peer, None)

    def _next(self) -> Restart | None:
        if self._is_open or not self._waiting:
            return None
        reload = next(iter(self._waiting.values()))
        self._asking = {peer: None for peer, wish in self._waiting.items() if wish == reload}
        self._waiting = {peer: wish for peer, wish in self._waiting.items() if wish != reload}
        self._last = Restart(self._last.token + 1, reload)
        self._is_open = True
        return self._last
