"""One engine whose workers are replaced while they work, again and again: no stream is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client
from headrace.cli.main import main
from headrace.cli.shared.exit_codes import ExitCode
from headrace.cli.status_command import engine_status
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import start
from tests.e2e.worker_processes import MODEL, restart, tell_engine, worker_pids
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_engine(session_provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(session_provider, "--workers", "2") as address:
        yield address


@pytest.fixture
def engine(shared_engine: str, provider: SimulatedProvider) -> str:
    """Return the engine that these tests share; no earlier run and no earlier worker is left."""
    wait_until(lambda: len(worker_pids(shared_engine)) == 2, 40.0, "the end of earlier workers")
    return shared_engine


class ThreadedLoad:
    """Streams without a pause in several threads, each checked as it ends."""

    def __init__(self, address: str, threads: int = repeated(4, 8)) -> None:
        self.address = address
        self.finished = 0
        self.errors: list[BaseException] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with Client(self.address, connect_timeout=60.0) as client:
            while not self._is_over.is_set():
                try:
                    text = "".join(start(client, repeat=40, pace=0.02))
                    assert text == "".join(f"{number} " for number in range(40))
                except BaseException as error:  # noqa: BLE001 - told of by the test
                    self.errors.append(error)
                else:
                    self.finished += 1

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(90)


@pytest.mark.timeout(180)
def test_three_rolling_restarts_under_load_lose_no_stream(engine: str, provider: SimulatedProvider) -> None:
    load = ThreadedLoad(engine)
    try:
        wait_until(lambda: load.finished > 0)
        for _ in range(3):
            restart(engine)
        counted = load.finished
        wait_until(lambda: load.finished > counted)
    finally:
        load.end()
    states = {worker.state for worker in engine_status(engine, 60.0).workers}

    assert load.errors == []
    assert states == {"ok"}
    records = provider.requests()
    assert [record.outcome for record in records if record.outcome != "complete"] == []
    assert len(records) == load.finished, "no run was sent twice"


def test_a_stream_outlives_the_restart_on_its_old_worker(engine: str) -> None:
    count = round(200 * busyness())  # four seconds of an idle machine: both workers are replaced meanwhile
    with Client(engine, connect_timeout=60.0) as client:
        iterator = iter(start(client, repeat=count, pace=0.02))
        first = next(iterator)
        before = worker_pids(engine)
        tell_engine(engine, signal.SIGHUP)

        def states() -> list[str]:
            return sorted(worker.state for worker in engine_status(engine, 60.0).workers)

        def is_only_the_one_with_the_stream_left() -> bool:
            return len(before & worker_pids(engine)) == 1 and states() == ["draining", "ok", "ok"]

        wait_until(is_only_the_one_with_the_stream_left, what="new workers", instead=states)

        assert client.run_local(model=MODEL, messages=HELLO).text, "on a new one"
        assert before & worker_pids(engine), "the one that has the stream"
        assert first + "".join(iterator) == "".join(f"{number} " for number in range(count))
        wait_until(lambda: not before & worker_pids(engine))


def test_a_restart_with_settings_that_cannot_be_used_leaves_the_workers_as_they_are(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    settings_file = tmp_path / "headrace.toml"
    settings_file.write_text("")
    # An engine of its own, which tries again later: its settings stay as they are.
    with (
        running_engine(provider, "--workers", "1", settings_file=settings_file) as engine,
        Client(engine, connect_timeout=60.0) as client,
    ):
        assert client.run_local(model=MODEL, messages=HELLO).text
        before = worker_pids(engine)
        settings_file.write_text("[engine]\nno_such_setting = 1\n")
        assert main(["restart", "--engine", engine]) == ExitCode.OK, "unlike reload, it does not check the settings"
        seen: set[int] = set()

        def came_and_went() -> bool:
            seen.update(worker_pids(engine))
            return len(seen) > len(before) and worker_pids(engine) == before

        wait_until(came_and_went)

        assert client.run_local(model=MODEL, messages=HELLO).text
        assert before <= worker_pids(engine)
