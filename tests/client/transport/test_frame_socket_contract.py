"""What every FrameSocket promises: the product's own (UnixDealer), and one on libzmq. Each is connected to both kinds of ROUTER.

The first is what the product uses. The second shows that the interface fits another transport, and that both speak the same protocol.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import zmq

from headrace.transport.checked_connection import OTHER_PROCESS
from headrace.transport.frame_socket import FrameSocket
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer
from tests.libzmq_dealer import LibzmqDealer

SIZES = (0, 1, 255, 256, 16_384, 16_385, 65_536, 1_000_000)


class Peer(Protocol):
    """A ROUTER with one peer. ``heard`` are the frames of that peer."""

    heard: list[bytes]

    def turn(self) -> None:
        """Read what waits."""

    def say(self, frame: bytes) -> None:
        """Send a frame to the peer that was heard last."""

    def close(self) -> None:
        """End the connection. What was said before is delivered."""


class OwnPeer:
    """The product's Router."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path) -> None:  # noqa: ARG002 - the other's form
        self.heard: list[bytes] = []
        self._router = Router(f"ipc://{path}")
        self._who = b""

    def turn(self) -> None:
        for who, frame in self._router.receive():
            self._who = who
            self.heard.append(frame)

    def say(self, frame: bytes) -> None:
        self._router.send(self._who, frame)

    def close(self) -> None:
        self._router.close(1.0)


class LibzmqPeer:
    """libzmq's ROUTER."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path) -> None:
        self.heard: list[bytes] = []
        self._router = context.socket(zmq.ROUTER)
        self._router.bind(f"ipc://{path}")
        self._who = b""

    def turn(self) -> None:
        while not self._router.closed and self._router.poll(0):
            self._who, *frames = self._router.recv_multipart()
            self.heard += frames

    def say(self, frame: bytes) -> None:
        self._router.send_multipart([self._who, frame])

    def say_in_parts(self, *parts: bytes) -> None:
        self._router.send_multipart([self._who, *parts])

    def close(self) -> None:
        self._router.close(1000)


Dial = Callable[..., FrameSocket]


class Ends:
    """A loop with the connecting end, and its peer."""

    def __init__(self, dial: Dial, peer: Callable[[], Peer]) -> None:
        self.reactor = Reactor()
        self.heard: list[bytes] = []
        self.peer: Peer | None = None
        self._dial = dial
        self._serve = peer

    def serve(self) -> Peer:
        self.peer = self._serve()
        return self.peer

    def connect(self, expects: Callable[[int], bool] | None = None) -> FrameSocket:
        self.socket = self._dial(expects)
        self.socket.watch(self.reactor, self._ready)
        return self.socket

    def _ready(self) -> None:
        self.heard += self.socket.receive()
        if self.socket.is_disconnected:
            self.socket.unwatch(self.reactor)

    def until(self, is_so: Callable[[], object]) -> None:
        """Serve both ends until something is so."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.reactor.call_later(0.005, lambda: None)
            self.reactor.turn()
            if self.peer is not None:
                self.peer.turn()

    def close(self) -> None:
        self.socket.unwatch(self.reactor)
        self.socket.close()
        if self.peer is not None:
            self.peer.close()
        self.reactor.close()


@pytest.fixture(params=["own peer", "libzmq peer"])
def peer_of(request: pytest.FixtureRequest) -> type[OwnPeer | LibzmqPeer]:
    return OwnPeer if request.param == "own peer" else LibzmqPeer


@pytest.fixture(params=["UnixDealer", "libzmq"])
def ends(request: pytest.FixtureRequest, tmp_path: Path, peer_of: type[OwnPeer | LibzmqPeer]) -> Iterator[Ends]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    path = tmp_path / "s"

    def dial(expects: Callable[[int], bool] | None) -> FrameSocket:
        if request.param == "UnixDealer":
            return UnixDealer(f"ipc://{path}", expects)
        return LibzmqDealer(context, f"ipc://{path}", expects)

    made = Ends(dial, lambda: peer_of(context, path))
    yield made
    made.close()
    context.term()


def test_frames_of_all_sizes_arrive_in_order_in_both_directions(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    frames = [bytes([number]) * size for number, size in enumerate(SIZES)]
    for frame in frames:
        connecting.send(frame)
    ends.until(lambda: len(peer.heard) == len(frames))
    for frame in frames:
        peer.say(frame)
    ends.until(lambda: len(ends.heard) == len(frames))

    assert peer.heard == frames
    assert ends.heard == frames
    assert (connecting.has_peer, connecting.peer_pid, connecting.refusal) == (True, os.getpid(), None)
    assert not connecting.is_disconnected


def test_frames_that_the_kernel_does_not_take_at_once_arrive_later_in_order(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    frames = [b"%06d" % number * 200 for number in range(2000)]
    for frame in frames:
        connecting.send(frame)
    ends.until(lambda: len(peer.heard) == len(frames))

    assert peer.heard == frames


def test_the_last_frames_of_a_peer_are_received_before_its_end(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    connecting.send(b"hello")
    ends.until(lambda: peer.heard)
    frames = [b"%d" % number for number in range(100)]
    for frame in frames:
        peer.say(frame)
    peer.close()
    ends.peer = None
    ends.until(lambda: connecting.is_disconnected)

    assert ends.heard == frames
    assert (connecting.has_peer, connecting.refusal) == (True, None)


def test_after_its_end_a_connection_sends_nothing_to_the_next_peer(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    connecting.send(b"hello")
    ends.until(lambda: peer.heard)
    peer.close()
    ends.peer = None
    ends.until(lambda: connecting.is_disconnected)
    second = ends.serve()
    connecting.send(b"for the first")
    for _ in range(20):
        ends.until(lambda: True)
        second.turn()

    assert second.heard == []
    assert connecting.unsent() == []


def test_without_a_peer_the_frames_are_kept_for_the_next_attempt(ends: Ends, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
    connecting = ends.connect()
    connecting.send(b"kept")
    ends.until(lambda: connecting.is_disconnected)
    connecting.send(b"this too")

    assert (connecting.has_peer, connecting.refusal) == (False, None)
    assert connecting.unsent() == [b"kept", b"this too"]
    assert connecting.unsent() == []


def test_without_a_file_no_socket_is_made(ends: Ends) -> None:
    with pytest.raises(FileNotFoundError):
        ends.connect()
    ends.serve()
    ends.connect()


def test_an_unexpected_process_is_sent_nothing(ends: Ends) -> None:
    asked: list[int] = []

    def expects(pid: int) -> bool:
        asked.append(pid)
        return False

    peer, connecting = ends.serve(), ends.connect(expects)
    connecting.send(b"secret")
    ends.until(lambda: connecting.is_disconnected)
    for _ in range(5):
        peer.turn()

    assert (connecting.has_peer, connecting.refusal, asked) == (False, OTHER_PROCESS, [os.getpid()])
    assert peer.heard == []


def test_a_connection_that_is_closed_at_once_delivers_what_was_sent(ends: Ends) -> None:
    """The handshake is not even over. The peer takes part in it by itself: libzmq's in a thread, ours in this test's."""
    peer, connecting = ends.serve(), ends.connect()
    frames = [b"%d" % number * 100 for number in range(50)]
    for frame in frames:
        connecting.send(frame)
    if isinstance(peer, OwnPeer):
        ends.until(lambda: connecting.has_peer and peer.heard)
    connecting.unwatch(ends.reactor)
    connecting.close(10.0)
    connecting.close()
    ends.until(lambda: len(peer.heard) == len(frames))

    assert peer.heard == frames


@pytest.mark.parametrize("peer_of", [LibzmqPeer], indirect=False)
def test_a_message_of_several_parts_is_an_empty_frame(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    assert isinstance(peer, LibzmqPeer)
    connecting.send(b"hello")
    ends.until(lambda: peer.heard)
    peer.say(b"before")
    peer.say_in_parts(b"one", b"two")
    ends.until(lambda: len(ends.heard) == 2)

    assert ends.heard == [b"before", b""]


def test_nothing_is_called_after_unwatch(ends: Ends) -> None:
    peer, connecting = ends.serve(), ends.connect()
    connecting.send(b"hello")
    ends.until(lambda: peer.heard)
    connecting.unwatch(ends.reactor)
    with contextlib.suppress(OSError):
        peer.say(b"unheard")
    for _ in range(20):
        ends.until(lambda: True)
        ends.reactor.call(lambda: None)
        ends.reactor.turn()

    assert ends.heard == []
