"""A lane of the queue: clients take turns, the retries of a client go first, and served runs leave nothing."""

from __future__ import annotations

from headrace.wire.messages import Acquire
from headrace_engine.broker.lane import Lane
from headrace_engine.broker.waiting_run import Wait, WaitCause, WaitingRun

ANN = b"ann"
BOB = b"bob"
FULL = Wait(WaitCause.WORKERS_FULL, None)


def waiting(client: bytes, span_id: str, since: float = 0.0, avoid: tuple[int, ...] = ()) -> WaitingRun:
    return WaitingRun(client, Acquire(span_id, 2 if avoid else 1, "openai", "m", "interactive", list(avoid)), since)


def lane_of(*runs: WaitingRun) -> Lane:
    made = Lane()
    for run in runs:
        made.add(run)
    return made


def anything(_: WaitingRun) -> str:
    return "w1"


def nothing(_: WaitingRun) -> Wait:
    return FULL


def served(lane: Lane) -> list[str]:
    """Take everything out, and return it in its order."""
    order = []
    while (found := lane.serve(anything)) is not None:
        order.append(found[0].span_id)
    return order


def test_retries_count_as_the_other_runs_of_their_client_do() -> None:
    lane = lane_of(waiting(ANN, "a"), waiting(ANN, "b", avoid=(1,)), waiting(ANN, "c", avoid=(1,)), waiting(BOB, "d"))

    assert (lane.places_of(ANN), lane.places_of(BOB), len(lane)) == (3, 1, 4)
    lane.remove("b")
    assert (lane.places_of(ANN), len(lane)) == (2, 3)
    lane.remove("a")
    assert lane.places_of(ANN) == 1
    lane.remove("c")
    assert (lane.places_of(ANN), lane.places_of(BOB), len(lane)) == (0, 1, 1)


def test_a_run_with_long_names_or_many_workers_to_avoid_takes_more_places() -> None:
    """Otherwise the runs of one client could take a gigabyte of memory."""
    lane = lane_of(waiting(ANN, "a", avoid=tuple(range(256))), waiting(BOB, "b"))
    assert (lane.places_of(ANN), lane.places_of(BOB), lane.places, len(lane)) == (12, 1, 13, 2)
    lane.remove("a")
    assert (lane.places_of(ANN), lane.places) == (0, 1)
    lane.clear()
    assert lane.places == 0


def test_clients_take_turns_and_retries_go_before_the_other_runs_of_their_client() -> None:
    lane = lane_of(
        waiting(ANN, "a1"), waiting(ANN, "a2"), waiting(ANN, "a3"),
        waiting(BOB, "b1"), waiting(BOB, "b2"), waiting(ANN, "again", avoid=(1,)),
    )  # fmt: skip

    assert served(lane) == ["again", "b1", "a1", "b2", "a2", "a3"]
    assert (len(lane), lane.places_of(ANN), lane.places_of(BOB)) == (0, 0, 0)


def test_the_connections_of_one_process_take_turns_as_one_client() -> None:
    def of_one(client: bytes, span_id: str) -> WaitingRun:
        return WaitingRun(client, Acquire(span_id, 1, "openai", "m"), 0.0, process=7)

    lane = lane_of(
        *(of_one(b"%d" % number, f"a{number}") for number in range(3)), waiting(BOB, "b1"), waiting(BOB, "b2")
    )

    assert lane.places_of(7) == 3
    assert served(lane) == ["a0", "b1", "a1", "b2", "a2"]


def test_a_client_whose_runs_must_wait_holds_up_no_other_client() -> None:
    lane = lane_of(waiting(ANN, "a", avoid=(1,)), waiting(BOB, "b"))

    found = lane.serve(lambda waiting: FULL if waiting.question.avoid else "w1")

    assert found is not None
    assert (found[0].span_id, found[1]) == ("b", "w1")
    assert lane.serve(nothing) is None
    assert served(lane) == ["a"]


def test_behind_retries_that_must_wait_the_first_attempt_that_came_first_is_looked_at() -> None:
    lane = lane_of(waiting(ANN, "again", avoid=(1,)), waiting(ANN, "a"), waiting(ANN, "b"))

    found = lane.serve(lambda waiting: FULL if waiting.question.avoid else "w1")

    assert found is not None
    assert found[0].span_id == "a"


def test_a_turn_looks_at_a_bounded_number_of_a_client_s_runs() -> None:
    lane = lane_of(
        *(waiting(ANN, f"again {number}", avoid=(1,)) for number in range(100)),
        *(waiting(ANN, f"first {number}") for number in range(100)),
    )
    asked: list[str] = []

    def nothing_yet(run: WaitingRun) -> Wait:
        asked.append(run.span_id)
        return FULL

    assert lane.serve(nothing_yet) is None

    assert asked == [*(f"again {number}" for number in range(16)), "first 0"]


def test_a_run_that_was_served_or_removed_is_not_found_and_an_unknown_one_does_no_harm() -> None:
    lane = lane_of(waiting(ANN, "a"), waiting(ANN, "b"))
    assert lane.find("b") is not None
    assert lane.serve(anything) is not None

    lane.remove("a")
    lane.remove("unknown")

    assert (lane.find("a"), lane.find("unknown")) == (None, None)
    assert (len(lane), lane.places_of(ANN)) == (1, 1)


def test_runs_that_have_waited_long_are_listed_the_oldest_first() -> None:
    lane = lane_of(
        waiting(ANN, "a1", 1.0), waiting(ANN, "again 1", 2.0, avoid=(1,)), waiting(BOB, "b", 2.0),
        waiting(ANN, "again 2", 2.5, avoid=(1,)), waiting(ANN, "a2", 3.0),
    )  # fmt: skip

    assert [run.span_id for run in lane.waiting_for(10.0, 12.0)] == ["a1", "again 1", "b"]
    assert list(lane.waiting_for(10.0, 10.5)) == []
    assert len(lane) == 5


def test_the_first_to_give_up_is_the_oldest_run_or_one_that_avoids_workers() -> None:
    lane = lane_of(waiting(ANN, "a1"), waiting(ANN, "a2"), waiting(BOB, "b1", avoid=(1,)), waiting(BOB, "b2"))

    assert [run.span_id for run in lane.next_to_give_up()] == ["a1", "b1"]
    lane.remove("a1")
    lane.remove("b1")
    assert [run.span_id for run in lane.next_to_give_up()] == ["a2"]


def test_of_many_runs_that_avoid_workers_only_the_oldest_are_looked_at_in_each_turn() -> None:
    lane = lane_of(*(waiting(ANN, f"sp_{number}", avoid=(1,)) for number in range(1000)))

    assert [run.span_id for run in lane.next_to_give_up()][:3] == ["sp_0", "sp_0", "sp_1"]
    assert len(list(lane.next_to_give_up())) < 20
    assert lane.avoids_more
    assert not lane_of(waiting(ANN, "a", avoid=(1,))).avoids_more


def test_a_retry_that_may_go_to_any_worker_goes_before_the_other_runs_of_its_client() -> None:
    retry = WaitingRun(ANN, Acquire("retry", 2, "openai", "m"), 0.0)
    lane = lane_of(waiting(ANN, "a"), retry)

    assert served(lane) == ["retry", "a"]


def test_a_first_attempt_that_avoids_workers_holds_up_no_other_run_of_its_client() -> None:
    picky = WaitingRun(ANN, Acquire("picky", 1, "openai", "m", avoid=[1]), 0.0)
    lane = lane_of(picky, waiting(ANN, "a"))

    found = lane.serve(lambda waiting: FULL if waiting.question.avoid else "w1")

    assert found is not None
    assert found[0].span_id == "a"


def test_after_it_was_cleared_nothing_is_left() -> None:
    lane = lane_of(waiting(ANN, "a"), waiting(BOB, "b", avoid=(1,)))

    assert [run.span_id for run in lane.clear()] == ["a", "b"]
    assert (len(lane), lane.places_of(ANN), lane.places_of(BOB), lane.find("a")) == (0, 0, 0, None)
    assert lane.serve(anything) is None
    assert lane.clear() == []
