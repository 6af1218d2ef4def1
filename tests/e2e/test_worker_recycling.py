"""Workers that are replaced as the settings say, and engines that end: what is ended is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headrace import Client, EngineUnavailableError, WorkerLostError
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process, processes, simulate
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import start
from tests.e2e.worker_processes import MODEL, restart, tell_engine, worker_pids
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow


def settings(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Have the engines that start from here on read these settings."""
    file = path / "headrace.toml"
    file.write_text(text)
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))
    return file


@pytest.mark.parametrize("limit", ["max_worker_age = 2", "max_worker_memory = 1"])
def test_a_worker_that_is_old_or_has_grown_is_replaced(
    limit: str, provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(tmp_path, monkeypatch, f"[engine]\n{limit}\n")
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
        before = worker_pids(address)

        wait_until(lambda: not before & worker_pids(address), 40.0)
        assert client.run_local(model=MODEL, messages=HELLO).text


def test_a_stream_that_does_not_end_is_ended_at_the_drain_timeout_of_its_worker(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(tmp_path, monkeypatch, "[engine]\nworker_drain_timeout = 1\n")
    delay = max(10.0, 3 * busyness())  # longer than a new worker takes to start
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        iterator = iter(start(client, pace=0.05))
        silent = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(first_token_delay=delay)
        )
        first = next(iterator)
        provider.wait_until(lambda records: len(records) == 2, 30)
        tell_engine(address, signal.SIGHUP)

        with pytest.raises(WorkerLostError, match="stopped before the run had finished") as error:
            list(iterator)
        assert error.value.partial_text.startswith(first)
        # Nothing of it had arrived: it runs again, on the new worker.
        assert silent.result.result(50 * busyness()).attempts == 2
        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", 30)
        assert provider.requests()[0].sent_text.startswith(error.value.partial_text)


# The engine's end.


def test_at_the_drain_timeout_runs_are_ended_with_a_word_and_new_ones_are_refused(provider: SimulatedProvider) -> None:
    drain = 2.0 * busyness()  # long enough to be refused in between
    with (
        running_engine(provider, "--workers", "1", "--drain-timeout", str(drain)) as address,
        Client(address, connect_timeout=60.0) as client,
    ):
        iterator = iter(start(client, pace=0.05))
        first = next(iterator)
        supervisor = engine_process(address, "headrace_engine --directory")
        told_at = time.monotonic()
        tell_engine(address, signal.SIGTERM)
        wait_until(lambda: refuses(client))

        with pytest.raises(WorkerLostError, match="stopped before the run had finished") as error:
            list(iterator)
        assert time.monotonic() - told_at >= drain
        assert error.value.partial_text.startswith(first)
        wait_until(lambda: supervisor not in {pid for pid, _, _ in processes()} or is_zombie(supervisor))
        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", 30)


def refuses(client: Client) -> bool:
    try:
        client.run_local(model=MODEL, messages=HELLO)
    except EngineUnavailableError as error:
        return "stopping and takes no new runs" in str(error)
    return False


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_second_sigterm_ends_runs_now_and_with_a_word(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "2") as address, Client(address, connect_timeout=60.0) as client:
        iterators = [iter(start(client, pace=0.05)) for _ in range(20)]
        firsts = [next(iterator) for iterator in iterators]
        tell_engine(address, signal.SIGTERM)
        wait_until(lambda: refuses(client))
        told_at = time.monotonic()
        tell_engine(address, signal.SIGTERM)

        for iterator, first in zip(iterators, firsts, strict=True):
            with pytest.raises(WorkerLostError, match="stopped before the run had finished") as error:
                list(iterator)
            assert error.value.partial_text.startswith(first)
        assert time.monotonic() - told_at < 10.0 * busyness()
        wait_until(lambda: not worker_pids(address))


def test_an_engine_ends_as_soon_as_its_last_run_has(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "2") as address, Client(address, connect_timeout=60.0) as client:
        iterator = iter(start(client, repeat=100))
        next(iterator)
        tell_engine(address, signal.SIGTERM)

        assert list(iterator)
        # The client is still connected, and the drain timeout far away.
        wait_until(lambda: not worker_pids(address), 15.0)


# Hang-ups.

# SIGHUP may be ignored in the tests themselves, and then in all that they start: as under nohup.
MIND_HANGUPS = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)
MINDING = (sys.executable, "-c", MIND_HANGUPS)
AT_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


NOHUP = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")


@contextmanager
def engine_at_a_terminal(provider: SimulatedProvider, *wrapper: str) -> Iterator[tuple[str, int, int]]:
    """Run an engine in the foreground of a terminal; yield its address, its process, and the terminal's other end."""
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    master, slave = os.openpty()
    command = ["-m", "headrace_engine", "--directory", str(directory), "--workers", "1"]
    with subprocess.Popen(
        [*(wrapper or MINDING), sys.executable, "-c", AT_A_TERMINAL, *command],
        stdin=slave,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **provider.environment},
    ) as process:
        os.close(slave)
        try:
            yield f"ipc://{directory}", process.pid, master
        finally:
            process.kill()
            with suppress(OSError):
                os.close(master)
    shutil.rmtree(directory, ignore_errors=True)


def test_an_engine_at_a_terminal_takes_sighup_as_restart_and_the_terminals_end_as_its_own(
    provider: SimulatedProvider,
) -> None:
    with engine_at_a_terminal(provider) as (address, pid, terminal), Client(address, connect_timeout=60.0) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
        restart(address)  # this SIGHUP is not from the terminal

        assert client.run_local(model=MODEL, messages=HELLO).text
        assert not is_zombie(pid)

        iterator = iter(start(client, repeat=100))
        first = next(iterator)
        os.close(terminal)

        assert first + "".join(iterator) == "".join(f"{number} " for number in range(100))
        wait_until(lambda: is_zombie(pid))


def test_an_engine_started_with_nohup_outlives_its_terminal(provider: SimulatedProvider) -> None:
    with (
        engine_at_a_terminal(provider, *NOHUP) as (address, pid, terminal),
        Client(address, connect_timeout=60.0) as client,
    ):
        assert client.run_local(model=MODEL, messages=HELLO).text
        os.close(terminal)
        wait_until(lambda: not Path(f"/proc/{pid}/fd/0").exists() or "deleted" in os.readlink(f"/proc/{pid}/fd/0"))

        assert client.run_local(model=MODEL, messages=HELLO).text
        assert not is_zombie(pid)
