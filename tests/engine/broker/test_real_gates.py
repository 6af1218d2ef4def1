"""Admission before real gates: whatever happens at the providers, no run waits while its gate would let it go."""

from __future__ import annotations

from random import Random

import pytest

from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.messages import Acquire, Grant, Hold, Refuse, Release, ResponseReport, SaidLimit
from headrace_engine.broker.admission import Admission, Send
from headrace_engine.limits.gate import Priority
from headrace_engine.limits.gates import PoolGates
from tests.repetition import repeated

CLIENT = b"ann"
LIMITS = {
    "openai": LimitConfig(max_concurrency=6),
    "openai/a": LimitConfig(max_concurrency=2),
    "openai/b": LimitConfig(requests_per_minute=60),
    "other": LimitConfig(requests_per_minute=30),
}


class Story:
    """Random runs and ends of runs. All runs cost the same, so that a run may go if any run of its gate may."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        providers = {name: ProviderConfig(api="openai-chat", base_url="https://x") for name in ("openai", "other")}
        self.gates = PoolGates(Settings(providers=providers, limits=LIMITS), self.random.uniform)
        self.admission = Admission(50, 10_000, self.gates)
        self.admission.worker_joined("w1", "ipc://w1", 1)
        self.now = 100.0
        self.asked = 0
        self.running: list[str] = []
        self.waiting: set[str] = set()

    def follow(self, answers: list[Send]) -> None:
        for answer in answers:
            said = answer.message
            if isinstance(said, Grant):
                self.running.append(said.span_id)
            self.waiting.discard(said.span_id)
            assert isinstance(said, Grant | Refuse)

    def question(self) -> Acquire:
        self.asked += 1
        provider, models = self.random.choice([("openai", "ab"), ("openai", "abc"), ("other", "d"), ("third", "ef")])
        priority: Priority = "batch" if self.random.random() < 0.3 else "interactive"
        user, max_wait = self.random.choice("uv"), self.random.choice([None, None, 5.0, 600.0])
        name = f"r{self.asked}"
        return Acquire(name, 1, provider, self.random.choice(models), priority, user=user, max_wait=max_wait)

    def happen(self) -> None:
        what = self.random.random()
        if what < 0.5:
            question = self.question()
            self.waiting.add(question.span_id)
            self.follow(self.admission.acquired(CLIENT, question, self.now))
        elif what < 0.85 and self.running:
            span_id = self.running.pop(self.random.randrange(len(self.running)))
            self.follow(self.admission.released(CLIENT, self.end_of(span_id), self.now))
        elif what < 0.9 and self.running:
            limits = [SaidLimit("requests", 600, self.random.choice([0, 5, 600]), 10.0)]
            report = ResponseReport(self.random.choice(self.running), 1, 200, limits)
            self.follow(self.admission.answered(1, [report], self.now))
        elif what < 0.92:
            keys = self.random.choice([["k1"], ["k1", "k2"], ["k1", "k2", "k3"]])
            self.gates.keys_told(1, {"openai": keys, "third": keys}, self.now)
            self.follow(self.admission.limits_changed(self.now))
        elif what < 0.93:
            question = self.question()
            self.running.append(question.span_id)
            self.follow(self.admission.held(CLIENT, Hold(question.span_id, 1, 1, question, "k2"), self.now))

    def end_of(self, span_id: str) -> Release:
        outcome, status, retry_after, is_final = self.random.choice(
            [
                *6 * [("finished", 200, None, False)],
                ("rate_limit", 429, self.random.choice([None, 3.0]), False),
                ("rate_limit", 429, None, True),
                ("provider_unavailable", 503, None, False),
                ("authentication", 401, None, False),
            ]
        )
        return Release(span_id, 1, outcome, None, status, retry_after, is_final)

    def pass_time(self, seconds: float) -> None:
        end, at_once = self.now + seconds, 0
        while (deadline := self.admission.next_deadline(self.now)) is not None and deadline <= end:
            at_once = at_once + 1 if deadline <= self.now else 0
            assert at_once < 5, "the broker looks again and again"
            self.now = max(deadline, self.now)
            self.follow(self.admission.due(self.now))
            self.admission.checks(self.now)
        self.now = end

    def check(self) -> None:
        assert self.admission.waiting_count == len(self.waiting)
        for span_id in self.waiting:
            wait = self.admission.waits_for(span_id)
            assert wait is not None, f"{span_id} may go and waits"


@pytest.mark.parametrize("seed", range(repeated(4, 200)))
def test_no_run_waits_while_its_gate_would_let_it_go(seed: int) -> None:
    story = Story(seed)
    for _ in range(400):
        story.happen()
        story.check()
        story.pass_time(story.random.choice([0.0, 0.0, 0.05, 0.5, 3.0]) * story.random.random())
        story.check()
    story.pass_time(300.0)
