"""``headrace serve --directory`` refuses a directory with foreign files, and deletes only files that it made."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.cli.shared.exit_codes import ExitCode
from headrace.testing import SimulatedProvider
from headrace_engine.supervisor.locked_directory import EngineDirectory, EngineStartError
from tests.conftest import engine_process
from tests.waiting import busyness, wait_until

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a file away")


@pytest.fixture(autouse=True)
def _no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a directory is not refused, fail the test, instead of becoming an engine."""

    def exec_instead(*command: object) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(os, "execve", exec_instead)


def file(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text("mine")  # type: ignore[return-value]


def folder(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).mkdir()


def link(name: str) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        target = directory.parent / f"{directory.name}-target"
        target.write_text("mine")
        (directory / name).symlink_to(target)

    return make


def bound(name: str) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(os.fspath(directory / name))

    return make


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a key": (file("id_ed25519"), "'id_ed25519'"),
    "a hidden file": (file(".profile"), "'.profile'"),
    "a file named like a worker's socket": (file("w1-abc"), "'w1-abc'"),
    "a file named like the broker's": (file("broker"), "'broker'"),
    "a file named like a full one": (file("collector.full"), "'collector.full'"),
    "a link named broker": (link("broker"), "'broker' (a symbolic link)"),
    "a link named lock": (link("lock"), "'lock' (a symbolic link)"),
    "a link named like the log": (link("engine.log"), "'engine.log' (a symbolic link)"),
    "a directory named like a worker's socket": (folder("w0-abc"), "'w0-abc' (a directory)"),
    "a directory named lock": (folder("lock"), "'lock' (a directory)"),
    "a pipe": (lambda directory: os.mkfifo(directory / "collector"), "'collector' (a pipe)"),
    "a socket that is no engine's": (bound("agent.123"), "'agent.123' (a socket)"),
    "a worker that there is not": (bound("w0-abc"), "'w0-abc' (a socket)"),
    "a name with an escape": (file("\x1b[2J"), r"'\x1b[2J'"),
}


def contents(directory: Path) -> dict[str, str]:
    """Return the content of a directory. Follows links."""
    return {path.name: path.read_text() if path.is_file() else "" for path in directory.iterdir()}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_directory_with_something_foreign_is_refused_and_stays_as_it_is(
    directory: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, named = FOREIGN[case]
    make(directory)
    before = contents(directory)

    assert main(["serve", "--directory", str(directory)]) == ExitCode.UNAVAILABLE

    said = capsys.readouterr().err
    assert named in said
    assert "--directory" in said
    # The engine checks the directory itself, too.
    with pytest.raises(EngineStartError, match="no engine's"):
        EngineDirectory(directory)
    assert contents(directory) == before


@needs_root
def test_another_users_file_is_foreign_whatever_its_name(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "lock").touch()
    os.chown(directory / "lock", 54911, 54911)

    assert main(["serve", "--directory", str(directory)]) == ExitCode.UNAVAILABLE
    assert "'lock' (a file of user 54911)" in capsys.readouterr().err


def test_of_many_foreign_files_the_first_are_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        (directory / f"file{number}").touch()

    assert main(["serve", "--directory", str(directory)]) == ExitCode.UNAVAILABLE
    assert "'file0', 'file1', 'file2', 6 more" in capsys.readouterr().err


def test_a_socket_at_which_another_program_listens_is_not_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_engine.supervisor.locked_directory._DEATH_TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "broker"))
        listening.listen()
        with pytest.raises(EngineStartError, match="another program listens"):
            EngineDirectory(directory)
        with socket.socket(socket.AF_UNIX) as attempt:
            assert attempt.connect_ex(str(directory / "broker")) == 0


def test_the_files_of_a_killed_engine_are_removed_and_no_process_number_is_stored(directory: Path) -> None:
    for name in ("broker", "broker.full", "collector", "w1-1f", "w17-7fffffff.full"):
        bound(name)(directory)
    (directory / "lock").write_text("12345\n")  # as older versions wrote it
    (directory / "engine.log").write_text("where somebody has sent standard error")

    taken = EngineDirectory(directory)

    assert contents(directory) == {"lock": "", "engine.log": "where somebody has sent standard error"}
    with pytest.raises(EngineStartError, match="an engine runs in"):
        EngineDirectory(directory)
    taken.close()


def test_a_lock_with_other_content_keeps_it(directory: Path) -> None:
    (directory / "lock").write_text("somebody's words\n")
    EngineDirectory(directory).close()
    assert contents(directory) == {"lock": "somebody's words\n"}


@pytest.mark.slow
def test_foreign_files_in_the_directory_of_a_running_engine_survive_its_end(
    provider: SimulatedProvider, directory: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory), "--workers", "1"]
    engine = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: {"broker", "collector"} < {path.name for path in directory.iterdir()}, 30.0, "its sockets")
        wait_until(lambda: list(directory.glob("w1-*")), 30.0, "a worker")
        (directory / "id_ed25519").write_text("a key")
        (directory / "w2-abc").write_text("no socket")
        (directory / "broker.full").write_text("no socket")
        (directory / "collector.full").symlink_to(target)
        # In the place of an existing socket.
        worker = next(directory.glob("w1-*"))
        worker.unlink()
        worker.write_text("no socket")
        # When a worker dies, only its own socket is removed.
        (directory / f"{worker.name}0").write_text("no socket")
        (directory / "sub").mkdir()
        os.kill(engine_process(str(directory), "-m headrace_workers"), signal.SIGKILL)
        wait_until(lambda: {path for path in directory.glob("w1-*") if path.is_socket()}, 30.0, "another worker")
        mine = {path.name for path in directory.iterdir() if not path.is_socket()}
    finally:
        engine.terminate()
        engine.wait(30.0 * busyness())

    assert {path.name for path in directory.iterdir()} == mine
    assert mine >= {"lock", "id_ed25519", "w2-abc", "broker.full", "collector.full", "sub", worker.name}
    assert target.read_text() == "mine"
