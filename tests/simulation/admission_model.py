"""Checks each answer of admission against a plain account of its leases.

The account knows nothing of how admission decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.wire.groups import unpacked
from headrace.wire.messages import Acquire, Grant, Hold, Refuse, Release, ResponseReport, Revoke
from headrace_engine.broker.admission import Admission, Ask, Send, SendMany
from headrace_engine.limits.gate import Gates
from tests.simulation.world import SimulationViolation


class _HeldLease(msgspec.Struct, frozen=True):
    client: bytes
    attempt: int
    epoch: int
    is_told: bool = False


class CheckedAdmission(Admission):
    """Admission, and a plain account of its leases. Its answers must agree with the account."""

    def __init__(self, max_runs_per_worker: int, max_waiting_runs: int, gates: Gates | None = None) -> None:
        super().__init__(max_runs_per_worker, max_waiting_runs, gates)
        self.held_leases: dict[str, _HeldLease] = {}
        self.max_concurrency: int | None = None
        """How many runs the settings allow at once."""
        self._limit = max_runs_per_worker
        self._questions: dict[str, tuple[bytes, Acquire]] = {}
        self.joined: set[int] = set()
        self._barred: dict[int, str] = {}
        self._takes_runs = True

    def worker_joined(self, name: str, endpoint: str, epoch: int, *more: Any) -> list[Send]:
        self.joined.add(epoch)
        return self._check(super().worker_joined(name, endpoint, epoch, *more))

    def worker_left(self, epoch: int, reason: str) -> list[Send]:
        if epoch in self.joined:
            self.joined.discard(epoch)
            self._forget_all(lambda lease: lease.epoch == epoch)
        self._barred.pop(epoch, None)
        return self._check(super().worker_left(epoch, reason))

    def worker_suspected(self, epoch: int, is_suspect: bool) -> list[Send]:
        if is_suspect:
            self._barred.setdefault(epoch, "suspect")
        elif self._barred.get(epoch) == "suspect":
            del self._barred[epoch]
        return self._check(super().worker_suspected(epoch, is_suspect))

    def worker_told(self, epoch: int, capacity: int, is_leaving: bool) -> list[Send]:
        if is_leaving and epoch in self.joined:
            self._barred[epoch] = "leaving"
        return self._check(super().worker_told(epoch, capacity, is_leaving))

    def client_left(self, client: bytes) -> list[Send]:
        self._forget_all(lambda lease: lease.client == client)
        for span_id in [known for known, (asker, _) in self._questions.items() if asker == client]:
            del self._questions[span_id]
        return self._check(super().client_left(client))

    def acquired(self, client: bytes, question: Acquire, now: float) -> list[Send]:
        lease = self.held_leases.get(question.span_id)
        asker, asked = self._questions.get(question.span_id, (client, question))
        if lease is not None and lease.client == client and lease.attempt < question.attempt:
            del self.held_leases[question.span_id]
            lease = None
        if lease is None and asker == client and asked.attempt <= question.attempt:
            self._questions[question.span_id] = (client, question)
        return self._check(super().acquired(client, question, now))

    def held(self, client: bytes, hold: Hold, now: float) -> list[Send]:
        lease = self.held_leases.get(hold.span_id)
        if lease is None or (lease.client == client and lease.attempt <= hold.attempt):
            self.held_leases[hold.span_id] = _HeldLease(client, hold.attempt, hold.epoch, is_told=True)
        return self._check(super().held(client, hold, now))

    def released(self, client: bytes, release: Release, now: float) -> list[Send]:
        self._given_back(client, release)
        return self._check(super().released(client, release, now))

    def _given_back(self, client: bytes, release: Release) -> None:
        lease = self.held_leases.get(release.span_id)
        if lease is not None and lease.client == client and lease.attempt == release.attempt:
            del self.held_leases[release.span_id]
        asked = self._questions.get(release.span_id)
        if asked is not None and asked[0] == client and asked[1].attempt == release.attempt:
            del self._questions[release.span_id]

    def released_many(self, client: bytes, releases: Sequence[Release], now: float) -> list[Send]:
        for release in releases:
            self._given_back(client, release)
        return self._check(super().released_many(client, releases, now))

    def _grant_many(self, client: bytes, questions: Sequence[Acquire]) -> tuple[list[Send | SendMany], int]:
        answers, count = super()._grant_many(client, questions)
        for question in questions[:count]:
            if question.span_id in self._questions:
                raise SimulationViolation(f"{question.span_id}: a lease for a run that waits already")
            self._questions[question.span_id] = (client, question)
        singles = [Send(one.client, said) for one in answers for said in unpacked(one.message)]  # type: ignore[arg-type]
        self._check(singles)
        return answers, count

    def answered(self, epoch: int, reports: Iterable[ResponseReport], now: float) -> list[Send]:
        return self._check(super().answered(epoch, reports, now))

    def limits_changed(self, now: float) -> list[Send]:
        return self._check(super().limits_changed(now))

    def stopping(self) -> list[Send]:
        self._takes_runs = False
        return self._check(super().stopping())

    def due(self, now: float) -> list[Send]:
        return self._check(super().due(now))

    def checks(self, now: float) -> list[Ask | Send]:
        steps = super().checks(now)
        for step in steps:
            if isinstance(step, Ask):
                for span_id, attempt, _ in step.leases:
                    lease = self.held_leases.get(span_id)
                    if lease is None or (lease.attempt, lease.epoch) != (attempt, step.epoch):
                        raise SimulationViolation(f"{span_id}: a worker is asked about a lease that nobody has")
        self._check([step for step in steps if isinstance(step, Send)])
        return steps

    def checked(self, epoch: int, answers: Iterable[tuple[str, int, bool]]) -> list[Send]:
        return self._check(super().checked(epoch, answers))

    def _check(self, answers: list[Send]) -> list[Send]:
        for answer in answers:
            match answer.message:
                case Grant() if answer.is_repeat:
                    self._granted_again(answer.client, answer.message)
                case Grant():
                    self._granted(answer.client, answer.message)
                case Revoke():
                    self._revoked(answer.client, answer.message)
                case Refuse():
                    asked = self._questions.get(answer.message.span_id)
                    if asked is not None and asked[0] == answer.client:
                        del self._questions[answer.message.span_id]
        if self.lease_count != len(self.held_leases):
            raise SimulationViolation(
                f"admission counts {self.lease_count} leases where {len(self.held_leases)} are held"
            )
        if self.waiting_count > len(self._questions):
            raise SimulationViolation(
                f"admission has {self.waiting_count} waiting where {len(self._questions)} have asked"
            )
        return answers

    def _granted_again(self, client: bytes, grant: Grant) -> None:
        lease = self.held_leases.get(grant.span_id)
        if lease is None or (lease.client, lease.attempt, lease.epoch) != (client, grant.attempt, grant.epoch):
            raise SimulationViolation(f"{grant.span_id}: a lease is granted again that its client does not have")

    def _revoked(self, client: bytes, revocation: Revoke) -> None:
        lease = self.held_leases.pop(revocation.span_id, None)
        if lease is None or (lease.client, lease.attempt) != (client, revocation.attempt):
            raise SimulationViolation(f"{revocation.span_id}: a lease is ended that its client does not have")

    def _granted(self, client: bytes, grant: Grant) -> None:
        span_id, epoch = grant.span_id, grant.epoch
        asker, question = self._questions.pop(span_id, (b"", None))
        if question is None or asker != client or question.attempt != grant.attempt:
            raise SimulationViolation(f"{span_id}: a lease that nobody asked for")
        if not self._takes_runs:
            raise SimulationViolation(f"{span_id}: a lease from an engine that is stopping")
        if span_id in self.held_leases:
            raise SimulationViolation(f"{span_id}: a second lease while one is held")
        if epoch not in self.joined:
            raise SimulationViolation(f"{span_id}: a lease on a worker that is not there")
        if epoch in self._barred:
            raise SimulationViolation(f"{span_id}: a lease on a worker that is {self._barred[epoch]}")
        if epoch in question.avoid:
            raise SimulationViolation(f"{span_id}: a lease on a worker that was lost with this run")
        if sum(lease.epoch == epoch for lease in self.held_leases.values()) >= self._limit:
            raise SimulationViolation(f"{span_id}: a lease on a worker that has its {self._limit} runs")
        granted = sum(not lease.is_told for lease in self.held_leases.values())
        if self.max_concurrency is not None and granted >= self.max_concurrency:
            raise SimulationViolation(
                f"{span_id}: a lease beyond the {self.max_concurrency} runs at once of the settings"
            )
        self.held_leases[span_id] = _HeldLease(client, grant.attempt, epoch)

    def _forget_all(self, is_gone: Any) -> None:
        for span_id in [known for known, lease in self.held_leases.items() if is_gone(lease)]:
            del self.held_leases[span_id]
