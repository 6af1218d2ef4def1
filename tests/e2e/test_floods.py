"""Floods and storms of connections and messages: whoever sends them, all others are served, by the same processes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from headrace import Client
from headrace.testing import SimulatedProvider
from headrace.wire.codec import encode_frame, from_broker, from_worker
from headrace.wire.groups import unpacked
from headrace.wire.messages import (
    MAX_FRAME_MESSAGES,
    Acquire,
    Credit,
    Goodbye,
    Grant,
    Hello,
    Query,
    Refuse,
    Release,
    Run,
    RunState,
    Status,
    StatusRequest,
)
from tests.conftest import HELLO, engine_process
from tests.e2e.engines import running_engine
from tests.peers import RawDealer, new_context, until_disconnected
from tests.repetition import only_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
MIB = 1024 * 1024
HELLO_CLIENT = Hello("client", 0, 1)
STORM = 1200
KEPT = 64 * MIB
"""By how much the engine may have grown since its first run, whatever floods it has had."""
WAITING_RUNS = repeated(20_000, 100_000)
"""How many runs may wait for their turn."""


class FloodedEngine:
    """An engine that has served one run, and what it has in use then. All floods come to the same processes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.directory = Path(address.removeprefix("ipc://"))
        with Client(address, connect_timeout=60.0) as client:
            assert client.run_local(model=MODEL, messages=HELLO).text
        self.endpoints = [f"{self.directory / 'broker'}", str(next(self.directory.glob("w1-*")))]
        self.processes = self.pids()
        self.first_descriptors = self.descriptors()
        self.first_memory = self.memory()

    def pids(self) -> list[int]:
        return [engine_process(self.address, marker) for marker in ("headrace_engine broker", "-m headrace_workers")]

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes)

    def memory(self) -> int:
        """Return the bytes of the larger of the two processes."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes]
        return max(pages) * os.sysconf("SC_PAGE_SIZE")

    def grown(self) -> int:
        """Return by how many bytes they have grown since the first run."""
        return self.memory() - self.first_memory

    def has_dropped_connections(self) -> bool:
        """Return whether no more descriptors are in use than a few runs need."""
        return self.descriptors() < self.first_descriptors + 40


class WorkMeanwhile:
    """A client that works while something floods its engine."""

    def __init__(self, engine: FloodedEngine) -> None:
        self._engine = engine
        self._latencies: list[float] = []
        self._errors: list[BaseException] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        with Client(self._engine.address, connect_timeout=60.0) as client:
            while not self._is_over.wait(0.05):
                started_at = time.monotonic()
                try:
                    assert client.run_local(model=MODEL, messages=HELLO).text
                except BaseException as error:  # noqa: BLE001 - told of by the test
                    self._errors.append(error)
                self._latencies.append(time.monotonic() - started_at)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Check that work went on."""
        worked = len(self._latencies)
        try:
            wait_until(lambda: len(self._latencies) > worked + 3)
        finally:
            self._is_over.set()
            self._thread.join(90)
        slowest = max(self._latencies)
        print(f"{len(self._latencies)} runs, the slowest in {slowest:.2f} s; {self._engine.memory() // MIB} MiB")
        assert self._errors == []
        assert slowest < 10.0 * busyness()
        assert self._engine.pids() == self._engine.processes


@pytest.fixture(scope="module")
def shared_engine(
    session_provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FloodedEngine]:
    file = tmp_path_factory.mktemp("settings") / "headrace.toml"
    file.write_text(f"[engine]\nmax_waiting_runs = {WAITING_RUNS}\n")
    with running_engine(session_provider, "--workers", "1", settings_file=file) as address:
        yield FloodedEngine(address)


@pytest.fixture
def engine(shared_engine: FloodedEngine) -> Iterator[FloodedEngine]:
    """Yield the engine while a client works on it; check afterwards that the client's runs went on."""
    work = WorkMeanwhile(shared_engine)
    work.start()
    yield shared_engine
    work.end()


@contextmanager
def peer(endpoint: str) -> Iterator[RawDealer]:
    """Connect as ZeroMQ does, and say hello."""
    context = new_context()
    dealer = RawDealer(context, f"ipc://{endpoint}")
    dealer.send(encode_frame(1, [HELLO_CLIENT]))
    try:
        yield dealer
    finally:
        dealer.close(1.0)
        context.term()


# Connections.


GREETINGS = {
    "nothing": b"",
    "half a greeting": b"\xff\0\0\0\0\0\0\0\1\x7f",
    "a little more": b"\xff\0\0\0\0\0\0\0\1\x7f\3",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "garbage": bytes(range(1, 65)),
}
SAY_TOO_LITTLE = ("nothing", "half a greeting", "a little more")
SAY_SOMETHING_ELSE = ("http", "garbage")


@pytest.mark.parametrize(
    "greetings", [SAY_TOO_LITTLE, SAY_SOMETHING_ELSE, *only_long(*((greeting,) for greeting in GREETINGS))], ids=str
)
def test_a_storm_of_connections_is_borne_and_ends(engine: FloodedEngine, greetings: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        for endpoint in engine.endpoints:
            for number in range(STORM):
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(endpoint)
                if greeting := GREETINGS[greetings[number % len(greetings)]]:
                    one.sendall(greeting)
        assert engine.grown() < KEPT
        # Whoever says nothing that is a message is not kept.
        wait_until(engine.has_dropped_connections)


def test_connections_that_come_and_go_leave_nothing(engine: FloodedEngine) -> None:
    before = engine.memory()
    for number in range(3 * STORM):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(engine.endpoints[number % 2])
            if number % 3:
                one.sendall(os.urandom(number % 100))

    wait_until(engine.has_dropped_connections)
    assert engine.memory() - before < 32 * MIB


def test_peers_with_one_routing_id_take_nothing_from_each_other(engine: FloodedEngine) -> None:
    context = zmq.Context()
    with ExitStack() as stack:
        stack.callback(context.destroy, 0)
        sockets = [context.socket(zmq.DEALER) for _ in range(200)]
        for number, one in enumerate(sockets):
            one.setsockopt(zmq.ROUTING_ID, b"the same")
            one.connect(f"ipc://{engine.endpoints[number % 2]}")
            one.send(encode_frame(number + 1, [HELLO_CLIENT]))  # as so many processes

        # An id is ignored: each is known by its connection.
        wait_until(lambda: all(one.poll(0) for one in sockets), 10.0, "an answer to each")
        assert [len(one.recv_multipart()) for one in sockets] == [1] * 200
        assert not any(one.poll(0) for one in sockets), "each has its own and no other"


# Messages.


def test_a_message_of_very_many_parts_ends_its_connection(engine: FloodedEngine) -> None:
    before = engine.memory()
    context = zmq.Context()
    for endpoint in engine.endpoints:
        one = context.socket(zmq.DEALER)
        one.setsockopt(zmq.SNDHWM, 0)
        one.connect(f"ipc://{endpoint}")
        one.send(encode_frame(1, [HELLO_CLIENT]))
        for _ in range(100_000):
            one.send(b"x" * 900, zmq.SNDMORE)
        one.send(b"")
        said = []
        while one.poll(90_000):
            said.append(one.recv())
            if Goodbye.__struct_config__.tag in [message[0] for message in decoded(said[-1])]:
                break
        assert said, "it is told why"
        one.close(0)
    context.term()
    assert engine.memory() - before < 16 * MIB


def decoded(frame: bytes) -> list[Any]:
    import msgspec

    messages: list[Any] = msgspec.msgpack.decode(frame[1:])[1]
    return messages


@pytest.mark.parametrize("where", [0, 1], ids=["broker", "worker"])
def test_a_frame_of_too_many_messages_ends_its_connection(engine: FloodedEngine, where: int) -> None:
    count = 2_000_000
    message = [b"\x91\x14", b"\x93\x21\xa0\x01"][where]
    with peer(engine.endpoints[where]) as dealer:
        dealer.send(b"\x01\x92\x01\xdd" + count.to_bytes(4, "big") + message * count)
        said = until_disconnected(dealer)

    assert f"length <= {MAX_FRAME_MESSAGES}".encode() in b"".join(said)
    assert engine.grown() < KEPT


DECODERS: list[Callable[[bytes], Any]] = [from_broker.decode, from_worker.decode]
FLOODS: list[tuple[int, Callable[[int], Any]]] = [
    (0, lambda _: HELLO_CLIENT),
    (0, lambda _: StatusRequest()),
    (0, lambda number: Release(f"sp_{number}", 1)),
    (1, lambda _: HELLO_CLIENT),
    (1, lambda number: Credit(f"sp_{number}", 1, 9, 9)),
    (1, lambda number: Run(f"sp_{number}", 1, 1, b"", 64, 65536)),  # of another epoch
]


@pytest.mark.parametrize(("where", "make"), FLOODS, ids=["hello", "status", "release", "hello again", "credit", "run"])
def test_a_flood_of_messages_is_borne(engine: FloodedEngine, where: int, make: Callable[[int], Any]) -> None:
    with peer(engine.endpoints[where]) as dealer:
        for start in range(0, 100_000, 1000):
            dealer.send(encode_frame(1, [make(start + number) for number in range(1000)]))
        dealer.send(encode_frame(1, [StatusRequest() if where == 0 else Query("the last", 1)]))
        # Its answer comes when all before it has been handled.
        answer = Status if where == 0 else RunState
        wait_until(
            lambda: any(isinstance(said, answer) for frame in dealer.receive() for said in DECODERS[where](frame)[1])
        )

    assert engine.grown() < KEPT


def test_a_flood_of_runs_takes_turns_with_those_of_others(engine: FloodedEngine) -> None:
    """Thousands at once, as many as may wait; each is given back as soon as it has its lease."""
    granted = refused = 0
    with peer(engine.endpoints[0]) as dealer:
        for start in range(0, WAITING_RUNS, 1000):
            questions = [Acquire(f"sp_{start + number}", 1, "openai", MODEL) for number in range(1000)]
            dealer.send(encode_frame(1, questions))
        deadline = time.monotonic() + 50.0 * busyness()
        while granted + refused < WAITING_RUNS:
            assert time.monotonic() < deadline
            for frame in dealer.receive():
                answers = [each for message in from_broker.decode(frame)[1] for each in unpacked(message)]
                grants = [answer for answer in answers if isinstance(answer, Grant)]
                granted += len(grants)
                refused += sum(isinstance(answer, Refuse) and answer.kind == "queue_full" for answer in answers)
                dealer.send(encode_frame(1, [Release(grant.span_id, 1) for grant in grants]))
            threading.Event().wait(0.001)

    print(f"{granted} granted, {refused} refused")
    # No client may have more than nine tenths of the queue for itself.
    assert granted >= 0.9 * WAITING_RUNS
