"""No file of the user's is appended to, cut or made by way of a link, a pipe or a file that somebody else put where Headrace writes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.cli.shared.exit_codes import CommandError
from headrace.cli.spans.span_export import export
from headrace.connections.embedded_folders import open_log
from headrace.files.private_files import open_named, open_private
from headrace.process.history import VARIABLE, History, open_history
from headrace.settings.allowed_files import change_allowed_keys
from headrace.settings.settings import SinkConfig, SpansConfig
from headrace.spans.data_directory import SLOT_LOCK, database_files, file_name
from headrace.spans.span import Rank, Span
from headrace_engine.spans.recovery.slots import try_slot
from headrace_engine.spans.sinks.answer_policy import Delivered, Retry
from headrace_engine.spans.sinks.jsonl import JsonLinesSink
from headrace_engine.spans.storage.store import Store
from tests.engine.spans.span_examples import EXAMPLES, stored

SECRET = "alias ls=ls\n"
STRANGER = 54321
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's files")
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's that is none of Headrace's business."""
    file = tmp_path / ".bashrc"
    file.write_text(SECRET)
    return file


def link(name: Path, victim: Path) -> None:
    name.symlink_to(victim)


def dangling_link(name: Path, victim: Path) -> None:
    name.symlink_to(victim.with_name("made-by-somebody"))


def link_to_a_link(name: Path, victim: Path) -> None:
    victim.with_name("between").symlink_to(victim)
    name.symlink_to(victim.with_name("between"))


def hard_link(name: Path, victim: Path) -> None:
    os.link(victim, name)


def pipe(name: Path, victim: Path) -> None:
    os.mkfifo(name)


def folder(name: Path, victim: Path) -> None:
    name.mkdir()


def strangers_file(name: Path, victim: Path) -> None:
    name.touch(0o666)
    os.chown(name, STRANGER, STRANGER)


Plant = Callable[[Path, Path], None]
PLANTS = [
    link,
    dangling_link,
    link_to_a_link,
    hard_link,
    pipe,
    folder,
    pytest.param(strangers_file, marks=as_root),
]
WRITERS: dict[str, Callable[[Path], object]] = {
    "client-1-0.jsonl": lambda path: History(path).note("start"),
    "engine.log": lambda path: os.write(open_log(path.parent, None)[0], b"x"),
    SLOT_LOCK: lambda path: try_slot(path.parent),
    "any": lambda path: os.write(open_private(path, APPEND), b"x"),
}
"""By the file's name, who opens it."""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_planted_under_a_name_of_headraces_is_not_written_to(
    name: str, plant: Plant, victim: Path, tmp_path: Path
) -> None:
    place = tmp_path / "shared"
    place.mkdir(0o777)
    plant(place / name, victim)

    with pytest.raises(OSError, match=r"."):
        WRITERS[name](place / name)

    assert victim.read_text() == SECRET
    assert not victim.with_name("made-by-somebody").exists()


def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for name, writer in WRITERS.items():
            writer(tmp_path / name)
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", [link, pipe, hard_link])
def test_a_process_runs_without_its_history_where_its_file_is_planted(
    plant: Plant, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(tmp_path / f"client-{os.getpid()}-0.jsonl", victim)
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    assert open_history("client", 0) is None
    assert victim.read_text() == SECRET
    assert "history cannot be written" in caplog.text


@pytest.mark.parametrize("plant", [link, dangling_link])
def test_a_planted_link_in_the_place_of_a_database_is_moved_aside(plant: Plant, victim: Path, tmp_path: Path) -> None:
    slot = tmp_path / "0"
    slot.mkdir(0o700)
    now = datetime.now(UTC)
    path = slot / file_name(now.date().isoformat(), 0)
    plant(path, victim)
    plant(slot / f"{path.name}.new", victim)

    store = Store(slot, SpansConfig(), lambda _: None)
    span = Span(span_id="sp_1", rank=Rank.WORKER, provider="p", model="m", started_at=now.timestamp())
    store.write([span], now.timestamp())
    store.close()

    assert not path.is_symlink()
    assert database_files(slot) == [path]
    assert victim.read_text() == SECRET
    assert not victim.with_name("made-by-somebody").exists()


def append_to(path: Path) -> object:
    return JsonLinesSink(SinkConfig(type="jsonl", path=str(path))).send([stored(next(iter(EXAMPLES.values())))], 1)


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("plant", [link, dangling_link, link_to_a_link, hard_link, strangers_file])
def test_a_sinks_file_in_a_directory_that_others_write_to_is_not_followed(
    plant: Plant, mode: int, victim: Path, tmp_path: Path
) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(mode)
    plant(place / "spans.jsonl", victim)
    if (place / "spans.jsonl").is_symlink():
        os.lchown(place / "spans.jsonl", STRANGER, STRANGER)

    said = append_to(place / "spans.jsonl")

    assert isinstance(said, Retry)
    assert said.reason.startswith("it ")
    assert victim.read_text() == SECRET
    assert not victim.with_name("made-by-somebody").exists()


@as_root
@pytest.mark.timeout(20)
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_another_users_pipe_is_told_nothing(mode: int, tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(mode)
    os.mkfifo(place / "spans.jsonl", 0o666)
    os.chown(place / "spans.jsonl", STRANGER, STRANGER)
    reader = os.open(place / "spans.jsonl", os.O_RDONLY | os.O_NONBLOCK)

    said = append_to(place / "spans.jsonl")
    with pytest.raises(CommandError, match="another user"):
        export([stored(next(iter(EXAMPLES.values())))], "jsonl", place / "spans.jsonl")

    assert (said, os.read(reader, 100)) == (Retry("it belongs to another user"), b"")
    os.close(reader)


@pytest.mark.timeout(20)
def test_another_user_who_keeps_a_file_locked_that_he_may_read_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "home" / ".config" / "headrace"
    place.mkdir(parents=True)
    (tmp_path / "spans.jsonl").touch(0o644)
    for user in ("headrace.settings.allowed_files", "headrace_engine.spans.sinks.jsonl"):
        monkeypatch.setattr(f"{user}._LOCK_TIMEOUT", 0.1)
    held = [os.open(path, os.O_RDONLY) for path in (place, tmp_path / "spans.jsonl")]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    assert append_to(tmp_path / "spans.jsonl") == Retry("another program keeps it locked (`lslocks` shows which)")
    with pytest.raises(OSError, match="another program keeps it locked"):
        change_allowed_keys({"HOME": str(tmp_path / "home")}, lambda known: known)

    for descriptor in held:
        os.close(descriptor)
    assert append_to(tmp_path / "spans.jsonl") == Delivered(1)
    change_allowed_keys({"HOME": str(tmp_path / "home")}, lambda known: known)


@as_root
@pytest.mark.parametrize("below", ["reports", "his/reports"])
def test_another_users_link_to_a_directory_leads_nowhere(below: str, victim: Path, tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    link = place / below
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim.parent)
    os.lchown(link, STRANGER, STRANGER)
    span = stored(next(iter(EXAMPLES.values())))

    said = append_to(link / victim.name)
    with pytest.raises(CommandError, match="is not followed"):
        export([span], "jsonl", link / victim.name)

    assert isinstance(said, Retry)
    assert "is not followed" in said.reason
    assert victim.read_text() == SECRET
    link.unlink()
    link.symlink_to(victim.parent)  # the user's own
    assert export([span], "jsonl", link / "spans.jsonl") == 1
    assert append_to(link / "spans.jsonl") == Delivered(1)


def test_a_sinks_file_may_be_a_link_of_the_users_own(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.jsonl"
    (tmp_path / "spans.jsonl").symlink_to("elsewhere.jsonl")

    assert append_to(tmp_path / "spans.jsonl") == Delivered(1)
    assert target.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2", "/dev/null"])
def test_a_sinks_file_may_be_a_device_or_a_pipe_that_is_named(name: str) -> None:
    program = (
        "import os, sys, pathlib; from headrace.files.private_files import open_named\n"
        "os.write(open_named(pathlib.Path(sys.argv[1]), os.O_RDWR | os.O_APPEND | os.O_CREAT), b'line')"
    )
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, b"" if name == "/dev/null" else b"line")


def test_links_that_lead_round_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match="symbolic links"):
        open_named(tmp_path / "a", APPEND)
