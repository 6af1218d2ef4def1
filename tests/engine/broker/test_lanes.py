"""The queue: a lane for each priority, a bound of places, and nothing kept of a client whose runs no longer wait."""

from __future__ import annotations

from typing import Literal

from headrace.wire.messages import Acquire
from headrace_engine.broker.lanes import Lanes
from headrace_engine.broker.waiting_run import WaitingRun

ANN = b"ann"
BOB = b"bob"


def run(client: bytes, span_id: str, priority: Literal["interactive", "batch"] = "interactive") -> WaitingRun:
    return WaitingRun(client, Acquire(span_id, 1, "openai", "m", priority), 0.0)


def lanes(*runs: WaitingRun, max_places: int = 10) -> Lanes:
    made = Lanes(max_places)
    for each in runs:
        made.add(each)
    return made


def test_the_lane_of_interactive_runs_comes_first() -> None:
    queue = lanes(run(ANN, "b", "batch"), run(ANN, "a"))

    assert [[run.span_id for run in lane.waiting_for(0.0, 0.0)] for lane in queue] == [["a"], ["b"]]
    assert (queue.find("b"), queue.find("c")) == (run(ANN, "b", "batch"), None)
    assert len(queue) == 2


def test_a_full_queue_says_how_many_runs_wait() -> None:
    queue = lanes(run(ANN, "a"), run(BOB, "b", "batch"), max_places=2)

    assert queue.no_room(b"cyd") == "2 runs are waiting already"


def test_one_client_may_have_nine_times_the_places_that_are_free() -> None:
    queue = lanes(*(run(ANN, f"a{number}") for number in range(90)), max_places=100)

    assert queue.no_room(ANN) == "this client's waiting runs take 90 places already, of 90 in all"
    assert queue.no_room(BOB) == ""


def test_nothing_is_kept_of_a_client_whose_runs_no_longer_wait() -> None:
    queue = lanes(run(ANN, "a"), run(ANN, "b", "batch"), run(BOB, "c"))

    queue.client_left(ANN)
    queue.client_left(ANN)
    assert [each.span_id for each in queue.next_to_give_up()] == ["c"]
    queue.remove("c")
    queue.remove("c")

    assert not queue
    assert len(queue) == 0


def test_a_queue_that_is_cleared_returns_all_its_runs() -> None:
    queue = lanes(run(ANN, "b", "batch"), run(BOB, "a"))

    assert [each.span_id for each in queue.clear()] == ["a", "b"]
    assert not queue
