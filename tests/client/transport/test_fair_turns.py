"""Whose turn it is to be read."""

from __future__ import annotations

from headrace.transport.fair_turns import FairTurns


def test_processes_take_turns_and_so_do_the_connections_of_one_process() -> None:
    turns: FairTurns[str] = FairTurns()
    for number in range(100):
        turns.put(1, f"many {number}")
    turns.put(2, "one")
    turns.put(2, "other")

    taken = [turns.take() for _ in range(6)]

    assert taken == ["many 0", "one", "many 1", "other", "many 2", "many 3"]
    assert turns


def test_without_waiting_items_there_is_no_turn() -> None:
    turns: FairTurns[str] = FairTurns()
    assert turns.take() is None
    turns.put(0, "one")
    assert turns.take() == "one"
    assert turns.take() is None
    assert not turns
