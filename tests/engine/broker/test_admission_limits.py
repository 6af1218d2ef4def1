"""Admission before gates: a lease needs room at a worker and at the run's gate, and each share of a gate is given back once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.wire import codec
from headrace.wire.messages import Acquire, Grant, Hold, Refuse, Release, ResponseReport, Revoke, WaitWord
from headrace_engine.broker.admission import Admission, Ask, Send
from headrace_engine.broker.lease_checks import FIRST_CHECK
from headrace_engine.broker.waiting_run import Wait, WaitCause
from headrace_engine.limits.gate import GateWait
from tests import repetition
from tests.engine.broker.false_gates import FalseGate, FalseGates

ANN = b"ann"
BOB = b"bob"


def ask(span_id: str, model: str = "x", attempt: int = 1, **more: Any) -> Acquire:
    return Acquire(span_id, attempt, "openai", model, **more)


def limited(*gates: FalseGate, workers: int = 1, max_runs: int = 100, max_waiting: int = 10_000) -> Admission:
    admission = Admission(max_runs, max_waiting, FalseGates(*gates))
    for epoch in range(1, workers + 1):
        admission.worker_joined(f"w{epoch}", f"ipc://w{epoch}", epoch)
    return admission


def grants(answers: list[Send]) -> list[str]:
    """Return the runs that got a lease."""
    return [answer.message.span_id for answer in answers if isinstance(answer.message, Grant)]


def refusal(answers: list[Send]) -> Refuse:
    """Return the only answer, which is a refusal."""
    (answer,) = answers
    assert isinstance(answer.message, Refuse)
    return answer.message


def words(answers: list[Send]) -> list[str]:
    return [answer.message.waited_for for answer in answers if isinstance(answer.message, Grant)]


# Waiting at a gate.


def test_a_run_waits_until_its_gate_opens_and_is_told_what_it_waited_for() -> None:
    gate = FalseGate("x")
    gate.closed = GateWait("blocked", 2.0)
    admission = limited(gate)

    assert admission.acquired(ANN, ask("a"), 0.0) == []
    assert admission.waits_for("a") == Wait(WaitCause.GATE, 2.0, "blocked")
    assert admission.waiting_for() == {"blocked": 1}
    assert admission.waiting_at_gates() == {"x": 1}
    assert admission.next_deadline(0.0) == 2.0
    assert admission.due(1.9) == []

    answers = admission.due(2.0)
    assert (grants(answers), words(answers)) == (["a"], ["blocked"])
    assert admission.waiting_for() == {}


def test_a_run_that_goes_at_once_has_waited_for_nothing() -> None:
    open_gate, closed = FalseGate("x"), FalseGate("closed", room=0)
    admission = limited(open_gate, closed)
    assert words(admission.acquired(ANN, ask("a"), 0.0)) == [""]
    admission.acquired(ANN, ask("waits", "closed"), 0.0)

    assert words(admission.acquired(ANN, ask("b"), 0.0)) == [""], "although another run waits"


def test_a_gate_that_is_blocked_holds_up_no_other_run() -> None:
    blocked = FalseGate("x")
    blocked.closed = GateWait("breaker", None)
    admission = limited(blocked, FalseGate("y"))
    for number in range(100):
        admission.acquired(ANN, ask(f"x{number}"), 0.0)

    assert grants(admission.acquired(ANN, ask("y", "y"), 0.0)) == ["y"]
    assert grants(admission.acquired(ANN, ask("free", "free"), 0.0)) == ["free"]
    assert admission.waiting_for() == {"breaker": 100}


def test_a_run_waits_for_a_place_on_a_worker_and_for_its_gate() -> None:
    gate = FalseGate("x", room=1)
    admission = limited(gate, max_runs=2)
    for span_id in ("a", "b", "c"):
        admission.acquired(ANN, ask(span_id, "x" if span_id != "b" else "free"), 0.0)
    assert admission.waiting_for() == {"workers": 1}
    assert admission.next_deadline(0.0) == FIRST_CHECK, "nothing is to be done about the gate"

    assert admission.released(ANN, Release("b", 1), 1.0) == []
    assert admission.waiting_for() == {"limit": 1}
    assert words(admission.released(ANN, Release("a", 1), 2.0)) == ["limit"]


def test_the_grant_has_the_key_of_the_ticket_also_when_it_is_repeated() -> None:
    gate = FalseGate("x")
    gate.run_key = "ab12"
    admission = limited(gate)
    question = ask("a")
    [first] = admission.acquired(ANN, question, 0.0)

    [again] = admission.acquired(ANN, msgspec.structs.replace(question, is_repeat=True), 1.0)

    assert isinstance(first.message, Grant)
    assert (first.message.key, first.message.reports) == ("ab12", True)
    assert (again.message, again.is_repeat) == (first.message, True)
    assert len(gate.running) == 1


# Shares that are given back.


def test_a_share_is_given_back_with_the_release_of_its_run() -> None:
    gate = FalseGate("x", room=1)
    admission = limited(gate)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(BOB, ask("b"), 0.0)

    assert grants(admission.released(ANN, Release("a", 1, "rate_limit"), 1.0)) == ["b"]
    assert admission.released(ANN, Release("a", 1, "rate_limit"), 1.0) == []
    assert gate.left == [("a", "rate_limit")]


def test_a_share_is_given_back_when_the_client_the_worker_or_the_lease_ends() -> None:
    gate = FalseGate("x", room=1)
    admission = limited(gate, workers=2)
    for number, client in enumerate((ANN, BOB, BOB, BOB, BOB)):
        admission.acquired(client, ask(str(number)), 0.0)

    assert grants(admission.client_left(ANN)) == ["1"]
    assert grants(admission.acquired(BOB, ask("1", attempt=2), 0.0)) == ["1"], "a further attempt, as a retry the first"
    worker = next(worker.epoch for worker in admission.workers if worker.spans)
    assert grants(admission.worker_left(worker, "died")) == ["2"]
    admission.next_deadline(0.0)
    (asked,) = [step for step in admission.checks(FIRST_CHECK) if isinstance(step, Ask)]
    answers = admission.checked(asked.epoch, [("2", 1, False)])
    assert [type(answer.message) for answer in answers] == [Revoke, Grant]

    assert gate.left == [("0", None), ("1", None), ("1", None), ("2", None)]
    assert len(gate.running) == 1


# Refusals.


@pytest.mark.parametrize("kind", ["over_budget", "no_retry", "no_hedge"])
def test_a_run_that_the_limits_refuse_gets_no_place(kind: Any) -> None:
    gates = FalseGates()
    gates.refusals["a"] = (kind, "so it is", 7.0)
    admission = Admission(1, 10, gates)

    refused = refusal(admission.acquired(ANN, ask("a"), 0.0))

    assert (refused.kind, refused.reason, refused.retry_after) == (kind, "so it is", 7.0)
    assert (admission.waiting_count, admission.refused_total, gates.asked["a"]) == (0, 1, 1)


def test_a_hedge_goes_at_once_or_is_refused() -> None:
    gate = FalseGate("x", room=2)
    admission = limited(gate)
    assert grants(admission.acquired(ANN, ask("a", is_hedge=True), 0.0)) == ["a"]
    admission.acquired(ANN, ask("b"), 0.0)

    assert refusal(admission.acquired(ANN, ask("c", is_hedge=True), 0.0)).kind == "no_hedge"
    assert admission.waiting_count == 0
    assert grants(admission.acquired(ANN, ask("d", "free", is_hedge=True), 0.0)) == ["d"]


def test_a_run_that_would_wait_longer_than_it_may_is_refused_at_once() -> None:
    gate = FalseGate("x")
    gate.closed = GateWait("blocked", 30.0)
    admission = limited(gate)

    refused = refusal(admission.acquired(ANN, ask("a", max_wait=10.0), 0.0))

    assert (refused.kind, refused.retry_after) == ("queue_full", 20.0)
    assert (
        refused.reason == "the run would wait about 30.0 s because the provider asked for a pause, and may wait 10.0 s"
    )
    assert admission.acquired(ANN, ask("b", max_wait=31.0), 0.0) == []
    assert admission.acquired(ANN, ask("c"), 0.0) == []
    assert admission.waiting_count == 2


@pytest.mark.parametrize(
    ("word", "said"), [("limit", "for the limits of its model"), ("breaker", "because the provider fails")]
)
def test_a_refusal_says_what_the_run_would_wait_for(word: WaitWord, said: str) -> None:
    gate = FalseGate("x")
    gate.closed = GateWait(word, 30.0)

    assert said in refusal(limited(gate).acquired(ANN, ask("a", max_wait=10.0), 0.0)).reason


def test_the_expected_wait_counts_the_runs_that_go_before() -> None:
    gate = FalseGate("x")
    gate.interval = 1.0
    admission = limited(gate)
    for number in range(6):
        admission.acquired(ANN, ask(f"a{number}"), 0.0)

    assert refusal(admission.acquired(ANN, ask("a6", max_wait=4.0), 0.0)).retry_after == 1.0
    assert admission.acquired(BOB, ask("b", max_wait=4.0), 0.0) == [], "only one of ann's runs goes before it"


def test_a_run_that_has_waited_as_long_as_it_may_is_refused() -> None:
    gate = FalseGate("x")
    admission = limited(gate, max_runs=1)
    admission.acquired(ANN, ask("a"), 0.0)
    admission.acquired(ANN, ask("late", max_wait=5.0), 1.0)
    admission.acquired(BOB, ask("early", "free", max_wait=2.0), 1.0)
    admission.acquired(BOB, ask("gone", max_wait=1.0), 1.0)
    admission.released(BOB, Release("gone", 1), 1.0)
    assert admission.next_deadline(1.0) == 3.0
    assert admission.due(2.9) == []

    refused = refusal(admission.due(3.0))
    assert (refused.span_id, refused.kind, refused.retry_after) == ("early", "queue_full", 1.0)
    assert "2.0 s" in refused.reason
    assert admission.next_deadline(3.0) == 6.0
    assert grants(admission.released(ANN, Release("a", 1), 4.0)) == ["late"]
    assert admission.due(6.0) == []


def test_runs_behind_one_that_waits_no_longer_may_go_at_once() -> None:
    gate = FalseGate("x")
    admission = limited(gate)
    gate.closed_to["large"] = GateWait("limit", 60.0)
    admission.acquired(ANN, ask("large", max_wait=5.0), 0.0)
    assert admission.acquired(ANN, ask("small"), 0.0) == []

    answers = admission.due(5.0)
    assert [type(answer.message).__name__ for answer in answers] == ["Refuse", "Grant"]
    assert grants(answers) == ["small"]


def test_a_lease_whose_worker_never_connected_gives_its_share_to_a_run_that_waits() -> None:
    gate = FalseGate("x", room=1)
    admission = limited(gate)
    admission.held(BOB, Hold("held", 1, 99, question=ask("held")), 0.0)
    assert admission.acquired(ANN, ask("a"), 0.0) == []
    assert admission.next_deadline(0.0) is not None

    answers = [step for step in admission.checks(FIRST_CHECK) if isinstance(step, Send)]
    assert isinstance(answers[0].message, Revoke)
    assert grants(answers[1:]) == ["a"]


def test_a_hedge_that_is_refused_does_not_change_when_its_lane_is_looked_at() -> None:
    gate = FalseGate("x")
    admission = limited(gate)
    gate.closed = GateWait("limit", 2.0)
    admission.acquired(ANN, ask("a"), 0.0)
    gate.closed_to["hedge"] = GateWait("limit", 50.0)

    assert refusal(admission.acquired(ANN, ask("hedge", attempt=2, is_hedge=True), 0.0)).kind == "no_hedge"
    assert admission.next_deadline(0.0) == 2.0


def test_a_refusal_says_no_time_that_a_client_cannot_read() -> None:
    gate = FalseGate("x")
    gate.closed = GateWait("limit", 1e18)
    admission = limited(gate)
    refused = refusal(admission.acquired(ANN, ask("a", max_wait=1.0), 0.0))
    codec.from_broker.decode(codec.encode_frame(1, [refused]))


def test_leases_with_large_questions_count_as_several_that_a_client_tells_of() -> None:
    admission = limited(max_runs=1_000_000)
    large = ask("large", tags=["t" * 64] * 64)
    told = 0
    while told < 20_000:
        admission.held(
            ANN, Hold(f"held{told}", 1, 99, question=msgspec.structs.replace(large, span_id=f"held{told}")), 0.0
        )
        if admission.lease_count == told:
            break
        told += 1
    assert told == 100_000 // 8
    admission.client_left(ANN)
    admission.held(ANN, Hold("again", 1, 99, question=ask("again")), 0.0)
    assert admission.lease_count == 1


def test_a_gate_at_which_nothing_has_changed_is_not_asked_again() -> None:
    gates = [FalseGate(f"x{number}", room=1) for number in range(20)]
    admission = limited(*gates)
    for gate in gates:
        gate.fixed_version = 1
        for priority in ("interactive", "interactive", "batch"):
            admission.acquired(ANN, ask(f"{gate.key} {gate.asked}", str(gate.key), priority=priority), 0.0)
    asked = [gate.asked for gate in gates]

    admission.acquired(BOB, ask("bob's", "x3"), 0.0)
    gates[3].fixed_version = 2
    assert len(grants(admission.released(ANN, Release("x3 0", 1), 0.0))) == 1
    assert [number for number, gate in enumerate(gates) if gate.asked > asked[number]] == [3]

    gates[5].closed = GateWait("limit", 7.0)
    gates[5].fixed_version = 2
    admission.released(ANN, Release("x5 0", 1), 0.0)
    assert admission.next_deadline(0.0) == 7.0
    assert len(grants(admission.due(7.0))) == 1

    gates[7].running.clear()  # and its version does not tell
    assert len(grants(admission.limits_changed(8.0))) == 1
    gates[9].running.clear()
    assert len(grants(admission.acquired(ANN, ask("again", "x9", attempt=2), 8.0))) == 1, "a retry goes first"


# Gates that are made by what runs meet.


def test_a_failure_makes_a_gate_and_the_runs_that_are_there_count_in_it() -> None:
    admission = Admission(3, 10, gates := FalseGates())
    admission.worker_joined("w1", "ipc://w1", 1)
    for span_id in ("a", "b", "other"):
        admission.acquired(ANN, ask(span_id, "other" if span_id == "other" else "x"), 0.0)
    admission.acquired(ANN, ask("waits"), 0.0)
    admission.released(ANN, Release("other", 1, "rate_limit", status_code=500), 1.0)
    assert gates.gates == {}
    admission.acquired(ANN, ask("waits too"), 1.0)

    admission.released(ANN, Release("a", 1, "rate_limit", status_code=429), 2.0)

    gate = gates.gates["x"]
    assert gate.left == [("a", "rate_limit")]
    assert sorted(question.span_id for question, _ in gate.running.values()) == ["b", "waits", "waits too"]
    admission.released(ANN, Release("b", 1, "finished"), 3.0)
    assert gate.left[1:] == [("b", "finished")]


def test_runs_that_wait_go_to_the_gate_that_was_made() -> None:
    gates = FalseGates()
    admission = Admission(2, 10, gates)
    admission.worker_joined("w1", "ipc://w1", 1)
    for span_id in ("a", "b", "c"):
        admission.acquired(ANN, ask(span_id), 0.0)
    gates.gates["x"] = closed = FalseGate("x", room=0)
    gates.generation += 1

    assert admission.released(ANN, Release("b", 1), 1.0) == []

    assert admission.waiting_at_gates() == {"x": 1}
    assert [question.span_id for question, _ in closed.running.values()] == ["a"]
    del gates.gates["x"]
    gates.generation += 1
    assert grants(admission.limits_changed(2.0)) == ["c"]


def test_the_head_of_a_response_is_told_to_the_run_s_gate() -> None:
    gate = FalseGate("x")
    admission = limited(gate, workers=2)
    [granted] = admission.acquired(ANN, ask("a"), 0.0)
    assert isinstance(granted.message, Grant)
    epoch = granted.message.epoch
    report = ResponseReport("a", 1, 200)

    admission.answered(3 - epoch, [report], 1.0)  # of a worker that does not have the run
    admission.answered(epoch, [ResponseReport("a", 2, 200), ResponseReport("unknown", 1, 200)], 1.0)
    assert gate.reports == []
    admission.answered(epoch, [report], 1.0)
    admission.released(ANN, Release("a", 1, "finished"), 1.0)
    admission.answered(epoch, [report], 1.1)  # it was overtaken by the release

    assert gate.reports == [report, report]


def test_a_response_makes_a_gate_also_if_its_run_has_ended() -> None:
    admission = Admission(5, 10, gates := FalseGates())
    admission.worker_joined("w1", "ipc://w1", 1)
    for span_id in ("a", "b"):
        admission.acquired(ANN, ask(span_id), 0.0)
    admission.released(ANN, Release("a", 1, "finished"), 1.0)

    admission.answered(1, [ResponseReport("a", 1, 429)], 1.1)

    gate = gates.gates["x"]
    assert [report.span_id for report in gate.reports] == ["a"]
    assert [question.span_id for question, _ in gate.running.values()] == ["b"]
    assert gate.left == [("a", None)]


# A new broker.


def test_a_lease_of_an_earlier_broker_counts_at_its_gate() -> None:
    gate = FalseGate("x", room=1)
    admission = limited(gate)
    admission.held(ANN, Hold("a", 1, 1, ask("a")), 0.0)
    admission.held(ANN, Hold("a", 1, 1, ask("a")), 0.0)
    assert len(gate.running) == 1
    assert admission.acquired(BOB, ask("b"), 0.0) == []

    assert grants(admission.released(ANN, Release("a", 1, "finished"), 1.0)) == ["b"]
    assert gate.left == [("a", "finished")]


# Shares.


def next_time(admission: Admission, now: float) -> float:
    """Return when the next run may go. Workers are not asked about leases."""
    admission.checks(now)
    deadline = admission.next_deadline(now)
    assert deadline is not None
    return max(deadline, now)


def give_back(admission: Admission, answers: list[Send], now: float) -> None:
    """End the runs that got a lease; nobody else must get one by it."""
    for answer in answers:
        assert admission.released(answer.client, Release(answer.message.span_id, 1, "finished"), now) == []


def test_ten_clients_with_unequal_demand_get_equal_shares() -> None:
    gate = FalseGate("x")
    gate.interval = 0.1
    admission = limited(gate)
    open_runs = {b"%d" % number: 2 + 10 * number for number in range(10)}  # runs that the client has at once
    got: Counter[bytes] = Counter()
    asked = 0

    def answer(answers: list[Send], now: float) -> None:
        nonlocal asked
        for granted in answers:
            got[granted.client] += 1
            asked += 1
            admission.released(granted.client, Release(granted.message.span_id, 1, "finished"), now)
            answer(admission.acquired(granted.client, ask(f"{asked} again"), now), now)

    for client, count in open_runs.items():
        for number in range(count):
            answer(admission.acquired(client, ask(f"{client!r} {number}"), 0.0), 0.0)
    now = 0.0
    got.clear()
    while now < 100.0:
        now = next_time(admission, now)
        answer(admission.due(now), now)

    assert sum(got.values()) > 900
    assert max(got.values()) <= 1.1 * min(got.values())


def test_interactive_runs_pass_a_thousand_batch_runs_and_batch_runs_keep_their_slice() -> None:
    gate = FalseGate("x")
    gate.interval = 0.01
    admission = limited(gate)
    for number in range(1000):
        admission.acquired(ANN, ask(f"batch {number}", priority="batch"), 0.0)
    order: list[tuple[str, float]] = []
    asked: dict[str, float] = {}
    now = 0.0
    while now < 5.0:
        now = next_time(admission, now)
        order += [(span_id, now) for span_id in grants(admission.due(now))]
        for number in range(1 + len(order) % 2):  # more than there is room for
            span_id = f"now {len(asked)} {number}"
            asked[span_id] = now
            order += [(span_id, now) for span_id in grants(admission.acquired(BOB, ask(span_id), now))]
        for span_id, _ in order[-2:]:
            admission.released(ANN if span_id.startswith("batch") else BOB, Release(span_id, 1, "finished"), now)
    batch = sum(span_id.startswith("batch") for span_id, _ in order)

    assert 0.1 * len(order) - 1 <= batch <= 0.11 * len(order) + 1
    assert len(order) >= 490


def test_an_interactive_run_waits_for_one_batch_run_at_most() -> None:
    gate = FalseGate("x")
    gate.interval = 0.02
    admission = limited(gate)
    for number in range(1000):
        admission.acquired(ANN, ask(f"batch {number}", priority="batch"), 0.0)
    waits: list[float] = []
    now = 0.0
    for number in range(100):
        now = next_time(admission, now) + 0.001
        give_back(admission, admission.due(now), now)
        asked_at, granted = now, grants(admission.acquired(BOB, ask(f"now {number}"), now))
        while f"now {number}" not in granted:
            now = next_time(admission, now)
            answers = admission.due(now)
            granted = grants(answers)
            give_back(admission, answers, now)
        waits.append(now - asked_at)

    assert max(waits) < 0.1


# Everything at once.

SPANS = st.sampled_from([f"sp{number}" for number in range(12)])
CLIENTS = st.sampled_from([ANN, BOB, b"cyd"])
MODELS = st.sampled_from(["x", "y", "learned", "free"])
USERS = st.sampled_from(["", "u", "v"])
ROOM = {"x": 1, "y": 3}
MAX_RUNS = 3


class LimitedAdmission(RuleBasedStateMachine):
    """Runs before gates come, end and are lost, while gates close, open and are made."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gates = FalseGates(*(FalseGate(key, room) for key, room in ROOM.items()))
        self.admission = Admission(MAX_RUNS, 1000, self.gates)
        self.workers: set[int] = set()
        self.epochs = 0
        self.leases: dict[str, tuple[bytes, int, str, int]] = {}  # client, attempt, model, epoch
        self.waiting: dict[str, tuple[bytes, int, str]] = {}

    def follow(self, answers: list[Send]) -> None:
        for answer in answers:
            said = answer.message
            if isinstance(said, Revoke):
                assert self.leases.pop(said.span_id)[:2] == (answer.client, said.attempt)
                continue
            client, attempt, model = self.waiting.pop(said.span_id)
            assert (client, attempt) == (answer.client, said.attempt)
            if isinstance(said, Grant):
                assert said.epoch in self.workers
                self.leases[said.span_id] = (client, attempt, model, said.epoch)

    @rule(
        client=CLIENTS, span_id=SPANS, model=MODELS, user=USERS, priority=st.sampled_from(["interactive", "batch"]),
        max_wait=st.sampled_from([None, 0.0, 3.0]), is_hedge=st.booleans(),
    )  # fmt: skip
    def client_asks(self, client: bytes, span_id: str, model: str, **more: Any) -> None:
        holder = self.leases.get(span_id) or self.waiting.get(span_id)
        if holder is not None and holder[0] != client:
            return
        attempt = holder[1] + 1 if holder is not None else 1
        self.leases.pop(span_id, None)
        self.waiting[span_id] = (client, attempt, model)
        self.follow(self.admission.acquired(client, ask(span_id, model, attempt, **more), self.now))
        assert not (more["is_hedge"] and span_id in self.waiting)

    @precondition(lambda self: self.leases or self.waiting)
    @rule(data=st.data(), status=st.sampled_from([None, 429, 500]))
    def client_gives_back(self, data: st.DataObject, status: int | None) -> None:
        span_id = data.draw(st.sampled_from([*self.leases, *self.waiting]))
        client, attempt = (self.leases.pop(span_id, None) or self.waiting.pop(span_id))[:2]
        release = Release(span_id, attempt, "finished" if status is None else "rate_limit", status_code=status)
        self.follow(self.admission.released(client, release, self.now))

    @rule(client=CLIENTS)
    def client_leaves(self, client: bytes) -> None:
        for table in (self.leases, self.waiting):
            for span_id in [span_id for span_id, held in table.items() if held[0] == client]:
                del table[span_id]
        self.follow(self.admission.client_left(client))

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def worker_joins(self) -> None:
        self.epochs += 1
        self.workers.add(self.epochs)
        self.follow(self.admission.worker_joined(f"w{self.epochs}", "ipc://w", self.epochs))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_leaves(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers.discard(epoch)
        for span_id in [span_id for span_id, lease in self.leases.items() if lease[3] == epoch]:
            del self.leases[span_id]
        self.follow(self.admission.worker_left(epoch, "died"))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), status=st.sampled_from([200, 429]))
    def worker_reports(self, data: st.DataObject, status: int) -> None:
        span_id = data.draw(st.sampled_from(sorted(self.leases)))
        _, attempt, _, epoch = self.leases[span_id]
        self.follow(self.admission.answered(epoch, [ResponseReport(span_id, attempt, status)], self.now))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), client=CLIENTS, model=MODELS)
    def client_tells_of_a_lease(self, data: st.DataObject, client: bytes, model: str) -> None:
        span_id = f"told {len(self.leases)}"
        if span_id in self.leases or span_id in self.waiting:
            return
        epoch = data.draw(st.sampled_from(sorted(self.workers)))
        before = self.admission.lease_count
        answers = self.admission.held(client, Hold(span_id, 1, epoch, ask(span_id, model)), self.now)
        if self.admission.lease_count > before:
            self.leases[span_id] = (client, 1, model, epoch)
        self.follow(answers)

    @rule(key=st.sampled_from(["x", "y"]), seconds=st.sampled_from([None, 1.0]))
    def gate_closes(self, key: str, seconds: float | None) -> None:
        if self.gates.gates[key].closed is None:  # a gate that opens earlier than it said tells that
            until = None if seconds is None else self.now + seconds
            self.gates.gates[key].closed = GateWait("blocked", until)

    @rule(key=st.sampled_from(["x", "y"]))
    def gate_opens(self, key: str) -> None:
        self.gates.gates[key].closed = None
        self.follow(self.admission.limits_changed(self.now))

    @precondition(lambda self: "learned" in self.gates.gates)
    @rule()
    def gate_is_forgotten(self) -> None:
        if not self.gates.gates["learned"].running:
            del self.gates.gates["learned"]
            self.gates.generation += 1
            self.follow(self.admission.limits_changed(self.now))

    @rule(seconds=st.sampled_from([0.5, 4.0]))
    def time_passes(self, seconds: float) -> None:
        end, passed = self.now + seconds, 0
        while (deadline := self.admission.next_deadline(self.now)) is not None and deadline <= end:
            passed = passed + 1 if deadline <= self.now else 0
            assert passed < 3, "what is due is done"
            self.now = max(deadline, self.now)
            self.follow(self.admission.due(self.now))
            for step in self.admission.checks(self.now):
                assert isinstance(step, Ask)
        self.now = end

    @invariant()
    def the_gates_know_how_many_runs_they_have(self) -> None:
        assert self.admission.lease_count == len(self.leases)
        assert self.admission.waiting_count == len(self.waiting)
        running = Counter(lease[2] for lease in self.leases.values())
        for key, gate in self.gates.gates.items():
            told = sum(question.span_id.startswith("told") for question, _ in gate.running.values())
            assert len(gate.running) == running[key]
            assert len(gate.running) - told <= gate.room

    @invariant()
    def nobody_waits_while_worker_and_gate_have_room(self) -> None:
        loads = Counter(lease[3] for lease in self.leases.values())
        if not any(loads[epoch] < MAX_RUNS for epoch in self.workers):
            return
        for span_id, (_, _, model) in self.waiting.items():
            gate = self.gates.gates.get(model)
            assert gate is not None, span_id
            is_closed = gate.closed is not None and (gate.closed.until is None or gate.closed.until >= self.now)
            assert is_closed or len(gate.running) >= gate.room, span_id

    @invariant()
    def what_runs_wait_for_is_known(self) -> None:
        assert sum(self.admission.waiting_for().values()) == len(self.waiting)
        at_gates = Counter(model for _, _, model in self.waiting.values() if model in self.gates.gates)
        assert self.admission.waiting_at_gates() == at_gates


TestLimitedAdmission = LimitedAdmission.TestCase
TestLimitedAdmission.settings = settings(
    max_examples=repetition.repeated(30, 300), stateful_step_count=50, deadline=None
)
