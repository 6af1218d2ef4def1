"""What the event loop promises of descriptors.

One that is removed is heard of no more, not even in the turn under way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headrace.transport.reactor import Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def readable() -> Iterator[list[int]]:
    """Two descriptors that are readable, and stay so."""
    pipes = [os.pipe() for _ in range(2)]
    for _, write in pipes:
        os.write(write, b"\0")
    yield [read for read, _ in pipes]
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)


def test_a_reader_that_was_removed_in_the_same_turn_is_not_called(reactor: Reactor, readable: list[int]) -> None:
    called: list[int] = []

    def read(fd: int) -> None:
        called.append(fd)
        for each in readable:
            reactor.remove_reader(each)

    for fd in readable:
        reactor.add_reader(fd, lambda fd=fd: read(fd))  # type: ignore[misc]
    reactor.turn()

    assert len(called) == 1  # whichever came first


def test_a_new_reader_with_a_reused_descriptor_number_waits_for_its_own_event(
    reactor: Reactor, readable: list[int]
) -> None:
    called: list[str] = []

    def replace(name: str) -> None:
        called.append(name)
        for each in readable:
            reactor.remove_reader(each)
            reactor.add_reader(each, lambda: called.append("new"))

    for fd in readable:
        reactor.add_reader(fd, lambda: replace("old"))
    reactor.turn()
    assert called == ["old"]

    reactor.turn()
    assert called == ["old", "new", "new"]


def test_an_error_in_one_callback_does_not_stop_the_others(
    reactor: Reactor, readable: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def fail() -> None:
        raise ValueError("no")

    reactor.add_reader(readable[0], fail)
    reactor.add_reader(readable[1], lambda: called.append("read"))
    reactor.call(fail)
    reactor.call(lambda: called.append("call"))
    reactor.turn()

    assert sorted(called) == ["call", "read"]
    assert [record.getMessage() for record in caplog.records] == ["callback failed"] * 2


def test_what_is_for_the_end_of_a_turn_runs_once_behind_the_rest(
    reactor: Reactor, readable: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def fail() -> None:
        called.append("failed")
        reactor.at_turn_end(lambda: called.append("added at the end"))
        raise ValueError("no")

    def read() -> None:
        reactor.remove_reader(readable[0])
        reactor.at_turn_end(fail)
        reactor.at_turn_end(lambda: called.append("end"))
        called.append("read")

    reactor.add_reader(readable[0], read)
    reactor.call(lambda: called.append("call"))
    reactor.turn()
    reactor.call(lambda: called.append("next turn"))
    reactor.turn()

    assert called == ["read", "call", "failed", "end", "added at the end", "next turn"]
    assert [record.getMessage() for record in caplog.records] == ["callback failed"]


def test_an_action_at_the_turns_end_that_adds_itself_and_raises_does_not_keep_the_thread(reactor: Reactor) -> None:
    ran: list[int] = []

    def again() -> None:
        ran.append(1)
        reactor.at_turn_end(again)
        raise ValueError("each time")

    reactor.call(lambda: reactor.at_turn_end(again))
    reactor.turn()
    reactor.call(lambda: ran.append(2))
    reactor.turn()

    assert ran.index(2) > 1
    assert ran[-1] == 1, "each turn has some of them"


def test_a_reader_can_be_removed_after_the_loop_has_ended(readable: list[int]) -> None:
    reactor = Reactor()
    reactor.add_reader(readable[0], lambda: None)
    reactor.close()
    reactor.remove_reader(readable[0])  # so that its owner can go on and close it
