"""PieceOrder: hands out the rows of a batch in the order of the input, in pieces, as soon as each piece is whole. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

T = TypeVar("T")


class PieceOrder(Generic[T]):
    """The finished rows of one batch with ``count`` rows.

    ``piece``: rows of each piece but the last. Pieces never depend on time. Ray runs a task again if its actor dies, and
    drops as many of its output blocks as were read before; so the blocks of both tries must be cut at the same rows.
    """

    def __init__(self, count: int, piece: int) -> None:
        self._values: list[T | None] = [None] * count
        self._is_finished = bytearray(count)
        self._finished = 0
        self._taken = 0
        self._piece = piece

    def put(self, place: int, value: T) -> None:
        """A row has finished. ``place`` counts from 0."""
        self._values[place] = value
        self._is_finished[place] = 1
        while self._finished < len(self._values) and self._is_finished[self._finished]:
            self._finished += 1

    def take(self) -> tuple[int, list[T]] | None:
        """Return the next piece, and the place of its first row; None if it is not whole yet, or if there is none."""
        begin = self._taken
        end = min(begin + self._piece, len(self._values))
        if begin == end or self._finished < end:
            return None
        values = cast("list[T]", self._values[begin:end])
        self._values[begin:end] = [None] * (end - begin)
        self._taken = end
        return begin, values
