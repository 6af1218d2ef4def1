"""Rows of a batch for Ray come in the order of the input, in pieces that do not depend on time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.ray.piece_order import PieceOrder


def drained(order: PieceOrder[int]) -> list[tuple[int, list[int]]]:
    return list(iter(order.take, None))


@given(st.integers(0, 40).flatmap(lambda count: st.permutations(range(count))), st.integers(1, 9))
def test_pieces_are_the_same_in_whatever_order_rows_finish(places: list[int], size: int) -> None:
    order: PieceOrder[int] = PieceOrder(len(places), size)
    pieces = drained(order)
    for place in places:
        order.put(place, place * 10)
        pieces += drained(order)

    assert [begin for begin, _ in pieces] == list(range(0, len(places), size))
    assert [value for _, values in pieces for value in values] == [place * 10 for place in range(len(places))]
    assert all(len(values) == size for _, values in pieces[:-1])


def test_a_piece_comes_as_soon_as_it_is_whole() -> None:
    order: PieceOrder[str] = PieceOrder(3, 2)
    order.put(1, "b")
    assert drained(order) == []  # type: ignore[arg-type]
    order.put(0, "a")
    assert order.take() == (0, ["a", "b"])
