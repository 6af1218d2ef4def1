"""``headrace spans export``: spans as JSON lines, CSV or Parquet, as they are read: never all of them in memory."""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib.util
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.files.private_files import open_folder, open_named
from headrace.spans.data_directory import StoredSpan
from headrace.spans.reading.exported_span import FLAT, flat, line
from headrace.spans.span import COUNTS
from headrace.text.escaping import escaped

Format = Literal["jsonl", "csv", "parquet"]
Writer = Callable[[Iterable[StoredSpan], IO[bytes]], int]

_BATCH = 1000
_FLOATS = ("duration_seconds", "queue_seconds", "first_chunk_seconds", "cost")
_TIMES = ("started_at", "ended_at")
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, for one or the other spreadsheet: also in the wide letters of East Asia."""
_BLANK_FORMULA = ("\t", "\n", "\\u000d")  # a carriage return is escaped by then


def export(spans: Iterable[StoredSpan], form: Format, path: Path | None) -> int:
    """Write spans to ``path``, else to standard output; return how many. Raises CommandError where that cannot be."""
    writers: dict[Format, Writer] = {"jsonl": _write_lines, "csv": _write_csv, "parquet": _write_parquet}
    if form == "parquet":
        _require_pyarrow()
    with _output(path) as out:
        return writers[form](spans, out)


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Open what is written to. A file is there when it is whole, and is its owner's alone: it holds what was asked and answered."""
    if path is None:
        yield sys.stdout.buffer
        return
    with _errors(path):
        folder, _ = open_folder(path.parent)
    try:
        # A device or a pipe is written to as it is; only a file can be put in the place of one.
        if path.exists() and not path.is_file():
            with _errors(path), open(_no_file(path), "wb") as out:
                yield out
            return
        unfinished = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # which takes nothing that is there already
        with _errors(path), open(os.open(unfinished, flags, 0o600, dir_fd=folder), "wb") as out:
            try:
                yield out
                out.flush()
                os.replace(unfinished, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(unfinished, dir_fd=folder)
                raise
    finally:
        os.close(folder)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(ExitCode.FAILED, f"cannot write {path}: {error.strerror}") from error


def _no_file(path: Path) -> int:
    """Open what is no file: neither is one made nor cut, should somebody have put one there meanwhile."""
    descriptor = open_named(path, os.O_WRONLY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(errno.EEXIST, "a file has been put there meanwhile", str(path))
    return descriptor


def _write_lines(spans: Iterable[StoredSpan], out: IO[bytes]) -> int:
    count = 0
    for count, stored in enumerate(spans, 1):  # noqa: B007 - the last is the number of all
        out.write(line(stored).encode())
    return count


def _write_csv(spans: Iterable[StoredSpan], out: IO[bytes]) -> int:
    count = 0
    writer = csv.DictWriter(_Utf8(out), FLAT)
    writer.writeheader()
    for count, stored in enumerate(spans, 1):  # noqa: B007 - the last is the number of all
        writer.writerow(_for_csv(flat(stored)))
    return count


class _Utf8:
    """Takes text for a binary file. The standard wrapper would close the file where a write fails."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write ``text``."""
        return self._out.write(text.encode())


def _for_csv(row: dict[str, Any]) -> dict[str, Any]:
    row["tags"] = msgspec.json.encode(row["tags"]).decode() if row["tags"] else ""
    row = {name: _cell(value) if isinstance(value, str) else value for name, value in row.items()}
    for name in _TIMES:
        row[name] = row[name].isoformat(timespec="microseconds")
    row["streamed"] = "true" if row["streamed"] else "false"
    return row


def _cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, and no terminal for an order."""
    text = escaped(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text.startswith(_BLANK_FORMULA) else text


def _write_parquet(spans: Iterable[StoredSpan], out: IO[bytes]) -> int:
    import pyarrow
    import pyarrow.parquet

    types = dict.fromkeys(FLAT, pyarrow.string())
    types |= dict.fromkeys(COUNTS, pyarrow.int64()) | dict.fromkeys(_FLOATS, pyarrow.float64())
    types |= dict.fromkeys(_TIMES, pyarrow.timestamp("us", tz="UTC"))
    types |= {"tags": pyarrow.list_(pyarrow.string()), "streamed": pyarrow.bool_()}
    schema = pyarrow.schema(list(types.items()))
    count = 0
    rows = map(flat, spans)
    with pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise CommandError(ExitCode.USAGE, "Parquet needs pyarrow: pip install 'headrace[parquet]'")
