"""What the connecting end promises.

Nothing leaves before the peer is known, and nobody else gets what was meant for it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.transport.checked_connection import OTHER_PROCESS
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer
from headrace.transport.zmtp import frame_head, opening
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

            assert dealer.is_disconnected
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
    monkeypatch.setattr("headrace.transport.checked_connection.credentials", lambda _: (1, uid))
    with listening(tmp_path / "s") as listener, closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        dealer.send(b"secret")

        assert dealer.is_disconnected
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
        assert (dealer.is_disconnected, dealer.refusal, dealer.has_peer) == (True, OTHER_PROCESS, False)
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

            assert moved(dealer, second, lambda _: dealer.is_disconnected) == []


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
            return dealer.is_disconnected

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


# Servers that break the rules.

ROUTER = opening()
PING = b"\x04\x07\x04PING\0\0"


class Server:
    """The peer's end of a dealer's connection, as plain bytes, and the loop of the dealer."""

    def __init__(self, path: Path) -> None:
        self.reactor = Reactor()
        self.heard: list[bytes] = []
        self.is_over = False
        with listening(path) as listener:
            self.dealer = UnixDealer(f"ipc://{path}")
            self.peer, _ = listener.accept()
        self.peer.setblocking(False)
        self.dealer.watch(self.reactor, self._ready)

    def _ready(self) -> None:
        self.heard += self.dealer.receive()
        if self.dealer.is_disconnected:
            self.is_over = True
            self.dealer.unwatch(self.reactor)

    def until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.reactor.call_later(0.002, lambda: None)
            self.reactor.turn()

    def until_over(self) -> None:
        self.until(lambda: self.is_over)

    def said(self) -> bytes:
        """Return what the dealer has said since."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            while data := self.peer.recv(1_000_000):
                said += data
        return said

    def close(self) -> None:
        self.dealer.unwatch(self.reactor)
        self.dealer.close()
        self.peer.close()
        self.reactor.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with closing(Server(tmp_path / "s")) as made:
        yield made


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        b"\xff" + bytes(8) + b"\x7f\x01\x05" + bytes(100),
        ROUTER[:64] + b"\0\1x",
        ROUTER[:64] + b"\x04\x0d\x05ERROR\x06go now",
        opening(b"PUB"),
        ROUTER[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
    ],
    ids=["http", "zmtp 1", "an early message", "ERROR", "another socket type", "another mechanism"],
)
def test_a_server_that_does_not_speak_the_protocol_is_refused_and_gets_no_frame(server: Server, said: bytes) -> None:
    server.dealer.send(b"secret")
    server.peer.sendall(said)
    server.until_over()

    assert "does not speak this protocol" in (server.dealer.refusal or "")
    assert server.heard == []
    assert server.said() == opening(b"DEALER")


@pytest.mark.parametrize(
    "said",
    [b"\x08\1x", b"\1\1x", b"\x02" + b"\xff" * 8, b"\x04\x05\x04PING", b"\x06" + (5000).to_bytes(8, "big")],
    ids=["flags", "several parts", "too long", "a short PING", "a long command"],
)
def test_a_breach_after_the_handshake_is_an_empty_frame_and_the_end(server: Server, said: bytes) -> None:
    server.peer.sendall(ROUTER + b"\0\5hello" + said + b"\0\4more")
    server.until_over()

    assert server.heard == [b"hello", b""]
    assert server.dealer.refusal is None


@pytest.mark.parametrize("count", [0, 1, 9, 10, 63, 64, 65, 80, len(ROUTER)])
@pytest.mark.parametrize("says_more", [False, True])
def test_a_server_that_closes_at_any_point_of_the_handshake_has_gone(
    server: Server, count: int, says_more: bool
) -> None:
    server.dealer.send(b"kept")
    server.peer.sendall(ROUTER[:count])
    if says_more:
        server.until(lambda: True)
    server.peer.close()
    server.until_over()

    assert (server.dealer.has_peer, server.dealer.refusal, server.heard) == (True, None, [])
    server.dealer.send(b"dropped")


@pytest.mark.parametrize("said", [b"", ROUTER[:30], ROUTER[:-1]], ids=["nothing", "half a greeting", "half a READY"])
def test_a_server_that_never_is_ready_has_gone_after_a_while(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.transport.unix_dealer._HANDSHAKE_TIMEOUT", 0.05)
    with closing(Server(tmp_path / "s")) as server:
        server.dealer.send(b"secret")
        server.peer.sendall(said)
        server.until_over()

        assert server.said() == opening(b"DEALER")


def test_half_a_frame_is_dropped_when_the_server_has_gone(server: Server) -> None:
    server.peer.sendall(ROUTER + b"\0\5hello" + b"\0\x09half")
    server.peer.close()
    server.until_over()

    assert server.heard == [b"hello"]


def test_pings_are_answered_and_a_flood_of_them_keeps_no_memory(server: Server) -> None:
    server.peer.sendall(ROUTER + b"\x04\x0a\x04PING\0\0abc" + b"\0\1x")
    server.until(lambda: server.heard)
    assert server.said() == opening(b"DEALER") + b"\x04\x08\x04PONGabc"

    unread = 0
    for _ in range(200):  # the server reads no answer
        with contextlib.suppress(BlockingIOError):
            server.peer.sendall(PING * 2000)
        server.until(lambda: True)
        unread = max(unread, server.dealer._wire.unsent_bytes)
    assert unread < 1000


def test_a_flood_of_frames_is_read_piece_by_piece_and_other_work_goes_on(server: Server) -> None:
    turns: list[int] = []
    server.reactor.each_turn(lambda: turns.append(len(server.heard)))
    server.peer.sendall(ROUTER)
    frame = frame_head(0) * 5000
    sent = 0
    while sent < 100:
        with contextlib.suppress(BlockingIOError):
            sent += server.peer.send(frame) == len(frame)
        server.until(lambda: True)
        server.reactor.call(lambda: None)
        server.reactor.turn()
    steps = [after - before for before, after in itertools.pairwise(turns)]

    assert max(steps) <= 32_768, "one read of 64 KiB in a turn"


# Sending.


def test_frames_that_the_kernel_does_not_take_wait_and_leave_in_order(server: Server) -> None:
    server.peer.sendall(ROUTER + b"\0\1x")
    server.until(lambda: server.heard)
    frames = [b"%d" % number * size for number, size in enumerate([100_000, 10, 3_000_000, 0, 500_000])]
    for frame in frames:
        server.dealer.send(frame)
    wanted = opening(b"DEALER") + b"".join(frame_head(len(frame)) + frame for frame in frames)
    said = bytearray()

    def is_all_said() -> bool:
        said.extend(server.said())
        return len(said) >= len(wanted)

    server.until(is_all_said)
    assert bytes(said) == wanted
    assert server.dealer._wire.unsent_bytes == 0


def test_a_peer_that_reads_nothing_while_much_waits_has_gone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.transport.unix_dealer._MANY_UNSENT", 1_000_000)
    server.peer.sendall(ROUTER + b"\0\1x")
    server.until(lambda: server.heard)
    server.dealer.send(bytes(2_000_000))
    server.dealer.send(b"more")
    assert not server.dealer.is_disconnected, "it may be slow"
    monkeypatch.setattr("headrace.transport.unix_dealer._STALLED_AFTER", 0.0)
    server.peer.sendall(b"\0\4last")
    server.dealer.send(b"too much")
    server.until_over()

    assert server.heard == [b"x", b"last"]
    assert (server.dealer.has_peer, server.dealer.refusal) == (True, None)


def test_a_peer_that_cannot_be_written_to_has_gone_though_it_closes_nothing(server: Server) -> None:
    server.peer.sendall(ROUTER + b"\0\1x")
    server.until(lambda: server.heard)
    server.peer.sendall(b"\0\4last")
    server.peer.shutdown(socket.SHUT_RD)
    server.dealer.send(b"hello")
    server.until_over()

    assert server.heard == [b"x", b"last"]


def test_every_goodbye_is_heard_though_the_peer_closes_while_it_is_written_to(tmp_path: Path) -> None:
    for number in range(20):
        with closing(Server(tmp_path / str(number))) as server:
            server.peer.sendall(ROUTER + b"\0\1x")
            server.until(lambda: server.heard)
            server.peer.sendall(b"\0\x07goodbye")
            server.peer.close()
            for _ in range(3):
                server.dealer.send(b"x" * 1000)
            server.until_over()

            assert server.heard == [b"x", b"goodbye"]


# Closing.


def test_closing_finishes_the_handshake_and_sends_what_waits(tmp_path: Path) -> None:
    said: list[bytes] = []
    frame = bytes(1_000_000)
    with listening(tmp_path / "s") as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(ROUTER[:40])
                assert peer.recv(len(ROUTER)) == opening(b"DEALER")
                peer.sendall(ROUTER[40:])
                while data := peer.recv(65_536):
                    said.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        dealer = UnixDealer(f"ipc://{tmp_path / 's'}")
        dealer.send(frame)
        dealer.send(b"last")
        dealer.close(10.0)
        thread.join()

    assert b"".join(said) == frame_head(len(frame)) + frame + b"\0\4last"


@pytest.mark.parametrize("is_ready", [False, True])
def test_closing_waits_no_longer_than_it_may_and_not_for_a_peer_that_has_gone(tmp_path: Path, is_ready: bool) -> None:
    with closing(Server(tmp_path / "s")) as server:
        if is_ready:
            server.peer.sendall(ROUTER + b"\0\1x")
            server.until(lambda: server.heard)
        server.dealer.send(bytes(3_000_000))
        server.dealer.unwatch(server.reactor)
        began = time.monotonic(), time.process_time()
        server.dealer.close(0.2)
        assert 0.2 <= time.monotonic() - began[0] < 5.0
        assert time.process_time() - began[1] < 0.1, "it does not spin"
    with closing(Server(tmp_path / "t")) as server:
        server.dealer.send(b"hello")
        server.peer.close()
        began = time.monotonic(), 0.0
        server.dealer.unwatch(server.reactor)
        server.dealer.close(20.0)
        assert time.monotonic() - began[0] < 10.0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_ends_harms_no_connection_and_one_that_stays_keeps_none_open(server: Server) -> None:
    server.peer.sendall(ROUTER + b"\0\1x")
    server.until(lambda: server.heard)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    server.dealer.send(b"still here")
    server.peer.sendall(b"\0\1y")
    server.until(lambda: len(server.heard) == 2)
    assert server.said() == opening(b"DEALER") + b"\0\x0astill here"

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    server.dealer.unwatch(server.reactor)
    server.dealer.close()
    poller = select.poll()
    poller.register(server.peer, select.POLLIN)
    assert poller.poll(10_000)
    assert server.peer.recv(100) == b""
    os.close(write)
    os.waitpid(child, 0)


def test_without_descriptors_a_dealer_is_not_made_and_says_so(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening(tmp_path / "s"), contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
        taken: list[int] = []
        failures: list[OSError] = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        while True:
            try:
                UnixDealer(f"ipc://{tmp_path / 's'}").close()
                break
            except OSError as error:
                failures.append(error)
                os.close(taken.pop())
        for fd in taken:
            os.close(fd)

    assert {error.errno for error in failures} == {errno.EMFILE}
    assert not any(isinstance(error, UntrustedDirectoryError) for error in failures), "the directory is not to blame"


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    (deep / "s").touch()
    with pytest.raises(OSError, match="too long") as raised:
        UnixDealer(f"ipc://{deep / 's'}")
    assert raised.value.errno == errno.ENAMETOOLONG


def test_close_waits_until_the_peer_has_read_everything(tmp_path: Path) -> None:
    """A client tells a worker of aborts, and its engine ends at once: the worker must have read them before it is killed."""
    with closing(Router(f"ipc://{tmp_path / 's'}")) as router, closing(UnixDealer(f"ipc://{tmp_path / 's'}")) as dealer:
        got: list[bytes] = []

        def is_ready() -> bool:
            got.extend(frame for _, frame in router.receive())
            dealer.receive()
            return bool(got)

        dealer.send(b"hello")
        wait_until(is_ready)
        dealer.send(b"abort")
        thread = threading.Thread(target=dealer.close, args=(30.0,))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert got == [b"hello"]

        def has_all() -> bool:
            got.extend(frame for _, frame in router.receive())
            return got[-1] == b"abort" and not thread.is_alive()

        wait_until(has_all)
