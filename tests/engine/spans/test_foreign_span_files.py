"""Files in the data directory that are not Headrace's are never read, written, moved or removed, however old they are."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import slots
from headrace.spans.reading.stored_spans import SpanFile
from headrace.spans.span_database import COLUMNS, SCHEMA_VERSION
from headrace_engine.spans.recovery.spool_recovery import has_leavings, has_spools, recover, recover_others
from headrace_engine.spans.sinks import jsonl
from headrace_engine.spans.storage.database import move_aside
from headrace_engine.spans.storage.store import Store
from tests.engine.spans.test_span_store import DAY, NOON, no_cost, rows, span
from tests.engine.spans.test_spool_recovery import spool

OLD = 1000 * DAY
CONFIG = SpansConfig(retention_days=1)


def text(path: Path) -> None:
    path.write_text("mine")


def link(path: Path) -> None:
    target = path.parent.parent / "target.db"
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    path.symlink_to(target)


def folder(path: Path) -> None:
    path.mkdir()


def another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")


def another_programs_first_version(path: Path) -> None:
    another_programs(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 1")


FOREIGN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a backup": ("spans-backup.db", text),
    "a copy": ("spans-2020-01-01-copy.db", text),
    "an odd number": ("spans-2020-01-01.01.db", text),
    "a note on a damaged one": ("spans-2020-01-01.db.corrupt.notes", text),
    "a note that is named alike": ("spans-mine.db.corrupt", text),
    "a link": ("spans-2020-01-01.db", link),
    "a link to a damaged one": ("spans-2020-01-01.db.corrupt", link),
    "a folder": ("spans-2020-01-01.db", folder),
    "a folder of a damaged one": ("spans-2020-01-01.db.corrupt", folder),
    "another program's": ("spans-2020-01-01.db", another_programs),
    "another program's, version 1": ("spans-2020-01-01.db", another_programs_first_version),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_database_stays_as_it_is(tmp_path: Path, case: str) -> None:
    name, make = FOREIGN[case]
    slot = tmp_path / "0"
    slot.mkdir()
    path = slot / name
    make(path)
    os.utime(path, (0, 0), follow_symlinks=False)
    content = path.read_bytes() if path.is_file() else b""

    with closing(Store(slot, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)
        store.retire(NOON + OLD, ["sink"])
        store.check()
        store.write([span("b")], NOON)

    assert os.path.lexists(path)
    assert (path.read_bytes() if path.is_file() else b"") == content
    assert not list(slot.glob(f"{name}-*"))


@pytest.mark.parametrize("make", [folder, another_programs, another_programs_first_version])
def test_spans_go_to_another_file_if_a_foreign_file_has_todays_name(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    slot = tmp_path / "0"
    slot.mkdir()
    path = slot / "spans-2026-11-23.db"
    make(path)

    with closing(Store(slot, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)

    if path.is_file():
        with closing(sqlite3.connect(path)) as connection:
            assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["mine"]
    assert (slot / "spans-2026-11-23.1.db").is_file()


def test_headraces_own_old_files_are_removed(tmp_path: Path) -> None:
    slot = tmp_path / "0"
    with closing(Store(slot, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)
        (slot / "spans-2026-11-20.db.corrupt.2").write_text("damaged")
        os.utime(slot / "spans-2026-11-20.db.corrupt.2", (0, 0))
        store.write([span("b")], NOON + 10 * DAY)
        store.retire(NOON + 10 * DAY, [])
    assert [path.name for path in slot.glob("*.db*")] == ["spans-2026-12-03.db"]


@pytest.mark.parametrize("name", ["notes.spool", "w1.spool", "w1-a-1.old.spool", "w0-a-1.spool", "w1-a-01.spool"])
def test_a_foreign_spool_stays(tmp_path: Path, name: str) -> None:
    path = spool(tmp_path, name.removesuffix(".spool"), span("a"))
    os.utime(path, (0, 0))

    assert not has_spools(tmp_path)
    assert not has_leavings(tmp_path)
    with closing(Store(tmp_path, CONFIG, no_cost)) as store:
        assert list(recover(tmp_path, store, lambda: NOON)) == []
    assert path.exists()


def test_a_link_in_the_spool_directory_is_not_followed(tmp_path: Path) -> None:
    real = spool(tmp_path / "elsewhere", "w1-a-1", span("a"))
    (tmp_path / "0" / "spool").mkdir(parents=True)
    (tmp_path / "0" / "spool" / "w2-b-1.spool").symlink_to(real)
    (tmp_path / "0" / "spool" / "w3-c-1.spool").mkdir()
    with closing(Store(tmp_path / "0", CONFIG, no_cost)) as store:
        list(recover(tmp_path / "0", store, lambda: NOON))
    assert real.exists()
    assert (tmp_path / "0" / "spool" / "w2-b-1.spool").is_symlink()


@pytest.mark.parametrize("content", [b"\0" * 4096, b"notes of somebody", b"S"], ids=["zeros", "text", "a letter"])
def test_a_file_in_which_no_worker_has_written_is_not_removed_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = spool(tmp_path, "w1-a-1", tail=content)

    with closing(Store(tmp_path, CONFIG, no_cost)) as store:
        list(recover(tmp_path, store, lambda: NOON))
        assert list(recover(tmp_path, store, lambda: NOON)) == [], "once"

    assert [left.read_bytes() for left in path.parent.iterdir()] == [content]


def test_if_a_spool_is_exchanged_during_its_recovery_only_the_recovered_spool_is_removed(tmp_path: Path) -> None:
    path = spool(tmp_path, "w1-a-1", span("a"))
    with closing(Store(tmp_path, CONFIG, no_cost)) as store:
        steps = recover(tmp_path, store, lambda: NOON)
        next(steps)
        path.unlink()
        path.write_text("mine")
        list(steps)

    assert path.read_text() == "mine"


@pytest.mark.parametrize("of_what", ["data", "slot", "spool"])
def test_a_link_that_is_put_in_the_place_of_a_directory_leads_to_no_file_that_is_removed(
    of_what: str, tmp_path: Path
) -> None:
    """Who owns a directory above can put one there. It may lead to other spans of the same user's, which are kept for longer."""
    data, others = tmp_path / "data", tmp_path / "others"
    for slot in (data / "0", data / "1", others / "0", others / "1"):
        with closing(Store(slot, CONFIG, no_cost)) as store:
            store.write([span("a")], NOON)
        spool(slot, "w1-a-1", span("b"))
        (slot / "spans-2026-11-20.db.corrupt").write_text("damaged")
        os.utime(slot / "spans-2026-11-20.db.corrupt", (0, 0))
    before = sorted(others.rglob("*"))
    store = Store(data / "0", CONFIG, no_cost)
    store.marks()
    place = {"data": data, "slot": data / "0", "spool": data / "0" / "spool"}[of_what]
    place.rename(tmp_path / "away")
    place.symlink_to(others / place.relative_to(data))

    with closing(store):
        store.retire(NOON + OLD, [])
        list(recover(data / "0", store, lambda: NOON + OLD))
        if of_what != "spool":
            list(recover_others(data / "0", CONFIG, no_cost, lambda: NOON + OLD, []))

    assert sorted(path for path in others.rglob("*") if not path.name.endswith(("-wal", "-shm"))) == before


@pytest.mark.parametrize("make", [text, link, folder])
def test_a_foreign_file_with_the_name_of_an_unfinished_database_is_not_removed(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    slot = tmp_path / "0"
    slot.mkdir()
    make(slot / "spans-2026-11-23.db.new")
    with closing(Store(slot, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)

    kept = slot / "spans-2026-11-23.db.new.corrupt"
    assert os.path.lexists(kept)
    assert make is not text or kept.read_text() == "mine"
    assert (slot / "spans-2026-11-23.db").is_file()


def test_an_unfinished_database_of_a_killed_engine_is_removed(tmp_path: Path) -> None:
    slot = tmp_path / "0"
    slot.mkdir()
    another_programs(slot / "spans-2026-11-23.db.new")
    with closing(Store(slot, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)

    assert [path.name for path in slot.iterdir()] == ["spans-2026-11-23.db"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's files")
@pytest.mark.parametrize("is_open", [True, False])
def test_nothing_is_written_to_a_directory_that_another_user_put_in_the_data_directorys_place(
    is_open: bool, tmp_path: Path
) -> None:
    """Who owns a directory above it can rename it, and have a folder and a database of his own there, which he reads."""
    slot, his = tmp_path / "0", tmp_path / "his"
    for folder in (slot, his):
        with closing(Store(folder, CONFIG, no_cost)) as store:
            store.write([span("before")], NOON)
    store = Store(slot, CONFIG, no_cost)
    if is_open:
        store.write([span("before")], NOON)
    slot.rename(tmp_path / "away")
    his.rename(slot)
    for path in (slot, *slot.iterdir()):
        os.chown(path, 54321, 54321)

    with closing(store):
        store.check()
        store.write([span("secret")], NOON)

    his_files = [path for path in slot.iterdir() if path.stat().st_uid != os.getuid()]
    assert his_files
    assert not any(b"secret" in path.read_bytes() for path in his_files)
    assert any(b"secret" in path.read_bytes() for path in slot.iterdir()), "in a file that is its owner's alone"


@pytest.mark.timeout(20)
def test_a_database_whose_table_is_an_endless_query_is_left_out(tmp_path: Path) -> None:
    """In another user's directory, which `headrace spans --data` names."""
    path = tmp_path / "spans-2026-11-23.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        columns = ", ".join(f"x AS {name}" for name in ("seq", *COLUMNS))
        connection.execute(f"CREATE VIEW spans AS {endless} SELECT {columns} FROM n")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    said: list[str] = []

    file = SpanFile(path, said.append)

    assert not file.is_readable
    assert "spans is a view, not a table" in said[0]


def test_directories_with_other_names_are_not_slots(tmp_path: Path) -> None:
    """The year of somebody's photographs may be one; nothing of Headrace's is in it, and so it gets no lock."""
    for name in ("0", "2024", "007", "²", "1a"):
        (tmp_path / name).mkdir()
    (tmp_path / "2024" / "spans-of-a-bridge.db").write_text("mine")

    assert [path.name for path in slots(tmp_path)] == ["0", "2024"]
    list(recover_others(tmp_path / "0", CONFIG, no_cost, lambda: NOON + OLD, []))

    assert [path.name for path in (tmp_path / "2024").iterdir()] == ["spans-of-a-bridge.db"]


def test_a_file_that_is_moved_aside_replaces_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "spans-2026-11-23.db"
    for name in ("", "-wal"):
        path.with_name(path.name + name).write_text("damaged")
    taken = [path.with_name(f"{path.name}.corrupt{end}") for end in ("", ".1-wal")]
    taken[0].symlink_to(tmp_path / "nothing")
    taken[1].write_text("mine")

    assert move_aside(path).name == "spans-2026-11-23.db.corrupt.2"
    assert taken[0].is_symlink()
    assert taken[1].read_text() == "mine"


def test_a_line_that_cannot_be_written_spoils_no_other_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that appends to a sink's file without asking for the lock."""
    path = tmp_path / "spans.jsonl"
    path.write_text("first\n")
    write = os.write

    def fail_behind_another(descriptor: int, data: bytes) -> int:
        if data.startswith(b"ours"):
            write(descriptor, b"ou")
            with path.open("a") as other:
                other.write("another's\n")
            return 2
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail_behind_another)
    with jsonl._opened(path) as descriptor, pytest.raises(OSError, match="No space"):
        jsonl._append(descriptor, b"ours\n")
    assert "another's\n" in path.read_text()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_rows_of_headraces_files_are_found(tmp_path: Path) -> None:
    with closing(Store(tmp_path, CONFIG, no_cost)) as store:
        store.write([span("a")], NOON)
    assert [row.span.span_id for row in rows(tmp_path)] == ["a"]
