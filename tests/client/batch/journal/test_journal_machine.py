"""Any order of starts, records, kills, full disks and changed inputs leaves one record for each recorded row, and no other."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.batch.journal.journal import Journal
from headrace.batch.row import BadRow, Row
from headrace.errors import ChangedInputError, RecordWriteError
from tests.client.batch.journal.jobs import check_whole, done, failed, opened
from tests.repetition import repeated

_NAMES = [f"r{number}" for number in range(1, 10)]
_PROMPTS = st.sampled_from(["a", "b"])
_INPUTS = st.lists(
    st.tuples(st.sampled_from(_NAMES), _PROMPTS, st.booleans()), unique_by=lambda one: one[0], max_size=9
)


def _row(number: int, name: str, prompt: str, is_bad: bool) -> Row | BadRow:
    if is_bad:
        return BadRow(number, name, f"the prompt {prompt} is no JSON")
    return Row(number, name, "chat", "openai", {}, prompt.encode() * 16)


class JournalMachine(RuleBasedStateMachine):
    """``recorded``: id → whether the record is a failure, as a program knows it from the calls that have returned."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.place = Path(tempfile.mkdtemp(prefix="headrace-machine-", dir=memory if memory.is_dir() else None))
        self.folder = self.place / "0"
        self.folder.mkdir()
        self.starts = 0
        self.given: list[Row | BadRow] = []
        self.known: list[Row | BadRow] = []
        self.recorded: dict[str, bool] = {}
        self.journal: Journal | None = None

    @initialize(rows=_INPUTS)
    def first_input(self, rows: list[tuple[str, str, bool]]) -> None:
        self.input(rows)
        self.start()

    @precondition(lambda self: self.journal is None)
    @rule(rows=_INPUTS)
    def input(self, rows: list[tuple[str, str, bool]]) -> None:
        self.given = [_row(number, *facts) for number, facts in enumerate(rows, 1)]

    @precondition(lambda self: self.journal is None)
    @rule(changed=st.booleans(), retry_failed=st.booleans(), force=st.sampled_from([False, False, False, True]))
    def start(self, changed: bool = True, retry_failed: bool = False, force: bool = False) -> None:
        differs = {row.id: _shape(row) for row in self.given} != {row.id: _shape(row) for row in self.known}
        if differs and self.known and not changed and not force:
            with pytest.raises(ChangedInputError):
                opened(self.folder, self.given, retry_failed=retry_failed)
            return
        self.journal = opened(self.folder, self.given, changed=changed, retry_failed=retry_failed, force=force)
        before = {row.id: _shape(row) for row in self.known}
        kept = {row.id for row in self.given if before.get(row.id) == _shape(row)}
        self.recorded = {
            name: is_failure
            for name, is_failure in self.recorded.items()
            if name in kept and not force and not (retry_failed and is_failure)
        }
        self.known = self.given
        self.recorded |= {row.id: True for row in self.given if isinstance(row, BadRow)}

    @precondition(lambda self: self.journal is not None)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        assert self.journal is not None
        group = self._drawn(data)
        self.journal.record(
            [failed(row.number, name=row.id) if bad else done(row.number, name=row.id) for row, bad in group]
        )
        self.recorded |= {row.id: bad for row, bad in group}

    @precondition(lambda self: self.journal is not None)
    @rule(data=st.data(), call=st.sampled_from(["pwrite", "fdatasync"]), at=st.integers(1, 3))
    def record_on_a_full_disk(self, data: st.DataObject, call: str, at: int) -> None:
        assert self.journal is not None
        group = self._drawn(data)
        records = [failed(row.number, name=row.id) if bad else done(row.number, name=row.id) for row, bad in group]
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(RecordWriteError):
            _fail(call, at, patch)
            self.journal.record(records)
            self.recorded |= {row.id: bad for row, bad in group}

    @precondition(lambda self: self.journal is not None)
    @rule(data=st.data(), share=st.floats(0, 1))
    def kill_while_a_group_is_written(self, data: st.DataObject, share: float) -> None:
        """The files have a part of the group, and the journal knows nothing of it."""
        group = self._drawn(data)
        self._kill()
        for name, is_failure in (("out.jsonl", False), ("out.errors.jsonl", True)):
            part = [(row, bad) for row, bad in group if bad == is_failure]
            lines = [(failed if bad else done)(row.number, name=row.id).line for row, bad in part]
            written = b"".join(lines)[: int(share * sum(map(len, lines)))]
            with (self.folder / name).open("ab") as file:
                file.write(written)
            for (row, bad), line in zip(part, lines, strict=True):
                if len(written) < len(line) - 1:
                    break
                self.recorded[row.id] = bad
                written = written[len(line) :]
        self.start()

    @precondition(lambda self: self.journal is not None)
    @rule()
    def kill(self) -> None:
        self._kill()
        self.start()

    @precondition(lambda self: self.journal is not None)
    @rule()
    def stop(self) -> None:
        assert self.journal is not None
        self.journal.close()
        self.journal = None

    @invariant()
    def the_files_have_the_recorded_rows(self) -> None:
        if self.journal is not None:
            assert check_whole(self.journal.files, self.journal) == {*self.recorded}
            failures = {each.id: each.is_failure for each in self.journal.stored()}
            assert failures == self.recorded
            assert {*self.journal.waiting_numbers()} == {
                row.number for row in self.known if row.id not in self.recorded
            }

    def teardown(self) -> None:
        if self.journal is not None:
            self.journal.close()
        shutil.rmtree(self.place)

    def _drawn(self, data: st.DataObject) -> list[tuple[Row | BadRow, bool]]:
        waiting = [row for row in self.known if row.id not in self.recorded]
        if not waiting:
            return []
        rows = data.draw(st.lists(st.sampled_from(waiting), unique_by=lambda row: row.id, max_size=4))
        return [(row, data.draw(st.booleans())) for row in rows]

    def _kill(self) -> None:
        """Go on with a copy of the files as they are now: a kill would leave them so."""
        assert self.journal is not None
        self.starts += 1
        copy = self.place / str(self.starts)
        shutil.copytree(self.folder, copy, ignore=lambda _, names: [name for name in names if name.endswith("-shm")])
        self.journal.close()
        self.journal = None
        self.folder = copy


def _shape(row: Row | BadRow) -> object:
    return row.problem if isinstance(row, BadRow) else row.hash


def _fail(name: str, at: int, patch: pytest.MonkeyPatch) -> None:
    real = getattr(os, name)
    calls = 0

    def call(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    patch.setattr(os, name, call)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=repeated(25, 250),
    stateful_step_count=repeated(20, 50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
