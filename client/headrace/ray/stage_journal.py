"""StageJournal: what the actors of a Ray job have finished, in a directory that all of them share.

Each actor appends to a file of its own, and reads the files of the others. So there is no lock, and no file has two
writers: it works on network file systems. If an actor dies, another one finds what it had finished.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import ConfigurationError

_SUFFIX = ".jsonl"
_MOST_ASKED = 500
"""Keys that one question to the index may have."""
_CREATE = """
    CREATE TABLE finished (
        key BLOB PRIMARY KEY, file INTEGER NOT NULL, place INTEGER NOT NULL, length INTEGER NOT NULL, run TEXT
    ) WITHOUT ROWID
"""


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. ``run``: set for a row that failed: the run of the job in which it did."""

    key: str
    columns: dict[str, Any]
    run: str = ""


class _EntryHead(msgspec.Struct, frozen=True):
    key: str
    run: str = ""


class _ReadFile(msgspec.Struct):
    path: Path
    read: int = 0


_decode_head = msgspec.json.Decoder(_EntryHead).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def row_key(row_id: object, shape: bytes) -> bytes:
    """Return the key of a row: its id, and the hash of everything that shapes its answer."""
    named = f"{type(row_id).__name__}:{row_id}".encode("utf-8", "surrogatepass")
    return blake2b(named + b"\0" + shape, digest_size=16).digest()


class StageJournal:
    """The journal. Thread-safe.

    ``run``: names this run of the job. A row that failed counts as finished in the same run only: the next start of the
    job tries it again. Raises ConfigurationError if the directory cannot be used.
    """

    def __init__(self, directory: str | os.PathLike[str], run: str) -> None:
        self._directory = Path(directory)
        self._run = run
        self._lock = threading.Lock()
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self._own = self._directory / name
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the journal {self._directory} cannot be written: {error}") from error
        self._written = 0
        self._files: list[_ReadFile] = [_ReadFile(self._own)]
        self._numbers: dict[str, int] = {name: 0}
        # An unnamed database is a temporary file of SQLite, which goes with the process: memory stays bounded.
        self._index = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._index.execute(_CREATE)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return the columns of those rows that are finished, by key."""
        with self._lock:
            self._refresh()
            found: dict[bytes, dict[str, Any]] = {}
            for begin in range(0, len(keys), _MOST_ASKED):
                asked = list(keys[begin : begin + _MOST_ASKED])
                marks = ",".join("?" * len(asked))
                rows = self._index.execute(
                    f"SELECT key, file, place, length, run FROM finished WHERE key IN ({marks})",  # noqa: S608 - marks only
                    asked,
                ).fetchall()
                for key, file, place, length, run in rows:
                    if run in {"", self._run}:
                        found[key] = self._columns(file, place, length)
            return found

    def add(self, key: bytes, columns: dict[str, Any], *, is_failure: bool) -> None:
        """Write that a row is finished. It survives the end of this process, and after :meth:`sync` that of the machine."""
        run = self._run if is_failure else ""
        line = msgspec.json.encode(_Entry(key.hex(), columns, run)) + b"\n"
        with self._lock:
            place = self._written
            self._write(line)
            self._written += len(line)
            self._files[0].read = self._written
            self._note(key, 0, place, len(line), run)

    def sync(self) -> None:
        """Wait until all that was added is on the disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the files."""
        os.close(self._descriptor)
        self._index.close()

    def _write(self, line: bytes) -> None:
        sent = os.write(self._descriptor, line)
        if sent != len(line):  # a full disk: the torn line must not swallow the next one
            os.ftruncate(self._descriptor, self._written)
            raise OSError(f"the journal {self._own} took {sent} of {len(line)} bytes: is the disk full?")

    def _refresh(self) -> None:
        """Read what the other actors have added."""
        for entry in os.scandir(self._directory):
            if entry.name.endswith(_SUFFIX) and entry.name not in self._numbers:
                self._numbers[entry.name] = len(self._files)
                self._files.append(_ReadFile(Path(entry.path)))
        self._index.execute("BEGIN")
        try:
            for number, file in enumerate(self._files[1:], 1):
                self._read_on(number, file)
        finally:
            self._index.execute("COMMIT")  # also what was read before an error

    def _read_on(self, number: int, file: _ReadFile) -> None:
        try:
            with file.path.open("rb") as stream:
                stream.seek(file.read)
                for line in stream:
                    if not line.endswith(b"\n"):  # being written, or torn
                        return
                    self._read_line(number, file.read, line)
                    file.read += len(line)
        except FileNotFoundError:
            return

    def _read_line(self, number: int, place: int, line: bytes) -> None:
        try:
            head = _decode_head(line)
            key = bytes.fromhex(head.key)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return  # spoiled: its row runs again
        self._note(key, number, place, len(line), head.run)

    def _note(self, key: bytes, file: int, place: int, length: int, run: str) -> None:
        """Note where a row is. A success is never replaced by a failure."""
        self._index.execute(
            "INSERT INTO finished VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
            " file = excluded.file, place = excluded.place, length = excluded.length, run = excluded.run"
            " WHERE finished.run <> ''",
            (key, file, place, length, run),
        )

    def _columns(self, file: int, place: int, length: int) -> dict[str, Any]:
        with self._files[file].path.open("rb") as stream:
            stream.seek(place)
            return _decode_entry(stream.read(length)).columns
