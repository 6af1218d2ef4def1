"""One engine whose processes die or hang, one after the other: its clients learn of what is lost, and go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from headrace import Client, WorkerLostError
from headrace.cli.status_command import engine_status
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process, simulate
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import start
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"


@pytest.fixture(scope="module")
def shared_engine(session_provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(session_provider, "--workers", "1") as address:
        yield address


@pytest.fixture
def engine(shared_engine: str, provider: SimulatedProvider) -> str:
    """Return the engine of all these tests; its provider knows of no earlier request."""
    return shared_engine


def test_two_addresses_of_one_engine_do_not_get_in_each_others_way(engine: str) -> None:
    with Client(engine) as one, Client(f"{engine}/") as other:
        for _ in range(3):
            assert one.run_local(model=MODEL, messages=HELLO).text
            assert other.run_local(model=MODEL, messages=HELLO).text


def test_a_worker_that_dies_is_replaced_and_its_streams_say_so(engine: str, provider: SimulatedProvider) -> None:
    with Client(engine, connect_timeout=60.0) as client:
        running = start(client)
        silent = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(first_token_delay=busyness())
        )
        iterator = iter(running)
        next(iterator)
        provider.wait_until(lambda records: len(records) == 2)  # a run that no worker has had yet makes no attempt
        os.kill(engine_process(engine, "-m headrace_workers"), signal.SIGKILL)
        killed_at = time.monotonic()

        with pytest.raises(WorkerLostError) as error:
            list(iterator)
        assert time.monotonic() - killed_at < 1.0 * busyness()
        assert error.value.partial_text.startswith("0 ")
        # Nothing of it had arrived: it ran again elsewhere, unseen.
        assert silent.result.result().finish_reason == "stop"
        assert silent.result.result().attempts == 2
        assert client.run_local(model=MODEL, messages=HELLO).text


def test_running_streams_outlive_the_broker_and_new_ones_wait_for_its_successor(engine: str) -> None:
    with Client(engine, connect_timeout=60.0) as client:
        running = start(client, repeat=100)
        iterator = iter(running)
        first = next(iterator)
        os.kill(engine_process(engine, "headrace_engine broker"), signal.SIGKILL)

        assert client.run_local(model=MODEL, messages=HELLO).text
        assert first + "".join(iterator) == "".join(f"{number} " for number in range(100))


def test_a_worker_that_hangs_is_found_and_replaced(engine: str) -> None:
    with Client(engine, connect_timeout=60.0) as client:
        iterator = iter(start(client))
        next(iterator)
        os.kill(engine_process(engine, "-m headrace_workers"), signal.SIGSTOP)
        stopped_at = time.monotonic()

        with pytest.raises(WorkerLostError):
            list(iterator)
        took = time.monotonic() - stopped_at

        assert client.run_local(model=MODEL, messages=HELLO).text
        print(f"from SIGSTOP to the error: {took:.1f} s")
        assert took < 15.0 * busyness()


def test_a_new_broker_learns_of_the_leases_of_the_one_before(engine: str) -> None:
    with Client(engine, connect_timeout=60.0) as client:
        running = start(client)
        next(iter(running))

        os.kill(engine_process(engine, "headrace_engine broker"), signal.SIGKILL)

        assert client.run_local(model=MODEL, messages=HELLO).text

        def leases() -> tuple[int, list[int]]:
            status = engine_status(engine, 60.0)
            return status.leases, [worker.runs for worker in status.workers]

        wait_until(lambda: leases() == (1, [1]), what="one lease", instead=leases)
        running.abort()
