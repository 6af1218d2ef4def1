"""A worker that serves and has lost a run is found out; one that has it is left alone, however long nothing comes."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, WorkerLostError
from headrace.runs import silence
from headrace.testing import SimulatedProvider
from headrace.transport.router import Router
from headrace.wire.codec import encode_frame, to_broker, to_worker
from headrace.wire.messages import CAPABILITIES, Acquire, Chunk, Grant, Hello, Query, Run, RunState, Welcome
from tests.conftest import HELLO, simulate

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
EPOCH = 7


@pytest.fixture(autouse=True)
def _impatient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "QUERY_AFTER", 0.3)
    monkeypatch.setattr(silence, "QUERY_TIMEOUT", 30.0)  # who answers may take its time on a busy machine


class ForgetfulEngine(threading.Thread):
    """A broker that grants, and a worker that begins a run, forgets it, and answers queries or does not."""

    def __init__(self, *, answers: bool, capabilities: list[str]) -> None:
        super().__init__(daemon=True)
        self.directory = Path(tempfile.mkdtemp(prefix="hr-"))
        self.is_done = threading.Event()
        self.queries = 0
        self._answers = answers
        self._welcome = Welcome(1, 1, capabilities)

    def run(self) -> None:
        endpoint = f"ipc://{self.directory / 'w1-7'}"
        broker, worker = Router(f"ipc://{self.directory / 'broker'}"), Router(endpoint)
        while not self.is_done.wait(0.002):
            for peer, frame in broker.receive():
                for message in to_broker.decode(frame)[1]:
                    if isinstance(message, Acquire):
                        grant = Grant(message.span_id, message.attempt, "w1", endpoint, EPOCH)
                        broker.send(peer, encode_frame(1, [Welcome(1, 1), grant]))
            for peer, frame in worker.receive():
                if said := [answer for message in to_worker.decode(frame)[1] for answer in self._answer(message)]:
                    worker.send(peer, encode_frame(EPOCH, said))
        broker.close()
        worker.close()

    def _answer(self, message: object) -> list[Any]:
        match message:
            case Hello():
                return [self._welcome]
            case Run():
                return [Chunk(message.span_id, message.attempt, 0, ["Hel", "lo"])]
            case Query():
                self.queries += 1
                return [RunState(message.span_id, message.attempt, is_running=False)] if self._answers else []
            case _:
                return []


@pytest.fixture
def forgetful(request: pytest.FixtureRequest) -> Iterator[ForgetfulEngine]:
    engine = ForgetfulEngine(**request.param)
    engine.start()
    yield engine
    engine.is_done.set()
    engine.join()
    shutil.rmtree(engine.directory)


@pytest.mark.parametrize(
    ("forgetful", "reason"),
    [
        ({"answers": True, "capabilities": CAPABILITIES}, "does not have the run"),
        ({"answers": False, "capabilities": CAPABILITIES}, "did not say"),
    ],
    indirect=["forgetful"],
)
def test_a_run_that_its_worker_has_lost_ends_with_its_partial_text(
    forgetful: ForgetfulEngine, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "did not say":
        monkeypatch.setattr(silence, "QUERY_TIMEOUT", 1.0)
    with Client(f"ipc://{forgetful.directory}") as client:
        stream = client.run_local(model=MODEL, messages=HELLO, stream=True)

        with pytest.raises(WorkerLostError, match=reason) as error:
            list(stream)
        assert error.value.partial_text == "Hello"
        assert forgetful.queries == 1


@pytest.mark.parametrize("forgetful", [{"answers": False, "capabilities": []}], indirect=True)
def test_a_worker_that_does_not_know_queries_is_asked_none(forgetful: ForgetfulEngine) -> None:
    with Client(f"ipc://{forgetful.directory}") as client:
        stream = client.run_local(model=MODEL, messages=HELLO, stream=True, timeout_ms=60_000)
        iterator = iter(stream)
        assert next(iterator) == "Hel"
        threading.Event().wait(2.5)
        stream.abort()

        assert stream.result.result().text == "Hello"
        assert forgetful.queries == 0


def test_a_run_of_which_nothing_comes_for_long_is_left_alone(client: Client, provider: SimulatedProvider) -> None:
    running = client.run_local(
        model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=3, first_token_delay=3.5)
    )

    assert "".join(running) == "0 1 2 "
    assert running.result.result().attempts == 1
    assert len(provider.requests()) == 1
