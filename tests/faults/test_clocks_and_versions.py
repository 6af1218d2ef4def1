"""Wall clocks may jump, and programs of other versions may be at the other end."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import Client, ProtocolMismatchError
from headrace.testing import SimulatedProvider
from headrace.transport.router import Router
from headrace.wire.codec import encode_request
from headrace.wire.messages import (
    PROTOCOL_MAJOR,
    Acquire,
    Hello,
    Run,
)
from headrace.wire.run_request import RunRequest
from tests.conftest import HELLO
from tests.faults.harness import faulty_engine
from tests.faults.load import MODEL
from tests.peers import RawDealer, new_context
from tests.repetition import times
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

TIMES = times(3, 20)
HOUR = 3600


@TIMES
def test_a_wall_clock_that_jumps_ends_no_run_and_suspects_no_worker(provider: SimulatedProvider, times: int) -> None:
    config = "[engine]\nfirst_chunk_timeout = 20.0\nidle_timeout = 20.0\ntotal_timeout = 60.0\n"
    with faulty_engine(provider, workers=2, config=config, has_orders=True) as engine:
        load = engine.load(streams=10, abort_share=0.1)
        load.wait_for(5)
        pids = {name: engine.pid(name) for name in ("w1", "w2", "broker", "supervisor")}

        for number in engine.moments(times, 0.05, 0.4):
            engine.order(engine.random.choice(sorted(pids)), f"clock {HOUR if number % 2 else -HOUR}")

        assert all(worker.state == "ok" for worker in engine.status().workers)
        assert {name: engine.pid(name) for name in pids} == pids, "nothing was restarted"

    assert {outcome.kind for outcome in engine.outcomes()} <= {"done", "aborted"}


class _RawClient:
    """A client of another minor version: what it sends may lack fields that came later, or have ones that are not known here."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._context = new_context()
        self._dealers: list[RawDealer] = []

    def open(self, endpoint: str) -> RawDealer:
        dealer = RawDealer(self._context, endpoint)
        self._dealers.append(dealer)
        return dealer

    def send(self, dealer: RawDealer, *messages: list[Any]) -> None:
        dealer.send(bytes([PROTOCOL_MAJOR]) + msgspec.msgpack.encode((7, messages)))

    def vary(self, known: msgspec.Struct, required: int) -> list[Any]:
        """Return a message with its optional fields cut at random, or with some that nobody knows."""
        message: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(known))
        if self._choose.random() < 0.5:
            return [*message, *(["from the future", {"and": 1}] * self._choose.randint(1, 3))]
        return message[: self._choose.randint(required, len(message))]

    @staticmethod
    def wait_for(dealer: RawDealer, tag: int) -> list[Any]:
        def found() -> list[Any] | None:
            for frame in dealer.receive():
                for message in msgspec.msgpack.decode(frame[1:])[1]:
                    assert message[0] != 3, message  # a goodbye
                    if message[0] == tag:
                        wanted: list[Any] = message
                        return wanted
            return None

        return wait_until(found, 10.0, f"message {tag}")

    def close(self) -> None:
        for dealer in self._dealers:
            dealer.close()
        self._context.term()


@TIMES
def test_a_client_of_another_minor_version_is_served(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=1) as engine:
        load = engine.load(streams=5)
        load.wait_for(3)
        for number in range(times):
            span_id = f"sp_{number:016x}"
            raw = _RawClient(engine.random)
            broker = raw.open(f"ipc://{engine.directory}/broker")
            raw.send(broker, raw.vary(Hello("client", 0, 1), 4))
            raw.send(broker, raw.vary(Acquire(span_id, 1, "openai", MODEL), 5))
            _, _, _, _, endpoint, epoch = raw.wait_for(broker, 11)[:6]
            worker = raw.open(endpoint)
            request = RunRequest(provider="openai", model=MODEL, messages=[], stream=False)
            body = msgspec.msgpack.decode(encode_request(request))
            body |= {"messages": [{"role": "user", "content": "Hello"}], "unknown_yet": [1, 2]}
            run = Run(span_id, 1, epoch, msgspec.msgpack.encode(body), 64, 65536)
            raw.send(worker, raw.vary(Hello("client", 0, 1), 4), raw.vary(run, 7))
            finished = raw.wait_for(worker, 41)
            raw.send(broker, [13, span_id, 1])
            raw.close()

            assert finished[1] == span_id
            assert finished[10]["content"], "the answer"

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@TIMES
def test_an_engine_of_another_major_version_is_named_as_such(times: int) -> None:
    for major in random.sample(range(256), times):
        if major == PROTOCOL_MAJOR:
            continue
        directory = Path(tempfile.mkdtemp(prefix="hr-"))
        is_done = threading.Event()
        thread = threading.Thread(target=_answer_with_major, args=[directory, major, is_done], daemon=True)
        thread.start()
        try:
            with Client(f"ipc://{directory}") as client, pytest.raises(ProtocolMismatchError, match=str(major)):
                client.run_local(model=MODEL, messages=HELLO)
        finally:
            is_done.set()
            thread.join()
            shutil.rmtree(directory)


def _answer_with_major(directory: Path, major: int, is_done: threading.Event) -> None:
    router = Router(f"ipc://{directory}/broker")
    while not is_done.wait(0.005):
        for peer, _ in router.receive():
            router.send(peer, bytes([major]) + random.randbytes(random.randint(0, 50)))
    router.close()


@TIMES
def test_a_worker_of_another_major_version_loses_its_connection_and_no_one_else(
    provider: SimulatedProvider, times: int
) -> None:
    with faulty_engine(provider, workers=1) as engine:
        load = engine.load(streams=5)
        load.wait_for(3)
        context = new_context()
        for _ in range(times):
            stranger = RawDealer(context, f"ipc://{engine.directory}/broker")
            stranger.send(bytes([PROTOCOL_MAJOR + 1]) + engine.random.randbytes(20))
            while not stranger.is_disconnected:
                threading.Event().wait(0.01)
            stranger.close()
        context.term()

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}
