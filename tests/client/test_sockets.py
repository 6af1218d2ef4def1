"""What the sockets promise of peers that come and go."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from headrace.sockets import Dealer, Router, SendResult, new_context
from tests.peers import connected
from tests.waiting import wait_until


@contextlib.contextmanager
def bound(path: Path, max_peers: int = 1_000_000) -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], Router]]:
    """Have a router at ``path``; yield it behind the context for its peers, which are to be closed in the block."""
    context = new_context()
    router = Router(context, f"ipc://{path}", max_peers)
    yield context, router
    router.close()
    context.term()


def test_every_departure_is_told_once_and_of_the_peer_that_left(tmp_path: Path) -> None:
    """Descriptors are used again at once, so that an event of one connection may arrive after the next one's hello."""
    endpoint = f"ipc://{tmp_path / 's'}"
    with bound(tmp_path / "s") as (context, router):
        stays = connected(Dealer(context, endpoint))
        stays.send(b"stays")
        heard: dict[bytes, bytes] = {}
        departed: list[bytes] = []
        names = [str(number).encode() for number in range(100)]

        def until(condition: str) -> None:
            def is_heard() -> bool:
                heard.update((frame, peer) for peer, frame in router.receive())
                return condition.encode() in heard

            wait_until(is_heard, 5.0, f"word of {condition}")

        until("stays")
        for name in names:
            guest = connected(Dealer(context, endpoint))
            guest.send(name)
            until(name.decode())
            guest.close(0.1)
            if int(name) % 3 == 0:  # so that events are behind in the others
                departed.extend(router.departed())

        def have_left() -> bool:
            departed.extend(router.departed())
            return len(departed) >= len(names)

        wait_until(have_left, 5.0, "all departures")
        assert sorted(departed) == sorted(heard[name] for name in names)
        assert router.peer(heard[b"stays"]) is not None
        stays.close()


def test_a_connection_may_be_made_at_once_after_another_was_closed(tmp_path: Path) -> None:
    """What was closed is let go of a moment later, by another thread; the next one may lie where it lay."""
    context = new_context()
    for _ in range(500):
        Dealer(context, f"ipc://{tmp_path / 'nobody'}").close()
    context.term()


def test_a_peer_whose_last_words_are_read_late_is_known_to_be_gone(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 's'}"
    with bound(tmp_path / "s") as (context, router):
        stays, goes = connected(Dealer(context, endpoint)), connected(Dealer(context, endpoint))
        stays.send(b"stays")
        goes.send(b"goes")
        goes.close(1.0)
        heard: dict[bytes, bytes] = {}

        def has_gone() -> bool:
            heard.update((frame, peer) for peer, frame in router.receive())
            return len(heard) == 2 and not router.is_connected(heard[b"goes"])

        wait_until(has_gone, 5.0, "a departure")
        assert router.is_connected(heard[b"stays"])
        stays.close()


def until_connections(router: Router, count: int) -> list[int]:
    """Wait until there are so many, nothing of which has been read; return their descriptors."""

    def are_there() -> bool:
        assert list(router.departed()) == []
        return len(router._connections) == count

    wait_until(are_there, 5.0, f"{count} connections")
    return list(router._connections)


def test_what_a_departed_peer_said_harms_nobody_who_has_its_descriptor_now(tmp_path: Path) -> None:
    """Messages of peers are read in turns, those of one that has left among those of the one that came after it."""
    # Mostly the second peer has the first one's descriptor; which one is free is the other threads' doing too.
    assert any(has_the_descriptor_of_the_peer_before(tmp_path / str(number)) for number in range(20))


def has_the_descriptor_of_the_peer_before(path: Path) -> bool:
    """Check that a peer that follows another is heard, and return whether it has the other's descriptor."""
    with bound(path) as (context, router):
        before = connected(Dealer(context, f"ipc://{path}"))
        for _ in range(500):
            before.send(b"before")
        connections = until_connections(router, 1)
        before.close(1.0)
        until_connections(router, 0)
        now = connected(Dealer(context, f"ipc://{path}"))
        for _ in range(20):
            now.send(b"now")
        heard: dict[bytes, bytes] = {}
        departed: list[bytes] = []

        def is_read() -> bool:
            for _ in range(50):
                heard.update((frame, peer) for peer, frame in router.receive(limit=4))
                departed.extend(router.departed())
            return b"now" in heard and not router.has_input()

        wait_until(is_read, 30.0, "all messages")
        known = router.peer(heard[b"now"])
        assert known is not None
        assert departed == [heard[b"before"]]
        assert router.is_connected(heard[b"now"])
        now.close()
    return [known.fd] == connections


def test_ending_the_connection_of_one_that_has_left_harms_nobody_who_has_its_descriptor_now(tmp_path: Path) -> None:
    assert any(descriptor_is_used_again_and_kept(tmp_path / str(number)) for number in range(20))


def descriptor_is_used_again_and_kept(path: Path) -> bool:
    """Check that a peer stays when the one before it is disconnected late; return whether it has the other's descriptor."""
    with bound(path) as (context, router):
        before = connected(Dealer(context, f"ipc://{path}"))
        before.send(b"before")
        wait_until(router.has_input, 5.0, "the first peer's word")
        ((left, _),) = router.receive()
        known = router.peer(left)
        assert known is not None
        before.close()
        wait_until(lambda: not router.is_connected(left), 5.0, "its departure")
        now = connected(Dealer(context, f"ipc://{path}"))
        now.send(b"now")
        wait_until(router.has_input, 5.0, "the second peer's word")

        router.disconnect(left)  # of whom nothing is told yet
        ((newcomer, _),) = router.receive()
        assert router.is_connected(newcomer)
        assert router.send(newcomer, b"welcome") is SendResult.SENT
        wait_until(now.has_input, 5.0, "an answer")
        assert not now.is_disconnected()
        found = router.peer(newcomer)
        assert found is not None
        now.close()
    return found.fd == known.fd


def test_a_router_without_room_takes_nobody_in_until_somebody_leaves(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path, max_peers=10) as (context, router):
        peers = []

        def until(is_full: bool) -> None:
            def is_so() -> bool:
                list(router.departed())
                return router.is_full is is_full

            wait_until(is_so, 5.0, f"is_full {is_full}")

        for _ in range(10):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(path))
            peers.append(peer)
        until(is_full=True)
        with socket.socket(socket.AF_UNIX) as another, pytest.raises(FileNotFoundError):
            another.connect(str(path))
        late = Dealer(context, f"ipc://{path}")
        wait_until(late.is_disconnected, 5.0, "word that there is no socket")
        assert not late.has_peer

        peers.pop().close()
        peers.pop().close()
        until(is_full=False)
        again = connected(Dealer(context, f"ipc://{path}"))
        again.send(b"late")
        heard = wait_until(lambda: [frame for _, frame in router.receive()], 5.0, "who waits to connect")
        assert heard == [b"late"]
        for peer in peers:
            peer.close()
        late.close()
        again.close()


def test_a_message_of_many_parts_is_left_behind_a_piece_at_a_time(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (context, router):
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"ipc://{tmp_path / 's'}")
        dealer.send_multipart([b"x"] * 3000)
        dealer.send(b"and then")

        turns: list[list[bytes]] = []

        def is_read() -> bool:
            turns.append([frame for _, frame in router.receive(1000)])
            return turns[-1][-1:] == [b"and then"]

        wait_until(is_read, 5.0, "the next message")
        told = [turn for turn in turns if turn]
        assert told == [[b""], [b"and then"]]
        dealer.close(0)


def test_who_greets_as_zeromq_did_long_ago_is_not_heard(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (context, router):
        with socket.socket(socket.AF_UNIX) as ancient:
            ancient.connect(str(tmp_path / "s"))
            ancient.sendall(b"\x01\x00\x06\x00Hello\x06\x00Hello")
            dealer = connected(Dealer(context, f"ipc://{tmp_path / 's'}"))
            dealer.send(b"known")
            heard = wait_until(lambda: [frame for _, frame in router.receive()], 5.0, "a message")

        assert heard == [b"known"]
        dealer.close()
