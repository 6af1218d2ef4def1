"""Outputs that are written as a whole (ordered, compressed), and streams."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
import zstandard

from headrace.batch.journal.job_files import job_files, stream_files
from headrace.batch.journal.journal import Journal
from headrace.batch.journal.stream_output import StreamOutput
from headrace.errors import RecordWriteError
from tests.client.batch.journal.jobs import bad_row_line, done, failed, ids, rows


def names(content: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in content.splitlines()]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_the_output_is_written_from_the_records(tmp_path: Path, suffix: str, is_ordered: bool) -> None:
    files = job_files(tmp_path / f"out.{suffix}", is_ordered=is_ordered)
    with Journal.open(files) as journal:
        journal.scan(rows(5), bad_row_line)
        journal.record([done(4), failed(3), done(1)])
        journal.finish()
    with Journal.open(files) as journal:
        journal.scan(rows(5), bad_row_line)
        journal.record([done(5), done(2)])
        journal.finish()

    content = (tmp_path / f"out.{suffix}").read_bytes()
    if suffix.endswith("gz"):
        content = gzip.decompress(content)
    elif suffix.endswith("zst"):
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    assert names(content) == (["r1", "r2", "r4", "r5"] if is_ordered else ["r4", "r1", "r5", "r2"])
    assert ids(tmp_path / "out.errors.jsonl") == ["r3"]
    assert not list(tmp_path.glob(".*"))


def test_an_output_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl", is_ordered=True)
    with Journal.open(files) as journal:
        journal.scan(rows(2), bad_row_line)
        journal.record([done(2)])
        journal.finish()
        (tmp_path / ".out.jsonl.new").mkdir()
        journal.record([done(1)])
        with pytest.raises(RecordWriteError):
            journal.finish()
        assert ids(tmp_path / "out.jsonl") == ["r2"]
        (tmp_path / ".out.jsonl.new").rmdir()
        journal.finish()
    assert ids(tmp_path / "out.jsonl") == ["r1", "r2"]


def test_a_stream_gets_each_record_as_it_is_written(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with Journal.open(stream_files(tmp_path / "job")) as journal:
        journal.scan(rows(4), bad_row_line)
        stream = StreamOutput(journal, sink)
        stream.advance()
        assert sink.getvalue() == b""
        journal.record([done(3), failed(2)])
        stream.advance()
        assert names(sink.getvalue()) == ["r3"]
        journal.record([done(1)])
        stream.advance()
        stream.finish()
    assert names(sink.getvalue()) == ["r3", "r1"]


def test_an_ordered_stream_waits_for_the_rows_before(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with Journal.open(stream_files(tmp_path / "job", is_ordered=True)) as journal:
        journal.scan(rows(6), bad_row_line)
        stream = StreamOutput(journal, sink)
        seen = []
        for record in (done(3), failed(2), done(1), done(6), done(4)):
            journal.record([record])
            stream.advance()
            seen.append(names(sink.getvalue()))
        stream.finish()
    assert seen == [[], [], ["r1", "r3"], ["r1", "r3"], ["r1", "r3", "r4"]]
    assert names(sink.getvalue()) == ["r1", "r3", "r4", "r6"]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_stream_of_a_later_start_has_the_earlier_records_too(tmp_path: Path, is_ordered: bool) -> None:
    files = stream_files(tmp_path / "job", is_ordered=is_ordered)
    with Journal.open(files) as journal:
        journal.scan(rows(3), bad_row_line)
        journal.record([done(2)])
    sink = io.BytesIO()
    with Journal.open(files) as journal:
        journal.scan(rows(3), bad_row_line)
        stream = StreamOutput(journal, sink)
        journal.record([done(1)])
        stream.finish()
    assert sorted(names(sink.getvalue())) == ["r1", "r2"]
