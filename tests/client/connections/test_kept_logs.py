"""What is promised of the logs of embedded engines: private, kept for a week, and not too many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.connections.embedded_folders import log_of, open_log
from headrace.connections.kept_logs import (
    KEPT_SECONDS,
    MAX_LOGS,
    end_of_log,
    kept_logs,
    logs_directory,
    new_log,
    open_locked,
    remove_old_logs,
)
from headrace.settings.settings import SpansConfig

NOW = 1_796_000_000.0
DAY = 24 * 3600.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "logs"


def log_of_age(directory: Path, days: float, size: int = 0) -> Path:
    """Make the log of an engine that ended some days ago."""
    path = new_log(directory, NOW - days * DAY)
    os.close(open_locked(path))
    os.truncate(path, size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def test_a_log_is_its_owners_alone_and_says_when_and_by_whom_its_engine_was_started(directory: Path) -> None:
    path = log_of_age(directory, 0)

    [log] = kept_logs(directory)

    assert (log.path, log.started, log.program) == (path, "20261130T005320Z", os.getpid())
    assert (directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_log_runs_while_a_process_has_it_open(directory: Path) -> None:
    path = new_log(directory, NOW)
    descriptor = open_locked(path)
    assert kept_logs(directory)[0].is_running
    os.close(descriptor)

    assert not kept_logs(directory)[0].is_running


def test_logs_are_removed_a_week_after_the_end_of_their_engine(directory: Path) -> None:
    young, old, running = log_of_age(directory, 6.9), log_of_age(directory, 7.1), log_of_age(directory, 30)
    descriptor = open_locked(running)
    (directory / "notes.log").write_text("mine")
    (directory / "notes.log").touch()
    os.utime(directory / "notes.log", (0, 0))

    remove_old_logs(directory, NOW)

    assert {path.name for path in directory.iterdir()} == {young.name, running.name, "notes.log"}
    assert not old.exists()
    os.close(descriptor)
    assert KEPT_SECONDS == 7 * DAY


def test_the_oldest_logs_are_removed_where_there_are_too_many_or_too_long_ones(directory: Path) -> None:
    large = [log_of_age(directory, days, size=60 * 2**20) for days in (5, 4, 3, 2)]
    remove_old_logs(directory, NOW)
    assert [log.path for log in kept_logs(directory)] == large[1:]

    for number in range(MAX_LOGS):
        (directory / f"engine-20261129T000000Z-{number + 1}-abcdef.log").touch()
    remove_old_logs(directory, NOW)

    assert len(kept_logs(directory)) == MAX_LOGS
    assert not any(path.exists() for path in large)


def test_there_is_nothing_to_list_or_to_remove_where_no_engine_has_run(directory: Path, tmp_path: Path) -> None:
    remove_old_logs(directory, NOW)
    (tmp_path / "file").touch()

    assert kept_logs(directory) == kept_logs(tmp_path / "file") == []


def test_what_is_planted_in_the_directory_is_no_log(directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_ed25519"
    secret.write_text("a key")
    new_log(directory, NOW)
    (directory / "engine-20200101T000000Z-1-aaaaaa.log").symlink_to(secret)
    os.mkfifo(directory / "engine-20200101T000000Z-2-aaaaaa.log")
    (directory / "engine-20200101T000000Z-3-aaaaaa.log").mkdir()

    assert kept_logs(directory) == []
    remove_old_logs(directory, NOW)
    assert len(list(directory.iterdir())) == 3


@pytest.mark.parametrize("fault", ["open to others", "a file", "above it others may write"])
def test_a_log_is_in_the_engines_folder_where_the_directory_cannot_be_used(
    fault: str, directory: Path, tmp_path: Path
) -> None:
    directory.mkdir(parents=True, mode=0o700)
    match fault:
        case "open to others":
            directory.chmod(0o755)
        case "a file":
            directory.rmdir()
            directory.touch()
        case _:
            directory.parent.chmod(0o777)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)

    descriptor, path = open_log(folder, directory)
    os.close(descriptor)

    assert path == log_of(folder) == folder / "engine.log"
    assert [entry.name for entry in folder.iterdir()] == ["engine.log"]


def test_logs_are_in_the_data_directory(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert logs_directory(SpansConfig(), home) == tmp_path / ".local/state/headrace/logs"
    assert logs_directory(SpansConfig(), {**home, "HEADRACE_DATA": "/data"}) == Path("/data/logs")
    assert logs_directory(SpansConfig(directory="/spans"), {**home, "HEADRACE_DATA": "/data"}) == Path("/spans/logs")


def test_no_home_is_made_for_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.files.state_directory.home_of_user", lambda: "")
    assert logs_directory(SpansConfig(), {}) is None
    assert logs_directory(SpansConfig(), {"HOME": str(tmp_path / "none")}) is None


def test_only_the_last_lines_of_a_long_log_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert end_of_log(path) == ""
    path.write_bytes(b"one\n\xff two\n")
    assert end_of_log(path) == "one\n\ufffd two\n"

    with path.open("wb") as log:
        log.truncate(2**33)
        log.seek(2**33)
        log.write(b"".join(b"\nline %d" % number for number in range(10_000)))
    lines = end_of_log(path).splitlines()

    assert lines[-1] == "line 9999"
    assert 1000 < len(lines) < 10_000
    assert all(line.startswith("line ") for line in lines), "the first is a whole one"


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_regular_file_is_read_as_a_log(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    match kind:
        case "link":
            (tmp_path / "id_ed25519").write_text("a key")
            path.symlink_to(tmp_path / "id_ed25519")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()

    assert end_of_log(path) == ""
