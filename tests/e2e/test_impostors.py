"""A program of the same user is a client, whatever it says: it gets no runs, ends no worker, and rewrites no spans."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.cli.status_command import engine_status
from headrace.errors import HeadraceError
from headrace.testing import SimulatedProvider
from headrace_engine.broker.lease_checks import FIRST_CHECK
from tests.conftest import HELLO, ROOT, simulate
from tests.e2e.engines import running_engine
from tests.e2e.spans_of_runs import status_when
from tests.engine.spans.test_span_store import kept
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODEL = "gpt-4o"


class Attack:
    """An impostor that has said what it had to say, and is still there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.answers: dict[str, str] = self._next()["answers"]

    def _next(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> int:
        """End it; return how many frames had come to its worker's socket."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        frames: int = self._next()["frames"]
        return frames


@contextmanager
def attack(address: str, where: str, *more: str) -> Iterator[Attack]:
    command = [sys.executable, "-m", "tests.e2e.impostor", address.removeprefix("ipc://"), where, *more]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Attack(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def address(session_provider: SimulatedProvider, data: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_DATA", str(data))
        with running_engine(session_provider, "--workers", "1") as running:
            yield running


def text(client: Client) -> str:
    said: str = client.run_local(model=MODEL, messages=HELLO).text
    return said


def test_who_says_that_it_is_a_process_of_the_engine_is_refused_by_the_broker(address: str) -> None:
    before = status_when(address, lambda status: status.spans is not None)  # the collector starts last
    with Client(address) as client, attack(address, "broker") as impostor:
        assert all(text(client) for _ in range(20))
        after = engine_status(address, 10.0)
        frames = impostor.end()

    assert frames == 0, "no run came to it"
    assert all(impostor.answers.values()), impostor.answers
    assert "the supervisor did not start process" in impostor.answers["worker"]
    assert "the supervisor did not start process" in impostor.answers["w1"]
    assert "is not the one that it has in this engine's directory" in impostor.answers["tcp://127.0.0.1:1"]
    assert "the supervisor is another process than" in impostor.answers["supervisor"]
    assert impostor.answers["client Heartbeat"] == "a client may not send Heartbeat to this process"
    assert [(worker.name, worker.pid, worker.state) for worker in after.workers] == [
        (worker.name, worker.pid, worker.state) for worker in before.workers
    ], "nobody was ended, nobody joined"
    assert [(process.name, process.pid, process.restarts) for process in after.processes] == [
        (process.name, process.pid, process.restarts) for process in before.processes
    ]
    assert after.spans is not None
    assert after.spans.directory != "/forged"


def test_a_worker_serves_clients_only(address: str) -> None:
    with Client(address) as client, attack(address, "worker") as impostor:
        assert text(client)

    assert impostor.answers["supervisor"] == "a supervisor does not connect to this process"
    assert all(impostor.answers.values()), impostor.answers


def test_nobody_but_its_worker_rewrites_a_span(address: str, data: Path) -> None:
    slot = data / "0"
    with Client(address) as client:
        stream = client.run_local(model=MODEL, messages=HELLO, stream=True)
        assert list(stream)
        client.flush(20)
        before = kept(slot)[stream.span_id]

        with attack(address, "collector", stream.span_id) as impostor:
            other = client.run_local(model=MODEL, messages=HELLO, stream=True)
            assert list(other)
            client.flush(20)  # what was sent before is stored

        rows = kept(slot)

    assert all(impostor.answers.values()), impostor.answers
    assert "no worker of this engine" in impostor.answers["worker"]
    assert rows[stream.span_id] == before
    assert other.span_id in rows


def test_anothers_run_is_not_touched_at_the_worker_nor_at_the_broker(
    address: str, session_provider: SimulatedProvider
) -> None:
    with Client(address) as client:
        stream = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=40, pace=0.05)
        )
        iterator = iter(stream)
        first = next(iterator)
        base_url = session_provider.environment["OPENAI_BASE_URL"]
        with attack(address, "runs", stream.span_id, base_url) as impostor:
            heard = impostor.answers["heard"].split()
        said = first + "".join(iterator)

    assert said == "".join(f"{number} " for number in range(40)), "it was neither ended nor spoiled"
    # The impostor's own run of that name is its own; of the other it is told nothing; and it gets no lease for it.
    assert heard[:2] == ["Welcome", "RunState"]
    assert "Finished" in heard
    assert heard[-2:] == ["Welcome", "Refuse"]


def test_leases_that_nobody_uses_shut_nobody_out(session_provider: SimulatedProvider, tmp_path: Path) -> None:
    settings = tmp_path / "headrace.toml"
    settings.write_text("[engine]\nmax_runs_per_worker = 4096\n")
    with (
        running_engine(session_provider, settings_file=settings) as address,
        Client(address) as client,
        attack(address, "leases", "4032") as one,
    ):
        taken = int(one.answers["taken"])
        # Where the machine is so busy that the first are ended by then as unused, others of its own come after them.
        is_late = float(one.answers["seconds"]) > FIRST_CHECK
        assert taken == 4032 or (is_late and taken > 4032), "of 4096 places others have 64"
        assert text(client)
        with attack(address, "leases", "64") as another:
            assert int(another.answers["taken"]) >= 64
            stream = client.run_local(
                model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=50, pace=0.3)
            )
            # All places are taken. Those of leases that were not used for some time are given to those who wait in turn.
            assert next(iter(stream))
            assert all(text(client) for _ in range(5))
        stream.abort()


def test_who_serves_in_the_brokers_place_is_told_nothing_and_ends_no_worker(address: str) -> None:
    before = engine_status(address, 10.0)
    with attack(address, "place", str(before.pid)) as impostor:
        assert impostor.answers["frames"] == "0"

    def has_another_broker() -> bool:
        with suppress(HeadraceError):
            status = engine_status(address, 5.0)
            return status.pid != before.pid and len(status.workers) == 1
        return False

    wait_until(has_another_broker, 20.0, "another broker")
    assert [worker.pid for worker in engine_status(address, 10.0).workers] == [worker.pid for worker in before.workers]
    with Client(address) as client:
        assert text(client)
