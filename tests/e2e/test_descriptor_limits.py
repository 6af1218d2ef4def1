"""Processes that run out of descriptors: they take no more than they can have, say so, and go on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace import Client, Message
from headrace.files.engine_directory import CLOSED
from headrace.process.descriptors import worker_shares
from headrace.testing import SimulatedProvider
from headrace.wire.codec import encode_frame, encode_request, from_worker
from headrace.wire.messages import (
    Failed,
    Hello,
    Run,
)
from headrace.wire.run_request import RunRequest
from tests.conftest import HELLO, engine_process, simulate
from tests.e2e.engines import running_engine
from tests.faults.process_figures import cpu_seconds
from tests.peers import RawDealer, new_context
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
LIMIT = 200
WITH_FEW = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh")


@pytest.fixture(scope="module")
def address(session_provider: SimulatedProvider) -> Iterator[str]:
    """Run an engine whose processes have few descriptors, for all tests of this file; yield its address."""
    with running_engine(session_provider, "--workers", "1", wrapper=WITH_FEW) as served:
        yield served


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, connect_timeout=60.0) as made:
        yield made


def engine_pids(address: str) -> list[int]:
    return [engine_process(address, marker) for marker in ("headrace_engine broker", "-m headrace_workers")]


HOLDER = """
import socket, sys
held = []
for path in sys.argv[1:] * 60:
    held.append(socket.socket(socket.AF_UNIX))
    try:
        held[-1].connect(path)
    except OSError:
        continue
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def processes_that_connect(paths: list[str]) -> Iterator[None]:
    """Have four processes connect as often as they can, and hold on: one alone is given no more than half of the places."""
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in holders:
        assert process.stdout is not None
        process.stdout.readline()
    yield
    for process in holders:
        process.communicate()


def test_an_engine_with_few_descriptors_takes_no_more_connections_than_it_can_have(
    address: str, client: Client
) -> None:
    iterator = iter(
        client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=400, pace=0.01))
    )
    first = next(iterator)
    before = engine_pids(address)
    directory = Path(address.removeprefix("ipc://"))
    paths = [str(directory / "broker"), str(next(directory.glob("w1-*")))]
    with processes_that_connect(paths):
        wait_until(lambda: all(Path(path + CLOSED).exists() for path in paths), 10.0, "both to be full")
        assert not any(Path(path).exists() for path in paths)
        used = sum(map(cpu_seconds, before))
        threading.Event().wait(2.0)
        assert sum(map(cpu_seconds, before)) - used < 1.0, "nobody spins"
        assert first + "".join(iterator) == "".join(f"{number} " for number in range(400))
    wait_until_open(paths)

    with Client(address, connect_timeout=60.0) as another:
        assert another.run_local(model=MODEL, messages=HELLO).text
    assert engine_pids(address) == before


def wait_until_open(paths: list[str]) -> None:
    wait_until(lambda: all(Path(path).exists() for path in paths), 20.0, "room")


def test_more_runs_than_a_worker_has_descriptors_for_wait_for_their_turn(
    client: Client, provider: SimulatedProvider
) -> None:
    script = simulate(repeat=20, pace=0.02 * busyness())  # long enough to be many at once
    streams = [client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=script) for _ in range(150)]
    results = [stream.result.result(60 * busyness()) for stream in streams]

    assert [result.attempts for result in results] == [1] * 150
    marks = [(record.arrived_at, 1) for record in provider.requests()]
    marks += [(record.ended_at or 0.0, -1) for record in provider.requests()]
    most = now = 0
    for _, change in sorted(marks):
        now += change
        most = max(most, now)
    assert worker_shares(LIMIT).exchanges // 2 < most <= worker_shares(LIMIT).exchanges


def test_a_worker_takes_no_more_runs_than_it_can_have_whoever_sends_them(
    address: str, client: Client, provider: SimulatedProvider
) -> None:
    assert client.run_local(model=MODEL, messages=HELLO).text
    before = engine_pids(address)
    endpoint = next(Path(address.removeprefix("ipc://")).glob("w1-*"))
    request = RunRequest(
        provider="openai",
        model=MODEL,
        messages=[Message("user", "Hello")],
        stream=True,
        custom_options=simulate(silent=True),
    )
    epoch = int(endpoint.name.partition("-")[2], 16)
    context = new_context()
    peer = RawDealer(context, f"ipc://{endpoint}")
    runs = [Run(f"sp_{number}", 1, epoch, encode_request(request), 64, 65536) for number in range(300)]
    peer.send(encode_frame(1, [Hello("client", 0, 1), *runs]))
    refused: list[Failed] = []

    def are_refused() -> bool:
        for frame in peer.receive():
            refused.extend(message for message in from_worker.decode(frame)[1] if isinstance(message, Failed))
        return len(refused) >= 300 - worker_shares(LIMIT).exchanges

    wait_until(are_refused, 20.0, "refusals")
    assert {(failed.kind, failed.reason) for failed in refused} == {
        ("worker_stopping", "the worker has as many runs as it can")
    }
    assert len(refused) == 300 - worker_shares(LIMIT).exchanges
    peer.close()
    context.term()
    provider.wait_until(lambda records: all(record.ended_at is not None for record in records), 30)
    assert client.run_local(model=MODEL, messages=HELLO).text
    assert engine_pids(address) == before


PROGRAM = """
import os, resource, sys
import headrace.connections.client_process, headrace.connections.connection
from headrace import Client, EngineUnavailableError

client = Client(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(int(sys.argv[2])):
    os.close(taken.pop())


def run():
    return client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], timeout_ms=20000).text


try:
    run()
except EngineUnavailableError as error:
    print(error)
for descriptor in taken:
    os.close(descriptor)
print(len(run()) > 0)
"""


SPARE = repeated((2, 6, 12), (2, 4, 6, 8, 12, 20))
"""Descriptors that a program has left."""


@pytest.mark.tries(len(SPARE))
@pytest.mark.usefixtures("provider")
def test_a_program_without_descriptors_is_told_so_and_goes_on_when_it_has_some(address: str) -> None:
    for spare in SPARE:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, address, str(spare)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        *told, works = done.stdout.splitlines()
        assert (done.returncode, works) == (0, "True"), (spare, done.stderr)
        assert all("Too many open files" in line for line in told), (spare, told)
