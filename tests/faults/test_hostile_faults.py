"""Other users, stolen paths and spoiled frames, in the middle of a load.

Each ends its own connection, and the load never notices.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace.testing import SimulatedProvider
from headrace.transport.router import FOREIGN_PEER
from headrace.wire.codec import encode_frame
from headrace.wire.messages import Hello
from tests.conftest import engine_process
from tests.e2e.engines import running_engine
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.fuzz.frames import make_frame
from tests.fuzz.mutation import mutated
from tests.peers import RawDealer, new_context, until_disconnected
from tests.repetition import only_long, repeated
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TIMES = repeated(4, 20)
CONNECTIONS = repeated(60, 200)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
NOBODY = 65534


def sockets_of(engine: FaultyEngine) -> list[Path]:
    return [path for path in engine.directory.iterdir() if path.is_socket()]


def is_well(engine: FaultyEngine) -> bool:
    return {outcome.kind for outcome in engine.outcomes()} == {"done"}


@needs_root
@pytest.mark.tries(TIMES)
def test_another_user_gets_in_nowhere(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=5)
        load.wait_for(5)
        for number in engine.moments(TIMES, 0.0, 0.1):
            path = engine.random.choice(sockets_of(engine))
            # Every other time the directory is open, as if somebody had made it so: the peer's user is looked at too.
            is_open = number % 2 == 1
            engine.directory.chmod(0o755 if is_open else 0o700)
            path.chmod(0o777 if is_open else 0o755)

            pid = os.fork()
            if pid == 0:
                os._exit(_try_as_nobody(path, is_open))

            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, (path.name, is_open)
            engine.directory.chmod(0o700)

    assert is_well(engine)


def _try_as_nobody(path: Path, is_open: bool) -> int:
    """Return 0 when another user is refused."""
    try:
        os.setuid(NOBODY)
        if not is_open:
            with socket.socket(socket.AF_UNIX) as attempt:
                return 0 if attempt.connect_ex(os.fsencode(path)) != 0 else 1
        peer = RawDealer(new_context(), f"ipc://{path}")
        peer.send(encode_frame(1, [Hello("client", 0, 1)]))
        said = b"".join(until_disconnected(peer))
    except BaseException:  # noqa: BLE001 - whatever it is, the child must end by itself
        return 2
    return 0 if FOREIGN_PEER.encode() in said else 3


OF_ANOTHER_OWNER = [0o700] * repeated(1, 10)
OPEN_TO_OTHERS = [0o702, 0o710, *only_long(0o701, 0o704, 0o720, 0o740)]


@needs_root
@pytest.mark.parametrize(
    ("fault", "modes"),
    [
        pytest.param("owner", OF_ANOTHER_OWNER, marks=pytest.mark.tries(len(OF_ANOTHER_OWNER))),
        pytest.param("mode", OPEN_TO_OTHERS, marks=pytest.mark.tries(len(OPEN_TO_OTHERS))),
    ],
)
def test_a_directory_that_others_could_have_made_is_not_used(
    provider: SimulatedProvider, fault: str, modes: list[int], tmp_path: Path
) -> None:
    for number, mode in enumerate(modes):
        directory = tmp_path / str(number)
        directory.mkdir(mode=0o700)
        if fault == "owner":
            os.chown(directory, NOBODY, NOBODY)
        else:
            directory.chmod(mode)
        command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory), "--workers", "1"]

        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )

        assert done.returncode != 0, oct(mode)
        assert f"headrace: the engine cannot start: {directory}" in done.stderr
        assert not any(path.is_socket() for path in directory.iterdir())


@pytest.mark.tries(3)
def test_a_socket_whose_path_was_stolen_serves_nobody_in_its_engines_name(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "1") as address:
        directory = Path(address.removeprefix("ipc://"))
        wait_until(lambda: any(path.name.startswith("w1-") for path in directory.iterdir()), 10.0, "a worker")
        broker = engine_process(address, "headrace_engine broker")
        for _ in range(3):
            command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory), "--workers", "1"]
            # It would have to bind there: the lock is asked first.
            done = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
            )

            assert "an engine runs in" in done.stderr
            assert engine_process(address, "headrace_engine broker") == broker


@pytest.mark.tries(CONNECTIONS)
def test_spoiled_frames_end_their_own_connection_at_most(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=5)
        load.wait_for(5)
        pids = {name: engine.pid(name) for name in ("w1", "w2", "broker", "supervisor")}
        context = new_context()
        for _ in range(CONNECTIONS):
            peer = RawDealer(context, f"ipc://{engine.random.choice(sockets_of(engine))}")
            peer.send(encode_frame(1, [Hello("client", 0, os.getpid())]))
            for frame in _spoiled(engine.random, engine.random.randint(1, 20)):
                peer.send(frame)
            if engine.random.random() < 0.5:
                threading.Event().wait(0.01)
            peer.close()
        context.term()

        assert {name: engine.pid(name) for name in pids} == pids, "no process died of it"
        # On a busy machine a worker may have been silent for a moment.
        wait_until(lambda: all(worker.state == "ok" for worker in engine.status().workers), what="all workers answer")

    assert is_well(engine)


def _spoiled(random: Any, count: int) -> list[bytes]:
    """Return frames that were right once."""
    frames: list[bytes] = []
    for _ in range(count):
        data = make_frame(random).data
        frames.append(mutated(random, data, make_frame(random).data))
    return frames
