"""AnswerCache: a SQLite file of answers that outlives a batch job, by the hash of everything that shapes an answer."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.files.private_files import open_named
from headrace.types import RunEmbeddingResult, RunLocalResult

_APPLICATION = 0x48524143
"""Marks a SQLite file as one of answers."""
_VERSION = 1
_BUSY = 30.0
"""Seconds to wait for another job that writes to the same file."""
_MOST_VALUES = 500
"""Hashes in one question. Old versions of SQLite take 999."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS answers (hash BLOB PRIMARY KEY, kind TEXT NOT NULL, answer BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "answer": msgspec.msgpack.Decoder(RunLocalResult[Any]),
    "vectors": msgspec.msgpack.Decoder(RunEmbeddingResult),
}
_encode = msgspec.msgpack.Encoder().encode

Answer = RunLocalResult[Any] | RunEmbeddingResult


class AnswerCache:
    """Answers of earlier rows. Several jobs may use one file at the same time. Only its owner can read it.

    Raises ConfigurationError if the file is of another kind, is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(open_named(path, os.O_RDWR | os.O_CREAT))
            self._database = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(str(error)) from error
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def find(self, hashes: Sequence[bytes]) -> dict[bytes, Answer]:
        """Return the answers that are known, by hash. An answer that this version cannot read counts as unknown."""
        found: dict[bytes, Answer] = {}
        for begin in range(0, len(hashes), _MOST_VALUES):
            some = hashes[begin : begin + _MOST_VALUES]
            marks = ",".join("?" * len(some))
            question = f"SELECT hash, kind, answer FROM answers WHERE hash IN ({marks})"  # noqa: S608 - only marks
            try:
                rows = self._database.execute(question, some).fetchall()
            except sqlite3.Error as error:
                raise self._unusable(str(error)) from error
            for known, kind, encoded in rows:
                if (answer := _decoded(kind, encoded)) is not None:
                    found[known] = answer
        return found

    def add(self, answers: Iterable[tuple[bytes, Answer]]) -> None:
        """Keep answers. An answer with a hash that is known already takes the place of the earlier one."""
        rows = [
            (known, "vectors", _encode(answer))
            if isinstance(answer, RunEmbeddingResult)
            else (known, "answer", _encode(msgspec.structs.replace(answer, parsed=None)))
            for known, answer in answers
        ]
        if not rows:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise self._unusable(str(error)) from error

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._database.close()

    def _prepare(self) -> None:
        try:
            (application,) = self._database.execute("PRAGMA application_id").fetchone()
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != _APPLICATION:
                raise self._unusable("it is not a file of answers; name another file")
            if tables and version != _VERSION:
                raise self._unusable("another version of Headrace has made it; name another file")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            if not tables:
                self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error

    def _unusable(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"the file of answers {self._path} cannot be used: {reason}")


def _decoded(kind: str, encoded: bytes) -> Answer | None:
    decoder = _DECODERS.get(kind)
    try:
        return None if decoder is None else decoder.decode(encoded)
    except (msgspec.MsgspecError, RecursionError):
        return None
