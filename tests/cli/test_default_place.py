"""The default directory of `headrace serve` is where no other user can create anything."""

from __future__ import annotations

import argparse
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli import serve_command
from headrace.cli.main import main
from headrace.cli.serve_directory import default_directories, found_directory, made_directory
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.errors import EngineUnavailableError
from headrace.files.engine_directory import LOCK_FILE
from tests.strangers import STRANGER, VICTIM, StrangersChild, needs_root


class Places:
    """A user's directories: short enough for sockets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "runtime"
        self.home = root / "home"
        self.runtime.mkdir(mode=0o700)
        self.home.mkdir(mode=0o755)
        self.in_runtime = self.runtime / "headrace" / "engine"
        self.in_home = self.home / ".local" / "state" / "headrace" / "run" / "engine"


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        made = Places(Path(folder))
        for name in ("HEADRACE_ENGINE", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made.runtime))
        monkeypatch.setenv("HOME", str(made.home))
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield made


def test_the_default_is_in_the_runtime_directory_else_below_the_state_directory(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_directories() == [places.in_runtime, places.in_home]

    monkeypatch.setenv("XDG_STATE_HOME", str(places.root / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_directories() == [places.root / "state" / "headrace" / "run" / "engine"]

    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_directories() == [places.in_home]


@pytest.mark.parametrize("fault", ["mode", "owner", "parent", "missing", "file", "relative"])
def test_a_runtime_directory_that_others_could_have_made_is_not_used(
    places: Places, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match fault:
        case "mode":
            places.runtime.chmod(0o755)
        case "owner" if os.getuid() == 0:
            os.chown(places.runtime, STRANGER, STRANGER)
        case "owner":
            pytest.skip("only root may give a directory away")
        case "parent":
            places.root.chmod(0o777)
        case "missing":
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(places.root / "none"))
        case "file":
            (places.root / "file").touch(mode=0o600)
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(places.root / "file"))
        case _:
            monkeypatch.setenv("XDG_RUNTIME_DIR", "runtime")
            monkeypatch.chdir(places.root)

    assert default_directories() == [places.in_home]


@pytest.mark.parametrize("has_runtime", [True, False])
def test_the_directory_is_private_to_its_user(
    places: Places, has_runtime: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_runtime:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    wanted = places.in_runtime if has_runtime else places.in_home

    assert made_directory() == wanted
    assert made_directory() == wanted, "also where it is there already"

    # Spans use the state directory, too. They are never kept in a directory that others may read.
    assert [stat.S_IMODE(path.stat().st_mode) for path in (wanted, wanted.parents[0], wanted.parents[1])] == [0o700] * 3


@needs_root
@pytest.mark.parametrize("fault", ["no home", "missing", "read-only", "another's", "writable by all"])
def test_without_a_usable_home_the_directory_has_a_random_name(
    places: Places, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    places.root.chmod(0o1777)
    os.chown(places.home, VICTIM, VICTIM)
    match fault:
        case "no home":
            monkeypatch.delenv("HOME")  # and the user has no home directory either
        case "missing":
            monkeypatch.setenv("HOME", str(places.root / "none"))
        case "read-only":
            places.home.chmod(0o500)
        case "another's":
            os.chown(places.home, STRANGER, STRANGER)
            places.home.chmod(0o777)
        case _:
            places.home.chmod(0o777)

    def make() -> list[str]:
        return [os.fspath(made_directory()) for _ in range(2)]

    first, second = (Path(made) for made in StrangersChild(VICTIM, make).result())

    assert first != second
    assert first.parent == second.parent == places.root
    for made in (first, second):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert made.stat().st_uid == VICTIM


class _StartedError(Exception):
    """Raised where the engine would start."""


def test_serve_says_where_it_is(
    places: Places, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The directory has a random name, so the command must print it."""

    def start(*_: object) -> None:
        raise _StartedError

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(places.root / "none"))
    monkeypatch.setattr(os, "execve", start)

    with pytest.raises(_StartedError):
        serve_command.main(argparse.Namespace(directory=None, workers=None, drain_timeout=30.0, log_format=None))

    (made,) = (path for path in places.root.iterdir() if path.name.startswith("headrace-"))
    assert capfd.readouterr().out == f"export HEADRACE_ENGINE=ipc://{made}\n"


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"])
def test_a_path_that_is_too_long_is_named(
    places: Places, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = places.root / ("long" * 20)
    long.mkdir(mode=0o700)
    if variable != "XDG_RUNTIME_DIR":
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv(variable, str(long))

    for command in ("serve", "status", "restart"):
        assert main([command]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert f"{variable} makes the path of the engine's sockets longer than 90 bytes" in said
    assert list(long.iterdir()) == []


def test_commands_find_an_engine_in_either_place(places: Places) -> None:
    """The engine may have been started in another environment."""
    made = [places.in_runtime, places.in_home]
    with pytest.raises(CommandError, match="no engine runs"):
        found_directory(None)
    for directory in reversed(made):
        directory.mkdir(mode=0o700, parents=True)
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found_directory(None) == directory
        if directory == places.in_runtime:
            os.close(lock)
            assert found_directory(None) == places.in_home

    made[0].chmod(0o755)
    with pytest.raises(EngineUnavailableError, match="open to other users"):
        found_directory(None)


def test_serve_refuses_a_directory_that_others_could_exchange(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.root.chmod(0o777)

    assert main(["serve", "--directory", str(places.root / "engine")]) == ExitCode.UNAVAILABLE

    assert f"{places.root} may be written by all users" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_no_command_waits_for_something_in_the_place_of_a_lock(places: Places, kind: str) -> None:
    places.in_runtime.mkdir(mode=0o700, parents=True)
    lock = places.in_runtime / LOCK_FILE
    match kind:
        case "pipe":
            os.mkfifo(lock)
        case "link":
            lock.symlink_to(places.root / "elsewhere")
        case _:
            lock.mkdir()

    with pytest.raises(CommandError, match="no engine runs"):
        found_directory(None)
