"""A run that waits, and for which there is no money when its turn comes, is refused and takes no place of another run."""

from __future__ import annotations

from headrace.wire.messages import Acquire, Refuse, Release
from headrace_engine.broker.admission import Admission, Send
from tests.engine.broker.false_gates import FalseGate, FalseGates

ANN = b"ann"
OVER: tuple[str, float] = ("[spending.daily] allows $5.00 a day", 60.0)


def ask(span_id: str) -> Acquire:
    return Acquire(span_id, 1, "openai", "large")


def names(answers: list[Send]) -> list[tuple[str, str]]:
    return [(type(answer.message).__name__, answer.message.span_id) for answer in answers]


def test_when_its_turn_comes_a_run_without_money_is_refused_and_the_next_one_goes() -> None:
    gate = FalseGate("large")
    admission = Admission(1, 10, FalseGates(gate))
    admission.worker_joined("w1", "ipc://w1", 1)
    assert names(admission.acquired(ANN, ask("a"), 0.0)) == [("Grant", "a")]
    for waiting in ("b", "c", "d"):
        assert admission.acquired(ANN, ask(waiting), 0.0) == []
    for poor in ("b", "c"):
        gate.late_refusals[poor] = ("over_budget", *OVER)
    answers = admission.released(ANN, Release("a", 1), 1.0)

    assert names(answers) == [("Refuse", "b"), ("Refuse", "c"), ("Grant", "d")]
    assert answers[0] == Send(ANN, Refuse("b", 1, "over_budget", *OVER))
    assert (admission.lease_count, admission.waiting_count, admission.refused_total) == (1, 0, 2)
    assert len(gate.running) == 1
