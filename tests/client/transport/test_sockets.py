"""What the connecting end promises.

Nothing leaves before the peer is known, and nobody else gets what was meant for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.transport.sockets import Dealer, new_context
from tests.peers import connected
from tests.waiting import wait_until


@contextlib.contextmanager
def bound(path: Path) -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]]:
    """Have a peer at ``path``, which moves by itself; yield it behind the context for the dealers, which are to be closed."""
    context = new_context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{path}")
    yield context, router
    router.close(0)
    context.term()


def test_a_new_connection_can_be_made_at_once_after_another_was_closed(tmp_path: Path) -> None:
    """What was closed is let go of a moment later, by another thread; the next one may lie where it lay."""
    context = new_context()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "nobody"))
        for _ in range(500):
            Dealer(context, f"ipc://{tmp_path / 'nobody'}").close()
    context.term()


def test_a_dealer_whose_peer_does_not_listen_is_disconnected(tmp_path: Path) -> None:
    context = new_context()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        dealer = Dealer(context, f"ipc://{tmp_path / 'deaf'}")
        dealer.send(b"kept")
        wait_until(dealer.is_disconnected, 5.0, "word of it")

    assert not dealer.has_peer
    assert dealer.refusal is None
    assert dealer.unsent() == [b"kept"]
    dealer.close()
    context.term()


def credentials_are(monkeypatch: pytest.MonkeyPatch, pid: int | None, uid: int | None) -> None:
    monkeypatch.setattr("headrace.transport.sockets.credentials", lambda _: (pid, uid))


def test_a_dealer_knows_the_process_that_listens(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (context, _):
        dealer = Dealer(context, f"ipc://{tmp_path / 's'}")
        assert (dealer.has_peer, dealer.peer_pid) == (False, 0)
        connected(dealer)
        assert (dealer.has_peer, dealer.peer_pid, dealer.refusal) == (True, os.getpid(), None)
        dealer.close()


@pytest.mark.parametrize("uid", [None, os.getuid() + 1], ids=["unknown", "another"])
def test_a_dealer_sends_nothing_to_a_peer_that_is_not_this_users(
    tmp_path: Path, uid: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials_are(monkeypatch, 1, uid)
    with bound(tmp_path / "s") as (context, router):
        dealer = Dealer(context, f"ipc://{tmp_path / 's'}")
        dealer.send(b"before")
        wait_until(dealer.is_disconnected, 5.0, "a refusal")
        dealer.send(b"after")

        assert dealer.refusal is not None
        assert "nothing was sent to it" in dealer.refusal
        assert list(dealer.receive()) == []
        dealer.close(0.1)
        assert not router.poll(100)


def test_frames_of_a_peer_that_left_before_it_was_checked_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor may be another connection's when the kernel is asked."""
    context = new_context()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        dealer = Dealer(context, f"ipc://{tmp_path / 's'}")
        dealer.send(b"a secret")
        peer, _ = listener.accept()
        peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48))
        peer.sendall(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER")
        said = b""
        while b"READY" not in said:
            said += peer.recv(1000)
        peer.sendall(b"\x00\x06forged")

        def credentials_of_the_next(fd: int) -> tuple[int, int]:
            peer.close()
            wait_until(lambda: not Path(f"/proc/self/fd/{fd}").exists(), 5.0, "a free descriptor")
            return os.getpid(), os.getuid()

        monkeypatch.setattr("headrace.transport.sockets.credentials", credentials_of_the_next)
        wait_until(dealer.is_disconnected, 5.0, "its end")

        assert not dealer.has_peer
        assert list(dealer.receive()) == []
        assert dealer.unsent() == [b"a secret"]
        dealer.close()
    context.term()


def test_a_dealer_whose_peer_has_gone_sends_nothing_to_the_next_process(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (context, first):
        dealer = connected(Dealer(context, f"ipc://{tmp_path / 's'}"))
        first.close(0)
        wait_until(dealer.is_disconnected, 5.0, "its end")
        second = context.socket(zmq.ROUTER)
        second.bind(f"ipc://{tmp_path / 's'}")
        dealer.send(b"for the first")

        assert not second.poll(200)
        dealer.close(0.1)
        second.close(0)


def test_a_dealer_is_not_made_without_a_socket_or_in_an_unsafe_directory(tmp_path: Path) -> None:
    context = new_context()
    for path in (tmp_path / "none", tmp_path / "none" / "s"):
        with pytest.raises(FileNotFoundError):
            Dealer(context, f"ipc://{path}")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "open" / "s"))
        listener.listen()
        with pytest.raises(UntrustedDirectoryError):
            Dealer(context, f"ipc://{tmp_path / 'open' / 's'}")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    context.term()
