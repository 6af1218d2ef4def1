"""A spool survives its worker, has a bounded size, and a failing disk makes no run fail."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.spans.spool_format import encode_record, read_spool
from headrace_workers.spans.spool_writer import RETRY_AFTER, SEGMENT_BYTES, SpoolWriter
from headrace_workers.spans.unacknowledged_spans import SpoolPlace

MIB = 1024 * 1024


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def writer(directory: Path, limit: int = 256 * MIB) -> SpoolWriter:
    return SpoolWriter(directory, "w1", 0xABC, limit)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"), key=lambda path: int(path.stem.rpartition("-")[2]))


def spans(path: Path) -> list[bytes]:
    """Return the spans in a file without damage."""
    records = list(read_spool(path.read_bytes()))
    assert None not in records
    return [bytes(record) for record in records if record is not None]


def place(spool: SpoolWriter, number: int, span: bytes, now: float = 0.0) -> SpoolPlace:
    """End one run, and return the place of its span."""
    spool.end(number, span)
    (written,) = spool.commit(now)
    assert written.span == span
    assert written.place is not None
    return written.place


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Limit files to ``size`` bytes.

    A write that does not fit writes a part, and the next one fails, as on a full disk.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What is written.


def test_a_run_has_its_stub_in_the_spool_and_then_its_span(directory: Path) -> None:
    spool = writer(directory)
    spool.begin(1, b"stub")
    assert spool.commit(0.0) == []
    assert spans(directory / "w1-abc-1.spool") == [b"stub"]

    where = place(spool, 1, b"span")
    assert spans(directory / "w1-abc-1.spool") == [b"stub", b"span"]
    assert spool.read(where) == b"span"
    spool.close()


def test_all_of_one_turn_is_written_together_and_in_its_order(directory: Path) -> None:
    spool = writer(directory)
    for number in range(3):
        spool.begin(number, b"stub %d" % number)
    for number in range(3):
        spool.end(number, b"span %d" % number)
    assert not files(directory)

    written = spool.commit(0.0)
    assert not spool.has_uncommitted
    assert [spool.read(each.place) for each in written if each.place] == [b"span 0", b"span 1", b"span 2"]
    assert spans(*files(directory)) == [b"span 0", b"span 1", b"span 2"], "who has ended needs no stub"
    spool.close()


def test_files_are_for_their_owner_only_and_locked(directory: Path) -> None:
    spool = writer(directory)
    place(spool, 1, b"span")

    (path,) = files(directory)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert is_locked(path)
    spool.close()
    assert not is_locked(path)


def test_an_existing_file_is_not_used(directory: Path) -> None:
    directory.mkdir()
    (directory / "w1-abc-1.spool").write_bytes(encode_record(b"another's"))
    spool = writer(directory)
    place(spool, 1, b"span")

    assert spans(directory / "w1-abc-1.spool") == [b"another's"]
    assert spans(directory / "w1-abc-2.spool") == [b"span"]
    spool.close()


def test_written_spans_survive_the_death_of_the_worker(directory: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from headrace_workers.spans.spool_writer import SpoolWriter
spool = SpoolWriter(Path({str(directory)!r}), "w1", 0xabc, 1 << 20)
spool.begin(1, b"stub")
spool.end(2, b"span")
spool.commit(0.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9

    (path,) = files(directory)
    assert spans(path) == [b"stub", b"span"]
    assert not is_locked(path)


# Files that follow each other.


def test_a_full_file_is_followed_by_one_that_begins_with_the_stubs_of_open_runs(directory: Path) -> None:
    spool = writer(directory)
    for number in (1, 2):
        spool.begin(number, b"stub %d" % number)
    spool.commit(0.0)
    place(spool, 1, b"x" * SEGMENT_BYTES)
    spool.begin(3, b"stub 3")
    place(spool, 4, b"span 4")

    first, second = files(directory)
    assert spans(first)[:2] == [b"stub 1", b"stub 2"]
    assert spans(second) == [b"stub 2", b"stub 3", b"span 4"]
    spool.close()


def test_stubs_at_the_head_of_a_file_do_not_fill_it(directory: Path) -> None:
    spool = writer(directory, limit=40_000)
    for number in range(100):
        spool.begin(number, b"s" * 500)
    for number in range(100, 140):
        place(spool, number, b"span")
    assert len(files(directory)) == 1
    spool.close()


def test_files_are_removed_in_order_once_nothing_in_them_is_needed(directory: Path) -> None:
    spool = writer(directory)
    spool.begin(0, b"open")
    where = [place(spool, number, b"x" * SEGMENT_BYTES).segment for number in range(1, 4)]
    assert where == [1, 2, 3]

    spool.release({1: 0, 2: 1, 3: 0}.__getitem__)
    assert [path.name for path in files(directory)] == ["w1-abc-2.spool", "w1-abc-3.spool"]
    spool.release(lambda _: 0)
    assert [path.name for path in files(directory)] == ["w1-abc-3.spool"]
    spool.close()


def test_the_last_file_is_emptied_when_nothing_is_open_and_nothing_needed(directory: Path) -> None:
    spool = writer(directory)
    spool.begin(1, b"stub")
    spool.commit(0.0)
    spool.release(lambda _: 0)
    assert spool.size > 0, "a run is open"
    place(spool, 1, b"span")
    spool.release(lambda _: 1)
    assert spool.size > 0, "its span is needed"

    spool.release(lambda _: 0)
    (path,) = files(directory)
    assert (spool.size, path.stat().st_size) == (0, 0)
    assert spool.read(place(spool, 2, b"next")) == b"next"
    spool.close()


def test_a_spool_that_holds_nothing_leaves_nothing_behind(directory: Path) -> None:
    spool = writer(directory)
    place(spool, 1, b"span")
    spool.release(lambda _: 0)
    spool.close()
    spool.close()
    assert files(directory) == []


def test_a_foreign_file_in_the_place_of_a_spool_file_is_not_removed(directory: Path) -> None:
    spool = writer(directory)
    place(spool, 1, b"span")
    (path,) = files(directory)
    path.unlink()
    path.write_text("mine")

    spool.release(lambda _: False)
    spool.close()

    assert path.read_text() == "mine"


def test_the_oldest_file_is_over_the_limit_first(directory: Path) -> None:
    spool = writer(directory, limit=4000)
    number = 0
    while spool.over_limit() is None:
        number += 1
        place(spool, number, b"x" * 500)
    assert spool.size <= 4000 + 600

    where = spool.over_limit()
    assert where == 1
    spool.remove(where)
    assert spool.over_limit() is None
    assert spool.size == sum(path.stat().st_size for path in files(directory))
    assert spool.read(SpoolPlace(1, 0, 512)) is None
    spool.close()


# Disks that fail.


def test_a_write_that_fails_in_the_middle_leaves_whole_records_only(directory: Path) -> None:
    spool = writer(directory)
    first = place(spool, 1, b"one")
    with full_at(100):
        spool.end(2, b"x" * 200)
        (written,) = spool.commit(0.0)
    assert written.place is None
    assert spool.is_failing

    assert spans(*files(directory)) == [b"one"]
    assert spool.read(first) == b"one"
    spool.close()


def test_after_a_failure_writing_starts_again_with_the_stubs_of_open_runs(directory: Path) -> None:
    spool = writer(directory)
    with full_at(0):
        spool.begin(1, b"stub 1")
        spool.end(2, b"lost to the disk")
        assert [written.place for written in spool.commit(0.0)] == [None]
    assert files(directory) == [], "an empty file is of no use"

    spool.begin(3, b"stub 3")
    assert spool.commit(RETRY_AFTER / 2) == []
    assert spool.is_failing, "not tried at each turn"

    where = place(spool, 4, b"span 4", RETRY_AFTER)
    assert not spool.is_failing
    assert spans(*files(directory)) == [b"stub 1", b"stub 3", b"span 4"]
    assert spool.read(where) == b"span 4"
    spool.close()


def test_after_a_failure_what_was_written_before_is_still_removed_when_it_is_not_needed(directory: Path) -> None:
    spool = writer(directory)
    place(spool, 1, b"one")
    with full_at(20):
        spool.end(2, b"two")
        spool.commit(0.0)

    place(spool, 3, b"three", RETRY_AFTER)
    assert [path.name for path in files(directory)] == ["w1-abc-1.spool", "w1-abc-2.spool"]
    spool.release({1: 0, 2: 1}.__getitem__)
    assert [path.name for path in files(directory)] == ["w1-abc-2.spool"]
    spool.close()


def test_an_unusable_directory_makes_no_run_fail(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the directory should be")
    spool = writer(tmp_path / "spool")
    spool.begin(1, b"stub")
    spool.end(1, b"span")

    assert [written.place for written in spool.commit(0.0)] == [None]
    assert spool.is_failing
    spool.close()


def test_a_damaged_record_is_not_returned(directory: Path) -> None:
    spool = writer(directory)
    where = place(spool, 1, b"span")
    (path,) = files(directory)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"X")

    assert spool.read(where) is None
    assert spool.read(SpoolPlace(9, 0, 16)) is None
    spool.close()


def test_with_a_limit_of_zero_nothing_is_spooled(directory: Path) -> None:
    spool = writer(directory, limit=0)
    spool.end(1, b"span")
    assert [written.place for written in spool.commit(0.0)] == [None]
    assert not directory.exists()
    assert not spool.is_failing
