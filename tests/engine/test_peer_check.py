"""Who is let in: a peer is what the kernel and the supervisor say that it is, whatever it says itself."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.process.lifecycle import Origin
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import PeerRole
from headrace_engine.peer_check import HOLD_FOR, Claim, Doorkeeper, Known, Refused, Unknown

SUPERVISOR = 10
WORKER = ProcessStatus("w1", 11, "running", 0, epoch=7, started=500)
COLLECTOR = ProcessStatus("collector", 12, "running", 0, started=510)
PEER = b"peer"


def claim(role: PeerRole = "worker", **changes: Any) -> Claim:
    facts: dict[str, Any] = {
        "name": "w1" if role == "worker" else "",
        "epoch": 7,
        "pid": 11,
        "origin": Origin(SUPERVISOR, 500),
        "connected": 600.0,
    }
    return Claim(role, **{**facts, **changes})


def door(*processes: ProcessStatus) -> Doorkeeper[str]:
    made: Doorkeeper[str] = Doorkeeper(SUPERVISOR, Origin(1, 400))
    if processes:
        made.told(processes)
    return made


def test_anybody_is_a_client() -> None:
    assert door().knock(PEER, claim("client", pid=0, origin=None), 0.0) == Known()


def test_a_process_that_the_supervisor_has_told_of_is_what_it_says() -> None:
    made = door(WORKER, COLLECTOR)

    assert made.knock(PEER, claim(), 0.0) == Known()
    assert made.knock(PEER, claim("collector", pid=12, origin=Origin(SUPERVISOR, 510)), 0.0) == Known()
    assert made.knock(PEER, claim("supervisor", pid=SUPERVISOR, origin=Origin(1, 400)), 0.0) == Known()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 99, "origin": Origin(1, 700)},  # of the same user, and of nobody's family
        {"pid": 99, "origin": Origin(11, 520)},  # forked by a worker
        {"pid": 0, "origin": None},  # in another pid namespace
        {"origin": Origin(SUPERVISOR, 900), "connected": 950.0},  # has the pid of one that has ended
        {"origin": Origin(SUPERVISOR, 500), "connected": 400.0},  # connected by one that had the pid before
    ],
)
def test_a_process_that_is_not_the_supervisors_is_no_worker(changes: dict[str, Any]) -> None:
    assert isinstance(door(WORKER, COLLECTOR).knock(PEER, claim(**changes), 0.0), Refused)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 99},  # left behind by others, and the supervisor's child since: it is a container's first process
        {"epoch": 8},
        {"name": "w2"},
        {"pid": 12, "origin": Origin(SUPERVISOR, 510)},  # it is the collector
    ],
)
def test_a_child_of_the_supervisor_is_no_worker_unless_the_supervisor_says_so(changes: dict[str, Any]) -> None:
    made = door(WORKER, COLLECTOR)
    assert made.knock(PEER, claim(**changes), 0.0) == Unknown()
    assert made.holds(PEER)
    assert made.ready(HOLD_FOR - 0.1) == []

    [(peer, verdict, said)] = made.ready(HOLD_FOR)

    assert (peer, isinstance(verdict, Refused), said) == (PEER, True, [])
    assert not made.holds(PEER)


def test_nobody_but_the_parent_is_the_supervisor() -> None:
    for changes in ({"pid": 11}, {"pid": SUPERVISOR, "origin": Origin(1, 401)}):
        assert isinstance(door(WORKER).knock(PEER, claim("supervisor", **changes), 0.0), Refused)


def test_a_worker_that_is_there_before_the_supervisors_word_waits_for_it_with_all_that_it_says() -> None:
    made = door()
    assert made.knock(PEER, claim(), 0.0) == Unknown()
    assert made.hold(PEER, "hello", 10)
    assert made.hold(PEER, "heartbeat", 10)

    made.told([WORKER])

    assert made.ready(0.1) == [(PEER, Known(), ["hello", "heartbeat"])]
    assert made.ready(0.1) == []


def test_what_is_held_is_bounded_in_messages_and_bytes() -> None:
    made: Doorkeeper[str] = Doorkeeper(SUPERVISOR, Origin(1, 400), room=1_000_000)
    made.knock(PEER, claim(), 0.0)
    made.knock(b"other", claim(pid=13), 0.0)

    assert not made.hold(PEER, "much", 500_000)
    assert all(made.hold(PEER, "little", 1) for _ in range(1000))
    assert not made.hold(PEER, "little", 1)
    made.forget(PEER)
    assert made.hold(b"other", "much", 490_000)
    made.forget(b"other")
    made.knock(b"other", claim(pid=13), 0.0)
    assert made.hold(b"other", "much", 490_000)


def test_one_process_never_has_all_the_room_however_many_connections_it_has() -> None:
    made: Doorkeeper[str] = Doorkeeper(SUPERVISOR, Origin(1, 400), room=1_000_000)
    for number in range(100):
        peer = b"%d" % number
        made.knock(peer, claim(pid=13), 0.0)
        while made.hold(peer, "some", 10_000):
            pass
    made.knock(PEER, claim(), 0.0)

    assert made.hold(PEER, "a batch", 200_000)


def test_where_the_kernel_tells_no_process_a_peer_is_believed() -> None:
    made: Doorkeeper[str] = Doorkeeper(SUPERVISOR, None, can_tell=False)

    assert made.knock(PEER, claim(pid=0, origin=None), 0.0) == Known()


def test_without_a_process_file_system_the_pid_must_do() -> None:
    made: Doorkeeper[str] = Doorkeeper(SUPERVISOR, None)
    made.told([ProcessStatus("w1", 11, "running", 0, epoch=7)])

    assert made.knock(PEER, claim(origin=None), 0.0) == Known()
    assert made.knock(b"other", claim(origin=None, pid=99), 0.0) == Unknown()
