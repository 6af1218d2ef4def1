"""The workers that are connected: how many runs each can take, and since when there has been no worker, and why."""

from __future__ import annotations

from headrace_engine.broker.connected_workers import ConnectedWorkers


def one_worker(capacity: int = -1) -> ConnectedWorkers:
    workers = ConnectedWorkers(max_runs=4)
    workers.joined("w1", "ipc://w1", 1, capacity, 0)
    workers.passed(0.0)
    return workers


def test_a_worker_takes_as_many_runs_as_it_says_and_the_settings_allow() -> None:
    for capacity, allowed in ((-1, 4), (2, 2), (100, 4), (0, 0)):
        assert [worker.max_runs for worker in one_worker(capacity)] == [allowed]


def test_a_worker_that_can_take_more_runs_than_before_is_news() -> None:
    workers = one_worker(capacity=2)

    assert workers.told(1, 3, is_leaving=False)
    assert not workers.told(1, 3, is_leaving=False)
    assert not workers.told(1, 1, is_leaving=False)
    assert not workers.told(7, 100, is_leaving=False), "it is not connected"


def test_a_silent_a_leaving_and_a_full_worker_have_no_room() -> None:
    workers = one_worker(capacity=1)
    [worker] = workers
    assert workers.has_room

    worker.is_suspect = True
    assert not workers.has_room
    worker.is_suspect = False
    worker.spans.add("a")
    assert not workers.has_room
    worker.spans.clear()
    workers.told(1, 1, is_leaving=True)
    assert not workers.has_room


def test_the_absence_of_workers_begins_when_the_last_one_goes_or_is_leaving() -> None:
    for is_leaving in (False, True):
        workers = one_worker()
        assert workers.absent_since is None
        if is_leaving:
            workers.told(1, -1, is_leaving=True)
        else:
            workers.left(1, "died")
        workers.passed(7.0)
        workers.passed(8.0)

        assert workers.absent_since == 7.0


def test_while_a_worker_starts_there_is_no_absence() -> None:
    workers = ConnectedWorkers(max_runs=4)
    assert workers.absent_since == float("-inf"), "there was never a worker"

    workers.starting(is_so=True)
    workers.passed(3.0)
    assert workers.absent_since is None

    workers.starting(is_so=False)
    workers.passed(5.0)
    assert workers.absent_since == 5.0


def test_the_reason_of_the_absence_is_the_last_one_that_is_known() -> None:
    workers = ConnectedWorkers(max_runs=4)
    assert workers.absence == "no worker has started yet"
    workers.failed("w1 ended with exit status 2")
    assert workers.absence == "no worker has started yet: w1 ended with exit status 2"

    workers.joined("w1", "ipc://w1", 1, -1, 0)
    workers.told(1, -1, is_leaving=True)
    assert workers.absence == "the last worker is leaving: w1"
    workers.left(1, "w1: signal 9")
    workers.failed("w2 ended with exit status 2")
    assert workers.absence == "the last worker went away: w1: signal 9"
