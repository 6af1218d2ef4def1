"""What links promise of frames: no frame has more messages than its receiver takes."""

from __future__ import annotations

from pathlib import Path

from headrace.connections.run_links import Links
from headrace.transport.reactor import Reactor
from headrace.transport.router import PeerLimits, Router
from headrace.wire.codec import to_broker
from headrace.wire.messages import BROKER_FRAME_BYTES, MAX_FRAME_MESSAGES, Acquire, Hello, Release
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
    links.end()
    router.close()


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
    links.end()
    router.close()
