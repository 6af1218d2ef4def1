"""What links promise of frames: no frame has more messages than its receiver takes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.connections.run_links import Links
from headrace.transport.reactor import Reactor
from headrace.transport.router import PeerLimits, Router
from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.messages import (
    BROKER_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    MAX_GROUP,
    Acquire,
    AcquireMany,
    Hello,
    Release,
    ReleaseMany,
    Welcome,
)
from tests.waiting import wait_until


def ignore(*_: object) -> None:
    """Hear nothing."""


def test_many_messages_of_one_turn_leave_in_several_frames(tmp_path: Path) -> None:
    router = Router(f"ipc://{tmp_path / 'broker'}")
    reactor = Reactor()
    links = Links(reactor, 7)
    link = links.open_broker(f"ipc://{tmp_path / 'broker'}", ignore, links.close, ignore)
    count = 2 * MAX_FRAME_MESSAGES + 500
    for number in range(count):
        links.queue(link, Release(f"sp_{number}", 1))
    links.flush()

    heard: list[object] = []

    def is_all_heard() -> bool:
        reactor.call(lambda: None)
        reactor.turn()
        for _, frame in router.receive():
            heard.extend(to_broker.decode(frame)[1])
        return len(heard) > count

    wait_until(is_all_heard, 10.0, "all messages")
    assert isinstance(heard[0], Hello)
    assert heard[1:] == [Release(f"sp_{number}", 1) for number in range(count)]
    links.close(link)
    router.close()


def test_a_link_that_raises_does_not_lose_the_messages_of_the_others(tmp_path: Path) -> None:
    router = Router(f"ipc://{tmp_path / 'broker'}")
    links = Links(Reactor(), 7)
    good, bad = (links.open_broker(f"ipc://{tmp_path / 'broker'}", ignore, links.close, ignore) for _ in range(2))
    links.queue(good, Release("sp_1", 1))
    links.queue(bad, Unencodable())

    with pytest.raises(TypeError):
        links.flush()
    links.flush()

    assert not good.outbox
    for link in (good, bad):
        links.close(link)
    router.close()


def test_a_message_leaves_at_the_end_of_its_turn_though_the_turn_before_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router(f"ipc://{tmp_path / 'broker'}")
    reactor = Reactor()
    links = Links(reactor, 7)
    link = links.open_broker(f"ipc://{tmp_path / 'broker'}", ignore, links.close, ignore)

    def raise_always() -> None:
        raise ValueError

    def say(number: int) -> None:
        reactor.call(lambda: links.queue(link, Release(f"sp_{number}", 1)))
        reactor.turn()

    with monkeypatch.context() as patch:
        patch.setattr(links, "flush", raise_always)
        say(1)
    assert link.outbox
    say(2)  # the link still waits to be flushed

    assert not link.outbox
    links.close(link)
    router.close()


class Unencodable(msgspec.Struct, tag=1):
    """A message that cannot be encoded."""

    value: object = object()


class Broker:
    """The other end of a link: it welcomes with some capabilities, and keeps what it hears."""

    def __init__(self, directory: Path, *capabilities: str) -> None:
        self.reactor = Reactor()
        self.links = Links(self.reactor, 7)
        self._router = Router(f"ipc://{directory / 'broker'}")
        self.link = self.links.open_broker(f"ipc://{directory / 'broker'}", ignore, self.links.close, ignore)
        self.heard: list[object] = []
        self._capabilities = list(capabilities)
        self.hears(1)

    def hears(self, count: int) -> list[object]:
        wait_until(lambda: self._turn() >= count, 10.0, "messages")
        return self.heard[1:]

    def _turn(self) -> int:
        self.reactor.call_later(0.0, lambda: None)
        self.reactor.turn()
        self.links.flush()
        for identity, frame in self._router.receive():
            self.heard.extend(to_broker.decode(frame)[1])
            if isinstance(self.heard[-1], Hello):
                self._router.send(identity, encode_frame(1, [Welcome(5, 1, self._capabilities)]))
                wait_until(self._is_welcomed, 10.0, "the welcome")
        return len(self.heard)

    def _is_welcomed(self) -> bool:
        self.reactor.call_later(0.0, lambda: None)
        self.reactor.turn()
        return self.link.is_welcomed

    def close(self) -> None:
        self.links.close(self.link)
        self._router.close()


QUESTIONS = [Acquire(f"sp_{number}", 1, "openai", "m") for number in range(3)]
RELEASES = [Release(f"sp_{number}", 1, "finished") for number in range(3)]


def test_a_broker_that_understands_groups_gets_the_messages_of_one_turn_in_groups(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "groups")
    for message in (*RELEASES, *QUESTIONS):
        broker.links.queue(broker.link, message)

    assert broker.hears(3) == [ReleaseMany(RELEASES), AcquireMany(QUESTIONS[0], [("sp_1", 0), ("sp_2", 0)])]
    broker.close()


def test_an_older_broker_gets_each_message_for_itself(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "limits")
    for message in (*RELEASES, *QUESTIONS):
        broker.links.queue(broker.link, message)

    assert broker.hears(7) == [*RELEASES, *QUESTIONS]
    broker.close()


def test_late_messages_leave_with_the_next_one_and_before_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.links.queue_late(broker.link, RELEASES[0])
    broker.links.flush()
    assert broker.link.late == [RELEASES[0]]
    broker.links.queue(broker.link, QUESTIONS[0])

    assert broker.hears(3) == [RELEASES[0], QUESTIONS[0]]
    broker.close()


def test_late_messages_leave_by_themselves_after_a_moment_or_when_they_are_many(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "groups")
    broker.links.queue_late(broker.link, RELEASES[0])
    assert broker.hears(2) == [RELEASES[0]]

    many = [Release(f"sp_{number}", 1, "finished") for number in range(MAX_GROUP)]
    for release in many:
        broker.links.queue_late(broker.link, release)
    broker.links.flush()
    assert broker.link.late == []
    assert broker.hears(3) == [RELEASES[0], ReleaseMany(many)]
    broker.close()


def test_messages_that_are_too_long_for_one_frame_leave_in_several(tmp_path: Path) -> None:
    router = Router(f"ipc://{tmp_path / 'broker'}", limits=PeerLimits(frame=BROKER_FRAME_BYTES))
    reactor = Reactor()
    links = Links(reactor, 7)
    link = links.open_broker(f"ipc://{tmp_path / 'broker'}", ignore, links.close, ignore)
    asked = [Acquire(f"sp_{number}", 1, "p" * 1000, "m" * 1000) for number in range(6000)]
    for question in asked:
        links.queue(link, question)
    links.flush()

    heard: list[object] = []

    def is_all_heard() -> bool:
        reactor.call_later(0.0, lambda: None)
        reactor.turn()
        for peer, frame in router.receive():
            assert not router.breach(peer)
            heard.extend(to_broker.decode(frame)[1])
        return len(heard) > len(asked)

    wait_until(is_all_heard, 10.0, "all messages")
    assert heard[1:] == asked
    links.close(link)
    router.close()


def test_a_lease_that_is_given_back_late_never_overtakes_the_question_for_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    question, release = Acquire("sp_new", 1, "openai", "m"), Release("sp_new", 1, "withdrawn")
    broker.links.queue_late(broker.link, RELEASES[0])
    broker.links.queue(broker.link, question)
    broker.links.queue_late(broker.link, release)  # in the same turn: the run was aborted
    assert broker.hears(4) == [RELEASES[0], question, release]
    broker.close()
