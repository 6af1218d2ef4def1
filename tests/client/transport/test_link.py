"""What a connection between two processes of the engine promises.

Its messages in order, its end once, and its successor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.transport.link import RETRY_DELAY, Link, StandingLink, one_by_one
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import encode_frame, from_collector, to_broker, to_collector
from headrace.wire.messages import Flushed, FromCollector, Goodbye, Heartbeat, Hello, SpanAck

EPOCH = 7
HELLO = Hello("worker", 0, 1, [])
FLUSHED = Flushed(1, 0)


class OtherEnd:
    """The other end of a link, and the loop of this end."""

    def __init__(self, path: Path) -> None:
        self.endpoint = f"ipc://{path}"
        self.reactor = Reactor()
        self.router: Router | None = None
        self.heard: list[object] = []
        self.decode: Callable[[bytes], tuple[int, list[Any]]] = to_collector.decode
        self.who = b""
        self.start()

    def start(self) -> None:
        self.router = Router(self.endpoint)

    def end(self) -> None:
        if self.router is not None:
            self.router.close()
            self.router = None

    def say(self, *messages: FromCollector) -> None:
        self.send(encode_frame(1, messages))

    def send(self, frame: bytes) -> None:
        assert self.router is not None
        self.router.send(self.who, frame)

    def turn(self) -> None:
        """Serve both ends once."""
        self.reactor.call_later(0.01, lambda: None)
        self.reactor.turn()
        for who, frame in self.router.receive() if self.router is not None else ():
            self.who = who
            self.heard += self.decode(frame)[1]

    def until(self, is_so: Callable[[], object]) -> None:
        """Serve both ends until something is so."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.turn()

    def dealer(self) -> UnixDealer:
        return UnixDealer(self.endpoint)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[OtherEnd]:
    made = OtherEnd(tmp_path / "peer")
    yield made
    made.end()
    made.reactor.close()


def connect(
    peer: OtherEnd, received: Callable[[FromCollector], None], ended: Callable[[], None]
) -> Link[FromCollector]:
    link = Link(peer.reactor, peer.dealer, lambda: HELLO, EPOCH, from_collector, one_by_one(received), ended)
    link.open()
    peer.until(lambda: peer.heard == [HELLO])
    return link


def test_the_last_messages_of_a_peer_come_before_its_end_which_is_reported_once(peer: OtherEnd) -> None:
    told: list[object] = []
    link = connect(peer, told.append, lambda: told.append("lost"))
    said = [SpanAck(number) for number in range(3)]

    peer.say(*said[:2])
    peer.say(said[2])
    peer.until(lambda: len(told) == 3)
    peer.end()
    peer.until(lambda: "lost" in told)
    peer.start()
    for _ in range(20):
        peer.turn()

    assert told == [*said, "lost"]
    link.close()


def test_a_link_that_is_closed_while_it_is_read_hands_over_nothing_more(peer: OtherEnd) -> None:
    told: list[object] = []

    def close(message: FromCollector) -> None:
        told.append(message)
        link.close()

    link = connect(peer, close, lambda: told.append("lost"))
    peer.say(SpanAck(1))
    peer.say(SpanAck(2))
    peer.until(lambda: told)
    peer.end()
    for _ in range(20):
        peer.turn()

    assert told == [SpanAck(1)]


def test_a_frame_that_cannot_be_decoded_is_left_out(peer: OtherEnd, caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []
    link = connect(peer, told.append, lambda: told.append("lost"))

    peer.send(b"nonsense")
    peer.say(Goodbye("for a reason"))
    peer.until(lambda: told)

    assert told == [Goodbye("for a reason")]
    assert [record.getMessage() for record in caplog.records] == ["message cannot be read"]
    link.close()


def standing(peer: OtherEnd, dial: Callable[[], UnixDealer], opened: Callable[[], None]) -> StandingLink[Any]:
    return StandingLink(
        "collector", peer.reactor, dial, lambda: HELLO, EPOCH, from_collector, lambda _: None, opened=opened
    )


def test_each_new_peer_gets_a_hello(peer: OtherEnd) -> None:
    link = standing(peer, peer.dealer, lambda: None)
    link.open()

    for number in range(1, 4):
        peer.until(lambda: peer.heard == [HELLO] * number)  # noqa: B023
        peer.end()
        peer.until(lambda: not link.is_open)
        link.send([HELLO])  # to nobody
        peer.start()

    link.close()


def test_each_new_peer_gets_what_the_owner_sends_after_the_hello(peer: OtherEnd) -> None:
    link = standing(peer, peer.dealer, lambda: link.send([FLUSHED]))
    link.open()

    for number in range(1, 3):
        peer.until(lambda: peer.heard == [HELLO, FLUSHED] * number)  # noqa: B023
        peer.end()
        peer.until(lambda: not link.is_open)
        peer.start()

    link.close()


def test_a_peer_that_refuses_this_process_is_not_asked_again_at_once(
    peer: OtherEnd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    link = standing(peer, peer.dealer, lambda: None)
    link.open()
    peer.until(lambda: peer.heard)
    peer.say(Goodbye("you are not the supervisor"))
    peer.until(lambda: caplog.records)
    monkeypatch.setattr(peer.reactor, "call_later", lambda delay, _: delays.append(delay))
    peer.end()
    deadline = time.monotonic() + 20
    while link.is_open and time.monotonic() < deadline:
        peer.reactor.call(lambda: None)
        peer.reactor.turn()

    assert delays == [RETRY_DELAY]
    assert [record.getMessage() for record in caplog.records] == ["refused by peer"]
    link.close()


def test_heartbeats_are_sent_while_the_peer_is_there(peer: OtherEnd) -> None:
    peer.end()
    link: StandingLink[Any] = StandingLink(
        "broker", peer.reactor, peer.dealer, lambda: HELLO, EPOCH, from_collector, lambda _: None, heartbeat=Heartbeat
    )
    link.open()
    link.beat_if_connected()
    peer.decode = to_broker.decode
    peer.start()
    peer.until(lambda: len(peer.heard) >= 1)
    link.beat_if_connected()
    link.beat_if_connected()
    peer.until(lambda: len(peer.heard) >= 3)

    assert peer.heard[:3] == [HELLO, Heartbeat(), Heartbeat()]
    link.close()


def test_a_link_that_is_closed_is_not_opened_again(peer: OtherEnd) -> None:
    opened: list[bool] = []
    link = standing(peer, peer.dealer, lambda: opened.append(True))
    link.open()
    peer.until(lambda: peer.heard)
    peer.end()
    peer.until(lambda: not link.is_open)

    link.close()
    link.close()
    link.open()

    assert opened == [True]
    assert not link.is_open


def test_a_link_without_a_descriptor_is_opened_later(
    peer: OtherEnd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.transport.link.RETRY_DELAY", 0.01)
    failures = [OSError(24, "Too many open files")] * 2

    def dealer() -> UnixDealer:
        if failures:
            raise failures.pop()
        return peer.dealer()

    link = standing(peer, dealer, lambda: None)
    link.open()
    peer.until(lambda: peer.heard == [HELLO])

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "peer cannot be reached")
    ] * 2
    link.close()
