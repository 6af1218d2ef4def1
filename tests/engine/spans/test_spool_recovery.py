"""What recovery promises: spools of ended processes are stored, spools of living processes are left alone; and who has a slot."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import database_files
from headrace.spans.span import Rank, Span, encode_span
from headrace.spans.spool_format import encode_record
from headrace.types import Usage
from headrace_engine.spans.recovery.slots import SlotError, take_slot, try_slot
from headrace_engine.spans.recovery.spool_recovery import RecoveryCounts, recover, recover_others
from headrace_engine.spans.storage.store import Store
from tests.engine.spans.test_span_store import DAY, NOON, kept, no_cost, span


def spool(slot: Path, name: str, *spans: Span, tail: bytes = b"") -> Path:
    (slot / "spool").mkdir(parents=True, exist_ok=True)
    path = slot / "spool" / f"{name}.spool"
    path.write_bytes(b"".join(encode_record(encode_span(one)) for one in spans) + tail)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def recovered(slot: Path, now: float = NOON) -> RecoveryCounts:
    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        return total(recover(slot, store, lambda: now))


def total(steps: Iterator[RecoveryCounts]) -> RecoveryCounts:
    found = list(steps)
    return RecoveryCounts(
        sum(step.spans for step in found),
        sum(step.new for step in found),
        sum(step.torn for step in found),
        sum(step.unreadable for step in found),
        sum(step.unstorable for step in found),
    )


def test_the_spools_of_ended_processes_are_stored_and_removed(tmp_path: Path) -> None:
    paths = [
        spool(tmp_path, "w1-a-1", span("a", Rank.STUB), span("b", Rank.STUB), span("a", status="ok")),
        spool(tmp_path, "w1-a-2", span("b", Rank.STUB), *[span(f"sp_{number}") for number in range(600)]),
    ]

    assert recovered(tmp_path) == RecoveryCounts(spans=604, new=602)
    assert [path.exists() for path in paths] == [False, False]
    assert {name: row.rank for name, row in kept(tmp_path).items() if len(name) == 1} == {"a": 2, "b": 0}


def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    path = spool(tmp_path, "w1-a-1", span("a"))
    with locked(path):
        assert recovered(tmp_path) == RecoveryCounts()

    assert recovered(tmp_path) == RecoveryCounts(spans=1, new=1)


def test_an_empty_spool_is_left_until_its_writer_must_have_locked_it(tmp_path: Path) -> None:
    path = spool(tmp_path, "w1-a-1")

    recovered(tmp_path, time.time())
    assert path.exists()
    recovered(tmp_path, time.time() + 60)
    assert not path.exists()


@pytest.mark.parametrize("tail", [b"HRS1", encode_record(b"x" * 100)[:-1], b"\0" * 5000])
def test_a_torn_end_is_counted_and_costs_nothing_before_it(tmp_path: Path, tail: bytes) -> None:
    spool(tmp_path, "w1-a-1", span("a"), span("b"), tail=tail)

    assert recovered(tmp_path) == RecoveryCounts(spans=2, new=2, torn=1)
    assert set(kept(tmp_path)) == {"a", "b"}


def test_a_flipped_byte_loses_its_own_span_and_no_other(tmp_path: Path) -> None:
    path = spool(tmp_path, "w1-a-1", span("a"), span("b"), span("c"))
    spool(tmp_path, "w1-a-2", span("d"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert recovered(tmp_path) == RecoveryCounts(spans=3, new=3, torn=1)
    assert set(kept(tmp_path)) == {"a", "c", "d"}


def test_a_record_that_is_not_a_span_is_counted(tmp_path: Path) -> None:
    spool(tmp_path, "w1-a-1", span("a"), tail=encode_record(b"no span") + encode_record(encode_span(span("b"))))

    assert recovered(tmp_path) == RecoveryCounts(spans=2, new=2, unreadable=1)


def test_a_record_with_absurd_values_is_stored_as_far_as_it_can_be_and_stops_none_behind_it(tmp_path: Path) -> None:
    usage, start = Usage(2**64 - 1, 2**64 - 1, source="provider"), float("nan")
    absurd = msgspec.structs.replace(span("b"), usage=usage, started_at=start, ended_at=1e300, duration_seconds=-1.0)
    encoded = msgspec.msgpack.encode(absurd)  # by a worker that bounds nothing
    torn = encode_record(encoded)[:-5]
    spool(tmp_path, "w1-a-1", span("a"), tail=encode_record(encoded) + torn + encode_record(encode_span(span("c"))))

    assert recovered(tmp_path) == RecoveryCounts(spans=3, new=3, torn=1)
    assert set(kept(tmp_path)) == {"a", "b", "c"}
    assert kept(tmp_path)["b"].usage.input_tokens == 2**63 - 1
    assert (kept(tmp_path)["b"].started_at, kept(tmp_path)["b"].duration_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(
    "damage", ["error = CAST(x'ff' AS TEXT)", "model = x'ff'", "started_at = 'never'", "tags = '['"]
)
def test_a_damaged_row_is_replaced_by_a_better_record(damage: str, tmp_path: Path) -> None:
    with closing(Store(tmp_path, SpansConfig(), no_cost)) as store:
        store.write([span("a", Rank.STUB), span("b", Rank.STUB)], NOON)
    (path,) = database_files(tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE spans SET {damage} WHERE span_id = 'a'")
    spool(tmp_path, "w1-a-1", span("a"), span("b"), span("c"))

    assert recovered(tmp_path) == RecoveryCounts(spans=3, new=1)
    assert {name: one.rank for name, one in kept(tmp_path).items()} == dict.fromkeys("abc", Rank.WORKER)


def test_a_recovered_span_that_is_stored_already_is_not_stored_twice(tmp_path: Path) -> None:
    with closing(Store(tmp_path, SpansConfig(), no_cost)) as store:
        store.write([span("a")], NOON)
    spool(tmp_path, "w1-a-1", span("a", Rank.STUB), span("a"), span("b"))

    assert recovered(tmp_path, NOON + DAY) == RecoveryCounts(spans=3, new=1)
    assert set(kept(tmp_path)) == {"a", "b"}


def test_each_slot_without_an_engine_is_recovered_into_its_own_store(tmp_path: Path) -> None:
    for number in range(3):
        spool(tmp_path / str(number), "w1-a-1", span(f"sp_{number}"))
    taken = try_slot(tmp_path / "1")
    assert taken is not None

    with taken:
        assert total(recover_others(tmp_path / "0", SpansConfig(), no_cost, lambda: NOON)) == RecoveryCounts(1, 1)

    assert [list(kept(tmp_path / str(number))) for number in range(3)] == [[], [], ["sp_2"]]
    assert try_slot(tmp_path / "2") is not None


def test_old_files_are_removed_in_slots_without_an_engine_too(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "1", SpansConfig(), no_cost)) as store:
        store.write([span("a")], NOON)
        store.write([span("b")], NOON + DAY)

    list(recover_others(tmp_path / "0", SpansConfig(), no_cost, lambda: NOON + 40 * DAY, []))

    assert list(kept(tmp_path / "1")) == []


# Slots.


def test_engines_have_the_lowest_free_slots(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "headrace"
    first, second = take_slot(directory), take_slot(directory)
    assert [first.path.name, second.path.name] == ["0", "1"]

    first.close()
    assert take_slot(directory).path.name == "0"
    assert take_slot(directory).path.name == "2"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (directory, first.path)} == {0o700}


def test_a_slot_is_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from headrace_engine.spans.recovery.slots import take_slot\n"
        "slot = take_slot(Path(sys.argv[1])); print(slot.path.name, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "0"
        assert try_slot(tmp_path / "0") is None
        holder.kill()

    assert try_slot(tmp_path / "0") is not None


def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    with pytest.raises(SlotError, match="700"):
        take_slot(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SlotError, match=r"file/data cannot be used: Not a directory"):
        take_slot(tmp_path / "file" / "data")
    assert os.listdir(tmp_path) == ["file"]
