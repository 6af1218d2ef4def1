"""``headrace restart`` replaces the workers of a running engine, and reports when no engine runs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headrace import Client
from headrace.cli.main import main
from headrace.cli.shared.exit_codes import ExitCode
from headrace.testing import SimulatedProvider
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import encode_frame, from_broker
from headrace.wire.messages import Hello, Restart, RestartAnswer, Silent, Welcome
from tests.conftest import HELLO, engine_process, simulate
from tests.e2e.engines import running_engine
from tests.waiting import wait_until

VICTIM, ATTACKER = 54911, 54912
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")


def as_user(user: int, action: Callable[[], int]) -> int:
    """Run ``action`` in a child process of another user, and return its result."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user of the command. It lives as long as no signal reaches it."""
    if os.getuid() == 0:
        process = subprocess.Popen(["sleep", "1000"], user=VICTIM, group=VICTIM, extra_groups=[])
    else:
        process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@needs_root
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("owner", [ATTACKER, VICTIM], ids=["another user's", "let through"])
@pytest.mark.parametrize("named", ["the victim", "all of its user"])
def test_restart_sends_no_signal_to_a_process_named_in_a_lock(
    directory: Path, victim: subprocess.Popen[bytes], owner: int, named: str
) -> None:
    """Also if the directory looks like the user's own: the writer of a lock must not choose who is signalled."""
    lock = directory / "lock"
    lock.write_text(f"{victim.pid if named == 'the victim' else -1}\n")
    lock.chmod(0o644)
    directory.chmod(0o700)
    for path in (lock, directory):
        os.chown(path, owner, owner)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        code = as_user(VICTIM, lambda: main(["restart", "--engine", f"ipc://{directory}", "--timeout", "0.5"]))

    assert code == ExitCode.UNAVAILABLE, "it ended by itself"
    assert victim.poll() is None


def test_no_command_signals_a_process_named_in_the_users_own_lock(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        lock = directory / "lock"
        lock.write_text(f"{other.pid}\n")
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert main(["restart", "--engine", f"ipc://{directory}", "--timeout", "0.3"]) == ExitCode.UNAVAILABLE
        assert other.poll() is None
        other.kill()
    assert "nothing answered" in capsys.readouterr().err


class _OlderBroker(threading.Thread):
    """A broker that welcomes every peer and knows no restarts."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self._directory = directory
        self.frames: list[bytes] = []
        self.is_done = threading.Event()

    def run(self) -> None:
        router = Router(f"ipc://{self._directory / 'broker'}")
        while not self.is_done.wait(0.005):
            for peer, frame in router.receive():
                self.frames.append(frame)
                router.send(peer, encode_frame(1, [Welcome(2, 1, ["joined", "vacated", "query", "spans"])]))
        router.close()


def test_an_engine_too_old_for_restart_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker = _OlderBroker(directory)
    with (directory / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        broker.start()
        try:
            assert main(["restart", "--engine", f"ipc://{directory}"]) == ExitCode.UNAVAILABLE
        finally:
            broker.is_done.set()
            broker.join()

    assert "SIGHUP" in capsys.readouterr().err
    assert len(broker.frames) == 1, "nothing that it does not know"


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_restart_replaces_the_workers_also_while_the_broker_is_restarting(
    provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        for is_broker_killed in (False, True):
            assert client.run_local(model="gpt-4o", messages=HELLO).text
            before = engine_process(address, "-m headrace_workers")
            if is_broker_killed:
                os.kill(engine_process(address, "headrace_engine broker"), signal.SIGKILL)

            assert main(["restart", "--engine", address, "--timeout", "30"]) == ExitCode.OK
            wait_until(partial(is_gone, before), 30.0, "the end of the worker")
            assert "one after another" in capsys.readouterr().out
            assert engine_process(address, "-m headrace_workers") != before
            assert client.run_local(model="gpt-4o", messages=HELLO).text


@pytest.mark.slow
def test_a_false_supervisor_is_not_asked_and_its_answers_do_not_count(
    provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_engine(provider, "--workers", "1") as address, Client(address) as client:
        before = engine_process(address, "-m headrace_workers")
        impostor = UnixDealer(f"{address}/broker")
        impostor.send(encode_frame(1, [Hello("supervisor", 2, os.getppid(), ["joined", "restart"])]))
        for number in range(1, 20):
            impostor.send(encode_frame(1, [RestartAnswer(number, "never")]))
        heard: list[bytes] = []

        def is_over() -> bool:
            heard.extend(impostor.receive())  # which also sends what waited for the broker's READY
            return impostor.is_disconnected

        wait_until(is_over, 10.0, "the end of the impostor")
        assert main(["restart", "--engine", address]) == ExitCode.OK
        wait_until(partial(is_gone, before), 20.0, "the end of the worker")

        said = [message for frame in [*heard, *impostor.receive()] for message in from_broker.decode(frame)[1]]
        assert not [message for message in said if isinstance(message, Restart | Silent)]
        impostor.close()

        # An ending engine reports that it replaces no workers.
        running = client.run_local(
            model="gpt-4o", messages=HELLO, stream=True, custom_options=simulate(repeat=2000, pace=0.05)
        )
        next(iter(running))
        os.kill(engine_process(address, "headrace_engine --directory"), signal.SIGTERM)

        def is_refused() -> bool:
            code = main(["restart", "--engine", address])
            return code == ExitCode.UNAVAILABLE and "the engine is ending" in capsys.readouterr().err

        wait_until(is_refused, 10.0, "the refusal")
        running.abort()


def test_restart_without_an_engine_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart", "--engine", f"ipc://{tmp_path}"]) == ExitCode.UNAVAILABLE
    assert "no engine runs" in capsys.readouterr().err


def test_a_runtime_directory_that_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / ("long" * 25)
    runtime.mkdir(mode=0o700)
    monkeypatch.delenv("HEADRACE_ENGINE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    for command, option in (("serve", "--directory"), ("restart", "--engine"), ("status", "--engine")):
        assert main([command]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert "XDG_RUNTIME_DIR" in said
        assert option in said
    assert list(runtime.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a directory away")
def test_every_command_names_the_owner_of_an_engine_of_another_user(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = tmp_path / "e"
    directory.mkdir(mode=0o700)
    os.chown(directory, 54321, 54321)

    for command in (["restart"], ["status"], ["run", "Hello", "--model", "gpt-4o"]):
        assert main([*command, "--engine", f"ipc://{directory}"]) == ExitCode.UNAVAILABLE
        assert "belongs to user 54321" in capsys.readouterr().err
