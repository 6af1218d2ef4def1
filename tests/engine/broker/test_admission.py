"""Admission: a run is in one place, every question has one answer, and no worker gets more runs than it may have."""

from __future__ import annotations

from typing import Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.wire.messages import Acquire, Grant, Hold, Refuse, Release, Revoke
from headrace_engine.broker.admission import Admission, Ask, Send
from headrace_engine.broker.choice import NO_WORKERS_TIMEOUT
from headrace_engine.broker.lease_checks import FIRST_CHECK, NEXT_CHECK, TOLD_CHECK
from headrace_engine.broker.waiting_run import Wait, WaitCause
from tests import repetition

Priority = Literal["interactive", "batch"]

ANN = b"ann"
BOB = b"bob"


def ask(span_id: str, attempt: int = 1, priority: Priority = "interactive", avoid: tuple[int, ...] = ()) -> Acquire:
    return Acquire(span_id, attempt, "openai", "m", priority, list(avoid))


def granted(client: bytes, span_id: str, epoch: int, attempt: int = 1) -> Send:
    return Send(client, Grant(span_id, attempt, f"w{epoch}", f"ipc://w{epoch}", epoch))


def waited(client: bytes, span_id: str, epoch: int, attempt: int = 1) -> Send:
    """Return the grant of a run that has waited for a place on a worker."""
    names = (span_id, attempt, f"w{epoch}", f"ipc://w{epoch}", epoch)
    return Send(client, Grant(*names, waited_for="workers"))


def refused(client: bytes, span_id: str, kind: str, answers: list[Send]) -> bool:
    """Return whether ``answers`` is one refusal of this kind."""
    messages = [(answer.client, answer.message) for answer in answers]
    return [(who, said.span_id, said.kind) for who, said in messages if isinstance(said, Refuse)] == [
        (client, span_id, kind)
    ] and len(messages) == 1


def engine(workers: int = 1, max_runs: int = 1, max_waiting: int = 10) -> Admission:
    admission = Admission(max_runs, max_waiting)
    for epoch in range(1, workers + 1):
        assert admission.worker_joined(f"w{epoch}", f"ipc://w{epoch}", epoch) == []
    return admission


# Leases.


def test_a_run_waits_until_a_lease_is_given_back() -> None:
    admission = engine()
    assert admission.acquired(ANN, ask("a"), 0.0) == [granted(ANN, "a", 1)]
    assert admission.acquired(BOB, ask("b"), 0.0) == []
    assert (admission.lease_count, admission.waiting_count) == (1, 1)

    assert admission.released(ANN, Release("a", 1), 0.0) == [waited(BOB, "b", 1)]
    assert admission.released(BOB, Release("b", 1), 0.0) == []
    assert (admission.lease_count, admission.waiting_count) == (0, 0)


def test_a_run_waits_for_the_first_worker() -> None:
    admission = engine(workers=0)

    assert admission.acquired(ANN, ask("a"), 0.0) == []
    assert admission.worker_joined("w1", "ipc://w1", 1) == [waited(ANN, "a", 1)]


def test_a_lease_goes_to_the_worker_with_the_fewest_leases() -> None:
    admission = engine(workers=2, max_runs=10)
    for span_id, epoch in (("a", 1), ("b", 2), ("c", 1), ("d", 2)):
        assert admission.acquired(ANN, ask(span_id), 0.0) == [granted(ANN, span_id, epoch)]
    admission.released(ANN, Release("b", 1), 0.0)
    admission.released(ANN, Release("d", 1), 0.0)

    assert admission.acquired(ANN, ask("e"), 0.0) == [granted(ANN, "e", 2)]
    assert admission.acquired(ANN, ask("f"), 0.0) == [granted(ANN, "f", 2)]


def test_a_run_never_goes_to_a_worker_that_it_avoids() -> None:
    admission = engine(workers=2, max_runs=2)
    admission.acquired(BOB, ask("b"), 0.0)
    admission.acquired(BOB, ask("c"), 0.0)
    assert admission.acquired(ANN, ask("a", avoid=(1,)), 0.0) == [granted(ANN, "a", 2)]

    assert admission.acquired(ANN, ask("d", avoid=(1,)), 0.0) == []
    assert admission.released(BOB, Release("c", 1), 0.0) == [waited(ANN, "d", 2)]


def test_a_run_that_avoids_a_worker_holds_up_no_other_run() -> None:
    admission = engine()
    assert admission.acquired(ANN, ask("a", avoid=(1,)), 0.0) == []

    assert admission.acquired(BOB, ask("b"), 0.0) == [granted(BOB, "b", 1)]
    assert admission.worker_joined("w2", "ipc://w2", 2) == [waited(ANN, "a", 2)]


def test_a_run_that_avoids_every_worker_waits_no_longer_than_without_any() -> None:
    admission = engine(max_runs=5)
    admission.acquired(ANN, ask("a", avoid=(1,)), 0.0)
    assert admission.due(NO_WORKERS_TIMEOUT - 0.1) == []

    assert refused(ANN, "a", "no_workers", admission.due(NO_WORKERS_TIMEOUT))


def test_a_silent_worker_gets_no_leases_until_it_is_heard_again() -> None:
    admission = engine()
    assert admission.worker_suspected(1, True) == []
    assert admission.acquired(ANN, ask("a"), 0.0) == []

    assert admission.worker_suspected(1, False) == [waited(ANN, "a", 1)]


def test_a_suspicion_of_a_worker_that_is_gone_changes_nothing() -> None:
    admission = engine()
    admission.worker_left(1, "died")

    assert admission.worker_suspected(1, True) == []
    assert admission.workers == []


def test_interactive_runs_go_before_batch_runs_and_each_lane_is_first_come_first_served() -> None:
    admission = engine()
    admission.acquired(ANN, ask("now"), 0.0)
    for span_id, priority in (("b1", "batch"), ("i1", "interactive"), ("b2", "batch"), ("i2", "interactive")):
        assert admission.acquired(ANN, ask(span_id, 1, "batch" if priority == "batch" else "interactive"), 0.0) == []

    order = ["now"]
    while admission.lease_count:
        answers = admission.released(ANN, Release(order[-1], 1), 0.0)
        order += [answer.message.span_id for answer in answers]

    assert order == ["now", "i1", "i2", "b1", "b2"]


def order_of_leases(admission: Admission, first: bytes) -> list[str]:
    """Return the runs in the order in which they are served, when each lease is given back at once."""
    served = [Send(first, Grant("now", 1, "w1", "ipc://w1", 1))]
    order = []
    for answer in served:
        order.append(answer.message.span_id)
        served += admission.released(answer.client, Release(answer.message.span_id, answer.message.attempt), 0.0)
    return order


def test_clients_take_turns_and_the_runs_of_one_client_are_served_as_they_came() -> None:
    admission = engine()
    for span_id in ("now", "a1", "a2", "a3"):
        admission.acquired(ANN, ask(span_id), 0.0)
    for span_id in ("b1", "b2"):
        admission.acquired(BOB, ask(span_id), 0.0)

    assert order_of_leases(admission, ANN) == ["now", "a1", "b1", "a2", "b2", "a3"]


def test_a_retry_goes_before_the_other_runs_of_its_client() -> None:
    admission = engine()
    for question in (ask("now"), ask("a1"), ask("a2", 2, avoid=(7,))):
        admission.acquired(ANN, question, 0.0)

    assert order_of_leases(admission, ANN) == ["now", "a2", "a1"]


# What workers say.


def test_a_worker_gets_no_more_runs_than_it_says_that_it_can_have() -> None:
    admission = engine(max_runs=4)
    assert admission.worker_told(1, 1, False) == []
    assert admission.acquired(ANN, ask("a"), 0.0) == [granted(ANN, "a", 1)]
    assert admission.acquired(ANN, ask("b"), 0.0) == []
    assert admission.acquired(ANN, ask("c"), 0.0) == []

    assert admission.worker_told(1, 2, False) == [waited(ANN, "b", 1)]
    assert admission.worker_told(1, -1, False) == [waited(ANN, "c", 1)]


def test_a_worker_gets_no_more_runs_than_the_settings_allow_whatever_it_says() -> None:
    admission = engine(max_runs=1)
    admission.worker_told(1, 1000, False)
    admission.acquired(ANN, ask("a"), 0.0)

    assert admission.acquired(ANN, ask("b"), 0.0) == []


def test_a_worker_that_is_leaving_keeps_its_leases_and_gets_no_new_ones() -> None:
    admission = engine(workers=2, max_runs=5)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.worker_told(1, -1, True)

    for span_id in ("b", "c", "d"):
        assert admission.acquired(ANN, ask(span_id), 0.0) == [granted(ANN, span_id, 2)]
    assert not admission.is_vacated(1)
    assert admission.lease_count == 4

    admission.released(ANN, Release("a", 1), 0.0)
    assert admission.is_vacated(1)


def test_no_run_waits_for_ever_for_a_worker_that_is_leaving() -> None:
    admission = engine()
    admission.worker_told(1, -1, True)
    admission.acquired(ANN, ask("a"), 0.0)

    assert refused(ANN, "a", "no_workers", admission.due(NO_WORKERS_TIMEOUT))


# Span ids.


def test_a_span_id_that_is_in_use_is_refused() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(ANN, ask("w"), 0.0)

    for client, span_id in ((BOB, "a"), (BOB, "w"), (ANN, "a"), (ANN, "w")):
        assert refused(client, span_id, "duplicate_span_id", admission.acquired(client, ask(span_id), 0.0))
    assert refused(BOB, "a", "duplicate_span_id", admission.acquired(BOB, ask("a", 2), 0.0))
    assert (admission.lease_count, admission.waiting_count) == (1, 1)


def test_a_span_id_is_free_again_after_its_run() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.released(ANN, Release("a", 1), 0.0)

    assert admission.acquired(BOB, ask("a"), 0.0) == [granted(BOB, "a", 1)]


def test_a_further_attempt_replaces_the_attempt_before() -> None:
    admission = engine(workers=2)
    admission.acquired(ANN, ask("a"), 0.0)

    assert admission.acquired(ANN, ask("a", 2, avoid=(1,)), 0.0) == [granted(ANN, "a", 2, attempt=2)]
    assert admission.lease_count == 1
    assert admission.released(ANN, Release("a", 1), 0.0) == []
    assert admission.lease_count == 1


def test_only_the_client_that_holds_a_lease_can_give_it_back() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)

    assert admission.released(BOB, Release("a", 1), 0.0) == []
    assert admission.released(ANN, Release("a", 2), 0.0) == []
    assert admission.released(ANN, Release("unknown", 1), 0.0) == []
    assert admission.lease_count == 1


# Clients and workers that leave.


def test_a_client_that_leaves_frees_its_leases_and_its_places() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(ANN, ask("a2"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    assert admission.client_left(ANN) == [waited(BOB, "b", 1)]
    assert (admission.lease_count, admission.waiting_count) == (1, 0)
    assert admission.client_left(ANN) == []


def test_a_worker_that_leaves_takes_its_leases_with_it() -> None:
    admission = engine(workers=2)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    assert admission.worker_left(1, "died") == []
    assert admission.lease_count == 1
    assert admission.released(ANN, Release("a", 1), 0.0) == []
    assert admission.worker_left(1, "died") == []


def test_a_run_is_tried_again_after_its_worker_died() -> None:
    admission = engine(workers=2, max_runs=2)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.worker_left(1, "died")

    admission.released(ANN, Release("a", 1), 0.0)
    assert admission.acquired(ANN, ask("a", 2, avoid=(1,)), 0.0) == [granted(ANN, "a", 2, attempt=2)]


def test_a_worker_that_says_hello_again_still_has_its_leases() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)

    assert admission.worker_joined("w1", "ipc://w1", 1) == []
    assert admission.acquired(ANN, ask("b"), 0.0) == []


# Leases of an earlier broker.


def test_a_lease_of_an_earlier_broker_counts_on_its_worker() -> None:
    admission = engine(workers=1, max_runs=1)

    assert admission.held(ANN, Hold("a", 1, 1), 0.0) == []

    assert admission.lease_count == 1
    assert admission.acquired(BOB, ask("b"), 0.0) == []
    assert admission.released(ANN, Release("a", 1), 0.0) == [waited(BOB, "b", 1)]


def test_a_lease_of_an_earlier_broker_counts_on_a_worker_that_connects_later() -> None:
    admission = engine(workers=0, max_runs=1)
    admission.held(ANN, Hold("a", 1, 7), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    assert admission.worker_joined("w7", "ipc://w7", 7) == []
    assert admission.client_left(ANN) == [waited(BOB, "b", 7)]


def test_no_client_takes_the_lease_of_another_by_claiming_it() -> None:
    admission = engine(workers=2)
    admission.acquired(ANN, ask("a"), 0.0)

    admission.held(BOB, Hold("a", 5, 2), 0.0)
    admission.client_left(BOB)

    assert admission.lease_count == 1


# Leases that no client uses.


def looked_at(admission: Admission, now: float) -> list[str]:
    """Return the runs that workers are asked for."""
    steps = admission.checks(now)
    return [span_id for step in steps if isinstance(step, Ask) for span_id, _, _ in step.leases]


def test_a_lease_ends_if_its_worker_does_not_have_the_run_and_its_client_is_told() -> None:
    admission = engine(max_runs=2)
    for span_id in ("used", "unused", "next"):
        admission.acquired(ANN, ask(span_id), 0.0)
    assert admission.checks(0.0) == []
    assert admission.checks(FIRST_CHECK - 0.1) == []
    assert admission.checks(FIRST_CHECK) == [Ask(1, [("used", 1, 0), ("unused", 1, 0)])]

    ended = admission.checked(1, [("used", 1, True), ("unused", 1, False)])

    assert ended == [Send(ANN, Revoke("unused", 1)), waited(ANN, "next", 1)]
    assert looked_at(admission, FIRST_CHECK + 1) == []
    # A client may keep a lease long after its run has ended.
    assert looked_at(admission, FIRST_CHECK + NEXT_CHECK) == ["next", "used"]


def test_a_late_answer_does_not_end_a_lease_that_was_given_after_the_question() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.checks(0.0)
    assert looked_at(admission, FIRST_CHECK) == ["a"]
    admission.released(ANN, Release("a", 1), 0.0)
    admission.acquired(ANN, ask("a"), 0.0)

    assert admission.checked(1, [("a", 1, False)]) == []
    assert admission.lease_count == 1


def test_only_the_worker_of_a_lease_says_that_it_does_not_have_the_run() -> None:
    admission = engine(workers=2)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.checks(0.0)
    admission.checks(FIRST_CHECK)

    assert admission.checked(2, [("a", 1, False)]) == []
    assert admission.checked(1, [("a", 2, False)]) == []
    assert admission.lease_count == 1


def test_a_lease_that_a_client_claims_is_checked_soon_and_a_second_claim_does_not_delay_the_check() -> None:
    admission = engine()
    admission.client_joined(BOB, 7)
    admission.held(BOB, Hold("a", 1, 1), 0.0)
    admission.checks(0.0)
    admission.held(BOB, Hold("a", 1, 1), 0.0)
    admission.acquired(ANN, ask("b"), 0.0)

    assert admission.checks(TOLD_CHECK) == [Ask(1, [("a", 1, 7)])]
    assert admission.checked(1, [("a", 1, False)]) == [Send(BOB, Revoke("a", 1)), waited(ANN, "b", 1)]


def test_a_lease_on_a_worker_that_never_connects_ends() -> None:
    admission = engine(workers=0)
    admission.held(ANN, Hold("a", 1, 7), 0.0)
    admission.checks(0.0)
    assert admission.checks(FIRST_CHECK - 0.1) == []

    assert admission.checks(FIRST_CHECK) == [Send(ANN, Revoke("a", 1))]
    assert admission.lease_count == 0


def test_many_leases_are_checked_a_thousand_at_a_time() -> None:
    admission = engine(workers=1, max_runs=4000)
    for number in range(3000):
        admission.acquired(ANN, ask(f"sp_{number}"), 0.0)
    admission.checks(0.0)

    assert [len(looked_at(admission, FIRST_CHECK + number)) for number in range(4)] == [1000, 1000, 1000, 0]


# Clients that want everything.


def test_one_process_never_has_all_places_of_a_worker_however_many_connections_it_has() -> None:
    admission = engine(workers=2, max_runs=64)
    clients = [b"%d" % number for number in range(10)]
    for client in clients:
        admission.client_joined(client, 7)
    for number in range(1000):
        admission.acquired(clients[number % 10], ask(f"sp_{number}"), 0.0)
    assert admission.lease_count == 2 * 63

    [first] = admission.acquired(BOB, ask("b"), 0.0)
    [second] = admission.acquired(BOB, ask("c"), 0.0)

    assert {first.message.span_id, second.message.span_id} == {"b", "c"}
    assert isinstance(first.message, Grant)
    assert admission.released(clients[0], Release("sp_0", 1), 0.0)[0].client in clients


def test_a_client_that_took_many_leases_and_used_none_gets_few_for_a_while() -> None:
    admission = engine(max_runs=320, max_waiting=10_000)
    admission.client_joined(ANN, 7)
    for number in range(1000):
        admission.acquired(ANN, ask(f"sp_{number}"), 0.0)
    assert admission.lease_count == 315
    admission.checks(0.0)
    [asked] = admission.checks(FIRST_CHECK)
    assert isinstance(asked, Ask)

    admission.checked(1, [(span_id, attempt, False) for span_id, attempt, _ in asked.leases])

    assert admission.lease_count == 19
    for number in range(200):
        admission.acquired(BOB, ask(f"b{number}"), FIRST_CHECK)
    assert admission.lease_count == 219
    assert admission.next_deadline(FIRST_CHECK) == 2 * FIRST_CHECK, "the leases that were given since are asked about"
    admission.due(FIRST_CHECK + 60.0)
    assert admission.lease_count == 320, "the client has its whole share again, and its runs no longer wait"


def test_a_client_that_claims_leases_that_it_never_had_gets_few_for_a_while() -> None:
    admission = engine(max_runs=64)
    admission.client_joined(ANN, 7)
    for number in range(1000):
        admission.held(ANN, Hold(f"told_{number}", 1, 1), 0.0)
    assert admission.lease_count == 4 * 63
    admission.acquired(BOB, ask("b"), 0.0)
    admission.checks(0.0)
    [asked] = admission.checks(TOLD_CHECK)
    assert isinstance(asked, Ask)

    answers = admission.checked(1, [(span_id, attempt, False) for span_id, attempt, _ in asked.leases])

    assert answers[-1] == waited(BOB, "b", 1)
    for number in range(1000):
        admission.held(ANN, Hold(f"again_{number}", 1, 1), 0.0)
    assert admission.lease_count == 1 + 3


def test_the_connections_of_one_process_have_one_share_of_the_queue() -> None:
    admission = engine(max_waiting=100)
    clients = [b"%d" % number for number in range(10)]
    for client in clients:
        admission.client_joined(client, 7)
    for number in range(200):
        admission.acquired(clients[number % 10], ask(f"sp_{number}"), 0.0)

    assert admission.waiting_count == 90


def test_one_client_may_have_all_places_of_a_small_worker() -> None:
    admission = engine(max_runs=10)
    for number in range(11):
        admission.acquired(ANN, ask(f"sp_{number}"), 0.0)

    assert admission.lease_count == 10


# Questions that are repeated.


def repeated(span_id: str, attempt: int = 1) -> Acquire:
    return msgspec.structs.replace(ask(span_id, attempt), is_repeat=True)


def test_a_question_that_is_repeated_is_answered_again_and_counts_once() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)

    [answer] = admission.acquired(ANN, repeated("a"), 1.0)

    assert answer == msgspec.structs.replace(granted(ANN, "a", 1), is_repeat=True)
    assert (admission.lease_count, admission.granted_total) == (1, 1)


def test_a_run_whose_question_is_repeated_keeps_its_place_in_the_queue() -> None:
    admission = engine()
    for span_id in ("now", "a", "b"):
        admission.acquired(ANN, ask(span_id), 0.0)

    assert admission.acquired(ANN, repeated("a"), 1.0) == []
    assert admission.released(ANN, Release("now", 1), 0.0) == [waited(ANN, "a", 1)]


def test_a_question_that_is_repeated_to_a_broker_that_never_heard_it_is_a_new_one() -> None:
    assert engine().acquired(ANN, repeated("a"), 0.0) == [granted(ANN, "a", 1)]


def test_no_client_gets_the_lease_of_another_by_repeating_its_question() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)

    assert refused(BOB, "a", "duplicate_span_id", admission.acquired(BOB, repeated("a"), 1.0))


# What a run waits for, and the next deadline.


def test_a_run_tells_what_it_waits_for_and_until_when() -> None:
    admission = engine(workers=0, max_runs=64)
    admission.acquired(ANN, ask("a"), 5.0)
    assert admission.waits_for("a") == Wait(WaitCause.NO_WORKER, 5.0 + NO_WORKERS_TIMEOUT)

    admission.worker_starting(is_so=True)
    assert admission.waits_for("a") == Wait(WaitCause.NO_WORKER, None)

    admission.worker_joined("w1", "ipc://w1", 1)
    assert admission.waits_for("a") is None

    admission.acquired(ANN, ask("picky", avoid=(1,)), 6.0)
    assert admission.waits_for("picky") == Wait(WaitCause.ALL_AVOIDED, 6.0 + NO_WORKERS_TIMEOUT)

    for number in range(63):
        admission.acquired(ANN, ask(f"a{number}"), 7.0)
    assert admission.waits_for("a62") == Wait(WaitCause.CLIENT_SHARE, None)

    admission.worker_suspected(1, True)
    assert admission.waits_for("a62") == Wait(WaitCause.WORKERS_FULL, None)


def test_an_engine_with_nothing_to_do_has_no_deadline() -> None:
    assert engine().next_deadline(0.0) is None


def test_the_next_deadline_is_the_first_time_at_which_something_happens() -> None:
    admission = engine()
    admission.acquired(BOB, ask("picky", avoid=(1,)), 0.5)
    admission.acquired(ANN, ask("a"), 1.0)
    assert admission.next_deadline(1.0) == 0.5 + NO_WORKERS_TIMEOUT

    assert refused(BOB, "picky", "no_workers", admission.due(0.5 + NO_WORKERS_TIMEOUT))
    assert admission.next_deadline(10.5) == 1.0 + FIRST_CHECK

    admission.acquired(BOB, ask("b"), 10.5)
    assert admission.next_deadline(10.5) == 1.0 + FIRST_CHECK, "a run waits for a busy worker as long as it takes"

    admission.worker_left(1, "died")
    assert admission.next_deadline(12.0) == 12.0 + NO_WORKERS_TIMEOUT, "the worker left now"


def test_after_a_deadline_was_acted_upon_the_next_one_is_later() -> None:
    """Else the broker would look again and again, and never wait."""
    admission = engine(workers=2, max_runs=30)
    for number in range(100):
        admission.acquired(b"%d" % (number % 7), ask(f"sp_{number}", 1 + number % 2, avoid=(number % 4,)), number / 10)
    admission.held(ANN, Hold("told", 1, 9), 0.0)
    now = 10.0
    while (deadline := admission.next_deadline(now)) is not None and now < 200.0:
        assert deadline > now or now == 10.0
        now = max(now, deadline)
        admission.due(now)
        admission.checks(now)
        if now > 60.0:
            admission.worker_left(1, "died")
            admission.worker_left(2, "died")

    assert admission.waiting_count == 0


def test_a_thousand_runs_that_avoid_a_worker_are_looked_at_now_and_then_and_refused_in_time() -> None:
    admission = engine(max_waiting=10_000)
    for number in range(1000):
        admission.acquired(ANN, ask(f"sp_{number}", 2, avoid=(1,)), number / 1000)

    assert admission.next_deadline(1.0) == 1.5
    assert admission.next_deadline(10.3) == NO_WORKERS_TIMEOUT, "the oldest run has waited long enough"
    assert len(admission.due(0.5 + NO_WORKERS_TIMEOUT)) == 501


# Refusals.


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    admission = engine(max_waiting=1)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(ANN, ask("b"), 0.0)

    [answer] = admission.acquired(BOB, ask("c"), 0.0)

    assert isinstance(answer.message, Refuse)
    assert (answer.client, answer.message.kind) == (BOB, "queue_full")
    assert answer.message.retry_after == 1.0
    assert (admission.granted_total, admission.refused_total) == (1, 1)


def test_no_client_takes_the_last_places_in_the_queue_for_itself() -> None:
    admission = engine(max_waiting=100)
    answers = [answer for number in range(200) for answer in admission.acquired(ANN, ask(f"a{number}"), 0.0)]

    refusals = [answer.message for answer in answers if isinstance(answer.message, Refuse)]
    assert admission.waiting_count == 90
    assert {refusal.kind for refusal in refusals} == {"queue_full"}
    assert "this client's waiting runs take 90 places" in refusals[0].reason
    assert admission.acquired(BOB, ask("b"), 0.0) == []
    assert admission.released(ANN, Release("a0", 1), 0.0) == [waited(ANN, "a1", 1)]
    assert admission.released(ANN, Release("a1", 1), 0.0) == [waited(BOB, "b", 1)]


def test_no_run_waits_for_ever_for_a_worker_that_does_not_connect() -> None:
    admission = engine(workers=0)
    admission.acquired(ANN, ask("a"), 100.0)

    assert admission.due(100.0 + NO_WORKERS_TIMEOUT - 0.1) == []
    assert refused(ANN, "a", "no_workers", admission.due(100.0 + NO_WORKERS_TIMEOUT))
    assert admission.waiting_count == 0


def test_a_refusal_without_workers_says_what_happened_to_the_last_worker() -> None:
    admission = engine()
    admission.worker_left(1, "w1: signal 9")
    admission.acquired(ANN, ask("a"), 0.0)

    [answer] = admission.due(NO_WORKERS_TIMEOUT)

    assert isinstance(answer.message, Refuse)
    assert "w1: signal 9" in answer.message.reason


def test_a_run_waits_for_busy_workers_as_long_as_it_takes() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(ANN, ask("b"), 0.0)

    assert admission.due(1e6) == []


def test_only_runs_that_have_waited_too_long_are_refused() -> None:
    admission = engine(workers=0)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), NO_WORKERS_TIMEOUT - 0.1)

    assert refused(ANN, "a", "no_workers", admission.due(NO_WORKERS_TIMEOUT))
    assert admission.waiting_count == 1


def test_a_worker_s_restart_does_not_end_runs_that_waited_long_for_a_busy_worker() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)
    assert admission.due(59.5) == []
    admission.worker_left(1, "died")

    assert admission.due(60.0) == []
    assert admission.worker_joined("w2", "ipc://w2", 2) == [waited(BOB, "b", 2)]


def test_an_engine_that_stops_refuses_runs_that_wait_and_new_runs() -> None:
    admission = engine()
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    assert refused(BOB, "b", "stopping", admission.stopping())
    assert refused(BOB, "c", "stopping", admission.acquired(BOB, ask("c"), 0.0))
    assert (admission.lease_count, admission.waiting_count) == (1, 0)
    assert admission.released(ANN, Release("a", 1), 0.0) == []


def test_a_lease_freed_by_a_further_attempt_that_is_refused_goes_to_the_next() -> None:
    admission = engine(max_waiting=1)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    answers = admission.acquired(ANN, ask("a", 2), 0.0)

    assert waited(BOB, "b", 1) in answers


def test_a_client_that_leaves_does_not_end_the_lease_of_another() -> None:
    admission = engine(max_runs=2, max_waiting=1)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)
    admission.acquired(BOB, ask("c"), 0.0)
    admission.acquired(ANN, ask("a", 2), 0.0)  # refused: the queue is full
    admission.released(BOB, Release("b", 1), 0.0)
    admission.acquired(BOB, ask("a"), 0.0)
    before = admission.lease_count

    admission.client_left(ANN)

    assert admission.lease_count == before


# Everything at once.

Question = tuple[bytes, str, int]
SPANS = st.sampled_from([f"sp{number}" for number in range(12)])
CLIENTS = st.sampled_from([ANN, BOB, b"cyd"])
AVOID = st.lists(st.integers(1, 6), max_size=2)
MAX_RUNS = 2


class AdmissionMachine(RuleBasedStateMachine):
    """Clients and workers come and go. A model follows the answers, and must agree with them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lanes: dict[Priority, list[Question]] = {"interactive": [], "batch": []}
        self.avoid: dict[Question, list[int]] = {}
        self.leases: dict[str, tuple[Question, int]] = {}
        self.turns: dict[Priority, list[bytes]] = {"interactive": [], "batch": []}
        self.workers: dict[int, bool] = {}  # whether it gets no leases
        self.leaving: set[int] = set()
        self.epochs = 0
        self.is_stopping = False
        self.asked = self.answered = 0
        self.since_batch = 0  # leases of interactive runs while a batch run waited
        self.looked_at = 0.0

    @initialize(max_waiting=st.integers(1, 5))
    def start(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.admission = Admission(MAX_RUNS, max_waiting)

    @property
    def waiting(self) -> list[Question]:
        return [question for lane in self.lanes.values() for question in lane]

    def load(self, epoch: int) -> int:
        return sum(held == epoch for _, held in self.leases.values())

    def burdens(self, question: Question) -> dict[int, int]:
        """Return the load of each worker that a run may go to."""
        return {
            epoch: self.load(epoch)
            for epoch, suspect in self.workers.items()
            if not suspect and self.load(epoch) < MAX_RUNS and epoch not in self.avoid[question]
        }

    def next_in_line(self) -> Question | None:
        lanes = list(self.lanes.items())
        for priority, lane in lanes if self.since_batch < 9 else reversed(lanes):
            for client in self.turns[priority]:
                own = [question for question in lane if question[0] == client]
                own.sort(key=lambda question: question[2] == 1)  # retries first
                if (found := next((question for question in own if self.burdens(question)), None)) is not None:
                    return found
        return None

    def note_turns(self, served: bytes | None = None, where: Priority = "interactive") -> None:
        """Keep the clients that wait in each lane in the order of their turns."""
        for priority, lane in self.lanes.items():
            waiting = list(dict.fromkeys(question[0] for question in lane))
            turns = [client for client in self.turns[priority] if client in waiting]
            turns += [client for client in waiting if client not in turns]
            if priority == where and served in turns:
                turns.remove(served)
                turns.append(served)
            self.turns[priority] = turns

    def forget(self, span_id: str) -> None:
        self.leases.pop(span_id, None)
        for lane in self.lanes.values():
            lane[:] = [question for question in lane if question[1] != span_id]
        self.note_turns()

    def follow(self, answers: list[Send]) -> None:
        """Check each answer against the model at its place, and apply it."""
        for answer in answers:
            said = answer.message
            question = (answer.client, said.span_id, said.attempt)
            if isinstance(said, Revoke):
                assert self.leases[said.span_id][0] == question
                self.forget(said.span_id)
                continue
            priority = next((priority for priority, lane in self.lanes.items() if question in lane), None)
            assert priority is not None, f"an answer that nobody asked for: {answer}"
            self.answered += 1
            if isinstance(said, Grant):
                assert question == self.next_in_line()
                burdens = self.burdens(question)
                assert burdens[said.epoch] == min(burdens.values())
                self.leases[said.span_id] = (question, said.epoch)
                is_counted = priority == "interactive" and bool(self.lanes["batch"])
                self.since_batch = 0 if priority == "batch" else self.since_batch + is_counted
            self.lanes[priority].remove(question)
            self.note_turns(answer.client if isinstance(said, Grant) else None, priority)

    @rule(
        client=CLIENTS,
        span_id=SPANS,
        attempt=st.integers(1, 3),
        priority=st.sampled_from(["interactive", "batch"]),
        avoid=AVOID,
    )
    def client_asks(self, client: bytes, span_id: str, attempt: int, priority: Priority, avoid: list[int]) -> None:
        question = (client, span_id, attempt)
        holders = [*self.waiting, *(held for held, _ in self.leases.values())]
        holder = next((held for held in holders if held[1] == span_id), None)
        self.asked += 1
        if holder is not None:
            if holder[0] != client or holder[2] >= attempt:
                answers = self.admission.acquired(client, ask(span_id, attempt, priority, tuple(avoid)), self.now)
                assert refused(client, span_id, "duplicate_span_id", answers)
                self.answered += 1
                return
            self.answered += holder in self.waiting  # its question is taken back
            self.forget(span_id)
        self.avoid[question] = avoid
        kind = "stopping" if self.is_stopping else "queue_full" if len(self.waiting) >= self.max_waiting else None
        self.lanes[priority].append(question)
        self.note_turns()
        answers = self.admission.acquired(client, ask(span_id, attempt, priority, tuple(avoid)), self.now)
        if kind is not None:
            assert refused(client, span_id, kind, answers[:1])
        self.follow(answers)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), avoid=AVOID)
    def client_tries_again(self, data: st.DataObject, avoid: list[int]) -> None:
        client, span_id, attempt = data.draw(st.sampled_from([question for question, _ in self.leases.values()]))
        self.client_asks(client, span_id, attempt + 1, "interactive", avoid)

    @precondition(lambda self: self.leases or self.waiting)
    @rule(data=st.data())
    def client_gives_back(self, data: st.DataObject) -> None:
        held = [question for question, _ in self.leases.values()]
        client, span_id, attempt = data.draw(st.sampled_from([*held, *self.waiting]))
        assert self.admission.released(client + b"!", Release(span_id, attempt), 0.0) == []
        assert self.admission.released(client, Release(span_id, attempt + 1), 0.0) == []
        self.answered += (client, span_id, attempt) in self.waiting
        self.forget(span_id)
        self.follow(self.admission.released(client, Release(span_id, attempt), 0.0))
        assert self.admission.released(client, Release(span_id, attempt), 0.0) == [] or span_id in self.leases

    @rule(client=CLIENTS)
    def client_leaves(self, client: bytes) -> None:
        for question in self.waiting:
            if question[0] == client:
                self.answered += 1
                self.forget(question[1])
        for question, _ in list(self.leases.values()):
            if question[0] == client:
                self.forget(question[1])
        self.follow(self.admission.client_left(client))

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def worker_joins(self) -> None:
        self.epochs += 1
        self.workers[self.epochs] = False
        self.follow(self.admission.worker_joined(f"w{self.epochs}", "ipc://w", self.epochs))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_leaves(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.workers)))
        del self.workers[epoch]
        self.leaving.discard(epoch)
        for span_id, (_, held) in list(self.leases.items()):
            if held == epoch:
                self.forget(span_id)
        self.follow(self.admission.worker_left(epoch, "died"))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_suspect=st.booleans())
    def worker_is_suspected(self, data: st.DataObject, is_suspect: bool) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers[epoch] = is_suspect or epoch in self.leaving
        self.follow(self.admission.worker_suspected(epoch, is_suspect))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_is_leaving(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers[epoch] = True
        self.leaving.add(epoch)
        self.follow(self.admission.worker_told(epoch, -1, True))

    @rule(seconds=st.sampled_from([1.0, NO_WORKERS_TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        answers = self.admission.due(self.now)
        for answer in answers:
            assert isinstance(answer.message, Refuse)
            assert answer.message.kind == "no_workers"
            question = (answer.client, answer.message.span_id, answer.message.attempt)
            assert not self.workers.keys() - self.leaving - set(self.avoid[question])
        self.follow(answers)

    @rule(data=st.data(), seconds=st.sampled_from([1.0, FIRST_CHECK, NEXT_CHECK]))
    def workers_are_asked(self, data: st.DataObject, seconds: float) -> None:
        self.looked_at += seconds
        for step in self.admission.checks(self.looked_at):
            assert isinstance(step, Ask)
            assert {self.leases[span_id][1] for span_id, _, _ in step.leases} == {step.epoch}
            answers = [(span_id, attempt, data.draw(st.booleans())) for span_id, attempt, _ in step.leases]
            ended = {span_id for span_id, _, is_running in answers if not is_running}
            said = self.admission.checked(step.epoch, [*answers, ("unknown", 1, False)])
            assert {answer.message.span_id for answer in said if isinstance(answer.message, Revoke)} == ended
            self.follow(said)

    @precondition(lambda self: self.epochs > 4)
    @rule()
    def engine_stops(self) -> None:
        self.is_stopping = True
        self.follow(self.admission.stopping())
        assert self.waiting == []

    @invariant()
    def a_run_is_in_one_place(self) -> None:
        if hasattr(self, "admission"):
            assert self.admission.lease_count == len(self.leases)
            assert self.admission.waiting_count == len(self.waiting)
            places = [span_id for _, span_id, _ in self.waiting] + list(self.leases)
            assert len(places) == len(set(places))
            spans = {worker.epoch: worker.spans for worker in self.admission.workers}
            expected: dict[int, set[str]] = {epoch: set() for epoch in self.workers}
            for span_id, (_, epoch) in self.leases.items():
                expected[epoch].add(span_id)
            assert spans == expected

    @invariant()
    def no_worker_has_more_runs_than_it_may(self) -> None:
        assert all(self.load(epoch) <= MAX_RUNS for epoch in self.workers)

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert self.next_in_line() is None

    @invariant()
    def every_question_has_one_answer_or_waits_or_was_taken_back(self) -> None:
        assert self.asked == self.answered + len(self.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "admission"):
            return
        for client in (ANN, BOB, b"cyd"):
            self.client_leaves(client)
        assert (self.admission.lease_count, self.admission.waiting_count) == (0, 0)
        assert not any(worker.spans for worker in self.admission.workers)


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(
    max_examples=repetition.repeated(30, 150), stateful_step_count=50, deadline=None
)
