"""What a connection between two processes of the engine promises: its messages in order, its end once, and its successor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.transport.channel import Channel, StandingChannel
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.sockets import Dealer, new_context
from headrace.wire.codec import encode_frame, from_collector, to_collector
from headrace.wire.messages import FromCollector, Goodbye, Hello, SpanAck

EPOCH = 7
HELLO = Hello("worker", 0, 1, [])


class Peer:
    """The other end, and the loop of this one."""

    def __init__(self, path: Path) -> None:
        self.endpoint = f"ipc://{path}"
        self.context = new_context()
        self.reactor = Reactor()
        self.router: Router | None = None
        self.heard: list[object] = []
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
            self.heard += to_collector.decode(frame)[1]

    def until(self, is_so: Callable[[], object]) -> None:
        """Serve both ends until something is so."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.turn()

    def dealer(self) -> Dealer:
        return Dealer(self.context, self.endpoint)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer")
    yield made
    made.end()
    made.reactor.close()
    made.context.term()


def connect(peer: Peer, received: Callable[[FromCollector], None], lost: Callable[[], None]) -> Channel[FromCollector]:
    channel = Channel(peer.dealer(), peer.reactor, EPOCH, from_collector, received, lost)
    channel.send([HELLO])
    peer.until(lambda: peer.heard == [HELLO])
    return channel


def test_what_a_peer_said_last_is_heard_before_its_end_which_is_told_once(peer: Peer) -> None:
    told: list[object] = []
    channel = connect(peer, told.append, lambda: told.append("lost"))
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
    channel.close()


def test_who_closes_a_channel_while_it_is_read_hears_no_more_of_it(peer: Peer) -> None:
    told: list[object] = []

    def close(message: FromCollector) -> None:
        told.append(message)
        channel.close()

    channel = connect(peer, close, lambda: told.append("lost"))
    peer.say(SpanAck(1))
    peer.say(SpanAck(2))
    peer.until(lambda: told)
    peer.end()
    for _ in range(20):
        peer.turn()

    assert told == [SpanAck(1)]


def test_what_cannot_be_read_is_passed_over(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []
    channel = connect(peer, told.append, lambda: told.append("lost"))

    peer.send(b"nonsense")
    peer.say(Goodbye("for a reason"))
    peer.until(lambda: told)

    assert told == [Goodbye("for a reason")]
    assert [record.getMessage() for record in caplog.records] == ["message cannot be read"]
    channel.close()


def standing(peer: Peer, dealer: Callable[[], Dealer], opened: Callable[[], None]) -> StandingChannel[Any]:
    return StandingChannel(dealer, peer.reactor, EPOCH, from_collector, lambda _: None, opened)


def test_a_peer_that_comes_after_another_is_said_hello_to(peer: Peer) -> None:
    channel = standing(peer, peer.dealer, lambda: channel.send([HELLO]))
    channel.open()

    for number in range(1, 4):
        peer.until(lambda: peer.heard == [HELLO] * number)  # noqa: B023
        peer.end()
        peer.until(lambda: not channel.is_open)
        channel.send([HELLO])  # to nobody
        peer.start()

    channel.close()


def test_a_channel_that_is_closed_is_not_opened_again(peer: Peer) -> None:
    opened: list[bool] = []
    channel = standing(peer, peer.dealer, lambda: opened.append(True))
    channel.open()
    channel.send([HELLO])
    peer.until(lambda: peer.heard)
    peer.end()
    peer.until(lambda: not channel.is_open)

    channel.close()
    channel.close()
    channel.open()

    assert opened == [True]
    assert not channel.is_open


def test_where_there_is_no_descriptor_it_is_opened_later(
    peer: Peer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.transport.channel.RETRY_DELAY", 0.01)
    failures = [OSError(24, "Too many open files")] * 2

    def dealer() -> Dealer:
        if failures:
            raise failures.pop()
        return peer.dealer()

    channel = standing(peer, dealer, lambda: channel.send([HELLO]))
    channel.open()
    peer.until(lambda: peer.heard == [HELLO])

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "peer cannot be reached")
    ] * 2
    channel.close()
