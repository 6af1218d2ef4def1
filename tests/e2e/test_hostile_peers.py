"""Bad bytes end the connection that they came on, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from headrace import Client, EngineUnavailableError, ProtocolMismatchError, RemoteProtocolError
from headrace.testing import SimulatedProvider
from headrace.transport.router import FOREIGN_PEER, Router
from headrace.transport.zmtp import FrameParser, frame_head, opening
from headrace.types import Message
from headrace.wire.codec import encode_frame, encode_request, from_broker, from_worker
from headrace.wire.flow import characters
from headrace.wire.messages import (
    MAX_FRAME_BYTES,
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Acquire,
    Chunk,
    Credit,
    Goodbye,
    Grant,
    Hello,
    Refuse,
    Run,
    Status,
    StatusRequest,
)
from headrace.wire.run_request import RunRequest
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.peers import RawDealer, new_context, until_disconnected
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
BAD_FRAMES = [
    b"",
    b"\x01",
    b"\x01not msgpack",
    b"\x02" + bytes(20),
    b"GET / HTTP/1.1\r\n\r\n",
    os.urandom(100_000),
    b"\x01" + b"\x91" * 100_000,
    b"\x01\xdd\xff\xff\xff\xff",
    encode_frame(1, [Acquire("sp_1", 1, "openai", "m")]),  # no hello before it
    encode_frame(1, [Hello("client", 0, 1), Goodbye("and then"), Hello("client", 0, 1)])[:-3],
]


@contextmanager
def dealer(endpoint: str) -> Iterator[RawDealer]:
    context = new_context()
    connected = RawDealer(context, endpoint)
    try:
        yield connected
    finally:
        connected.close()
        context.term()


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=range(len(BAD_FRAMES)))
@pytest.mark.parametrize("where", ["broker", "worker"])
def test_a_bad_frame_ends_its_connection_and_no_other(
    shared_engine: str, frame: bytes, where: str, provider: SimulatedProvider
) -> None:
    directory = Path(shared_engine.removeprefix("ipc://"))
    with Client(shared_engine) as client:
        running = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=60, pace=0.005)
        )
        iterator = iter(running)
        first = next(iterator)
        socket = directory / "broker" if where == "broker" else next(directory.glob("w1-*"))

        with dealer(f"ipc://{socket}") as attacker:
            attacker.send(frame)
            said = until_disconnected(attacker)

        assert said, "it is told why"
        assert first + "".join(iterator) == "".join(f"{number} " for number in range(60))
        assert client.run_local(model=MODEL, messages=HELLO).text


@pytest.fixture(scope="module")
def shared_engine(session_provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(session_provider, "--workers", "1") as address:
        yield address


def test_a_peer_is_told_what_was_wrong(shared_engine: str) -> None:
    with dealer(f"{shared_engine}/broker") as attacker:
        attacker.send(encode_frame(1, [Acquire("sp_1", 1, "openai", "m")]))
        said = until_disconnected(attacker)

    messages = [message for frame in said for message in from_broker.decode(frame)[1]]
    assert messages == [Goodbye("the first message must be a hello")]


def said_by(peer: RawDealer, wanted: type[Grant | Status]) -> Any:
    """Return the first message of a kind that a peer says; fails when it refuses."""

    def look() -> Any:
        messages = [message for frame in peer.receive() for message in from_broker.decode(frame)[1]]
        assert not [message for message in messages if isinstance(message, Refuse | Goodbye)]
        return next((message for message in messages if isinstance(message, wanted)), None)

    return wait_until(look, what=wanted.__name__)


def test_a_client_that_is_back_before_its_end_is_heard_of_is_not_refused_what_it_has_itself(shared_engine: str) -> None:
    """As when its connection is cut, and it knows of that first."""
    hello, question = Hello("client", 0, os.getpid()), Acquire("sp_back", 1, "openai", "m")
    with dealer(f"{shared_engine}/broker") as newer:
        with dealer(f"{shared_engine}/broker") as earlier:
            earlier.send(encode_frame(77, [hello, question]))
            first = said_by(earlier, Grant)
            newer.send(encode_frame(77, [hello, question]))
            second = said_by(newer, Grant)
        assert (second.span_id, second.epoch) == (first.span_id, first.epoch)

        # Nor does it lose that when the end of the earlier one is heard of.
        with dealer(f"{shared_engine}/broker") as last:
            last.send(encode_frame(78, [hello, Acquire("sp_other", 1, "openai", "m")]))
            said_by(last, Grant)
            newer.send(encode_frame(77, [StatusRequest()]))
            assert said_by(newer, Status).leases == 2


class _StrangeBroker(threading.Thread):
    """Answers every frame with one of its own."""

    def __init__(self, directory: Path, answer: bytes) -> None:
        super().__init__(daemon=True)
        self._directory = directory
        self._answer = answer
        self.is_done = threading.Event()

    def run(self) -> None:
        router = Router(f"ipc://{self._directory / 'broker'}")
        while not self.is_done.wait(0.005):
            for peer, _ in router.receive():
                router.send(peer, self._answer)
        router.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"\x02\x00", ProtocolMismatchError), (b"\x01garbage", RemoteProtocolError)],
    ids=["another major version", "garbage"],
)
def test_a_client_says_what_is_wrong_with_an_engine_that_it_cannot_understand(
    answer: bytes, error: type[Exception]
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    broker = _StrangeBroker(directory, answer)
    broker.start()
    try:
        with Client(f"ipc://{directory}") as client, pytest.raises(error) as caught:
            client.run_local(model=MODEL, messages=HELLO)
    finally:
        broker.is_done.set()
        broker.join()
        shutil.rmtree(directory)

    if error is ProtocolMismatchError:
        assert "same headrace version" in str(caught.value)


def test_a_broker_that_ends_each_connection_at_once_is_given_up_in_time() -> None:
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    accepted = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "broker"))
        listener.listen()

        def serve() -> None:
            nonlocal accepted
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
                    accepted += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                Client(f"ipc://{directory}", connect_timeout=0.5) as client,
                pytest.raises(EngineUnavailableError, match="nothing answered within"),
            ):
                client.run_local(model=MODEL, messages=HELLO)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    assert 0 < accepted < 50 * busyness(), "it is not asked in one go"
    shutil.rmtree(directory)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("where", ["broker", "w1-*"])
def test_another_users_process_is_refused_even_where_the_directory_lets_it_in(
    shared_engine: str, provider: SimulatedProvider, where: str
) -> None:
    with Client(shared_engine) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
    directory = Path(shared_engine.removeprefix("ipc://"))
    socket = next(directory.glob(where))
    with mode_of(directory, 0o755), mode_of(socket, 0o777):
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.setuid(65534)
                with dealer(f"ipc://{socket}") as foreigner:
                    foreigner.send(encode_frame(1, [Hello("client", 0, 1)]))
                    code = 0 if FOREIGN_PEER.encode() in b"".join(until_disconnected(foreigner)) else 1
            finally:
                os._exit(code)  # whatever happens, it runs no further tests
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert status == 0


@contextmanager
def mode_of(path: Path, mode: int) -> Iterator[None]:
    """Give a file another mode for a while."""
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


class _Liar:
    """A client that reads nothing, and says at a worker's socket what it likes."""

    def __init__(self, endpoint: Path) -> None:
        self.epoch = int(endpoint.name.partition("-")[2], 16)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10.0)
        self._socket.connect(str(endpoint))
        self._socket.sendall(opening(b"DEALER"))
        self.say(Hello("client", 2, os.getpid()))

    def begin(self, span_id: str, limit: int, repeat: int) -> None:
        request = RunRequest(
            provider="openai",
            model=MODEL,
            messages=[Message("user", "x")],
            stream=True,
            custom_options=simulate(repeat=repeat),
        )
        self.say(Run(span_id, 1, self.epoch, encode_request(request), limit, limit))

    def say(self, *messages: Any) -> None:
        frame = encode_frame(1, messages)
        self._socket.sendall(frame_head(len(frame)) + frame)

    def heard(self, seconds: float) -> bytes:
        """Return what comes until nothing has come for so long."""
        self._socket.settimeout(seconds)
        said = []
        with contextlib.suppress(TimeoutError):
            while data := self._socket.recv(1 << 20):
                said.append(data)
        return b"".join(said)

    def chunks(self, is_enough: Callable[[list[Chunk]], object]) -> list[Chunk]:
        """Return what comes of its runs until it is enough, and what comes within half a second after that."""
        said: list[bytes] = []

        def has_come() -> object:
            said.append(self.heard(0.5))
            return is_enough(_chunks(b"".join(said)))

        wait_until(has_come, 20.0, "enough", lambda: b"".join(said)[:300])
        return _chunks(b"".join([*said, self.heard(0.5)]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.mark.parametrize("limit", [2**62, 2**64 - 1, 10**9])
def test_credit_without_end_is_worth_a_window(shared_engine: str, provider: SimulatedProvider, limit: int) -> None:
    endpoint = next(Path(shared_engine.removeprefix("ipc://")).glob("w1-*"))
    with _Liar(endpoint) as liar:
        liar.begin("sp_liar", limit, 100_000)
        # One window: what it has been sent it has not taken, as far as it says.
        assert is_a_window(liar.chunks(is_a_window))

        liar.say(Credit("sp_liar", 1, limit, limit))
        assert is_a_window(liar.chunks(is_a_window))
    with Client(shared_engine) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text


def is_a_window(chunks: list[Chunk]) -> bool:
    return is_spent(chunks, WINDOW_EVENTS, WINDOW_CHARACTERS)


def is_spent(chunks: list[Chunk], events: int, size: int) -> bool:
    """Whether one of the two credits is used up. Neither may be exceeded. Text that came meanwhile may lie in one event."""
    said = [event for chunk in chunks for event in chunk.events]
    assert len(said) <= events
    assert characters(said) <= size
    return len(said) == events or characters(said) == size


@pytest.mark.parametrize("limit", [0, -1, -(2**63)])
def test_credit_below_nothing_is_none(shared_engine: str, provider: SimulatedProvider, limit: int) -> None:
    endpoint = next(Path(shared_engine.removeprefix("ipc://")).glob("w1-*"))
    with _Liar(endpoint) as liar:
        liar.begin("sp_poor", limit, 50)
        assert liar.chunks(lambda _: True) == []
        liar.say(Credit("sp_poor", 1, 3, 100), Credit("sp_poor", 1, -5, -5), Credit("sp_nobody", 1, 2**62, 2**62))
        assert is_spent(liar.chunks(lambda chunks: is_spent(chunks, 3, 100)), 3, 100)


def _chunks(said: bytes) -> list[Chunk]:
    inbound = FrameParser(MAX_FRAME_BYTES)
    # The worker greets as a ROUTER, which here is heard as if it were a client.
    frames = inbound.received(opening(b"DEALER") + said.removeprefix(opening()))
    return [message for frame in frames for message in from_worker.decode(frame)[1] if isinstance(message, Chunk)]


def test_a_list_of_forty_million_numbers_and_a_large_frame_are_refused_by_name(shared_engine: str) -> None:
    endpoint = Path(shared_engine.removeprefix("ipc://")) / "broker"
    hello = encode_frame(1, [Hello("client", 2, os.getpid())])
    numbers = encode_frame(1, [Acquire("sp_1", 1, "p", "m", avoid=[7] * 1000)])
    for said, problem in (
        (frame_head(len(numbers)) + numbers, b"length <= 256"),
        (frame_head(60 * 1024 * 1024) + bytes(1000), b"a frame has at most 4194304 bytes, not 62914560"),
    ):
        with socket.socket(socket.AF_UNIX) as attacker:
            attacker.settimeout(10.0)
            attacker.connect(str(endpoint))
            attacker.sendall(opening(b"DEALER") + frame_head(len(hello)) + hello + said)
            heard = b""
            with contextlib.suppress(ConnectionError):
                while data := attacker.recv(65_536):
                    heard += data
        assert problem in heard


def test_a_request_of_very_many_values_ends_itself_and_holds_up_nobody(shared_engine: str) -> None:
    """Lists of nothing, a byte each: decoded they took a gigabyte, and the worker was ended as hung, with everybody's runs."""
    directory = Path(shared_engine.removeprefix("ipc://"))
    endpoint = next(directory.glob("w1-*"))
    request = RunRequest(
        provider="openai",
        model=MODEL,
        messages=[Message("user", "x")],
        stream=True,
        response_format={"x": [[]] * 15_000_000},
    )
    with Client(shared_engine) as client, _Liar(endpoint) as liar:
        stream = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=60, pace=0.01)
        )
        iterator = iter(stream)
        first = next(iterator)
        liar.say(Run("sp_heavy", 1, liar.epoch, encode_request(request), 64, 65536))
        said: list[bytes] = []

        def is_refused() -> bool:
            said.append(liar.heard(0.2))
            return b"the request has more than 200000 values" in b"".join(said)

        wait_until(is_refused, 20.0, "its end", lambda: said[-3:])
        assert first + "".join(iterator) == "".join(f"{number} " for number in range(60))
    assert next(directory.glob("w1-*")) == endpoint, "it is the same worker"
