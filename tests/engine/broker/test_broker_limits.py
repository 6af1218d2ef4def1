"""The limits in the broker process: they outlive it, workers tell of them, and refused keys are logged loudly."""

from __future__ import annotations

import logging

import msgspec
import pytest

from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Grant, KeyReport, LimitReport, Refuse, ResponseReport
from headrace_engine.broker.admission import Admission
from headrace_engine.broker.broker_limits import SAVE_INTERVAL, BrokerLimits, EngineLimits, understood
from headrace_engine.limits.gate import GateWait, KeyRefused
from tests.engine.broker.false_gates import FalseGate, FalseGates

ANN = b"ann"


class Kept:
    """A place for the state, in memory. ``problem`` is raised instead."""

    def __init__(self, state: bytes | None = None, problem: Exception | None = None) -> None:
        self.state = state
        self.problem = problem
        self.written: list[float] = []

    def read(self, now: float) -> bytes | None:  # noqa: ARG002
        if self.problem is not None:
            raise self.problem
        return self.state

    def write(self, state: bytes, now: float) -> None:
        if self.problem is not None:
            raise self.problem
        self.state = state
        self.written.append(now)


def broker(gates: FalseGates, kept: Kept) -> tuple[BrokerLimits, Admission]:
    admission = Admission(10, 10, gates)
    admission.worker_joined("w1", "ipc://w1", 1)
    return BrokerLimits(EngineLimits(gates), admission, kept, lambda _answers: None), admission


def start(reports: BrokerLimits) -> None:
    reports.start(lambda action: action())
    reports.end()


def test_a_new_broker_takes_over_what_the_broker_before_knew() -> None:
    gates = FalseGates()
    reports, _ = broker(gates, Kept(b"state"))

    start(reports)

    assert gates.restored == [b"state"]


@pytest.mark.parametrize("problem", [OSError("no"), msgspec.DecodeError("damaged"), KeyError("old")])
def test_a_state_that_cannot_be_read_is_a_warning(problem: Exception, caplog: pytest.LogCaptureFixture) -> None:
    gates = FalseGates()
    reports, _ = broker(gates, Kept(problem=problem))

    start(reports)

    (record,) = caplog.records
    assert (record.levelno, record.__dict__["reason"]) == (logging.WARNING, str(problem))
    assert gates.restored == []


def test_a_first_change_is_kept_at_once_and_further_ones_twice_a_second() -> None:
    gates, kept = FalseGates(), Kept()
    reports, _ = broker(gates, kept)
    assert reports.turn_ended(0.0) is None

    gates.is_changed, gates.kept = True, b"one"
    assert reports.turn_ended(1.0) is None
    assert (kept.state, kept.written) == (b"one", [1.0])

    gates.is_changed, gates.kept = True, b"two"
    assert reports.turn_ended(1.2) == 1.0 + SAVE_INTERVAL
    reports.due(1.3)
    assert kept.written == [1.0]
    reports.due(1.5)

    assert (kept.state, kept.written) == (b"two", [1.0, 1.5])
    assert reports.turn_ended(1.6) is None


def test_a_state_that_cannot_be_written_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    gates, kept = FalseGates(), Kept(problem=OSError("no room"))
    reports, _ = broker(gates, kept)
    for number in range(3):
        gates.is_changed, gates.kept = True, b"one"
        reports.turn_ended(float(number))
        reports.due(number + SAVE_INTERVAL)

    assert [record.message for record in caplog.records] == ["limits cannot be kept for the next broker"]


def test_workers_tell_of_responses_and_of_keys() -> None:
    gate = FalseGate("x")
    reports, admission = broker(gates := FalseGates(gate), Kept())
    admission.acquired(ANN, Acquire("a", 1, "openai", "x"), 0.0)
    gate.closed = GateWait("blocked", None)
    admission.acquired(ANN, Acquire("b", 1, "openai", "x"), 0.0)
    report = ResponseReport("a", 1, 200)

    assert reports.reported(1, LimitReport([report]), 1.0) == []
    gate.closed = None
    (answer,) = reports.reported(1, KeyReport({"openai": ["ab12"]}), 2.0)

    assert gate.reports == [report]
    assert gates.keys == {1: {"openai": ["ab12"]}}
    assert isinstance(answer.message, Grant)
    assert reports.pools(2.0) == [PoolStatus("openai", "x", running=2)]
    reports.worker_left(1)
    assert gates.keys == {}


def test_a_key_that_the_provider_refuses_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    gates = FalseGates()
    reports, _ = broker(gates, Kept())
    gates.happened.append(KeyRefused("openai", "ab12", 1))
    gates.is_changed = True

    reports.turn_ended(1.0)
    reports.turn_ended(1.1)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert (record.__dict__["provider"], record.__dict__["key"], record.__dict__["left"]) == ("openai", "ab12", 1)


def test_an_older_client_gets_a_refusal_that_it_knows() -> None:
    for kind in ("over_budget", "no_retry", "no_hedge"):
        refusal = Refuse("a", 1, kind, "so it is", 2.0)
        assert understood(refusal, has_limits=True) == refusal
        assert understood(refusal, has_limits=False) == Refuse("a", 1, "queue_full", "so it is", 2.0)
    stopping = Refuse("a", 1, "stopping", "so it is")
    assert understood(stopping, has_limits=False) == stopping
