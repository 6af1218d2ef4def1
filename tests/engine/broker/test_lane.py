"""What a lane promises: clients take turns, a client's repeated runs come first and count, and nothing is left of who was served."""

from __future__ import annotations

from headrace.wire.messages import Acquire
from headrace_engine.broker.lane import Line, Waiting

ANN = b"ann"
BOB = b"bob"


def waiting(client: bytes, span_id: str, since: float = 0.0, avoid: tuple[int, ...] = ()) -> Waiting:
    return Waiting(client, Acquire(span_id, 2 if avoid else 1, "openai", "m", "interactive", list(avoid)), since)


def line(*runs: Waiting) -> Line:
    made = Line()
    for run in runs:
        made.add(run)
    return made


def anything(_: Waiting) -> str:
    return "w1"


def nothing(_: Waiting) -> None:
    return None


def served(lane: Line) -> list[str]:
    """Take everything out, and return it in its order."""
    order = []
    while (found := lane.serve(anything)) is not None:
        order.append(found[0].span_id)
    return order


def test_a_client_s_repeated_runs_count_as_its_others_do() -> None:
    lane = line(waiting(ANN, "a"), waiting(ANN, "b", avoid=(1,)), waiting(ANN, "c", avoid=(1,)), waiting(BOB, "d"))

    assert (lane.count(ANN), lane.count(BOB), len(lane)) == (3, 1, 4)
    lane.remove("b")
    assert (lane.count(ANN), len(lane)) == (2, 3)
    lane.remove("a")
    assert lane.count(ANN) == 1
    lane.remove("c")
    assert (lane.count(ANN), lane.count(BOB), len(lane)) == (0, 1, 1)


def test_a_run_with_long_names_or_many_workers_to_avoid_takes_more_places() -> None:
    """Else a client's share of the queue would be a gigabyte."""
    lane = line(waiting(ANN, "a", avoid=tuple(range(256))), waiting(BOB, "b"))
    assert (lane.count(ANN), lane.count(BOB), lane.places, len(lane)) == (12, 1, 13, 2)
    lane.remove("a")
    assert (lane.count(ANN), lane.places) == (0, 1)
    lane.clear()
    assert lane.places == 0


def test_clients_take_turns_and_repeated_runs_come_before_the_others_of_their_client() -> None:
    lane = line(
        waiting(ANN, "a1"), waiting(ANN, "a2"), waiting(ANN, "a3"),
        waiting(BOB, "b1"), waiting(BOB, "b2"), waiting(ANN, "again", avoid=(1,)),
    )  # fmt: skip

    assert served(lane) == ["again", "b1", "a1", "b2", "a2", "a3"]
    assert (len(lane), lane.count(ANN), lane.count(BOB)) == (0, 0, 0)


def test_the_connections_of_one_process_take_turns_as_one_client() -> None:
    def of_one(client: bytes, span_id: str) -> Waiting:
        return Waiting(client, Acquire(span_id, 1, "openai", "m"), 0.0, process=7)

    lane = line(*(of_one(b"%d" % number, f"a{number}") for number in range(3)), waiting(BOB, "b1"), waiting(BOB, "b2"))

    assert lane.count(7) == 3
    assert served(lane) == ["a0", "b1", "a1", "b2", "a2"]


def test_who_has_nothing_that_can_be_served_holds_up_nobody_else() -> None:
    lane = line(waiting(ANN, "a", avoid=(1,)), waiting(BOB, "b"))

    found = lane.serve(lambda waiting: None if waiting.question.avoid else "w1")

    assert found is not None
    assert (found[0].span_id, found[1]) == ("b", "w1")
    assert lane.serve(nothing) is None
    assert served(lane) == ["a"]


def test_behind_repeated_runs_that_cannot_be_served_the_first_other_one_is_looked_at() -> None:
    lane = line(waiting(ANN, "again", avoid=(1,)), waiting(ANN, "a"), waiting(ANN, "b"))

    found = lane.serve(lambda waiting: None if waiting.question.avoid else "w1")

    assert found is not None
    assert found[0].span_id == "a"


def test_a_turn_looks_at_a_bounded_number_of_a_client_s_runs() -> None:
    lane = line(
        *(waiting(ANN, f"again {number}", avoid=(1,)) for number in range(100)),
        *(waiting(ANN, f"first {number}") for number in range(100)),
    )
    asked: list[str] = []

    assert lane.serve(lambda waiting: asked.append(waiting.span_id)) is None

    assert asked == [*(f"again {number}" for number in range(16)), "first 0"]


def test_a_run_that_was_served_or_removed_is_not_found_and_an_unknown_one_does_no_harm() -> None:
    lane = line(waiting(ANN, "a"), waiting(ANN, "b"))
    assert lane.find("b") is not None
    assert lane.serve(anything) is not None

    lane.remove("a")
    lane.remove("unknown")

    assert (lane.find("a"), lane.find("unknown")) == (None, None)
    assert (len(lane), lane.count(ANN)) == (1, 1)


def test_overdue_are_those_of_each_kind_that_have_waited_since_then_or_longer() -> None:
    lane = line(
        waiting(ANN, "a1", 1.0), waiting(ANN, "a2", 2.0), waiting(ANN, "a3", 3.0),
        waiting(ANN, "again 1", 2.0, avoid=(1,)), waiting(ANN, "again 2", 2.5, avoid=(1,)), waiting(BOB, "b", 2.0),
    )  # fmt: skip

    assert [run.span_id for run in lane.overdue(2.0)] == ["again 1", "a1", "a2", "b"]
    assert lane.overdue(0.5) == []
    assert len(lane) == 6


def test_after_it_was_cleared_nothing_is_left() -> None:
    lane = line(waiting(ANN, "a"), waiting(BOB, "b", avoid=(1,)))

    assert [run.span_id for run in lane.clear()] == ["a", "b"]
    assert (len(lane), lane.count(ANN), lane.count(BOB), lane.find("a")) == (0, 0, 0, None)
    assert lane.serve(anything) is None
    assert lane.clear() == []
