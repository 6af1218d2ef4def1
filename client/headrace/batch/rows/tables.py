"""Reads the records of CSV, TSV and Parquet files, each with its number. One part of a file is in memory at a time."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from headrace.batch.rows.input_file import BYTE_ORDER_MARK, MAX_LINE, InputFile, lines_of
from headrace.errors import BatchInputError

Record = dict[str, Any]
_ID_COLUMNS = ("id", "custom_id")
_RECORDS_AT_ONCE = 256


def csv_records(file: InputFile, delimiter: str) -> Iterator[Record | str]:
    """Yield the header first, as a record without values; then each record, or what is wrong with it.

    Raises BatchInputError for a file without a header, with a quote that is never closed, or with a line that is too
    long.
    """
    if csv.field_size_limit() < MAX_LINE:
        csv.field_size_limit(MAX_LINE)  # of the whole process: the default is 128 KiB, which a document may exceed
    lines = _CsvLines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: Sequence[str] | None = None
    while True:
        first = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None or lines.is_at_end or "field limit" in str(error):
                reason = f"a quote in this record is never closed ({error})" if header else f"has no header ({error})"
                raise BatchInputError(file.name, reason, first) from None
            yield f"the record at line {first} is not valid CSV ({error}): correct it, or remove it"
            continue
        if not fields:
            continue
        if header is None:
            header = _header(file, fields)
            yield dict.fromkeys(header)
        elif len(fields) != len(header):
            yield f"the record at line {first} has {len(fields)} fields, and the header has {len(header)}: correct it, or remove it"
        else:
            yield dict(zip(header, fields, strict=True))
    if header is None:
        raise BatchInputError(file.name, "is empty: a table begins with the names of its columns")


def _header(file: InputFile, names: Sequence[str]) -> Sequence[str]:
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise BatchInputError(file.name, f"has two columns named {twice[0]!r}: rename one of them", 1)
    return names


class _CsvLines:
    """The lines of a CSV file as text. What is not UTF-8 becomes surrogates, which the row refuses."""

    def __init__(self, file: InputFile) -> None:
        self._name = file.name
        self._lines = lines_of(file.data)
        self.number = 0
        self.is_at_end = False

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.is_at_end = True
            raise
        self.number += 1
        if line is None:
            raise BatchInputError(self._name, f"the line has more than {MAX_LINE // 2**20} MiB", self.number)
        if self.number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        return line.decode("utf-8", "surrogateescape")


def parquet_records(
    file: InputFile, columns: Collection[str], wanted: Iterator[int] | None = None
) -> Iterator[tuple[int, Record]]:
    """Yield the columns first, as a record with the number 0 and without values; then each record with its number.

    ``columns``: those that are read, beside an id; those that are not there are left out. ``wanted``: the numbers of the
    records to yield, ascending; None: all. Raises BatchInputError if the file is damaged, or pyarrow is missing.
    """
    try:
        import pyarrow as arrow  # heavy, and an extra
        from pyarrow import parquet
    except ImportError:
        raise BatchInputError(file.name, "is read by pyarrow: pip install 'headrace[parquet]'") from None
    try:
        table = parquet.ParquetFile(file.data, pre_buffer=False)
        names: list[str] = table.schema_arrow.names
        yield 0, dict.fromkeys(names)
        read = [name for name in names if name in columns or name in _ID_COLUMNS] or names[:1]
        yield from _parts(table.iter_batches(_RECORDS_AT_ONCE, columns=read, use_threads=False), wanted)
    except (arrow.ArrowException, OSError) as error:
        raise BatchInputError(file.name, f"is no Parquet file that pyarrow can read: {error}") from None


def _parts(parts: Iterator[Any], wanted: Iterator[int] | None) -> Iterator[tuple[int, Record]]:
    start = 1
    number = None if wanted is None else next(wanted, None)
    for part in parts:
        end = start + part.num_rows
        if wanted is None:
            yield from enumerate(part.to_pylist(), start)
        elif number is None:
            return
        elif number < end:
            records = part.to_pylist()
            while number is not None and number < end:
                yield number, records[number - start]
                number = next(wanted, None)
        start = end
