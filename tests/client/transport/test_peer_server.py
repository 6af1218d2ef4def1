"""What a PeerServer promises.

Who is greeted, who is refused, in which order messages and departures are reported, and once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.process.lifecycle import origin
from headrace.transport.inbox import Inbox
from headrace.transport.peer_server import PeerServer, ServedPeer, ServerSettings
from headrace.transport.reactor import Reactor
from headrace.transport.router import SendResult
from headrace.version import VERSION
from headrace.wire.codec import encode_frame, from_collector, to_collector
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    Flush,
    Flushed,
    Goodbye,
    Hello,
    PeerRole,
    SpanAck,
    SpanBatch,
    ToCollector,
    Welcome,
)
from headrace.wire.roles import TO_COLLECTOR
from tests.peers import RawDealer, new_context
from tests.waiting import wait_until

EPOCH, WORKER_EPOCH = 7, 9


class RecordingOwner:
    """An owner that keeps each call."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.peers: list[ServedPeer] = []
        self.on_message: Callable[[ServedPeer, ToCollector], None] = lambda _peer, _message: None

    def peer_joined(self, peer: ServedPeer) -> None:
        self.peers.append(peer)
        self.events.append(("joined", peer.role))

    def peer_said(self, peer: ServedPeer, message: ToCollector) -> None:
        self.events.append(message)
        self.on_message(peer, message)

    def peer_left(self, peer: ServedPeer, reason: str) -> None:
        self.events.append(("left", peer.role, reason))


class Stand:
    """A server on a loop, and peers that connect to it."""

    def __init__(self, path: Path, inbox: Inbox[ToCollector] | None) -> None:
        self.endpoint = f"ipc://{path}"
        self.reactor = Reactor()
        self.owner = RecordingOwner()
        # A peer of this test is this process: its parent stands for the supervisor, which this process reports.
        server_settings = ServerSettings(endpoint=self.endpoint, epoch=EPOCH, parent=os.getppid(), max_peers=100)
        self.server = PeerServer(self.reactor, server_settings, to_collector, TO_COLLECTOR, self.owner, inbox=inbox)
        self._context = new_context()
        self._dealers: list[RawDealer] = []
        self.server.open()

    def peer(self, role: PeerRole | None = "client") -> RawDealer:
        dealer = RawDealer(self._context, self.endpoint)
        self._dealers.append(dealer)
        if role is not None:
            name = "w1" if role == "worker" else ""
            self.say(dealer, Hello(role, 1, os.getpid(), name=name))
        return dealer

    def say(self, peer: RawDealer, *messages: msgspec.Struct) -> None:
        peer.send(encode_frame(WORKER_EPOCH, messages))

    def heard(self, peer: RawDealer) -> list[Any]:
        """Serve until the peer has heard something; return it."""
        heard: list[Any] = []

        def is_there() -> bool:
            self.turn()
            for frame in peer.receive():
                epoch, messages = from_collector.decode(frame)
                assert epoch == EPOCH
                heard.extend(messages)
            return bool(heard)

        wait_until(is_there, 20.0, "an answer")
        return heard

    def until(self, *events: object) -> None:
        """Serve until the owner was told exactly this."""

        def is_told() -> bool:
            self.turn()
            return len(self.owner.events) >= len(events)

        wait_until(is_told, 20.0, "all events", lambda: self.owner.events)
        assert self.owner.events == list(events)

    def until_ended(self, peer: RawDealer) -> None:
        """Serve until the peer's connection has ended."""

        def has_ended() -> bool:
            self.turn()
            return peer.is_disconnected

        wait_until(has_ended, 20.0, "the end of the connection")

    def leave(self, peer: RawDealer) -> None:
        """End the peer's connection, once its last messages have left."""
        self._dealers.remove(peer)
        peer.close(5.0)

    def turn(self) -> None:
        self.reactor.call(lambda: None)
        self.reactor.turn()

    def close(self) -> None:
        self.server.close()
        for dealer in self._dealers:
            dealer.close()
        self.reactor.close()
        self._context.term()


@pytest.fixture(params=[False, True], ids=["at once", "by turns"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path / "server", Inbox() if request.param else None)
    yield made
    made.close()


def test_a_peer_is_welcomed_and_then_its_messages_are_handed_over_in_order(stand: Stand) -> None:
    peer = stand.peer()
    stand.say(peer, Flush(1, 1.0), Flush(2, 1.0))
    stand.say(peer, SpanBatch(1, []))

    assert stand.heard(peer) == [Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, VERSION)]
    stand.until(("joined", "client"), Flush(1, 1.0), Flush(2, 1.0), SpanBatch(1, []))
    assert [(known.pid, known.epoch) for known in stand.owner.peers] == [(os.getpid(), WORKER_EPOCH)]
    assert stand.server.send(stand.owner.peers[0].identity, [SpanAck(1)]) is SendResult.SENT
    assert stand.heard(peer) == [SpanAck(1)]


def test_the_last_messages_of_a_peer_come_before_its_departure_which_is_reported_once(stand: Stand) -> None:
    peer = stand.peer()
    for number in range(200):
        stand.say(peer, Flush(number, 1.0))
    stand.leave(peer)

    flushes = [Flush(number, 1.0) for number in range(200)]
    stand.until(("joined", "client"), *flushes, ("left", "client", "its connection ended"))


def test_a_peer_that_says_goodbye_has_left_for_the_reason_that_it_gave(stand: Stand) -> None:
    peer = stand.peer()
    stand.say(peer, Goodbye("the program ends"))
    stand.until(("joined", "client"), ("left", "client", "the program ends"))
    stand.leave(peer)
    stand.turn()

    stand.until(("joined", "client"), ("left", "client", "the program ends"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (encode_frame(1, [Flush(1, 1.0)]), "the first message must be a hello"),
        (encode_frame(1, [Hello("collector", 1, 1)]), "a collector does not connect to this process"),
        (b"\x01nonsense", "not a frame of this direction"),
        (b"", "empty frame"),
        (b"\x02", "protocol"),
    ],
)
def test_a_peer_that_begins_wrongly_is_told_why_and_its_connection_ends(stand: Stand, said: bytes, reason: str) -> None:
    other, wrong = stand.peer(), stand.peer(None)
    assert stand.heard(other)
    wrong.send(said)

    [goodbye] = stand.heard(wrong)
    assert isinstance(goodbye, Goodbye)
    assert reason in goodbye.reason
    stand.until_ended(wrong)
    stand.say(other, Flush(1, 1.0))
    stand.until(("joined", "client"), Flush(1, 1.0))


def test_a_peer_that_says_what_its_role_may_not_say_has_left(stand: Stand) -> None:
    peer = stand.peer()
    stand.say(peer, Flush(1, 1.0), Flushed(1, 1), Flush(2, 1.0))

    reason = "a client may not send Flushed to this process"
    stand.until(("joined", "client"), Flush(1, 1.0), ("left", "client", reason))


def test_a_worker_waits_for_the_supervisors_report_and_so_do_its_messages(stand: Stand) -> None:
    worker = stand.peer("worker")
    stand.say(worker, Flushed(1, 1), Flushed(2, 1))
    client = stand.peer()
    stand.say(client, Flush(1, 1.0))
    stand.until(("joined", "client"), Flush(1, 1.0))

    known = origin(os.getpid())
    started = known.started if known is not None else 0
    stand.server.reported([ProcessStatus("w1", os.getpid(), "running", 0, epoch=WORKER_EPOCH, started=started)])

    stand.until(("joined", "client"), Flush(1, 1.0), ("joined", "worker"), Flushed(1, 1), Flushed(2, 1))
    assert stand.heard(worker)[0] == Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES, VERSION)


def test_a_worker_that_the_supervisor_does_not_report_is_refused(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.transport.peer_check.HOLD_FOR", 0.0)
    worker = stand.peer("worker")

    [goodbye] = stand.heard(worker)
    assert goodbye == Goodbye(f"the supervisor did not start process {os.getpid()} as a worker")
    assert stand.owner.events == []


def test_while_the_server_is_paused_nothing_is_handed_over_and_then_everything(stand: Stand) -> None:
    stand.owner.on_message = lambda _peer, _message: stand.server.pause()
    peer = stand.peer()
    for number in range(3):
        stand.say(peer, Flush(number, 1.0))

    for number in range(3):
        stand.until(("joined", "client"), *[Flush(each, 1.0) for each in range(number + 1)])
        for _ in range(20):
            stand.turn()
        assert len(stand.owner.events) == number + 2
        stand.server.resume()


def test_a_peer_that_the_owner_ends_has_left_once(stand: Stand) -> None:
    stand.owner.on_message = lambda peer, _message: stand.server.end(peer.identity, "it is too much")
    peer = stand.peer()
    stand.say(peer, Flush(1, 1.0), Flush(2, 1.0))

    stand.until(("joined", "client"), Flush(1, 1.0), ("left", "client", "it is too much"))
    stand.until_ended(peer)
