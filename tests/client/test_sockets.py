"""What the sockets promise of peers that come and go."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import zmq

from headrace.sockets import Dealer, Router, new_context


def test_every_departure_is_told_once_and_of_the_peer_that_left(tmp_path: Path) -> None:
    """Descriptors are used again at once, so that an event of one connection may arrive after the next one's hello."""
    context = new_context()
    endpoint = f"ipc://{tmp_path / 's'}"
    router = Router(context, endpoint)
    stays = Dealer(context, endpoint)
    stays.send(b"stays")
    heard: dict[bytes, bytes] = {}
    departed: list[bytes] = []
    names = [str(number).encode() for number in range(100)]

    def until(condition: str) -> None:
        for _ in range(1000):
            heard.update((frame, peer) for peer, frame in router.receive())
            if condition.encode() in heard:
                return
            threading.Event().wait(0.005)
        raise AssertionError(f"nothing heard of {condition}")

    until("stays")
    for name in names:
        guest = Dealer(context, endpoint)
        guest.send(name)
        until(name.decode())
        guest.close(0.1)
        if int(name) % 3 == 0:  # so that events are behind in the others
            departed.extend(router.departed())
    for _ in range(1000):
        departed.extend(router.departed())
        if len(departed) >= len(names):
            break
        threading.Event().wait(0.005)

    assert sorted(departed) == sorted(heard[name] for name in names)
    assert router.peer(heard[b"stays"]) is not None
    stays.close()
    router.close()
    context.term()


def test_a_connection_may_be_made_at_once_after_another_was_closed(tmp_path: Path) -> None:
    """What was closed is let go of a moment later, by another thread; the next one may lie where it lay."""
    context = new_context()
    for _ in range(500):
        Dealer(context, f"ipc://{tmp_path / 'nobody'}").close()
    context.term()


def test_a_peer_whose_last_words_are_read_late_is_known_to_be_gone(tmp_path: Path) -> None:
    context = new_context()
    endpoint = f"ipc://{tmp_path / 's'}"
    router = Router(context, endpoint)
    stays, goes = Dealer(context, endpoint), Dealer(context, endpoint)
    stays.send(b"stays")
    goes.send(b"goes")
    goes.close(1.0)
    heard: dict[bytes, bytes] = {}
    for _ in range(1000):
        heard.update((frame, peer) for peer, frame in router.receive())
        if len(heard) == 2 and not router.is_connected(heard[b"goes"]):
            break
        threading.Event().wait(0.005)

    assert not router.is_connected(heard[b"goes"])
    assert router.is_connected(heard[b"stays"])
    stays.close()
    router.close()
    context.term()


def until_connections(router: Router, count: int) -> list[int]:
    """Wait until there are so many, nothing of which has been read; return their descriptors."""
    for _ in range(1000):
        assert list(router.departed()) == []
        if len(router._connections) == count:
            return list(router._connections)
        threading.Event().wait(0.005)
    raise AssertionError(f"never {count} connections")


def test_what_a_departed_peer_said_harms_nobody_who_has_its_descriptor_now(tmp_path: Path) -> None:
    """Messages of peers are read in turns, those of one that has left among those of the one that came after it."""
    context = new_context()
    endpoint = f"ipc://{tmp_path / 's'}"
    router = Router(context, endpoint)
    before = Dealer(context, endpoint)
    for _ in range(500):
        before.send(b"before")
    connections = until_connections(router, 1)
    before.close(1.0)
    until_connections(router, 0)
    now = Dealer(context, endpoint)
    for _ in range(20):
        now.send(b"now")
    heard: dict[bytes, bytes] = {}
    departed: list[bytes] = []
    for _ in range(1000):
        heard |= {frame: peer for peer, frame in router.receive(limit=4)}
        departed.extend(router.departed())
        if b"now" in heard and not router.has_input():
            break
        threading.Event().wait(0.001)

    known = router.peer(heard[b"now"])
    assert known is not None
    assert [known.fd] == connections, "the descriptor is used again"
    assert departed == [heard[b"before"]]
    assert router.is_connected(heard[b"now"])
    now.close()
    router.close()
    context.term()


def test_a_router_without_room_takes_nobody_in_until_somebody_leaves(tmp_path: Path) -> None:
    path = tmp_path / "s"
    context = new_context()
    router = Router(context, f"ipc://{path}", max_peers=10)
    peers = []

    def until(is_full: bool) -> None:
        for _ in range(1000):
            list(router.departed())
            if router.is_full is is_full:
                return
            threading.Event().wait(0.005)
        raise AssertionError(f"is_full is not {is_full}")

    for _ in range(10):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(path))
        peers.append(peer)
    until(is_full=True)
    with socket.socket(socket.AF_UNIX) as another, pytest.raises(FileNotFoundError):
        another.connect(str(path))
    late = Dealer(context, f"ipc://{path}")
    late.send(b"late")

    peers.pop().close()
    peers.pop().close()
    until(is_full=False)
    heard: list[bytes] = []
    for _ in range(1000):
        heard += [frame for _, frame in router.receive()]
        if heard:
            break
        threading.Event().wait(0.005)

    assert heard == [b"late"], "who waits to connect does so"
    for peer in peers:
        peer.close()
    late.close()
    router.close()
    context.term()


def test_a_message_of_many_parts_is_left_behind_a_piece_at_a_time(tmp_path: Path) -> None:
    context = new_context()
    router = Router(context, f"ipc://{tmp_path / 's'}")
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"ipc://{tmp_path / 's'}")
    dealer.send_multipart([b"x"] * 3000)
    dealer.send(b"and then")

    turns: list[list[bytes]] = []
    for _ in range(1000):
        turns.append([frame for _, frame in router.receive(1000)])
        if turns[-1] == [b"and then"] or turns[-1][-1:] == [b"and then"]:
            break
        threading.Event().wait(0.001)

    told = [turn for turn in turns if turn]
    assert told == [[b""], [b"and then"]]
    dealer.close(0)
    router.close()
    context.term()


def test_who_greets_as_zeromq_did_long_ago_is_not_heard(tmp_path: Path) -> None:
    context = new_context()
    router = Router(context, f"ipc://{tmp_path / 's'}")
    with socket.socket(socket.AF_UNIX) as ancient:
        ancient.connect(str(tmp_path / "s"))
        ancient.sendall(b"\x01\x00\x06\x00Hello\x06\x00Hello")
        dealer = Dealer(context, f"ipc://{tmp_path / 's'}")
        dealer.send(b"known")
        heard: list[bytes] = []
        for _ in range(1000):
            heard += [frame for _, frame in router.receive()]
            if heard:
                break
            threading.Event().wait(0.005)

    assert heard == [b"known"]
    dealer.close()
    router.close()
    context.term()
