"""A process that is back before the broker knows that its older connection ended has one connection: the newer."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace_engine.broker.newest_connections import NewestConnections, ProcessKey

CLIENT = ProcessKey("client", 7, 100)
OTHERS = [ProcessKey("worker", 7, 100), ProcessKey("client", 8, 100), ProcessKey("client", 7, 101)]

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30)


def test_a_newer_connection_replaces_the_older_one_of_the_same_process_and_no_other() -> None:
    known = NewestConnections()
    for number, process in enumerate([CLIENT, *OTHERS]):
        assert known.joined(b"%d" % number, process) is None

    assert known.joined(b"newer", CLIENT) == b"0"
    assert known.joined(b"newest", CLIENT) == b"newer"


def test_the_late_end_of_an_older_connection_does_not_end_the_newer() -> None:
    known = NewestConnections()
    known.joined(b"earlier", CLIENT)
    known.joined(b"newer", CLIENT)

    known.left(b"earlier")

    assert known.joined(b"newest", CLIENT) == b"newer"


@given(STEPS)
def test_the_newest_connection_of_each_process_is_known_until_it_ends(steps: list[tuple[bool, int]]) -> None:
    known = NewestConnections()
    processes = [CLIENT, *OTHERS]
    newest: dict[ProcessKey, bytes] = {}
    names = map(b"%d".__mod__, itertools.count())
    for is_joining, number in steps:
        process = processes[number]
        if is_joining:
            peer = next(names)
            assert known.joined(peer, process) == newest.get(process)
            newest[process] = peer
        elif process in newest:
            known.left(newest.pop(process))
