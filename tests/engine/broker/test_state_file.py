"""The file with the state of the limits: for a new broker of the same boot, whole or not there, readable for its user only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from headrace.files.engine_directory import LIMITS_FILE, foreign_entries, remove_folder
from headrace_engine.broker.state_file import SavedState, StateFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "engine"
    made.mkdir(mode=0o700)
    return made


def test_a_new_broker_reads_what_the_broker_before_wrote(folder: Path) -> None:
    StateFile(folder).write(b"first", 10.0)
    StateFile(folder).write(b"second", 10.5)

    assert StateFile(folder).read(11.0) == b"second"
    status = (folder / LIMITS_FILE).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == [LIMITS_FILE]


def test_there_is_nothing_to_read_at_first(folder: Path) -> None:
    assert StateFile(folder).read(0.0) is None


def test_a_state_of_another_boot_or_of_the_future_does_not_count(folder: Path) -> None:
    file = StateFile(folder)
    file.write(b"state", 100.0)
    assert file.read(99.0) is None, "the monotonic clock has begun again"
    saved = msgspec.msgpack.decode((folder / LIMITS_FILE).read_bytes(), type=SavedState)
    for boot in ("another boot", ""):
        (folder / LIMITS_FILE).write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(saved, boot=boot)))
        assert file.read(101.0) is None


def test_a_damaged_file_and_a_link_are_errors_that_the_broker_survives(folder: Path) -> None:
    file = StateFile(folder)
    (folder / LIMITS_FILE).write_bytes(b"\xff" * 100)
    with pytest.raises(msgspec.DecodeError):
        file.read(1.0)

    (folder / LIMITS_FILE).unlink()
    (folder / LIMITS_FILE).symlink_to(folder / "elsewhere")
    with pytest.raises(OSError, match="link"):
        file.read(1.0)
    file.write(b"state", 1.0)  # it takes the link's place

    assert file.read(2.0) == b"state"
    assert not (folder / LIMITS_FILE).is_symlink()
    assert not (folder / "elsewhere").exists()


def test_the_file_is_an_engine_s_own_and_goes_with_its_folder(folder: Path) -> None:
    StateFile(folder).write(b"state", 1.0)
    os.close(os.open(folder / (LIMITS_FILE + ".new"), os.O_CREAT, 0o600))

    assert foreign_entries(folder) is None
    remove_folder(folder)
    assert not folder.exists()


def test_a_file_that_is_written_during_the_removal_goes_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, writes = os.rmdir, iter([b"last words"])

    def write_and_remove(name: str, *, dir_fd: int) -> None:
        for state in writes:
            StateFile(folder).write(state, 1.0)
        remove(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", write_and_remove)

    remove_folder(folder)

    assert not folder.exists()
