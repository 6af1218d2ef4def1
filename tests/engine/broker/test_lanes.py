"""The queue: lanes for each gate and priority, turns, a bound of places, and nothing kept of runs that no longer wait."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.wire.messages import Acquire
from headrace_engine.broker.lane import Lane
from headrace_engine.broker.lanes import Lanes
from headrace_engine.broker.waiting_run import Wait, WaitCause, WaitingRun
from headrace_engine.limits.gate import Gate, Priority
from tests.engine.broker.false_gates import FalseGate

ANN = b"ann"
BOB = b"bob"


def run(client: bytes, span_id: str, priority: Priority = "interactive", since: float = 0.0) -> WaitingRun:
    return WaitingRun(client, Acquire(span_id, 1, "openai", "m", priority), since)


def avoiding(client: bytes, span_id: str, count: int = 1) -> WaitingRun:
    return WaitingRun(client, Acquire(span_id, 2, "openai", "m", avoid=list(range(count))), 0.0)


def lanes(*runs: WaitingRun, max_places: int = 10) -> Lanes:
    made = Lanes(max_places)
    for each in runs:
        made.add(each)
    return made


def served(queue: Lanes, *, blocked: tuple[Gate, ...] = ()) -> list[str]:
    """Take out all runs but those of blocked gates, and return them in the order in which they were served."""
    order: list[str] = []
    held: set[Lane] = set()

    def choice(lane: Lane) -> Callable[[WaitingRun], str | Wait]:
        return lambda _: Wait(WaitCause.GATE, None, "blocked") if lane.gate in blocked else "w1"

    while (found := queue.serve(choice, held)) is not None:
        order.append(found[0].span_id)
    return order


def test_interactive_runs_go_before_batch_runs() -> None:
    queue = lanes(run(ANN, "b", "batch"), run(ANN, "a"))

    assert (queue.find("b"), queue.find("c")) == (run(ANN, "b", "batch"), None)
    assert len(queue) == 2
    assert served(queue) == ["a", "b"]


def test_one_of_ten_leases_goes_to_a_batch_run_while_both_wait() -> None:
    queue = lanes(
        *(run(ANN, f"b{number}", "batch") for number in range(3)),
        *(run(ANN, f"i{number}") for number in range(25)),
        max_places=100,
    )

    order = served(queue)

    assert [order.index(f"b{number}") for number in range(3)] == [9, 19, 27]


# Gates.


def test_gates_take_turns_and_a_blocked_gate_holds_up_no_other() -> None:
    x, y, blocked = FalseGate("x"), FalseGate("y"), FalseGate("blocked")
    queue = lanes(max_places=100)
    for number in range(3):
        for gate in (blocked, x, None, y):
            queue.add(run(ANN, f"{gate.key if gate is not None else 'free'}{number}"), gate)

    order = served(queue, blocked=(blocked,))

    assert order == ["x0", "free0", "y0", "x1", "free1", "y1", "x2", "free2", "y2"]
    assert queue.waiting_at_gates() == {"blocked": 3}
    assert queue.words() == {"blocked": 3}
    assert served(queue) == ["blocked0", "blocked1", "blocked2"]
    assert queue.waiting_at_gates() == {}


def test_a_batch_run_that_is_due_may_use_what_its_gate_keeps_for_interactive_runs() -> None:
    queue = Lanes(100)
    gate = FalseGate("g")
    for each in (
        *(run(ANN, f"b{number}", "batch") for number in range(2)),
        *(run(ANN, f"i{number}") for number in range(11)),
    ):
        queue.add(each, gate)
    order: list[tuple[str, Priority]] = []

    def choice(lane: Lane) -> Callable[[WaitingRun], str | Wait]:
        def choose(waiting: WaitingRun) -> str:
            order.append((waiting.span_id, lane.asks_as))
            return "w1"

        return choose

    while queue.serve(choice, set()) is not None:
        pass

    assert order[9:11] == [("b0", "interactive"), ("i9", "interactive")]
    assert order[-1] == ("b1", "batch")


def test_a_gate_with_batch_runs_only_gets_one_of_ten_leases_beside_a_busy_gate() -> None:
    queue = lanes(max_places=100)
    x = FalseGate("x")
    for number in range(25):
        queue.add(run(ANN, f"i{number}"), None)
    for number in range(3):
        queue.add(run(ANN, f"b{number}", "batch"), x)

    order = served(queue)

    assert [order.index(f"b{number}") for number in range(3)] == [9, 19, 27]


def test_interactive_runs_of_a_slow_gate_go_before_its_batch_runs_however_busy_another_gate_is() -> None:
    queue = lanes(max_places=1000)
    slow = FalseGate("slow")
    for number in range(5):
        queue.add(run(ANN, f"slow b{number}", "batch"), slow)
        queue.add(run(ANN, f"slow i{number}"), slow)
    order: list[str] = []
    for number in range(5):
        for step in range(50):
            queue.add(run(ANN, f"fast {number} {step}"), None)
        served(queue, blocked=(slow,))
        found = queue.serve(lambda _: lambda _run: "w1", set())
        assert found is not None
        order.append(found[0].span_id)

    assert order == [f"slow i{number}" for number in range(5)]


def test_a_run_whose_gate_has_changed_waits_at_the_new_gate() -> None:
    x, same = FalseGate("x"), FalseGate("x")
    queue = lanes(run(ANN, "a", since=1.0), run(BOB, "b", "batch", since=2.0), run(ANN, "c", since=3.0))
    queue.add(run(BOB, "old", since=4.0), x)

    queue.regroup(lambda each: same if each.span_id in ("a", "b", "old") else None)

    assert queue.waiting_at_gates() == {"x": 3}
    assert [getattr(queue.lane_of(span_id), "gate", None) for span_id in ("a", "b", "c", "old")] == [
        same,
        same,
        None,
        same,
    ]
    assert [each.span_id for each in queue.waiting_for(0.0, 9.0, has_workers=False)] == ["a", "b", "c", "old"]
    queue.regroup(lambda _: None)
    assert queue.waiting_at_gates() == {}
    assert sorted(served(queue)) == ["a", "b", "c", "old"]
    assert not queue


def test_a_gate_may_get_another_name_while_runs_wait_at_it() -> None:
    gate = FalseGate("x")
    queue = lanes()
    queue.add(run(ANN, "a"), gate)
    queue.add(run(ANN, "b", "batch"), gate)
    gate.key = "renamed"
    queue.remove("b")
    queue.regroup(lambda _: gate)

    assert queue.waiting_at_gates() == {"renamed": 1}
    assert served(queue) == ["a"]
    assert queue.waiting_at_gates() == {}


def test_the_first_gate_that_may_open_is_the_next_deadline() -> None:
    queue = lanes(run(ANN, "free"))
    for key in ("x", "y"):
        queue.add(run(ANN, key), FalseGate(key))
    until = {"x": 7.0, "y": 5.0}

    assert queue.next_until() is None
    assert queue.serve(lambda _: lambda run: Wait(WaitCause.GATE, until.get(run.span_id), "limit"), set()) is None

    assert queue.next_until() == 5.0
    queue.no_worker_has_room()
    assert queue.next_until() is None
    assert queue.words() == {"workers": 3}


def test_a_lane_without_runs_has_no_deadline() -> None:
    queue = lanes()
    gate = FalseGate("x")
    queue.add(run(ANN, "gone"), gate)
    queue.add(run(ANN, "batch", priority="batch"), gate)
    until = {"gone": 5.0, "batch": 7.0}
    queue.serve(lambda _: lambda run: Wait(WaitCause.GATE, until[run.span_id], "limit"), set())
    assert queue.next_until() == 5.0

    queue.remove("gone")
    assert queue.next_until() == 7.0


def test_as_many_batch_runs_as_their_slice_go_before_a_new_interactive_run() -> None:
    gate = FalseGate("x")
    queue = lanes(max_places=1000)
    for number in range(100):
        queue.add(run(b"%d" % number, f"b{number}", "batch"), gate)
    assert queue.ahead_of(run(ANN, "i"), gate) == 0
    assert queue.ahead_of(run(ANN, "b", "batch"), gate) == 100
    assert queue.ahead_of(run(ANN, "i"), FalseGate("y")) == 0

    for number in range(20):
        queue.add(run(b"%d" % number, f"i{number}"), gate)
    assert queue.ahead_of(run(ANN, "i"), gate) == 22
    assert queue.ahead_of(run(ANN, "b", "batch"), gate) == 120


# Places.


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
    assert [each.span_id for each in queue.next_to_give_up(has_workers=False)] == ["c"]
    queue.remove("c")
    queue.remove("c")

    assert not queue
    assert len(queue) == 0


def test_a_queue_that_is_cleared_returns_all_its_runs() -> None:
    queue = lanes(run(ANN, "b", "batch"), run(BOB, "a"))

    assert [each.span_id for each in queue.clear()] == ["b", "a"]
    assert not queue
    assert queue.clear() == []


def test_a_run_with_long_names_or_many_workers_to_avoid_takes_more_places() -> None:
    """Otherwise the runs of one client could take a gigabyte of memory."""
    queue = lanes(avoiding(ANN, "a", 256), run(BOB, "b"), max_places=13)

    assert queue.no_room(b"cyd") == "2 runs are waiting already"
    queue.remove("a")
    assert queue.no_room(b"cyd") == ""
    queue.add(msgspec.structs.replace(run(ANN, "c"), process=7))
    assert queue.no_room(7) == ""


def test_tags_take_places_too() -> None:
    tagged = WaitingRun(ANN, Acquire("a", 1, "openai", "m", tags=["t" * 64] * 64), 0.0)
    assert tagged.places == 8
    few = WaitingRun(
        ANN, Acquire("a", 1, "openai", "gpt-4o", account="0" * 16 + "@", user="1" * 16, tags=["2" * 16] * 3), 0.0
    )
    assert few.places == 1


# Runs that stop waiting.


def test_runs_that_have_waited_long_are_listed_the_oldest_first() -> None:
    queue = lanes(run(ANN, "a1", since=1.0), run(BOB, "b", "batch", since=2.0), run(ANN, "a2", since=3.0))
    queue.add(avoiding(BOB, "picky"))

    assert [each.span_id for each in queue.waiting_for(10.0, 12.0, has_workers=False)] == ["a1", "b"]
    assert list(queue.waiting_for(10.0, 10.5, has_workers=False)) == []
    assert [each.span_id for each in queue.waiting_for(10.0, 12.0, has_workers=True)] == ["picky"]


def test_the_first_to_give_up_is_the_oldest_run_or_one_that_avoids_workers() -> None:
    queue = lanes(run(ANN, "a1"), run(ANN, "a2"), avoiding(BOB, "b1"), run(BOB, "b2"))

    assert [each.span_id for each in queue.next_to_give_up(has_workers=False)] == ["a1", "b1"]
    assert [each.span_id for each in queue.next_to_give_up(has_workers=True)] == ["b1"]
    queue.remove("a1")
    queue.remove("b1")
    assert [each.span_id for each in queue.next_to_give_up(has_workers=False)] == ["a2"]


def test_of_many_runs_that_avoid_workers_only_the_oldest_are_looked_at_in_each_turn() -> None:
    queue = lanes(*(avoiding(ANN, f"sp_{number}") for number in range(1000)), max_places=10_000)

    assert [each.span_id for each in queue.next_to_give_up(has_workers=False)][:3] == ["sp_0", "sp_0", "sp_1"]
    assert len(queue.next_to_give_up(has_workers=True)) < 20
    assert queue.avoids_more
    assert not lanes(avoiding(ANN, "a")).avoids_more


def test_interactive_runs_wait_for_a_batch_run_that_costs_more_for_a_tenth_of_the_time_at_most() -> None:
    queue, gate = Lanes(100), FalseGate("tokens")
    queue.add(run(BOB, "large", "batch", since=0.0), gate)

    def chat_goes(now: float, large_goes_in: float) -> bool:
        queue.add(run(ANN, f"chat {now}", since=now), gate)

        def choose(each: WaitingRun) -> str | Wait:
            return Wait(WaitCause.GATE, now + large_goes_in, "limit") if each.span_id == "large" else "w1"

        return queue.serve(lambda _: choose, set(), None, now) is not None

    assert all(chat_goes(1.0 + number, 0.1) for number in range(9))  # it is not due yet

    assert chat_goes(18.0, large_goes_in=3.0)
    assert not chat_goes(27.0, large_goes_in=3.0)
    assert queue.waits_for_batch("chat 27.0", 27.0) == 30.0
    assert queue.next_until() == 30.0
    assert chat_goes(28.0, large_goes_in=5.0)  # it would take too long now
