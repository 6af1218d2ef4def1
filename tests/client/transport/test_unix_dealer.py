"""What the connecting end promises.

Nothing leaves before the peer is known, and nobody else gets what was meant for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.transport.router import Router
from headrace.transport.unix_dealer import OTHER_PROCESS, UnixDealer
from headrace.transport.zmtp import opening
from tests.waiting import wait_until


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Have a socket that listens, without anything that speaks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def test_a_dealer_whose_peer_does_not_listen_is_disconnected(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        with closing(UnixDealer(f"ipc://{tmp_path / 'deaf'}")) as dealer:
            dealer.send(b"kept")

            assert dealer.is_disconnected()
            assert not dealer.has_peer
            assert dealer.refusal is None
            assert dealer.unsent() == [b"kept"]


def test_a_dealer_knows_the_process_that_listens(tmp_path: Path) -> None:
    with listening(tmp_path / "s"), closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        assert (dealer.has_peer, dealer.peer_pid, dealer.refusal) == (True, os.getpid(), None)


def is_sent_nothing(listener: socket.socket) -> bool:
    """Whether the connection that waits at a listening socket has ended without a byte."""
    peer, _ = listener.accept()
    with peer:
        return peer.recv(100) == b""


@pytest.mark.parametrize("uid", [None, os.getuid() + 1], ids=["unknown", "another"])
def test_a_dealer_sends_nothing_to_a_peer_that_is_not_this_users(
    tmp_path: Path, uid: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.transport.unix_dealer.credentials", lambda _: (1, uid))
    with listening(tmp_path / "s") as listener, closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        dealer.send(b"secret")

        assert dealer.is_disconnected()
        assert dealer.refusal is not None
        assert "nothing was sent to it" in dealer.refusal
        assert list(dealer.receive()) == []
        dealer.close(0.1)
        assert is_sent_nothing(listener)


def test_a_dealer_sends_nothing_to_an_unexpected_process(tmp_path: Path) -> None:
    asked: list[int] = []

    def expects(pid: int) -> bool:
        asked.append(pid)
        return False

    with listening(tmp_path / "s") as listener, closing(UnixDealer(f"ipc://{tmp_path / 's'}", expects)) as dealer:
        assert (dealer.is_disconnected(), dealer.refusal, dealer.has_peer) == (True, OTHER_PROCESS, False)
        assert asked == [os.getpid()]
        assert is_sent_nothing(listener)


def moved(dealer: UnixDealer, router: Router, is_so: Callable[[list[bytes]], object]) -> list[bytes]:
    """Serve both ends until something is so. Return the frames that the router has heard."""
    heard: list[bytes] = []

    def look() -> bool:
        dealer.receive()
        heard.extend(frame for _, frame in router.receive())
        return bool(is_so(heard))

    wait_until(look, 10.0, "what was sent")
    return heard


def test_no_frame_leaves_before_the_peer_has_said_ready(tmp_path: Path) -> None:
    with listening(tmp_path / "s") as listener, closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        dealer.send(b"hello")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1000) == opening(b"DEALER")
            peer.sendall(opening()[:-1])
            assert dealer.receive() == []
            dealer.send(b"again")
            with pytest.raises(BlockingIOError):
                peer.recv(1000, socket.MSG_DONTWAIT)
            peer.sendall(opening()[-1:])
            assert dealer.receive() == []
            assert peer.recv(1000) == b"\0\5hello\0\5again"


def test_a_dealer_whose_peer_has_gone_sends_nothing_to_the_next_process(tmp_path: Path) -> None:
    first = Router(f"ipc://{tmp_path / 's'}")
    with closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        dealer.send(b"hello")
        assert moved(dealer, first, len) == [b"hello"]
        first.close()
        with closing(Router(f"ipc://{tmp_path / 's'}")) as second:
            dealer.send(b"for the first")

            assert moved(dealer, second, lambda _: dealer.is_disconnected()) == []


def test_what_a_peer_said_before_it_closed_is_read_although_a_write_has_failed(tmp_path: Path) -> None:
    with closing(Router(f"ipc://{tmp_path / 's'}")) as router, closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        dealer.send(b"hello")
        (who,) = wait_until(lambda: dealer.receive() or [who for who, _ in router.receive()])
        router.send(who, b"goodbye")
        router.disconnect(who)
        for _ in range(3):
            dealer.send(b"too late")

        heard: list[bytes] = []

        def is_over() -> bool:
            heard.extend(dealer.receive())
            return dealer.is_disconnected()

        wait_until(is_over)
        assert heard == [b"goodbye"]


def test_a_dealer_is_not_made_without_a_socket_or_in_an_unsafe_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none" / "s"):
        with pytest.raises(FileNotFoundError):
            UnixDealer(f"ipc://{path}")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with listening(tmp_path / "open" / "s") as listener:
        with pytest.raises(UntrustedDirectoryError):
            UnixDealer(f"ipc://{tmp_path / 'open' / 's'}")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
