"""Runs that ask, and end, in groups get the same leases as runs that do so one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.groups import grants_of
from headrace.wire.messages import Acquire, Grant, GrantMany, Refuse, Release
from headrace_engine.broker.admission import Admission, Send, SendMany
from headrace_engine.broker.choice import choose, choose_many
from headrace_engine.broker.client_shares import ClientShares
from headrace_engine.broker.connected_workers import ConnectedWorker, ConnectedWorkers
from headrace_engine.broker.waiting_run import WaitingRun
from headrace_engine.limits.gate import GateWait, Refusal
from tests.engine.broker.false_gates import FalseGate, FalseGates

ANN, BOB = b"ann", b"bob"


def questions(*span_ids: str, model: str = "m", **more: Any) -> list[Acquire]:
    return [Acquire(span_id, 1, "openai", model, "batch", **more) for span_id in span_ids]


def engine(workers: int = 1, max_runs: int = 2, *gates: FalseGate) -> Admission:
    admission = Admission(max_runs, 10, FalseGates(*gates))
    for epoch in range(1, workers + 1):
        admission.worker_joined(f"w{epoch}", f"ipc://w{epoch}", epoch)
    return admission


def leases(answers: Sequence[Send | SendMany]) -> list[tuple[str, int]]:
    """Return the span ids and the epochs of all leases that answers give."""
    messages = [answer.message for answer in answers]
    singles = [one for said in messages for one in (grants_of(said) if isinstance(said, GrantMany) else [said])]
    return [(grant.span_id, grant.epoch) for grant in singles if isinstance(grant, Grant)]


def test_a_group_is_spread_over_the_workers_and_told_in_one_message_for_each() -> None:
    admission = engine(2, 10)
    answers = admission.acquired_many(ANN, questions("a", "b", "c", "d", "e"), 0.0)

    assert [type(answer.message) for answer in answers] == [GrantMany, GrantMany]
    assert sorted(leases(answers)) == [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1)]
    assert admission.granted_total == admission.lease_count == 5


def test_what_finds_no_place_waits_in_its_order() -> None:
    admission = engine()
    assert leases(admission.acquired_many(ANN, questions("a", "b", "c", "d"), 0.0)) == [("a", 1), ("b", 1)]
    assert admission.waiting_count == 2

    freed = admission.released_many(ANN, [Release("a", 1, "finished"), Release("b", 1, "finished")], 0.0)
    assert leases(freed) == [("c", 1), ("d", 1)]


def test_a_run_of_another_client_goes_before_the_rest_of_a_group() -> None:
    admission = engine(1, 1)
    admission.acquired_many(ANN, questions("a1", "a2", "a3"), 0.0)
    admission.acquired(BOB, questions("b")[0], 0.0)
    order = ["a1"]
    for client in (ANN, ANN, BOB):
        order += [span_id for span_id, _ in leases(admission.released_many(client, [Release(order[-1], 1)], 0.0))]

    assert order == ["a1", "a2", "b", "a3"]


def test_a_group_does_not_free_what_is_not_its_client_s() -> None:
    admission = engine(1, 3)
    admission.acquired_many(ANN, questions("a", "b"), 0.0)

    assert admission.released_many(BOB, [Release("a", 1, "finished"), Release("b", 1, "finished")], 0.0) == []
    assert admission.released_many(ANN, [Release("a", 2, "finished"), Release("unknown", 1, "finished")], 0.0) == []
    assert admission.lease_count == 2
    assert admission.released_many(ANN, [Release("a", 1, "finished"), Release("a", 1, "finished")], 0.0) == []
    assert admission.lease_count == 1


def test_a_group_with_an_id_that_is_in_use_or_twice_in_it_is_refused_that_run_only() -> None:
    admission = engine(1, 10)
    admission.acquired(BOB, questions("a")[0], 0.0)
    answers = admission.acquired_many(ANN, questions("a", "b", "b"), 0.0)

    assert leases(answers) == [("b", 1)]
    assert [answer.message.span_id for answer in answers if isinstance(answer.message, Refuse)] == ["a", "b"]


def test_a_failure_in_a_group_makes_a_gate_that_counts_the_leases_that_are_left() -> None:
    admission = engine(1, 10)
    gates: Any = admission._gates
    admission.acquired_many(ANN, questions("a", "b", "c", "d"), 0.0)
    releases = [
        Release("a", 1, "finished"),
        Release("b", 1, "rate_limit", status_code=429),
        Release("c", 1, "finished"),
    ]
    admission.released_many(ANN, releases, 0.0)

    assert [question.span_id for question, _ in gates.gates["m"].running.values()] == ["d"]
    assert gates.gates["m"].left == [("b", "rate_limit"), ("c", "finished")]


def test_a_group_before_a_gate_gets_what_the_gate_lets_go() -> None:
    gate = FalseGate("x", 2)
    admission = engine(1, 10, gate)
    answers = admission.acquired_many(ANN, questions("a", "b", "c", model="x"), 0.0)

    assert leases(answers) == [("a", 1), ("b", 1)]
    assert leases(admission.released_many(ANN, [Release("b", 1, "finished")], 0.0)) == [("c", 1)]
    assert gate.left == [("b", "finished")]


class CrowdedGates(FalseGates):
    """There is no place for one more gate until somebody asks whether runs are refused: then idle gates are forgotten."""

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        self.gates.setdefault(question.model, FalseGate(question.model, 1))
        return super().refusal(question, now)


def test_a_group_whose_gate_is_made_when_it_asks_gets_what_the_gate_lets_go() -> None:
    admission = Admission(10, 10, CrowdedGates())
    admission.worker_joined("w1", "ipc://w1", 1)
    assert leases(admission.acquired_many(ANN, questions("a", "b", "c"), 0.0)) == [("a", 1)]


# Compared with an admission that is told the same in single messages.

Event = tuple[str, Any]
EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.tuples(
                st.sampled_from([ANN, BOB]),
                st.sampled_from(["batch", "interactive"]),
                st.sampled_from(["free", "free", "x", "y"]),
                st.sampled_from(["", "u"]),
                st.sampled_from([None, None, 0.0, 3.0]),
                st.integers(1, 6),
            ),
        ),
        st.tuples(st.just("end"), st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 9))),
        st.tuples(st.just("close"), st.sampled_from(["x", "y"])),
        st.tuples(st.just("open"), st.sampled_from(["x", "y"])),
        st.tuples(st.just("time"), st.sampled_from([0.5, 4.0])),
    ),
    max_size=30,
)


class Told:
    """An admission of one worker, and what it has said of which runs."""

    def __init__(self, kind: Literal["groups", "singles"]) -> None:
        self.is_grouping = kind == "groups"
        self.gates = FalseGates(FalseGate("x", 2), FalseGate("y", 4))
        self.admission = Admission(8, 20, self.gates)
        self.admission.worker_joined("w1", "ipc://w1", 1)
        self.said: list[tuple[str, str]] = []

    def follow(self, answers: Sequence[Send | SendMany]) -> None:
        found: list[tuple[str, str]] = []
        for answer in answers:
            message = answer.message
            singles = grants_of(message) if isinstance(message, GrantMany) else [message]
            # What a run has waited for depends on when it was looked at last.
            found += [(one.span_id, type(one).__name__) for one in singles]
        self.said += found

    def ask(self, client: bytes, group: list[Acquire], now: float) -> None:
        if self.is_grouping:
            self.follow(self.admission.acquired_many(client, group, now))
        else:
            for question in group:
                self.follow(self.admission.acquired(client, question, now))

    def end(self, client: bytes, group: list[Release], now: float) -> None:
        if self.is_grouping:
            self.follow(self.admission.released_many(client, group, now))
        else:
            for release in group:
                self.follow(self.admission.released(client, release, now))

    def close(self, key: str) -> None:
        if self.gates.gates[key].closed is None:
            self.gates.gates[key].closed = GateWait("blocked", None)

    def open(self, key: str, now: float) -> None:
        self.gates.gates[key].closed = None
        self.follow(self.admission.limits_changed(now))

    def counts(self) -> tuple[Any, ...]:
        admission, gates = self.admission, self.gates.gates
        return (
            admission.lease_count,
            admission.waiting_count,
            admission.granted_total,
            admission.refused_total,
            sum(admission.waiting_for().values()),
            {key: (len(gate.running), sorted(gate.left)) for key, gate in gates.items()},
            [len(worker.spans) for worker in admission.workers],
        )


class Compared:
    """The same story, told to both."""

    def __init__(self) -> None:
        self.both = (Told("groups"), Told("singles"))
        self.now = 0.0
        self.clients: dict[str, bytes] = {}

    def ask(self, facts: tuple[bytes, Any, str, str, float | None, int]) -> None:
        client, priority, model, user, max_wait, count = facts
        names = [f"r{len(self.clients) + number}" for number in range(count)]
        self.clients |= dict.fromkeys(names, client)
        group = [
            Acquire(name, 1, "openai", model, priority, user=user, max_wait=max_wait, input_tokens=len(name))
            for name in names
        ]
        for told in self.both:
            told.ask(client, group, self.now)

    def end(self, facts: tuple[list[int], int]) -> None:
        picks, failure = facts
        held = sorted(self.both[0].admission._leases._leases, key=lambda span_id: int(span_id[1:]))
        chosen = list(dict.fromkeys(held[pick % len(held)] for pick in picks)) if held else []
        for client in (ANN, BOB):
            releases = [
                Release(span_id, 1, "timeout" if failure == index else "finished")
                for index, span_id in enumerate(chosen)
                if self.clients[span_id] == client
            ]
            for told in self.both:
                told.end(client, releases, self.now)

    def close(self, key: str) -> None:
        for told in self.both:
            told.close(key)

    def open(self, key: str) -> None:
        for told in self.both:
            told.open(key, self.now)

    def time(self, seconds: float) -> None:
        self.now += seconds
        for told in self.both:
            told.follow(told.admission.due(self.now))


@given(EVENTS)
def test_groups_get_what_single_messages_get(events: list[Event]) -> None:
    compared = Compared()
    groups, singles = compared.both
    for kind, facts in events:
        getattr(compared, kind)(facts)
        assert sorted(groups.said) == sorted(singles.said)
        assert groups.counts() == singles.counts()
        assert groups.admission.next_deadline(compared.now) == singles.admission.next_deadline(compared.now)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.booleans(), st.booleans()), max_size=4),
    st.integers(0, 20),
    st.booleans(),
)
def test_a_group_goes_to_the_workers_that_its_runs_would_go_to_one_after_another(
    loads: list[tuple[int, int, bool, bool]], count: int, is_idle: bool
) -> None:
    def placed() -> tuple[ConnectedWorkers, ClientShares]:
        workers, shares = ConnectedWorkers(100), ClientShares()
        for epoch, (taken, room, is_leaving, is_suspect) in enumerate(loads, 1):
            worker = workers.joined(f"w{epoch}", "ipc://w", epoch, taken + room, 0)
            worker.is_leaving, worker.is_suspect = is_leaving, is_suspect
            worker.spans |= {f"{epoch}/{number}" for number in range(taken)}
        if is_idle:
            shares.unused({7: 1000}, 100, 0.0)
        return workers, shares

    workers, shares = placed()
    run = WaitingRun(ANN, Acquire("a", 1, "openai", "m"), 0.0, 7)
    one_by_one: list[int] = []
    while len(one_by_one) < count and isinstance(worker := choose(run, workers, shares), ConnectedWorker):
        worker.spans.add(f"new {len(one_by_one)}")
        shares.taken(worker.epoch, 7)
        one_by_one.append(worker.epoch)

    assert [worker.epoch for worker in choose_many(count, 7, *placed())] == one_by_one


def test_an_acquire_that_was_a_group_is_no_other_than_a_single_one() -> None:
    group, single = engine(1, 10), engine(1, 10)
    group.acquired_many(ANN, questions("a", "b", tags=["t"], max_output_tokens=5), 1.0)
    for question in questions("a", "b", tags=["t"], max_output_tokens=5):
        single.acquired(ANN, question, 1.0)

    kept = [[admission._leases.find(span_id) for span_id in "ab"] for admission in (group, single)]
    assert kept[0] == kept[1]
    assert all(isinstance(lease, msgspec.Struct) for lease in kept[0])
