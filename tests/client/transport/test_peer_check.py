"""Who is let in: a peer is what the kernel and the supervisor say that it is, whatever it says itself."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.process.lifecycle import ProcessOrigin
from headrace.transport.peer_check import HOLD_FOR, Claim, Genuine, Mismatch, PeerCheck, Undecided
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import PeerRole

SUPERVISOR = 10
WORKER = ProcessStatus("w1", 11, "running", 0, epoch=7, started=500)
COLLECTOR = ProcessStatus("collector", 12, "running", 0, started=510)
PEER = b"peer"


def claim(role: PeerRole = "worker", **changes: Any) -> Claim:
    facts: dict[str, Any] = {
        "name": "w1" if role == "worker" else "",
        "epoch": 7,
        "pid": 11,
        "origin": ProcessOrigin(SUPERVISOR, 500),
        "connected": 600.0,
    }
    return Claim(role, **{**facts, **changes})


def door(*processes: ProcessStatus) -> PeerCheck[str]:
    made: PeerCheck[str] = PeerCheck(SUPERVISOR, ProcessOrigin(1, 400))
    if processes:
        made.reported(processes)
    return made


def test_any_process_may_be_a_client() -> None:
    assert door().check(PEER, claim("client", pid=0, origin=None), 0.0) == Genuine()


def test_a_process_that_the_supervisor_has_reported_is_genuine() -> None:
    made = door(WORKER, COLLECTOR)

    assert made.check(PEER, claim(), 0.0) == Genuine()
    assert made.check(PEER, claim("collector", pid=12, origin=ProcessOrigin(SUPERVISOR, 510)), 0.0) == Genuine()
    assert made.check(PEER, claim("supervisor", pid=SUPERVISOR, origin=ProcessOrigin(1, 400)), 0.0) == Genuine()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 99, "origin": ProcessOrigin(1, 700)},  # of the same user, and of nobody's family
        {"pid": 99, "origin": ProcessOrigin(11, 520)},  # forked by a worker
        {"pid": 0, "origin": None},  # in another pid namespace
        {"origin": ProcessOrigin(SUPERVISOR, 900), "connected": 950.0},  # has the pid of one that has ended
        {"origin": ProcessOrigin(SUPERVISOR, 500), "connected": 400.0},  # connected by one that had the pid before
    ],
)
def test_a_process_that_the_supervisor_has_not_started_is_no_worker(changes: dict[str, Any]) -> None:
    assert isinstance(door(WORKER, COLLECTOR).check(PEER, claim(**changes), 0.0), Mismatch)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 99},  # left behind by others, and the supervisor's child since: it is a container's first process
        {"epoch": 8},
        {"name": "w2"},
        {"pid": 12, "origin": ProcessOrigin(SUPERVISOR, 510)},  # it is the collector
    ],
)
def test_a_child_of_the_supervisor_is_no_worker_unless_it_is_reported_as_one(changes: dict[str, Any]) -> None:
    made = door(WORKER, COLLECTOR)
    assert made.check(PEER, claim(**changes), 0.0) == Undecided()
    assert made.holds(PEER)
    assert made.decided(HOLD_FOR - 0.1) == []

    [(peer, verdict, said)] = made.decided(HOLD_FOR)

    assert (peer, isinstance(verdict, Mismatch), said) == (PEER, True, [])
    assert not made.holds(PEER)


def test_only_the_parent_is_the_supervisor() -> None:
    for changes in ({"pid": 11}, {"pid": SUPERVISOR, "origin": ProcessOrigin(1, 401)}):
        assert isinstance(door(WORKER).check(PEER, claim("supervisor", **changes), 0.0), Mismatch)


def test_a_worker_waits_for_the_report_and_its_messages_are_kept() -> None:
    made = door()
    assert made.check(PEER, claim(), 0.0) == Undecided()
    assert made.hold(PEER, "hello", 10)
    assert made.hold(PEER, "heartbeat", 10)

    made.reported([WORKER])

    assert made.decided(0.1) == [(PEER, Genuine(), ["hello", "heartbeat"])]
    assert made.decided(0.1) == []


def test_kept_messages_are_limited_in_number_and_bytes() -> None:
    made: PeerCheck[str] = PeerCheck(SUPERVISOR, ProcessOrigin(1, 400), max_held_bytes=1_000_000)
    made.check(PEER, claim(), 0.0)
    made.check(b"other", claim(pid=13), 0.0)

    assert not made.hold(PEER, "much", 500_000)
    assert all(made.hold(PEER, "little", 1) for _ in range(1000))
    assert not made.hold(PEER, "little", 1)
    made.forget(PEER)
    assert made.hold(b"other", "much", 490_000)
    made.forget(b"other")
    made.check(b"other", claim(pid=13), 0.0)
    assert made.hold(b"other", "much", 490_000)


def test_one_process_never_uses_all_the_bytes_with_many_connections() -> None:
    made: PeerCheck[str] = PeerCheck(SUPERVISOR, ProcessOrigin(1, 400), max_held_bytes=1_000_000)
    for number in range(100):
        peer = b"%d" % number
        made.check(peer, claim(pid=13), 0.0)
        while made.hold(peer, "some", 10_000):
            pass
    made.check(PEER, claim(), 0.0)

    assert made.hold(PEER, "a batch", 200_000)


def test_a_peer_is_believed_if_the_kernel_does_not_tell_its_process() -> None:
    made: PeerCheck[str] = PeerCheck(SUPERVISOR, None, can_tell=False)

    assert made.check(PEER, claim(pid=0, origin=None), 0.0) == Genuine()


def test_without_proc_the_pid_is_enough() -> None:
    made: PeerCheck[str] = PeerCheck(SUPERVISOR, None)
    made.reported([ProcessStatus("w1", 11, "running", 0, epoch=7)])

    assert made.check(PEER, claim(origin=None), 0.0) == Genuine()
    assert made.check(b"other", claim(origin=None, pid=99), 0.0) == Undecided()
