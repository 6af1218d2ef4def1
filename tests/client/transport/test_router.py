"""What the bound end promises of peers that come and go, flood, stall and lie."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from headrace.files.engine_directory import CLOSED
from headrace.transport.router import PeerLimits, Router, SendResult
from headrace.transport.zmtp import frame_head, opening
from tests.peers import RawDealer, new_context
from tests.strangers import STRANGER, StrangersChild, needs_root
from tests.waiting import wait_until

KIB = 1024
_CLONE_NEWUSER = 0x10000000


@contextlib.contextmanager
def bound(
    path: Path, max_peers: int = 1_000_000, limits: PeerLimits | None = None
) -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], Router]]:
    """Have a router at ``path``; yield it behind the context for its peers, which are to be closed in the block."""
    context = new_context()
    router = Router(f"ipc://{path}", max_peers, limits)
    yield context, router
    router.close()
    context.term()


_opened: list[Raw] = []


@pytest.fixture(autouse=True)
def _closed_peers() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


class Raw:
    """A peer that says what it likes. Closed at the test's end."""

    def __init__(self, path: Path, *, greets: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10.0)
        _opened.append(self)
        self.socket.connect(str(path))
        if greets:
            self.socket.sendall(opening(b"DEALER"))

    def say(self, body: bytes) -> None:
        self.socket.sendall(frame_head(len(body)) + body)

    def hear(self) -> bytes:
        """Return what there is to read, nothing at the end."""
        try:
            return self.socket.recv(1 << 20)
        except ConnectionError:
            return b""

    def until_the_end(self, router: Router) -> bytes:
        """Serve the router until it has closed this connection; return all that it said."""
        self.socket.setblocking(False)
        said: list[bytes] = []

        def is_over() -> bool:
            list(router.receive())
            with contextlib.suppress(BlockingIOError):
                said.append(self.hear())
            return said[-1:] == [b""]

        wait_until(is_over, 10.0, "the end of the connection")
        return b"".join(said)

    def close(self) -> None:
        self.socket.close()


def heard(router: Router, count: int) -> list[tuple[bytes, bytes]]:
    """Return the next frames."""
    found: list[tuple[bytes, bytes]] = []

    def are_there() -> bool:
        found.extend(router.receive())
        return len(found) >= count

    wait_until(are_there, 10.0, f"{count} frames", lambda: found)
    return found


def gone(router: Router, count: int) -> list[bytes]:
    """Return who has departed."""
    found: list[bytes] = []

    def have_left() -> bool:
        list(router.receive())
        found.extend(router.departed())
        return len(found) >= count

    wait_until(have_left, 10.0, f"{count} departures", lambda: found)
    return found


def test_each_departure_is_reported_once_after_the_peers_last_frames(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 's'}"
    with bound(tmp_path / "s") as (context, router):
        stays = RawDealer(context, endpoint)
        stays.send(b"stays")
        ((staying, _),) = heard(router, 1)
        who: dict[bytes, bytes] = {}
        departed: list[bytes] = []
        for number in range(100):
            guest = RawDealer(context, endpoint)
            guest.send(b"%d" % number)
            for peer, frame in heard(router, 1):
                who[frame] = peer
                assert peer not in departed
            guest.close()
            if number % 3 == 0:
                departed += router.departed()
        departed += gone(router, 100 - len(departed))

        assert sorted(departed) == sorted(who.values())
        assert router.is_connected(staying)
        assert len(set(departed)) == 100
        stays.close()


def test_a_descriptor_is_readable_when_a_peer_has_gone(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peer = Raw(tmp_path / "s")
        peer.say(b"hello")
        ((identity, _),) = heard(router, 1)
        assert router.pid(identity) == os.getpid()
        assert not router.is_foreign(identity)
        peer.close()

        wait_until(lambda: list(router.receive()) or _is_readable(router.monitor_fd), 10.0, "word of the end")
        assert list(router.departed()) == [identity]
        assert not _is_readable(router.monitor_fd)
        assert (router.pid(identity), router.is_connected(identity)) == (0, False)
        assert router.send(identity, b"late") is SendResult.GONE


@needs_root
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("users", "own", "others"),
    [("0 0 1", (0, False), (65534, True)), ("", (65534, False), (65534, False))],
    ids=["its user has a number", "no user has a number"],
)
def test_in_a_container_a_peer_without_a_pid_is_foreign_unless_no_peer_has_one(
    users: str, own: tuple[int, bool], others: tuple[int, bool]
) -> None:
    """The kernel then says 65534 of everybody. Where that is the router's own number too, the socket's mode must do."""
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp") as folder:
        path = Path(folder, "s")
        read, write = os.pipe()
        told, tell = os.pipe()
        server = os.fork()
        if server == 0:
            try:
                os.close(read)
                os.close(tell)
                if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
                    os.write(write, b"[]")
                    os._exit(0)
                os.write(write, b".")
                os.read(told, 1)
                os.write(write, json.dumps(_who_comes(path)).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.close(told)
        with open(read, "rb", buffering=0) as said:
            if said.read(1) != b".":
                pytest.skip("no user namespaces here")
            if users:
                Path(f"/proc/{server}/uid_map").write_text(users)
            os.write(tell, b"x")
            wait_until(path.with_name("ready").exists, 10.0, "the router")
            Path(folder).chmod(0o711)
            path.chmod(0o777)
            with Raw(path).socket as one:
                one.sendall(frame_head(3) + b"own")

                def say() -> None:
                    with socket.socket(socket.AF_UNIX) as other:
                        other.connect(str(path))
                        other.sendall(opening(b"DEALER") + frame_head(5) + b"other")
                        other.recv(1)
                        wait_until(path.with_name("done").exists, 10.0, "both")

                StrangersChild(STRANGER, say).result()
            found = json.loads(said.read())
        os.close(tell)
        os.waitpid(server, 0)

    assert found == {"own": list(own), "other": list(others)}


def _who_comes(path: Path) -> dict[str, tuple[int | None, bool]]:
    """Serve two peers; return their users, as the kernel tells them here, and whether they are foreign."""
    router = Router(f"ipc://{path}")
    path.with_name("ready").touch()
    frames = heard(router, 2)
    who = {frame.decode(): (router._peers[peer].uid, router.is_foreign(peer)) for peer, frame in frames}
    path.with_name("done").touch()
    return who


def test_a_peer_of_an_unknown_user_or_that_has_gone_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.transport.listener.credentials", lambda _: (None, None))
    with bound(tmp_path / "s") as (_, router):
        Raw(tmp_path / "s").say(b"hello")
        ((identity, _),) = heard(router, 1)
        assert (router.pid(identity), router.is_foreign(identity)) == (0, True)
        assert router.is_foreign(b"nobody")


def _is_readable(descriptor: int) -> bool:
    import select

    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def test_a_peer_that_has_gone_is_not_connected_though_its_frames_are_still_read(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peers = [Raw(tmp_path / "s"), Raw(tmp_path / "s")]
        for peer in peers:
            peer.say(b"hello")
        peers[0].close()
        (first, _), (second, _) = heard(router, 2)
        assert sorted([router.is_connected(first), router.is_connected(second)]) == [False, True]
        peers[1].close()


def test_frames_that_the_kernel_does_not_take_wait_and_arrive_in_order(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (context, router):
        dealer = RawDealer(context, f"ipc://{tmp_path / 's'}")
        dealer.send(b"hello")
        ((identity, _),) = heard(router, 1)
        frames = [bytes([number % 251]) * size for number, size in enumerate([10, 255, 256, 20_000, 1_000_000] * 30)]
        for frame in frames:
            assert router.send(identity, frame) is SendResult.SENT
        received: list[bytes] = []

        def is_all() -> bool:
            list(router.receive())
            received.extend(dealer.receive())
            return len(received) == len(frames)

        wait_until(is_all, 30.0, "all frames")
        assert received == frames
        assert router._unread == 0
        dealer.close()


def test_waiting_frames_leave_when_the_router_is_closed(tmp_path: Path) -> None:
    router = Router(f"ipc://{tmp_path / 's'}")
    peer = Raw(tmp_path / "s")
    peer.say(b"hello")
    ((identity, _),) = heard(router, 1)
    router.send(identity, b"x" * 3_000_000)
    sizes: list[int] = []
    reader = threading.Thread(target=lambda: sizes.extend(iter(lambda: len(peer.hear()), 0)))
    reader.start()
    router.close(30.0)
    reader.join()
    assert sum(sizes) == 3_000_000 + len(opening()) + 9
    router.close()


def test_a_full_router_accepts_no_connection_until_some_have_ended(tmp_path: Path) -> None:
    path = tmp_path / "s"
    holder = "import socket, sys, time\nheld = []\nfor _ in range(10):\n    held.append(socket.socket(socket.AF_UNIX))\n    held[-1].connect(sys.argv[1])\nprint(flush=True)\ntime.sleep(60)"
    with bound(path, max_peers=10) as (context, router):
        own = Raw(path)
        holders = [
            subprocess.Popen([sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE) for _ in range(2)
        ]
        # Each of the two has half of the places at most.
        wait_until(lambda: list(router.receive()) or router.is_full, 10.0, "the last place to be taken")
        assert len(router._peers) == 10
        assert path.with_name(path.name + CLOSED).exists()
        with socket.socket(socket.AF_UNIX) as another, pytest.raises(FileNotFoundError):
            another.connect(str(path))
        late = RawDealer(context, f"ipc://{path}")
        late.send(b"late")

        for process in holders:
            process.kill()
            process.communicate()
        assert [frame for _, frame in heard(router, 1)] == [b"late"]
        assert not router.is_full
        own.close()
        late.close()


def test_one_process_has_at_most_half_of_the_connections(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path, max_peers=100) as (_, router):
        peers = [Raw(path, greets=False) for _ in range(90)]

        def are_half() -> bool:
            list(router.receive())
            return len(router._peers) == 50

        wait_until(are_half, 10.0, "half of them")
        assert all(peer.hear()[:1] == b"\xff" for peer in peers[:50])
        for peer in peers[50:]:
            peer.until_the_end(router)
        for peer in peers[:5]:
            peer.close()
        wait_until(lambda: list(router.receive()) or len(router._peers) == 45, 10.0, "five to leave")
        for peer in peers[5:]:
            peer.close()


@pytest.mark.parametrize(
    ("said", "breach"),
    [
        (b"\x01\x01x" + b"\x00\x01y", "a message has one part, not several"),
        (frame_head(5000), "a frame has at most 4096 bytes, not 5000"),
        (b"\x40\x01x", "a frame has unknown flags: 0x40"),
    ],
)
def test_a_breach_is_yielded_as_an_empty_frame_and_nothing_follows(tmp_path: Path, said: bytes, breach: str) -> None:
    with bound(tmp_path / "s", limits=PeerLimits(frame=4096)) as (_, router):
        peer = Raw(tmp_path / "s")
        peer.socket.sendall(b"\x00\x02hi" + said)
        peer.say(b"more")
        (identity, first), (_, second) = heard(router, 2)
        assert (first, second, router.breach(identity)) == (b"hi", b"", breach)

        router.dismiss(identity, b"goodbye")
        assert list(router.receive()) == []
        router.disconnect(identity)
        assert gone(router, 1) == [identity]
        assert peer.until_the_end(router).endswith(b"\x00\x07goodbye")


def test_nothing_more_is_read_from_a_dismissed_peer(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peer = Raw(tmp_path / "s")
        for _ in range(50):
            peer.say(b"again")
        told: list[bytes] = []

        def is_told() -> list[bytes]:
            for identity, frame in router.receive():
                told.append(frame)
                router.dismiss(identity, b"goodbye")
            return told

        wait_until(is_told, 10.0, "its first word")
        assert told == [b"again"]
        assert [list(router.receive()) for _ in range(3)] == [[], [], []]
        assert not _is_readable(router.fd), "nobody spins"


@pytest.mark.parametrize("identity", [b"", b"x", b"\0\0\0\0\0\0\0\0\1", b"\0\0\0\0\1"])
def test_a_chosen_routing_id_has_no_effect(tmp_path: Path, identity: bytes) -> None:
    """libzmq ends the process in which it would make an id that a peer has claimed."""
    context = zmq.Context()
    with bound(tmp_path / "s") as (_, router):
        sockets = [context.socket(zmq.DEALER) for _ in range(5)]
        for number, one in enumerate(sockets):
            if identity:
                one.setsockopt(zmq.ROUTING_ID, identity)
            one.connect(f"ipc://{tmp_path / 's'}")
            one.send(b"%d" % number)
        who = {frame: peer for peer, frame in heard(router, 5)}
        assert len(set(who.values())) == 5
        for frame, peer in who.items():
            router.send(peer, frame)
        assert [one.recv() for one in sockets] == [b"%d" % number for number in range(5)]
        context.destroy(0)


def test_a_peer_that_does_not_read_is_full_at_its_limit(tmp_path: Path) -> None:
    with bound(tmp_path / "s", limits=PeerLimits(unread=2_000_000)) as (_, router):
        peer = Raw(tmp_path / "s")
        peer.say(b"hello")
        ((identity, _),) = heard(router, 1)
        sent = 0
        while router.send(identity, b"x" * 1000) is SendResult.SENT:
            sent += 1
            assert sent < 5000
        assert 1_700_000 <= router._unread <= 2_000_000
        router.disconnect(identity)
        assert gone(router, 1) == [identity]
        assert router._unread == 0
        peer.close()


def test_with_too_many_unread_bytes_the_process_with_most_loses_a_connection(
    tmp_path: Path,
) -> None:
    """Many small debts of one process weigh more than a large one of another."""
    program = "import socket, sys\nfrom headrace.transport.zmtp import opening\nown = socket.socket(socket.AF_UNIX)\nown.connect(sys.argv[1])\nown.sendall(opening(b'DEALER') + b'\\0\\5other')\nsys.stdin.read()"
    with bound(tmp_path / "s", limits=PeerLimits(all_unread=4_000_000)) as (_, router):
        other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "s")], stdin=subprocess.PIPE)
        ((bystander, _),) = heard(router, 1)
        peers = [Raw(tmp_path / "s") for _ in range(10)]
        for peer in peers:
            peer.say(b"hello")
        many = [identity for identity, _ in heard(router, 10)]
        router.send(bystander, b"x" * 1_000_000)
        for _ in range(20):
            for identity in many:
                router.send(identity, b"x" * 40_000)

        departed = list(router.departed())
        assert departed
        assert set(departed) <= set(many)
        assert router._unread <= 4_000_000
        other.communicate()
        for peer in peers:
            peer.close()


def test_with_too_many_incomplete_bytes_the_oldest_incomplete_frames_end_their_connections(tmp_path: Path) -> None:
    with bound(tmp_path / "s", limits=PeerLimits(frame=1_000_000, unfinished=2_000_000)) as (context, router):
        peers = []
        for _ in range(30):
            peers.append(Raw(tmp_path / "s"))
            peers[-1].socket.sendall(frame_head(1_000_000) + b"x" * 100_000)
            most = router._unfinished
            wait_until(lambda: list(router.receive()) or router._unfinished != most, 10.0, "it to be read")  # noqa: B023
            assert router._unfinished <= 2_000_000
        assert 15 <= len(router._peers) <= 21
        assert peers[0].hear().startswith(b"\xff")
        assert peers[0].hear() == b""

        whole = RawDealer(context, f"ipc://{tmp_path / 's'}")
        whole.send(b"y" * 900_000)
        assert [len(frame) for _, frame in heard(router, 1)] == [900_000]
        for peer in peers:
            peer.close()
        whole.close()
        wait_until(lambda: list(router.receive()) or not len(router._peers), 10.0, "all to leave")
        assert (router._unfinished, router._unread, +router._waiting_bytes) == (0, 0, {})


def test_the_header_of_a_large_frame_takes_no_memory(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peers = [Raw(tmp_path / "s") for _ in range(200)]
        for peer in peers:
            peer.socket.sendall(frame_head(60 * KIB * KIB))
        wait_until(lambda: list(router.receive()) or len(router._peers) == 200, 10.0, "all of them")
        before = _memory()
        for _ in range(20):
            list(router.receive())
        assert _memory() - before < 10 * KIB * KIB
        for peer in peers:
            peer.close()


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_flood_of_one_process_takes_turns_with_others_and_each_call_is_short(tmp_path: Path) -> None:
    program = "import socket, sys\nfrom headrace.transport.zmtp import opening\nown = socket.socket(socket.AF_UNIX)\nown.connect(sys.argv[1])\nown.sendall(opening(b'DEALER'))\nprint(flush=True)\nfor line in sys.stdin:\n    own.sendall(b'\\0\\1x')\n    print(flush=True)\n"
    with bound(tmp_path / "s") as (_, router):
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "s")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        peers = [Raw(tmp_path / "s") for _ in range(50)]
        for peer in peers:
            peer.socket.setblocking(False)
        flood = b"\0\1y" * 20_000
        for _ in range(5):
            other.stdin.write("\n")
            other.stdout.readline()  # it has said it: calls are counted from here, however busy the machine is
            calls = 0
            frames: list[tuple[bytes, bytes]] = []
            while all(frame != b"x" for _, frame in frames):
                for peer in peers:
                    with contextlib.suppress(BlockingIOError):
                        peer.socket.send(flood)
                frames = list(router.receive(64))
                calls += 1
                assert len(frames) <= 64
                assert calls < 1000
        assert sum(router._waiting_bytes.values()) < KIB * KIB
        other.communicate()
        for peer in peers:
            peer.close()


def test_a_call_yields_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peer = Raw(tmp_path / "s")
        flood = (frame_head(10_000) + b"x" * 10_000) * 100
        threading.Thread(target=peer.socket.sendall, args=[flood], daemon=True).start()
        sizes: list[int] = []
        while sum(sizes) < 1_000_000:
            sizes.append(sum(len(frame) for _, frame in router.receive()))
        assert max(sizes) <= 64 * KIB + 10_000
        peer.close()


def test_a_frame_that_was_not_taken_stays_for_the_next_call(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, router):
        peer = Raw(tmp_path / "s")
        for number in range(10):
            peer.say(b"%d" % number)
        peer.close()
        found: list[bytes] = []
        while len(found) < 10:
            for _, frame in router.receive():
                found.append(frame)
                break
        assert found == [b"%d" % number for number in range(10)]
        assert len(gone(router, 1)) == 1


def test_a_connection_without_a_message_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.transport.router._HANDSHAKE_TIMEOUT", 0.2)
    monkeypatch.setattr("headrace.transport.router._FIRST_MESSAGE_TIMEOUT", 0.6)
    with bound(tmp_path / "s") as (_, router):
        silent, greeted, known = Raw(tmp_path / "s", greets=False), Raw(tmp_path / "s"), Raw(tmp_path / "s")
        known.say(b"hello")
        heard(router, 1)
        began = time.monotonic()
        ends: dict[int, float] = {}

        def are_gone() -> bool:
            list(router.receive())
            router.end_silent()
            ends.setdefault(len(router._peers), time.monotonic() - began)
            return len(router._peers) == 1

        wait_until(are_gone, 10.0, "the silent to be gone")
        assert list(router.departed()) == [], "nobody has heard of them"
        for peer in (silent, greeted, known):
            peer.close()


def test_without_descriptors_no_connection_is_accepted_until_there_are_some(tmp_path: Path) -> None:
    """In a process of its own, of which nobody else needs descriptors."""
    program = """
import os, resource, socket, sys
from headrace.transport.router import Router
router = Router("ipc://" + sys.argv[1])
clients = [socket.socket(socket.AF_UNIX) for _ in range(5)]
for client in clients:
    client.connect(sys.argv[1])
held = []
soft = len(os.listdir("/proc/self/fd")) + 1
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
for _ in range(100):
    list(router.receive())
print(len(router._peers))
clients.pop().close()
clients.pop().close()
for _ in range(3):
    router.end_silent()
    list(router.receive())
print(len(router._peers) >= 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, text=True, check=True, timeout=60
    )
    count, goes_on = done.stdout.split()
    assert (int(count) < 5, goes_on) == (True, "True")


def test_the_socket_of_an_ended_process_is_replaced_and_another_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    program = "import sys, os, signal\nfrom headrace.transport.router import Router\nRouter('ipc://' + sys.argv[1])\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert (done.returncode, path.is_socket()) == (-signal.SIGKILL, True)
    Router(f"ipc://{path}").close()
    assert not path.exists(), "what it made it removes"

    path.write_text("mine")
    with pytest.raises(OSError, match="Address already in use"):
        Router(f"ipc://{path}")
    assert path.read_text() == "mine"


def test_the_socket_of_another_process_is_not_removed(tmp_path: Path) -> None:
    first = Router(f"ipc://{tmp_path / 's'}")
    (tmp_path / "s").unlink()
    second = Router(f"ipc://{tmp_path / 's'}")
    first.close()
    assert (tmp_path / "s").is_socket()
    second.close()


Said = Callable[[Raw], None]


@pytest.mark.parametrize(
    "said",
    [b"\x01\x00\x06\x00Hello\x06\x00Hello", b"GET / HTTP/1.1\r\n\r\n", opening(b"DEALER")[:64] + b"\0\1x"],
    ids=["as long ago", "http", "before READY"],
)
def test_a_peer_without_a_greeting_is_not_read_and_ends_at_once(tmp_path: Path, said: bytes) -> None:
    with bound(tmp_path / "s") as (_, router):
        stranger, known = Raw(tmp_path / "s", greets=False), Raw(tmp_path / "s")
        stranger.socket.sendall(said)
        known.say(b"known")
        assert [frame for _, frame in heard(router, 1)] == [b"known"]
        stranger.until_the_end(router)
        assert list(router.departed()) == []
        known.close()


@pytest.mark.parametrize("ending", ["disconnect", "dismiss"])
def test_ending_a_peer_that_has_gone_does_not_harm_the_peer_that_has_its_descriptor_now(
    tmp_path: Path, ending: str
) -> None:
    with bound(tmp_path / "s") as (_, router):
        before = Raw(tmp_path / "s")
        for number in range(10):
            before.say(b"%d" % number)
        before.close()
        ((left, _),) = wait_until(lambda: list(router.receive(1)), 10.0, "its first word")
        wait_until(lambda: router._peers[left].wire.fd < 0 or _turn(router), 10.0, "its end")
        now = Raw(tmp_path / "s")
        now.say(b"now")
        told = [frame for _ in range(3) for _, frame in router.receive(1)]
        assert router._peers[left].waiting, "some of its words are yet to be told"
        if ending == "disconnect":
            router.disconnect(left)
        else:
            router.dismiss(left, b"goodbye")
        assert list(router.departed()) == [left]
        while b"now" not in told:
            told += [frame for _, frame in heard(router, 1)]
        now.say(b"again")
        assert [frame for _, frame in heard(router, 1)] == [b"again"]


def _turn(router: Router) -> bool:
    router._poll()
    for peer in list(router._peers.values()):
        router._read(peer)
    return False
