"""The file of what was spent: it survives, several engines add to it, and a broken one stops nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue

import pytest

from headrace.pricing.prices import Price, PriceTable
from headrace.settings.limit_settings import SpendingConfig
from headrace.settings.settings import Settings, SpansConfig
from headrace.wire.messages import Acquire, Release, TokenCounts
from headrace_engine.broker import spending_thread
from headrace_engine.broker.spending_store import FILE, KEPT_DAYS, SpendingStore
from headrace_engine.broker.spending_thread import SpendingThread, open_spending
from headrace_engine.limits.spending import BILLIONTHS, Amounts, Day, Spender, SpendingLimits

TODAY = "2025-11-29"
NOON = 1_764_417_600.0
DAILY = (TODAY, "daily", "")


def test_amounts_are_added_and_are_there_after_a_restart(tmp_path: Path) -> None:
    store = SpendingStore(tmp_path / "data")
    assert store.exchange({}, TODAY) == {}
    assert store.exchange({DAILY: 5, (TODAY, "users", "ab12"): 7}, TODAY) == {("daily", ""): 5, ("users", "ab12"): 7}
    store.close()

    other = SpendingStore(tmp_path / "data")
    assert other.exchange({DAILY: 1, ("2025-11-28", "daily", ""): 9}, TODAY)["daily", ""] == 6
    assert other.exchange({}, "2025-11-28") == {("daily", ""): 9}


def test_the_files_are_the_users_alone(tmp_path: Path) -> None:
    store = SpendingStore(tmp_path / "data")
    store.exchange({DAILY: 1}, TODAY)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes == dict.fromkeys([FILE, f"{FILE}-wal", f"{FILE}-shm"], 0o600)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_several_engines_add_at_once_and_see_each_others_amounts(tmp_path: Path) -> None:
    rounds, engines = 50, 4

    def add() -> None:
        store = SpendingStore(tmp_path)
        for _ in range(rounds):
            store.exchange({DAILY: 1}, TODAY)
        store.close()

    threads = [threading.Thread(target=add) for _ in range(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert SpendingStore(tmp_path).exchange({}, TODAY) == {("daily", ""): rounds * engines}


def test_old_days_are_removed(tmp_path: Path) -> None:
    store = SpendingStore(tmp_path)
    old = ("2025-01-01", "daily", "")
    store.exchange({old: 5}, "2025-01-01")
    store.exchange({}, TODAY)

    assert KEPT_DAYS < 300
    assert store.exchange({}, "2025-01-01") == {}


def test_a_file_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    store = SpendingStore(tmp_path)
    store.exchange({DAILY: 5}, TODAY)
    for path in tmp_path.iterdir():
        path.unlink()

    assert store.exchange({DAILY: 2}, TODAY) == {("daily", ""): 2}
    assert (tmp_path / FILE).exists()


def _link(path: Path) -> None:
    path.with_name("elsewhere").touch()
    path.symlink_to(path.with_name("elsewhere"))


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


BROKEN: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database" * 100),
    "a directory": lambda path: path.mkdir(),
    "a link": _link,
    "of a later version": _newer,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_used_is_an_error_and_is_not_changed(kind: str, tmp_path: Path) -> None:
    BROKEN[kind](tmp_path / FILE)
    before = (tmp_path / FILE).lstat().st_size
    for _ in range(2):
        with pytest.raises((sqlite3.Error, OSError)):
            SpendingStore(tmp_path).exchange({DAILY: 1}, TODAY)
    assert (tmp_path / FILE).lstat().st_size == before


# The thread.


class FullDisk:
    """A store whose disk is full until the test frees it."""

    def __init__(self) -> None:
        self.is_full = True
        self.amounts: dict[tuple[Day, str, str], int] = {}
        self.failed = threading.Event()

    def exchange(self, amounts: Amounts, day: Day) -> Mapping[Spender, int]:
        if self.is_full:
            self.failed.set()
            raise sqlite3.OperationalError("database or disk is full")
        for key, amount in amounts.items():
            self.amounts[key] = self.amounts.get(key, 0) + amount
        return {(label, user): amount for (of, label, user), amount in self.amounts.items() if of == day}

    def close(self) -> None:
        pass


def limits_of() -> SpendingLimits:
    prices = PriceTable({"mine/large": Price(input=1.0)})
    return SpendingLimits({"daily": SpendingConfig(max_cost=5.0)}, prices, lambda now: NOON + now, lambda *_: None)


def spend(limits: SpendingLimits, dollars: int) -> None:
    charge = limits.granted(Acquire("sp_0000000000000001", 1, "mine", "large"), 0.0)
    tokens = TokenCounts(dollars * 1_000_000, 0, 0, "provider")
    limits.ended(charge, Release("sp_0000000000000001", 1, "finished", tokens), 0.0)


def spent(thread: SpendingThread) -> float:
    [status] = thread.limits.status(0.0)
    return status.spent


def test_a_full_disk_is_warned_of_once_and_what_is_spent_counts_and_is_stored_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending_thread, "REFRESH", 0.01)
    disk, loop = FullDisk(), SimpleQueue[Callable[[], None]]()
    thread = SpendingThread(limits_of(), disk, lambda: NOON)
    thread.start(loop.put)
    spend(thread.limits, 2)
    for _ in range(3):
        thread.turn_ended()
        loop.get(timeout=10)()
        assert spent(thread) == 2.0
    disk.is_full = False
    while not disk.amounts:
        thread.turn_ended()
        loop.get(timeout=10)()
    thread.end()

    assert disk.amounts == {DAILY: 2 * BILLIONTHS}
    assert spent(thread) == 2.0
    assert [record.getMessage() for record in caplog.records] == [
        "amounts spent cannot be stored",
        "amounts spent are stored again",
    ]


def test_an_engine_learns_what_another_one_has_spent_and_keeps_its_last_amounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending_thread, "REFRESH", 0.01)
    loops = [SimpleQueue[Callable[[], None]]() for _ in range(2)]
    one, other = (SpendingThread(limits_of(), SpendingStore(tmp_path), lambda: NOON) for _ in range(2))
    one.start(loops[0].put)
    other.start(loops[1].put)
    spend(one.limits, 3)
    one.turn_ended()
    while spent(other) != 3.0:
        loops[1].get(timeout=10)()
    spend(other.limits, 1)
    other.end()
    one.end()

    last = SpendingThread(limits_of(), SpendingStore(tmp_path), lambda: NOON)
    last.start(lambda _action: None)
    assert spent(last) == 4.0
    last.end()


def test_without_a_table_there_is_nothing_to_keep_and_without_a_home_it_is_kept_in_memory(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert open_spending(Settings(), {}) is None
    table = {"daily": SpendingConfig(max_cost=5.0)}
    missing = open_spending(Settings(spending=table, spans=SpansConfig(directory="~nobody-x/data")), {})
    assert missing is not None
    missing.start(lambda _action: None)
    missing.end()
    assert [record.getMessage() for record in caplog.records] == ["amounts spent cannot be stored"]
    found = open_spending(Settings(spending=table), {"HEADRACE_DATA": str(tmp_path)})
    assert found is not None
    found.start(lambda _action: None)
    found.end()
    assert os.listdir(tmp_path) == [FILE]
