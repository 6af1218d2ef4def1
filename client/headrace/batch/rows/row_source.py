"""RowSource: the rows of an input file, read line by line. It may be iterated again and again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_options import RowOptions

MAX_LINE = 48 * 1024 * 1024
"""Bytes of one line at most. A longer line is a BadRow, and is never held in memory as a whole."""


class RowSource:
    """The rows of a file: JSON lines, CSV, TSV, Parquet or text; plain, or compressed by gzip or zstd.

    Compression is seen by the file's first bytes. Each iteration opens the file anew, reads as far as it is iterated, and
    holds one line, or one part of a Parquet file. Blank lines are no rows.

    A row's number is that of its line; in CSV, TSV and Parquet that of its record after the header; both from 1.

    Raises InvalidRequestError if the options are wrong: see :class:`RowReader`. Iterating raises OSError if the file cannot
    be read, BatchInputError if it is damaged (a torn gzip file, a CSV file with an open quote), if it has changed since the
    first iteration ended, or if a library to read it is missing.
    """

    def __init__(self, path: str | os.PathLike[str], options: RowOptions, *, name: str | None = None) -> None:
        """``name``: what errors call the file, and its suffix says the format. Default: the path."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What errors call the input."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Row | BadRow]:
        """Yield all rows, in the order of the file."""
        raise NotImplementedError

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row | BadRow]:
        """Yield the rows with these numbers, which must ascend. Other lines are skipped without being decoded."""
        raise NotImplementedError


def copy_input(stream: BinaryIO, path: str | os.PathLike[str]) -> int:
    """Copy an input that can be read once, such as standard input, to a new file, mode 0600. Return its bytes.

    The file is complete and on the disk when it has its name. Raises FileExistsError if there is a file already.
    """
    raise NotImplementedError
