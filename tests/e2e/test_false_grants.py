"""A client goes where workers of its engine are, and nowhere else, whatever the broker says.

And tells nobody else its key.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zmq

from headrace import Client, PoisonRunError, RemoteProtocolError
from headrace.files.engine_directory import is_workers_endpoint
from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.messages import Acquire, Grant, Welcome
from tests.conftest import HELLO
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"


class FalseBroker(threading.Thread):
    """Grants every run a worker at one endpoint, and of one process where that is given; and serves it, if it is there."""

    def __init__(self, directory: Path, endpoint: str, pid: int = 0) -> None:
        super().__init__(daemon=True)
        self.frames = 0
        self._pid = pid
        self.is_done = threading.Event()
        self._endpoint = endpoint
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(f"ipc://{directory / 'broker'}")
        self._worker = self._context.socket(zmq.ROUTER)
        if endpoint.startswith(f"ipc://{directory}/"):
            self._worker.bind(endpoint)

    def run(self) -> None:
        while not self.is_done.is_set():
            while self._worker.poll(0):
                self._worker.recv_multipart()
                self.frames += 1
            if not self._router.poll(20):
                continue
            peer, frame = self._router.recv_multipart()
            for message in to_broker.decode(frame)[1]:
                if isinstance(message, Acquire):
                    grant = Grant(message.span_id, message.attempt, "w1", self._endpoint, 7, self._pid)
                    self._router.send_multipart([peer, encode_frame(1, [Welcome(2, os.getpid()), grant])])
        self._router.close(0)
        self._worker.close(0)
        self._context.term()


@contextmanager
def false_broker(directory: Path, endpoint: str, pid: int = 0) -> Iterator[FalseBroker]:
    broker = FalseBroker(directory, endpoint, pid)
    broker.start()
    try:
        yield broker
    finally:
        broker.is_done.set()
        broker.join()


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hr-"))
    yield made
    shutil.rmtree(made)


def refused_by(directory: Path) -> str:
    """Return what a run ends with; it is not tried again."""
    with Client(f"ipc://{directory}") as client, pytest.raises(RemoteProtocolError) as error:
        client.run_local(model=MODEL, messages=HELLO)
    return str(error.value)


def test_a_worker_on_the_network_is_not_gone_to(directory: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        with false_broker(directory, f"tcp://127.0.0.1:{port}"):
            assert "not in its directory" in refused_by(directory)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_worker_in_another_directory_is_not_gone_to(directory: Path, tmp_path: Path) -> None:
    elsewhere = Path(tempfile.mkdtemp(prefix="hr-"))
    try:
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(elsewhere / "w1-7"))
            listener.listen()
            with false_broker(directory, f"ipc://{elsewhere / 'w1-7'}"):
                assert "not in its directory" in refused_by(directory)
            listener.settimeout(0.2)
            with pytest.raises(TimeoutError):
                listener.accept()
    finally:
        shutil.rmtree(elsewhere)


def test_another_process_than_the_worker_that_was_granted_is_told_nothing(directory: Path) -> None:
    """It is a lost worker: the run goes elsewhere, and is given up when it meets the same again."""
    with false_broker(directory, f"ipc://{directory}/w1-7", os.getppid()) as broker:
        with Client(f"ipc://{directory}") as client, pytest.raises(PoisonRunError, match="another process listens"):
            client.run_local(model=MODEL, messages=HELLO)
        assert broker.frames == 0


def test_the_worker_that_was_granted_is_told(directory: Path) -> None:
    with (
        false_broker(directory, f"ipc://{directory}/w1-7", os.getpid()) as broker,
        Client(f"ipc://{directory}") as client,
    ):
        stream = client.run_local(model=MODEL, messages=HELLO, stream=True)
        wait_until(lambda: broker.frames, 10.0, "the run")
        stream.abort()


def test_workers_endpoints_are_directly_in_the_engines_directory(directory: Path) -> None:
    (directory / "below").mkdir()
    for endpoint in (
        f"tcp://{directory}/w1-7",
        "tcp://127.0.0.1:1",
        "ipc://@w1-7",
        f"ipc://@{directory}/w1-7",
        "ipc://w1-7",
        f"inproc://{directory}/w1-7",
        f"ipc:/{directory}/w1-7",
        f"ipc://{directory}/below/w1-7",
        f"ipc://{directory}/below/../w1-7",
        f"ipc://{directory}/../{directory.name}/w1-7",
        f"ipc://{directory.parent}/w1-7",
        f"ipc://{directory}/broker",
        f"ipc://{directory}/broker.full",
        f"ipc://{directory}/collector",
        f"ipc://{directory}/lock",
        f"ipc://{directory}/",
        f"ipc://{directory}/..",
        f"ipc://{directory}/w1-7\0",
        f"ipc://{directory}\0/w1-7",
        "ipc://*",
        "",
    ):
        assert not is_workers_endpoint(endpoint, directory), endpoint
    assert is_workers_endpoint(f"ipc://{directory}/w1-7f", directory)


def test_an_engine_may_know_its_directory_by_another_name(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(directory)

    assert is_workers_endpoint(f"ipc://{tmp_path / 'alias'}/w1-7", directory)
