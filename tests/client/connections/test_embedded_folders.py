"""What is promised of the folders of embedded engines: only an engine's own files are removed with its folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connections.embedded_folders import log_of, make_folder, open_log
from headrace.files.engine_directory import remove_folder
from headrace.testing import SimulatedProvider
from tests.conftest import is_setting
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only parent for folders. Its path is short, because paths of sockets must be."""
    short = Path(os.environ["TMPDIR"], tmp_path.name[-12:])
    short.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(short))
    yield short
    shutil.rmtree(short)


def left_folder(*, age: float = 10.0) -> Path:
    """Return a folder in the state in which a killed program and its killed engine leave it."""
    folder = make_folder()
    os.close(open_log(folder, None)[0])
    (folder / "lock").touch()
    (folder / "path-7").symlink_to("/nowhere:else")  # a link to packages with a colon in their path
    for name in ("broker", "collector", "w1-1f", "w2-2e.full"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / name))
    be_old(folder, age)
    return folder


def be_old(folder: Path, age: float) -> None:
    when = folder.stat().st_mtime - age
    os.utime(folder, (when, when))


def test_a_folder_is_removed_with_all_files_of_an_engine() -> None:
    folder = left_folder()
    remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)  # what is gone already is fine


def test_a_foreign_file_stays_and_so_does_its_folder() -> None:
    folder = left_folder()
    (folder / "id_ed25519").write_text("a key")
    (folder / "w3-3d").write_text("no socket")
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("mine")

    remove_folder(folder)

    assert {path.name for path in folder.iterdir()} == {"id_ed25519", "w3-3d", "sub"}
    assert (folder / "sub" / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["the folder", "a file in it"])
def test_removing_a_folder_does_not_follow_links(tmp_path: Path, place: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("lock", "engine.log"):
        (precious / name).write_text("mine")
    folder = left_folder()
    if place == "the folder":
        remove_folder(folder)
        folder.symlink_to(precious)
    else:
        (folder / "lock").unlink()
        (folder / "lock").symlink_to(precious / "lock")

    remove_folder(folder)

    assert folder.is_symlink() or {path.name for path in folder.iterdir()} == {"lock"}
    assert [path.read_text() for path in precious.iterdir()] == ["mine", "mine"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_another_users_folder_is_left_alone() -> None:
    folder = left_folder()
    os.chown(folder, 54911, 54911)
    before = sorted(folder.iterdir())
    remove_folder(folder)
    make_folder()
    assert sorted(folder.iterdir()) == before


def test_folders_of_killed_programs_are_removed() -> None:
    folder, empty, bare = left_folder(), make_folder(), make_folder()
    be_old(empty, 100.0)
    os.close(open_log(bare, None)[0])
    be_old(bare, 10.0)

    remaining = make_folder()

    assert list(remaining.parent.iterdir()) == [remaining]
    assert not folder.exists()


@pytest.mark.parametrize("lock", ["engine.log", "lock"])
def test_the_folder_of_a_running_engine_is_not_removed(lock: str) -> None:
    folder = left_folder()
    with (folder / lock).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        make_folder()
    assert (folder / "broker").is_socket()


@pytest.mark.parametrize("holds_log", [True, False])
def test_a_folder_with_a_link_to_its_log_stays_while_the_log_is_held(holds_log: bool, tmp_path: Path) -> None:
    folder = make_folder()
    descriptor, path = open_log(folder, tmp_path / "logs")
    assert log_of(folder) == path
    if not holds_log:
        os.close(descriptor)
    be_old(folder, 10.0)

    make_folder()

    assert folder.exists() == holds_log
    assert path.exists(), "the log itself stays in any case"
    if holds_log:
        os.close(descriptor)


def test_a_folder_whose_log_was_removed_meanwhile_is_removed_too(tmp_path: Path) -> None:
    folder = make_folder()
    descriptor, path = open_log(folder, tmp_path / "logs")
    os.close(descriptor)
    path.unlink()
    be_old(folder, 10.0)

    make_folder()

    assert not folder.exists()


def test_the_sweep_leaves_folders_that_users_have_made(parent: Path) -> None:
    """Also private folders with a name like an engine's folder, and with files that have the names of an engine's files."""
    for name in ("headrace-backup", "headrace-notes.e", "headrace-", "headrace-empty123", "headrace-my-empty-one.e"):
        folder = parent / name
        folder.mkdir(mode=0o700)
        if "empty" not in name:
            (folder / "engine.log").write_text("mine")
            (folder / "notes").write_text("mine")
        be_old(folder, 1000.0)
    before = sorted(parent.rglob("*"))

    made = make_folder()

    assert sorted(path for path in parent.rglob("*") if path != made) == before


@pytest.mark.parametrize("kind", ["file", "link", "pipe", "directory"])
def test_the_sweep_leaves_a_folder_with_a_foreign_file(kind: str, tmp_path: Path) -> None:
    folder = left_folder()
    match kind:
        case "file":
            (folder / "id_ed25519").write_text("a key")
        case "link":
            (folder / "collector").unlink()
            (folder / "collector").symlink_to(tmp_path)
        case "pipe":
            (folder / "engine.log").unlink()
            os.mkfifo(folder / "engine.log")  # which must not be waited for
        case "directory":
            (folder / "w1-ff").mkdir()
    be_old(folder, 10.0)
    before = sorted(folder.iterdir())

    make_folder()

    assert sorted(folder.iterdir()) == before


PROGRAM = """
import os, sys
from pathlib import Path
from headrace import Client
with Client() as client:
    assert client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}]).text
    folder = next(Path(os.environ["TMPDIR"]).glob("headrace-*"))
    (folder / "id_ed25519").write_text("a key")
    print(folder, flush=True)
"""


@pytest.mark.slow
def test_a_foreign_file_survives_the_end_of_a_programs_engine(provider: SimulatedProvider, parent: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
    environment |= {**provider.environment, "HEADRACE_DATA": str(parent / "data")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    folder = Path(ended.stdout.strip())

    wait_until(lambda: [path.name for path in folder.iterdir()] == ["id_ed25519"], what="the engine's end")
    be_old(folder, 1000.0)
    make_folder()
    assert (folder / "id_ed25519").read_text() == "a key"
