"""Leases: each counts for its client, its worker and its client's share, until it ends."""

from __future__ import annotations

from headrace.wire.messages import Acquire
from headrace_engine.broker.connected_workers import ConnectedWorkers
from headrace_engine.broker.lease_checks import FIRST_CHECK, TOLD_CHECK
from headrace_engine.broker.leases import Lease, Leases
from headrace_engine.broker.waiting_run import WaitingRun

ANN = b"ann"
BOB = b"bob"


def lease(
    span_id: str, client: bytes = ANN, epoch: int = 1, *, is_traced: bool = True, is_hedge: bool = False
) -> Lease:
    run = WaitingRun(client, Acquire(span_id, 1, "openai", "m", is_traced=is_traced, is_hedge=is_hedge), 5.0)
    return Lease(span_id, client, client, 1, epoch, run)


def on_one_worker(*held: Lease) -> tuple[Leases, ConnectedWorkers]:
    workers = ConnectedWorkers(max_runs=64)
    workers.joined("w1", "ipc://w1", 1, -1, 0)
    leases = Leases(workers)
    for each in held:
        leases.add(each)
    return leases, workers


def spans_on(workers: ConnectedWorkers, epoch: int = 1) -> set[str]:
    worker = workers.find(epoch)
    return worker.spans if worker is not None else set()


def test_a_lease_that_ends_leaves_its_client_and_its_worker() -> None:
    leases, workers = on_one_worker(lease("a"), lease("b"))
    assert spans_on(workers) == {"a", "b"}

    assert leases.remove("a") == lease("a")
    assert leases.remove("a") is None
    assert spans_on(workers) == {"b"}
    leases.client_left(ANN)
    assert (len(leases), spans_on(workers)) == (0, set())


def test_a_lease_on_a_worker_that_connects_later_counts_on_it() -> None:
    leases, workers = on_one_worker()
    leases.add(lease("a", epoch=2), is_told=True)

    leases.worker_joined(workers.joined("w2", "ipc://w2", 2, -1, 0))

    assert spans_on(workers, 2) == {"a"}


def test_the_leases_of_a_worker_end_with_it() -> None:
    leases, workers = on_one_worker(lease("a"), lease("b", BOB), lease("c", BOB, epoch=2))

    [worker] = workers
    leases.worker_left(worker)

    assert (leases.find("a"), leases.find("b"), leases.find("c")) == (None, None, lease("c", BOB, epoch=2))


def test_a_share_is_free_again_when_its_leases_end() -> None:
    leases, _ = on_one_worker(*(lease(f"a{number}") for number in range(63)))
    assert not leases.shares.has_room(1, ANN, 64)

    leases.remove("a0")

    assert leases.shares.has_room(1, ANN, 64)


def test_unfinished_runs_are_those_that_want_a_span_and_whose_question_came_to_this_broker() -> None:
    others = [lease("b", is_traced=False), Lease("c", ANN, ANN, 1, 1), lease("d", is_hedge=True)]
    leases, _ = on_one_worker(lease("a"), *others)

    assert [run.span_id for run in leases.unfinished_on(1)] == ["a"]
    assert [(run.span_id, run.worker, run.asked_at) for run in leases.unfinished_of(ANN)] == [("a", "w1", 5.0)]


def test_the_next_check_counts_from_when_the_lease_was_first_heard_of() -> None:
    leases, _ = on_one_worker()
    assert leases.next_check(0.0) is None

    leases.add(lease("a"))
    assert leases.next_check(100.0) == 100.0 + FIRST_CHECK
    leases.add(lease("told"), is_told=True)
    assert leases.next_check(101.0) == 101.0 + TOLD_CHECK
    assert [each.span_id for each in leases.due(101.0 + TOLD_CHECK)] == ["told"]


def test_a_worker_that_names_an_unused_lease_twice_ends_it_once() -> None:
    leases, _ = on_one_worker(lease("a"))
    leases.next_check(0.0)
    leases.due(FIRST_CHECK)

    assert leases.unused(1, [("a", 1, False), ("a", 1, False)], FIRST_CHECK) == [lease("a")]
