"""Input files are read as rows: each format, plain and compressed, whole, torn and hostile."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from headrace.batch.row import BadRow, Row
from headrace.batch.rows import input_file
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_source import RowSource, copy_input
from headrace.errors import BatchInputError, InvalidRequestError
from tests.cases import each

MODEL = RowOptions(model="gpt-4o")
PROMPT = RowOptions(model="gpt-4o", prompt="{text}")


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def rows_of(path: Path, options: RowOptions = MODEL) -> list[Row | BadRow]:
    return list(RowSource(path, options))


def told(rows: list[Row | BadRow]) -> list[tuple[int, str, Any]]:
    """Return number, id and prompt of each row; None for the prompt of a bad one."""
    return [(row.number, row.id, row.arguments["messages"] if isinstance(row, Row) else None) for row in rows]


def lines(count: int) -> bytes:
    return b"".join(msgspec.json.encode({"id": f"r{number}", "prompt": "x"}) + b"\n" for number in range(count))


# Lines.


def test_lines_are_rows_with_their_numbers_and_blank_lines_are_none(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"prompt": "a"}\r\n\n \t\n{"prompt"\n{"id": 7, "prompt": "b"}'

    assert told(rows_of(written(tmp_path, "in.jsonl", data))) == [
        (1, "row-1", "a"),
        (4, "line-4", None),
        (5, "7", "b"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt": x}', "the line is not JSON, near byte 11"),
        (b'{"prompt": "x"', "the line is not whole, its JSON has no end"),
        (b'["x"]', "the line is JSON, but no object"),
        ('{"prompt": "ä'.encode() + b'\xff"}', "the line is not UTF-8 text at byte 15"),
        (b'{"prompt": ' + b"[" * 5000, "the line is nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_bad_row_with_a_whole_sentence(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    (row,) = rows_of(written(tmp_path, "in.jsonl", line))

    assert isinstance(row, BadRow)
    assert row.problem == f"{problem}: correct it, or remove it"


def test_lines_of_text_are_prompts(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfone\r\n\ntwo {x}\n\xff\n three "

    assert told(rows_of(written(tmp_path, "in.txt", data))) == [
        (1, "row-1", "one"),
        (3, "row-3", "two {x}"),
        (4, "line-4", None),
        (5, "row-5", " three "),
    ]


def test_a_line_that_is_too_large_is_a_bad_row_and_is_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "MAX_LINE", 1000)
    large = b'{"prompt": "' + b"x" * 10_000_000 + b'"}\n'
    path = written(tmp_path, "in.jsonl", b'{"prompt": "a"}\n' + large + b'{"prompt": "b"}\n' + large[:5000])
    del large
    tracemalloc.start()
    try:
        rows = rows_of(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()

    assert told(rows) == [(1, "row-1", "a"), (2, "line-2", None), (3, "row-3", "b"), (4, "line-4", None)]


def test_only_asked_rows_are_read_where_numbers_are_given(tmp_path: Path) -> None:
    for name in ("in.jsonl", "in.txt"):
        source = RowSource(written(tmp_path, name, lines(10)), MODEL)

        assert [row.number for row in source.numbered([2, 3, 10])] == [2, 3, 10]
        assert list(source.numbered([])) == []
        assert [row.number for row in source.numbered(iter([1, 11]))] == [1]


@given(st.lists(st.sampled_from([b'{"prompt": "a"}', b"{", b"", b"\xff", b'{"id": "x", "input": "b"}', b"[]"])))
@settings(max_examples=30)
def test_the_rows_with_numbers_are_those_of_the_whole_file(parts: list[bytes]) -> None:
    path = Path(tempfile.gettempdir()) / f"numbered-{os.getpid()}.jsonl"
    try:
        path.write_bytes(b"\n".join(parts))
        source = RowSource(path, MODEL)
        rows = list(source)

        assert list(source.numbered(row.number for row in rows)) == rows
        assert list(source.numbered(row.number for row in rows[1:])) == rows[1:]
    finally:
        path.unlink()


# Compression.


@each(
    "pack",
    [gzip.compress, zstandard.compress, lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:])],
)
def test_a_compressed_file_has_the_same_rows(tmp_path: Path, pack: Any) -> None:
    data = lines(3000)
    plain = rows_of(written(tmp_path, "in.jsonl", data))

    assert rows_of(written(tmp_path, "in.jsonl.gz", pack(data))) == plain
    assert rows_of(written(tmp_path, "piped", pack(data))) == plain
    assert len(plain) == 3000


@each(("name", "pack"), [("in.txt.gz", gzip.compress), ("in.txt.zst", zstandard.compress)])
def test_the_format_is_told_by_the_suffix_below_the_compression(tmp_path: Path, name: str, pack: Any) -> None:
    assert told(rows_of(written(tmp_path, name, pack(b"one")))) == [(1, "row-1", "one")]


@each("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_a_compressed_file_that_was_cut_or_damaged_is_an_error(tmp_path: Path, pack: Any) -> None:
    packed = pack(os.urandom(4000).hex().encode() + b"\n" + lines(500))
    for broken in (packed[:-5], packed[: len(packed) // 2], packed[:900] + bytes(20) + packed[920:]):
        path = written(tmp_path, "in.jsonl.packed", broken)
        with pytest.raises(BatchInputError, match=r"in\.jsonl\.packed: (ends in the middle|is damaged)"):
            rows_of(path)


def test_a_small_file_that_becomes_huge_is_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "MAX_LINE", 4_000_000)
    path = written(tmp_path, "in.jsonl.zst", zstandard.compress(bytes(60_000_000)))
    tracemalloc.start()
    try:
        rows = rows_of(path)
        assert tracemalloc.get_traced_memory()[1] < 45_000_000
    finally:
        tracemalloc.stop()

    assert [row.id for row in rows] == ["line-1"]


# Tables.


def test_records_of_csv_fill_the_template(tmp_path: Path) -> None:
    data = '\ufeffid,text,n\n1,"a\nb, ""c""",x\n\n,é,y\n3,d\n4,"e"f,z\n5,g,z\n'
    rows = rows_of(written(tmp_path, "in.csv", data), PROMPT)

    assert told(rows) == [
        (1, "1", 'a\nb, "c"'),
        (2, "row-2", "é"),
        (3, "line-3", None),
        (4, "line-4", None),
        (5, "5", "g"),
    ]
    assert [row.problem for row in rows if isinstance(row, BadRow)] == [
        "the record at line 6 has 2 fields, and the header has 3: correct it, or remove it",
        "the record at line 7 is not valid CSV (',' expected after '\"'): correct it, or remove it",
    ]


def test_a_field_of_csv_may_be_a_long_document(tmp_path: Path) -> None:
    (row,) = rows_of(written(tmp_path, "in.csv", "text\n" + "x" * 300_000 + "\n"), PROMPT)

    assert isinstance(row, Row)
    assert len(row.arguments["messages"]) == 300_000


def test_columns_of_tsv_are_separated_by_tabs(tmp_path: Path) -> None:
    assert told(rows_of(written(tmp_path, "in.tsv", "id\ttext\n7\ta, b\n"), PROMPT)) == [(1, "7", "a, b")]


def test_text_that_is_not_utf_8_is_a_bad_row_of_a_table(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path, "in.csv", b"id,text\n1,\xe9\n2,b\n"), PROMPT)

    assert told(rows) == [(1, "1", None), (2, "2", "b")]


def test_only_asked_records_are_yielded_where_numbers_are_given(tmp_path: Path) -> None:
    source = RowSource(written(tmp_path, "in.csv", "id,text\n" + "".join(f"r{n},x\n" for n in range(9))), PROMPT)

    assert [row.id for row in source.numbered([1, 4, 9])] == ["r0", "r3", "r8"]


@each(
    ("data", "words"),
    [
        ('id,text\n1,"open\n2,b\n', "line 2: a quote in this record is never closed"),
        ("", "is empty"),
        ("a,b,a\n", "two columns named 'a'"),
    ],
)
def test_a_broken_table_is_an_error(tmp_path: Path, data: str, words: str) -> None:
    with pytest.raises(BatchInputError, match=words):
        rows_of(written(tmp_path, "in.csv", data), PROMPT)


@each(
    ("options", "words"),
    [
        (MODEL, "a table needs a template of its prompts, such as '{id}'"),
        (
            RowOptions(model="gpt-4o", prompt="{txt}"),
            "names the column 'txt', which is not there; there are: 'id', 'text'",
        ),
        (RowOptions(model="gpt-4o", embed="txt"), "names the column 'txt'"),
    ],
)
def test_a_template_that_does_not_fit_the_columns_is_an_error(tmp_path: Path, options: RowOptions, words: str) -> None:
    table = pyarrow.table({"id": ["a"], "text": ["x"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    for path in (written(tmp_path, "in.csv", "id,text\n1,x\n"), tmp_path / "in.parquet"):
        with pytest.raises(InvalidRequestError) as caught:
            rows_of(path, options)
        assert words in str(caught.value)


def test_records_of_parquet_fill_the_template(tmp_path: Path) -> None:
    count = 600
    table = pyarrow.table(
        {
            "id": list(range(count)),
            "text": [None if n == 1 else f"t{n}" for n in range(count)],
            "day": [datetime.date(2026, 11, 29)] * count,
            "unused": [b"x" * 100] * count,
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    options = RowOptions(model="gpt-4o", prompt="{text} {day}")
    source = RowSource(tmp_path / "in.parquet", options)
    rows = list(source)

    assert told(rows)[:3] == [(1, "0", "t0 2026-11-29"), (2, "1", None), (3, "2", "t2 2026-11-29")]
    assert len(rows) == count
    assert list(source.numbered([1, 3, 300, 600])) == [rows[0], rows[2], rows[299], rows[599]]


def test_a_broken_or_compressed_parquet_file_is_an_error(tmp_path: Path) -> None:
    for data, words in ((b"PAR1 torn", "pyarrow can read"), (gzip.compress(b"PAR1"), "compressed Parquet")):
        with pytest.raises(BatchInputError, match=words):
            rows_of(written(tmp_path, "in.parquet", data), PROMPT)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
@settings(max_examples=40)
def test_each_field_that_csv_was_given_is_in_a_prompt(records: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("text", "other"), *records])
    path = Path(tempfile.gettempdir()) / f"drawn-{os.getpid()}.csv"
    try:
        path.write_bytes(stream.getvalue().encode())
        prompts = [row.arguments["messages"] for row in rows_of(path, PROMPT) if isinstance(row, Row)]
    finally:
        path.unlink()

    assert prompts == [text for text, _ in records]


# The file.


def test_the_format_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, "in.jsonl", "text\nx\n")
    options = RowOptions(model="gpt-4o", prompt="{text}", input_format="csv")

    assert told(rows_of(path, options)) == [(1, "row-1", "x")]


def test_a_file_that_changed_between_two_readings_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "in.jsonl", lines(3))
    source = RowSource(path, MODEL)
    assert len(list(source)) == 3
    assert len(list(source)) == 3

    path.write_bytes(lines(4))
    with pytest.raises(BatchInputError, match="changed while the job read it"):
        list(source)


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "in.jsonl", lines(3))
    reading = iter(RowSource(path, MODEL))
    next(reading)
    with path.open("ab") as file:
        file.write(b"\n")

    with pytest.raises(BatchInputError, match="changed while the job read it"):
        list(reading)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        rows_of(tmp_path / "missing.jsonl")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BatchInputError, match="not a regular file"):
            rows_of(path)


def test_a_stream_is_copied_whole_to_a_private_file(tmp_path: Path) -> None:
    target = tmp_path / "input"

    assert copy_input(io.BytesIO(lines(100)), target) == len(lines(100))
    assert target.read_bytes() == lines(100)
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["input"]
    with pytest.raises(FileExistsError):
        copy_input(io.BytesIO(b"other"), target)
    assert os.listdir(tmp_path) == ["input"]
    assert target.read_bytes() == lines(100)


def test_a_stream_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        copy_input(Broken(), tmp_path / "input")  # type: ignore[arg-type]

    assert os.listdir(tmp_path) == []


def test_an_input_of_rows_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "in.jsonl.gz", gzip.compress(lines(3_000), 1))
    tracemalloc.start()
    try:
        assert sum(1 for _ in RowSource(path, MODEL)) == 3_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
