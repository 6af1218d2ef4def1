"""What is promised of a process that is back before its earlier connection is known to have ended: it has one, the newer."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace_engine.broker.newest_connections import Incarnation, Incarnations

CLIENT = Incarnation("client", 7, 100)
OTHERS = [Incarnation("worker", 7, 100), Incarnation("client", 8, 100), Incarnation("client", 7, 101)]

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30)


def test_a_newer_connection_ends_the_earlier_one_of_the_same_process_and_no_other() -> None:
    known = Incarnations()
    for number, process in enumerate([CLIENT, *OTHERS]):
        assert known.joined(b"%d" % number, process) is None

    assert known.joined(b"newer", CLIENT) == b"0"
    assert known.joined(b"newest", CLIENT) == b"newer"


def test_the_late_end_of_an_earlier_connection_is_not_the_end_of_the_newer() -> None:
    known = Incarnations()
    known.joined(b"earlier", CLIENT)
    known.joined(b"newer", CLIENT)

    known.left(b"earlier")

    assert known.joined(b"newest", CLIENT) == b"newer"


@given(STEPS)
def test_of_each_process_the_last_that_joined_and_has_not_left_is_known(steps: list[tuple[bool, int]]) -> None:
    known = Incarnations()
    processes = [CLIENT, *OTHERS]
    newest: dict[Incarnation, bytes] = {}
    names = map(b"%d".__mod__, itertools.count())
    for is_joining, number in steps:
        process = processes[number]
        if is_joining:
            peer = next(names)
            assert known.joined(peer, process) == newest.get(process)
            newest[process] = peer
        elif process in newest:
            known.left(newest.pop(process))
