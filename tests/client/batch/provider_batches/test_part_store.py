"""Batches at a provider are found in the journal of a job that was killed, and a damaged journal is no reason for a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from headrace import InvalidRequestError, JournalError
from headrace.batch.journal.job_files import JOURNAL, job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.provider_batches.batch_status import live_batches, refuse_change
from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.part_commands import Save
from headrace.batch.provider_batches.part_store import PartStore
from headrace.wire.batch_messages import BatchGroup, RowsFile

PART = Part(
    number=1,
    token="t",
    group=BatchGroup("openai", "openai", "openai-chat"),
    rows=RowsFile("rows", 3),
    ranges=[(1, 3)],
    size=1,
    state="running",
    batch_id="batch_1",
)


def test_the_batches_of_a_killed_job_are_known(tmp_path: Path) -> None:
    killed = tmp_path / "killed.job"
    killed.mkdir(mode=0o700)
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        PartStore(journal).change([Save(PART)])
        for end in ("", "-wal"):  # what a kill leaves, after the machine was started again
            shutil.copy(journal.files.directory / f"{JOURNAL}{end}", killed)
    assert [batch.batch_id for batch in live_batches(killed)] == ["batch_1"]
    with pytest.raises(InvalidRequestError, match="3 rows of this job are with the provider"):
        refuse_change(killed, "force")


def test_a_damaged_journal_may_be_replaced(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl")
    Journal.open(files).close()
    (files.directory / JOURNAL).write_bytes(b"no journal" * 1000)
    refuse_change(files.directory, "force")
    Journal.open(files, force=True).close()
    assert live_batches(files.directory) == []


def test_batches_that_another_version_has_written_are_an_error_with_a_next_step(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl")
    with Journal.open(files) as journal:
        store = PartStore(journal)
        with journal.transaction() as connection:
            connection.execute("INSERT INTO provider_parts VALUES (1, ?)", (msgspec.msgpack.encode({"other": 1}),))
        with pytest.raises(JournalError, match="another version of Headrace"):
            store.load()
    with pytest.raises(JournalError, match=rf"{JOURNAL}.*another version of Headrace"):
        live_batches(files.directory)
