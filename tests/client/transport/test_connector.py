"""What a connection that waits for its peer promises.

Nothing is lost, nobody else gets it, and each attempt looks again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headrace.transport.connector import Connector
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer


class Ends:
    """A loop with the connecting end, and the other end where there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reactor = Reactor()
        self.router: Router | None = None
        self.heard: list[bytes] = []
        self.ended: list[str | None] = []
        self.attempts = 0

    def dealer(self) -> UnixDealer:
        self.attempts += 1
        return UnixDealer(f"ipc://{self.path}")

    def connect(self, dealer: UnixDealer | None = None, again: Callable[[], UnixDealer] | None = None) -> Connector:
        return Connector(self.reactor, dealer, again or self.dealer, lambda _: None, self.ended.append)

    def listen_not(self) -> None:
        """Leave a socket's file that nobody listens at, as a process that was killed does."""
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(str(self.path))

    def serve(self) -> None:
        self.router = Router(f"ipc://{self.path}")

    def until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.reactor.call_later(0.01, lambda: None)
            self.reactor.turn()
            if self.router is not None:
                self.heard += [frame for _, frame in self.router.receive()]


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path / "engine" / "peer")
    made.path.parent.mkdir(mode=0o700)
    yield made
    if made.router is not None:
        made.router.close()
    made.reactor.close()


@pytest.mark.parametrize("is_left", [False, True], ids=["no socket", "a dead one's"])
def test_frames_that_are_sent_before_the_peer_is_there_arrive_in_order(ends: Ends, is_left: bool) -> None:
    if is_left:
        ends.listen_not()
    connector = ends.connect(ends.dealer() if is_left else None)
    frames = [b"%d" % number for number in range(5)]
    for frame in frames[:3]:
        connector.send(frame)
    ends.until(lambda: ends.attempts > 2)
    connector.send(frames[3])
    ends.serve()
    ends.until(lambda: ends.heard)
    connector.send(frames[4])
    ends.until(lambda: len(ends.heard) == 5)

    assert ends.heard == frames
    assert ends.ended == []
    connector.close()


def test_the_end_of_a_peer_is_reported_and_no_other_peer_is_connected_to(ends: Ends) -> None:
    ends.serve()
    connector = ends.connect(ends.dealer())
    connector.send(b"hello")
    ends.until(lambda: ends.heard)
    assert ends.router is not None
    ends.router.close()
    ends.router = None
    ends.until(lambda: ends.ended)
    ends.serve()
    connector.send(b"for the first alone")
    ends.until(partial(_turns, [0]))

    assert (ends.ended, ends.attempts, ends.heard) == ([None], 1, [b"hello"])
    connector.close()


def _turns(count: list[int]) -> bool:
    count[0] += 1
    return count[0] > 20


def test_a_missing_directory_is_waited_for_and_checked_when_it_appears(ends: Ends) -> None:
    ends.path.parent.rmdir()
    safe, unsafe = ends.connect(), ends.connect()
    safe.send(b"hello")
    ends.until(lambda: ends.attempts > 4)
    unsafe.close()
    ends.path.parent.mkdir(mode=0o700)
    ends.serve()
    ends.until(lambda: ends.heard == [b"hello"])
    safe.close()


def test_nothing_is_sent_into_a_directory_that_has_become_unsafe(ends: Ends) -> None:
    def again() -> UnixDealer:
        if ends.attempts > 1:  # no attempt is under way, which could have looked at the directory before
            ends.path.parent.chmod(0o777)
            ends.serve()
        return ends.dealer()

    ends.listen_not()
    connector = ends.connect(ends.dealer(), again)
    connector.send(b"hello")
    ends.until(lambda: ends.ended)

    assert "is open to other users" in str(ends.ended[0])
    assert ends.heard == []
    connector.close()


def test_a_closed_connector_makes_no_more_attempts(ends: Ends) -> None:
    ends.listen_not()
    connector = ends.connect(ends.dealer())
    ends.until(lambda: ends.attempts > 1)
    connector.close(0.1)
    connector.close()
    attempts = ends.attempts
    ends.serve()
    ends.until(partial(_turns, [0]))

    assert (ends.attempts, ends.ended, ends.heard) == (attempts, [], [])


def test_a_moment_without_descriptors_ends_no_connection(ends: Ends) -> None:
    failures = [OSError(24, "Too many open files")] * 2

    def dealer() -> UnixDealer:
        if failures:
            raise failures.pop()
        return ends.dealer()

    connector = Connector(ends.reactor, None, dealer, lambda _: None, ends.ended.append)
    connector.send(b"hello")
    ends.serve()
    ends.until(lambda: ends.heard == [b"hello"])

    assert ends.ended == []
    connector.close()
