"""``headrace spans export``: writes spans as JSON lines, CSV or Parquet, while it reads them: never all in memory."""

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

from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.files.private_files import open_folder, open_named
from headrace.spans.reading.exported_span import FLAT, flat, line
from headrace.spans.span import COUNTS
from headrace.spans.span_database import StoredSpan
from headrace.text.escaping import escaped

Format = Literal["jsonl", "csv", "parquet"]
Writer = Callable[[Iterable[StoredSpan], IO[bytes]], int]

_BATCH = 1000
_FLOATS = ("duration_seconds", "queue_seconds", "first_chunk_seconds", "cost")
_TIMES = ("started_at", "ended_at")
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The first characters of a formula in some spreadsheet, also in the wide forms of East Asia."""
_BLANK_FORMULA = ("\t", "\n", "\\u000d")  # the carriage return is already escaped


def export(spans: Iterable[StoredSpan], form: Format, path: Path | None) -> int:
    """Write spans to ``path``, or to standard output if it is None.

    Return their number. Raises CommandError if it cannot write.
    """
    writers: dict[Format, Writer] = {"jsonl": _write_lines, "csv": _write_csv, "parquet": _write_parquet}
    if form == "parquet":
        _require_pyarrow()
    with _output(path) as out:
        return writers[form](spans, out)


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Open the output.

    A file gets its name once it is complete. Only its owner may read it: it holds prompts and answers.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    with _errors(path):
        folder, _ = open_folder(path.parent)
    try:
        # Write directly to a device or a pipe. A new file must not take its place.
        if path.exists() and not path.is_file():
            with _errors(path), open(_no_file(path), "wb") as out:
                yield out
            return
        unfinished = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # O_EXCL: never use an existing file
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
    """Open a device or a pipe. Never create or truncate a file, even if somebody has just put one there."""
    descriptor = open_named(path, os.O_WRONLY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(errno.EEXIST, "another process has just put a file there", str(path))
    return descriptor


def _write_lines(spans: Iterable[StoredSpan], out: IO[bytes]) -> int:
    count = 0
    for count, stored in enumerate(spans, 1):  # noqa: B007 - the last number is the count
        out.write(line(stored).encode())
    return count


def _write_csv(spans: Iterable[StoredSpan], out: IO[bytes]) -> int:
    count = 0
    writer: csv.DictWriter[str] = csv.DictWriter(_Utf8(out), FLAT)
    writer.writeheader()
    for count, stored in enumerate(spans, 1):  # noqa: B007 - the last number is the count
        writer.writerow(_for_csv(flat(stored)))
    return count


class _Utf8:
    """Writes text to a binary file as UTF-8. The standard wrapper would close the file when a write fails."""

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
    """Return a text that no spreadsheet reads as a formula and no terminal reads as a control sequence."""
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
