"""Writes the output of a batch job as a whole: in the order of the input, or compressed (``.gz``, ``.zst``)."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from headrace.batch.journal.record_file import NewFile, RecordFile, joined
from headrace.batch.journal.tables import RESULTS_FILE
from headrace.errors import ConfigurationError

_CHUNK = 1000
_GZIP_LEVEL = 6


def check_suffix(output: Path) -> None:
    """Raise ConfigurationError if the library for a compressed output is not installed."""
    if output.suffix == ".zst":
        _zstandard()


def write_output(connection: sqlite3.Connection, results: RecordFile, output: Path, *, is_ordered: bool) -> None:
    """Write all records of ``results`` to ``output``, which then appears as a whole. Raises OSError, sqlite3.Error."""
    new = NewFile(output)
    try:
        pieces = _in_order(connection, results) if is_ordered else results.pieces(0, results.length)
        with _compressed(new.descriptor, output.suffix) as file:
            for piece in joined(pieces):
                file.write(piece)
        new.sync()
        new.take_place()
    except BaseException:
        new.discard()
        raise


def _in_order(connection: sqlite3.Connection, results: RecordFile) -> Iterator[bytes]:
    last = 0
    while chunk := connection.execute(
        "SELECT number, offset, length FROM records WHERE file = ? AND number > ? ORDER BY number LIMIT ?",
        (RESULTS_FILE, last, _CHUNK),
    ).fetchall():
        last = chunk[-1][0]
        for _, offset, length in chunk:
            yield results.read(offset, length)


@contextlib.contextmanager
def _compressed(descriptor: int, suffix: str) -> Iterator[IO[bytes]]:
    with os.fdopen(os.dup(descriptor), "wb") as raw:
        if suffix == ".gz":
            # Without a name and a time, the same records make the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, 0) as file:
                yield file  # type: ignore[misc]
        elif suffix == ".zst":
            with _zstandard().ZstdCompressor().stream_writer(raw, closefd=False) as file:
                yield file
        else:
            yield raw


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise ConfigurationError(
            "an output that ends in .zst needs zstandard; install it with pip install 'headrace[batch]'"
        ) from None
