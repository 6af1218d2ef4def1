"""A lane of the queue: clients take turns, and in each client its users; a user's retries go first."""

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


def test_clients_take_turns_and_retries_go_before_the_other_runs_of_their_client() -> None:
    lane = lane_of(
        waiting(ANN, "a1"), waiting(ANN, "a2"), waiting(ANN, "a3"),
        waiting(BOB, "b1"), waiting(BOB, "b2"), waiting(ANN, "again", avoid=(1,)),
    )  # fmt: skip

    assert served(lane) == ["again", "b1", "a1", "b2", "a2", "a3"]
    assert len(lane) == 0


def test_the_connections_of_one_process_take_turns_as_one_client() -> None:
    def of_one(client: bytes, span_id: str) -> WaitingRun:
        return WaitingRun(client, Acquire(span_id, 1, "openai", "m"), 0.0, process=7)

    lane = lane_of(
        *(of_one(b"%d" % number, f"a{number}") for number in range(3)), waiting(BOB, "b1"), waiting(BOB, "b2")
    )

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


def of_user(user: str, span_id: str, attempt: int = 1, client: bytes = ANN) -> WaitingRun:
    return WaitingRun(client, Acquire(span_id, attempt, "openai", "m", user=user), 0.0)


def test_within_a_client_users_take_turns_and_the_retries_of_a_user_go_first() -> None:
    lane = lane_of(
        of_user("u", "u1"), of_user("u", "u2"), of_user("v", "v1"), waiting(BOB, "b1"),
        of_user("u", "u3"), of_user("v", "v again", 2), waiting(BOB, "b2"),
    )  # fmt: skip

    assert served(lane) == ["u1", "b1", "v again", "b2", "u2", "v1", "u3"]


def test_a_user_whose_runs_avoid_workers_holds_up_no_other_user_of_the_client() -> None:
    picky = WaitingRun(ANN, Acquire("picky", 2, "openai", "m", avoid=[1], user="u"), 0.0)
    lane = lane_of(picky, of_user("v", "v1"))

    found = lane.serve(lambda waiting: FULL if waiting.question.avoid else "w1")

    assert found is not None
    assert found[0].span_id == "v1"


def test_a_run_that_waits_for_the_gate_holds_up_the_runs_behind_it() -> None:
    """Else small runs would go on and on, and a large one never."""
    lane = lane_of(waiting(ANN, "large"), waiting(BOB, "small"))
    blocked = Wait(WaitCause.GATE, 7.0, "limit")
    assert (lane.word, lane.until) == ("workers", None)

    assert lane.serve(lambda waiting: blocked if waiting.span_id == "large" else "w1") is None

    assert (lane.word, lane.until) == ("limit", 7.0)
    assert dict(lane.words()) == {"limit": 1}
    assert [found[2] for found in [lane.serve(anything)] if found is not None] == ["limit"], "what it has waited for"


def test_a_client_without_a_share_says_so_of_its_own_runs_only() -> None:
    lane = lane_of(waiting(ANN, "a1"), waiting(ANN, "a2"), waiting(BOB, "b"))
    no_share = Wait(WaitCause.CLIENT_SHARE, None)

    assert lane.serve(lambda waiting: no_share if waiting.owner == ANN else FULL) is None

    assert list(lane.words()) == [("share", 2), ("workers", 1)]


def test_a_new_run_waits_for_its_client_s_runs_and_for_as_many_of_each_other_client() -> None:
    lane = lane_of(*(waiting(ANN, f"a{number}") for number in range(5)), waiting(BOB, "b"))

    assert lane.ahead_of(waiting(ANN, "new")) == 6
    assert lane.ahead_of(waiting(BOB, "new")) == 3
    assert lane.ahead_of(waiting(b"cyd", "new")) == 2
    assert lane_of().ahead_of(waiting(ANN, "new")) == 0


def test_a_retry_and_another_user_s_run_do_not_wait_for_all_runs_of_their_client() -> None:
    def of_user(user: str, span_id: str, attempt: int = 1) -> WaitingRun:
        return WaitingRun(ANN, Acquire(span_id, attempt, "openai", "m", user=user), 0.0)

    lane = lane_of(*(of_user("u", f"a{number}") for number in range(1000)), of_user("v", "v1"))

    assert lane.ahead_of(of_user("u", "last")) == 1001
    assert lane.ahead_of(of_user("u", "retry", 2)) == 1
    assert lane.ahead_of(of_user("v", "v2")) == 3
    assert lane.ahead_of(of_user("w", "w1")) == 2


def test_a_run_that_was_removed_is_not_served() -> None:
    first, second, again = waiting(ANN, "a"), waiting(ANN, "b"), waiting(ANN, "again", avoid=(1,))
    lane = lane_of(first, second, again)

    lane.remove(first)
    lane.remove(again)

    assert len(lane) == 1
    assert served(lane) == ["b"]
    assert (len(lane), list(lane.words())) == (0, [])
