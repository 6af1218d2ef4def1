"""Who has asked for new workers, and has not been told yet whether the supervisor replaces them. Pure.

The supervisor answers by a number. One that comes later, as after the start of a broker, is asked all that is open.
"""

from __future__ import annotations


class RestartQuestions:
    """The open questions, at most one of each peer."""

    def __init__(self) -> None:
        self._peers: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._last = 0

    @property
    def open(self) -> list[int]:
        """The numbers of the questions that nobody has answered."""
        return list(self._peers)

    def asked(self, peer: bytes) -> int:
        """A peer asks; return the question's number. What it has asked before is answered with it."""
        self.left(peer)
        self._last += 1
        self._peers[self._last] = peer
        self._numbers[peer] = self._last
        return self._last

    def answered(self, number: int) -> bytes | None:
        """Return who is to be told; nobody where the peer has gone or has asked again."""
        peer = self._peers.pop(number, None)
        if peer is not None:
            del self._numbers[peer]
        return peer

    def left(self, peer: bytes) -> None:
        """A peer has gone; unknown ones are fine."""
        number = self._numbers.pop(peer, None)
        if number is not None:
            del self._peers[number]
