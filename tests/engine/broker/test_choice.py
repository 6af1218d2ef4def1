"""The choice of a worker: the one with the fewest runs that the run may go to.

Else what the run waits for, and until when.
"""

from __future__ import annotations

from headrace.wire.messages import Acquire
from headrace_engine.broker.choice import NO_WORKERS_TIMEOUT, choose
from headrace_engine.broker.client_shares import ClientShares
from headrace_engine.broker.connected_workers import ConnectedWorkers
from headrace_engine.broker.waiting_run import Owner, Wait, WaitCause, WaitingRun


def run(attempt: int = 1, avoid: tuple[int, ...] = (), since: float = 0.0) -> WaitingRun:
    return WaitingRun(b"ann", Acquire("a", attempt, "openai", "m", avoid=list(avoid)), since)


def workers(*loads: int, max_runs: int = 10) -> ConnectedWorkers:
    """Return workers with the epochs 1, 2, … that have so many runs."""
    made = ConnectedWorkers(max_runs)
    for epoch, load in enumerate(loads, 1):
        made.joined(f"w{epoch}", f"ipc://w{epoch}", epoch, -1, 0).spans |= {f"sp_{number}" for number in range(load)}
    return made


def chosen(run: WaitingRun, workers: ConnectedWorkers, shares: ClientShares | None = None) -> int | Wait:
    found = choose(run, workers, shares or ClientShares())
    return found if isinstance(found, Wait) else found.epoch


def test_a_run_goes_to_the_worker_with_the_fewest_runs_of_those_that_it_does_not_avoid() -> None:
    assert chosen(run(), workers(3, 1, 2)) == 2
    assert chosen(run(avoid=(2,)), workers(3, 1, 2)) == 3


def test_a_retry_that_avoids_no_worker_may_go_to_any() -> None:
    assert chosen(run(attempt=2), workers(1)) == 1


def test_without_a_worker_a_run_waits_from_when_the_last_one_went() -> None:
    nobody = workers()
    assert chosen(run(since=5.0), nobody) == Wait(WaitCause.NO_WORKER, 5.0 + NO_WORKERS_TIMEOUT)

    one = workers(0)
    one.passed(6.0)
    one.left(1, "died")
    one.passed(7.0)
    assert chosen(run(since=5.0), one) == Wait(WaitCause.NO_WORKER, 7.0 + NO_WORKERS_TIMEOUT)

    one.starting(is_so=True)
    assert chosen(run(since=5.0), one) == Wait(WaitCause.NO_WORKER, None)


def test_a_worker_that_is_leaving_is_no_worker_for_a_new_run() -> None:
    leaving = workers(0)
    leaving.passed(0.0)
    leaving.told(1, -1, is_leaving=True)
    leaving.passed(1.0)

    assert chosen(run(), leaving) == Wait(WaitCause.NO_WORKER, 1.0 + NO_WORKERS_TIMEOUT)


def test_a_run_that_avoids_every_worker_waits_for_another_one() -> None:
    assert chosen(run(avoid=(1, 2)), workers(0, 0)) == Wait(WaitCause.ALL_AVOIDED, NO_WORKERS_TIMEOUT)


def test_a_run_waits_for_a_full_or_silent_worker_as_long_as_it_takes() -> None:
    assert chosen(run(avoid=(1,)), workers(0, 10)) == Wait(WaitCause.WORKERS_FULL, None)

    silent = workers(0)
    for worker in silent:
        worker.is_suspect = True
    assert chosen(run(), silent) == Wait(WaitCause.WORKERS_FULL, None)


def test_a_client_that_has_its_share_waits_until_its_share_recovers() -> None:
    shares = ClientShares()
    for _ in range(63):
        shares.taken(1, b"ann")
    large = workers(0, max_runs=64)
    assert chosen(run(), large, shares) == Wait(WaitCause.CLIENT_SHARE, None)

    shares.unused({b"ann": 8}, 64, now=100.0)
    assert chosen(run(), large, shares) == Wait(WaitCause.CLIENT_SHARE, 160.0)


class CountedShares(ClientShares):
    """Counts how often a client's share is asked for."""

    asked = 0

    def room(self, epoch: int, owner: Owner, max_runs: int) -> int:
        self.asked += 1
        return super().room(epoch, owner, max_runs)


def test_with_a_thousand_workers_the_share_of_a_client_is_asked_for_only_where_a_worker_may_be_the_best() -> None:
    shares = CountedShares()

    assert chosen(run(), workers(*[1] * 998, 0, 0), shares) == 999
    assert shares.asked == 2
