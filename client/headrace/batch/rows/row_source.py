"""RowSource: the rows of an input file, read line by line. It may be iterated again and again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import BinaryIO

from headrace.batch.row import BadRow, Row
from headrace.batch.rows.input_file import BYTE_ORDER_MARK, MAX_LINE, Identity, InputFile, format_of, lines_of
from headrace.batch.rows.row_options import InputFormat, RowOptions
from headrace.batch.rows.row_reader import RowReader, not_utf8
from headrace.batch.rows.tables import csv_records, parquet_records
from headrace.errors import BatchInputError
from headrace.files.private_files import open_private

_COPIED_AT_ONCE = 1024 * 1024
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_TOO_LONG = f"the line has more than {MAX_LINE // 2**20} MiB, which no row may have: split it, or leave it out"


class RowSource:
    """The rows of a file: JSON lines, CSV, TSV, Parquet or text; plain, or compressed by gzip or zstd.

    Compression is seen by the file's first bytes. Each iteration opens the file anew, reads as far as it is iterated, and
    holds one line, or one part of a Parquet file. Blank lines are no rows. A line of more than 48 MiB is a BadRow; in
    CSV it ends the reading, because it hides where the next record begins.

    A row's number is that of its line; in CSV, TSV and Parquet that of its record after the header; both from 1.

    Raises InvalidRequestError if the options are wrong: see :class:`RowReader`. Iterating raises OSError if the file
    cannot be read, InvalidRequestError if the prompt does not fit the columns, and BatchInputError if the file is damaged
    (a torn gzip file, a CSV file with an open quote), if it has changed since the first iteration began, or if a library
    to read it is missing.
    """

    def __init__(self, path: str | os.PathLike[str], options: RowOptions, *, name: str | None = None) -> None:
        """``name``: what errors call the file, and its suffix says the format. Default: the path."""
        self._path = path
        self._name = os.fspath(path) if name is None else name
        self._options = options
        self._identity: Identity | None = None
        RowReader(options)  # wrong options are told at once

    @property
    def name(self) -> str:
        """What errors call the input."""
        return self._name

    def __iter__(self) -> Iterator[Row | BadRow]:
        """Yield all rows, in the order of the file."""
        return self._rows(None)

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row | BadRow]:
        """Yield the rows with these numbers, which must ascend. Other lines are skipped without being decoded."""
        return self._rows(iter(numbers))

    def _rows(self, wanted: Iterator[int] | None) -> Iterator[Row | BadRow]:
        reader = RowReader(self._options)
        with closing(InputFile(self._path, self._name)) as file, file.reading():
            self._check_unchanged(file.identity)
            match self._format(file):
                case "parquet":
                    yield from _parquet_rows(file, reader, wanted)
                case "csv" | "tsv" as form:
                    yield from _csv_rows(file, reader, _DELIMITERS[form], wanted)
                case "txt":
                    yield from _text_rows(file, reader, wanted)
                case "jsonl":
                    yield from _line_rows(file, reader, wanted)
            if file.has_changed():
                raise self._changed()

    def _check_unchanged(self, identity: Identity) -> None:
        if self._identity is None:
            self._identity = identity
        elif self._identity != identity:
            raise self._changed()

    def _changed(self) -> BatchInputError:
        return BatchInputError(
            self._name,
            "changed while the job read it: start the job again when it is complete; with --changed (changed=True) if its rows are different",
        )

    def _format(self, file: InputFile) -> InputFormat:
        form = self._options.input_format or format_of(self._name) or ("parquet" if file.is_parquet else "jsonl")
        if form == "parquet" and file.is_compressed:
            raise BatchInputError(
                self._name, "is a compressed Parquet file: decompress it, as Parquet is compressed within"
            )
        return form


def copy_input(stream: BinaryIO, path: str | os.PathLike[str]) -> int:
    """Copy an input that can be read once, such as standard input, to a new file, mode 0600. Return its bytes.

    The file is complete and on the disk when it has its name. Raises FileExistsError if there is a file already.
    """
    target = os.fspath(path)
    part = f"{target}.part"
    size = 0
    descriptor = open_private(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            while data := stream.read(_COPIED_AT_ONCE):
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                size += len(data)
            os.fsync(file.fileno())
        _give_name(part, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return size


def _give_name(part: str, target: str) -> None:
    """Give a complete file its name. Raises FileExistsError."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(part, target)


def _line_rows(file: InputFile, reader: RowReader, wanted: Iterator[int] | None) -> Iterator[Row | BadRow]:
    read = reader.read_line
    for number, line in _numbered_lines(file, wanted):
        yield reader.bad_line(number, _TOO_LONG) if line is None else read(number, line)


def _text_rows(file: InputFile, reader: RowReader, wanted: Iterator[int] | None) -> Iterator[Row | BadRow]:
    for number, line in _numbered_lines(file, wanted):
        if line is None:
            yield reader.bad_line(number, _TOO_LONG)
            continue
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)  # noqa: PLW2901 - the same line
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield reader.bad_line(number, not_utf8(line))
            continue
        yield reader.read_text(number, text)


def _numbered_lines(file: InputFile, wanted: Iterator[int] | None) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines that are not blank, or of these the wanted ones, with their numbers."""
    if wanted is None:
        for number, line in enumerate(lines_of(file.data), 1):
            if line is None or not line.isspace():
                yield number, line
        return
    next_wanted = next(wanted, None)
    if next_wanted is None:
        return
    for number, line in enumerate(lines_of(file.data), 1):
        if number != next_wanted:
            continue
        yield number, line
        next_wanted = next(wanted, None)
        if next_wanted is None:
            return


def _csv_rows(
    file: InputFile, reader: RowReader, delimiter: str, wanted: Iterator[int] | None
) -> Iterator[Row | BadRow]:
    records = csv_records(file, delimiter)
    for header in records:
        if isinstance(header, dict):
            reader.check_columns(header)
        break
    next_wanted = None if wanted is None else next(wanted, None)
    for number, record in enumerate(records, 1):
        if wanted is not None:
            if next_wanted is None:
                return
            if number != next_wanted:
                continue
            next_wanted = next(wanted, None)
        if isinstance(record, str):
            yield reader.bad_line(number, record)
        else:
            yield reader.read_record(number, record)


def _parquet_rows(file: InputFile, reader: RowReader, wanted: Iterator[int] | None) -> Iterator[Row | BadRow]:
    for number, record in parquet_records(file, reader.columns(), wanted):
        if number == 0:
            reader.check_columns(record)
        else:
            yield reader.read_record(number, record)
