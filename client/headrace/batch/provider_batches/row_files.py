"""Files of a job whose rows are with a provider: the rows of parts, and the answers to them. They hold prompts: mode 0600."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.batch.provider_batches.part import Part
from headrace.errors import JournalError
from headrace.wire.batch_frames import StoredRow, encode_batch_frame, provider_answers, stored_rows
from headrace.wire.batch_messages import ProviderAnswer

ROWS_SUFFIX = ".rows"
LOG_SUFFIX = ".log"
_ANSWERS_SUFFIX = ".answers"
_BUFFER = 256 * 1024


class RowsWriter:
    """Writes rows to a file, one after the other. ``count`` rows have been written, and ``size`` bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = open(os.open(path, flags, 0o600), "wb", buffering=_BUFFER)  # noqa: SIM115 - closed by close()

    def write(self, row: StoredRow) -> None:
        """Write a row."""
        frame = encode_batch_frame(row)
        self._file.write(frame)
        self.count += 1
        self.size += len(frame)

    def flush(self) -> None:
        """Let other processes see all rows."""
        self._file.flush()

    def close(self, *, is_kept: bool = True) -> None:
        """Close the file: it is on the disk then, or removed. May be called twice."""
        if not self._file.closed and is_kept:
            self._file.flush()
            os.fdatasync(self._file.fileno())
        self._file.close()
        if not is_kept:
            self.path.unlink(missing_ok=True)


class RowsReader:
    """Reads rows from a file, while it is being written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def next(self) -> tuple[int, StoredRow]:
        """Return where the next row begins, and the row. Raises JournalError if there is none."""
        offset = self._file.tell()
        row = stored_rows.read(self._file)
        if row is None:
            raise JournalError(self._file.name, "a file of rows is shorter than it should be")
        return offset, row

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()


def rows_of(part: Part) -> Iterator[StoredRow]:
    """Iterate the rows of a part, without those that it has lost. Raises JournalError if they are gone."""
    skipped = frozenset(part.rows.skipped)
    try:
        with Path(part.rows.path).open("rb") as file:
            file.seek(part.rows.offset)
            for _ in range(part.rows.count):
                row = stored_rows.read(file)
                if row is None:
                    raise JournalError(part.rows.path, "the rows of a batch are no longer in their file")
                if row.number not in skipped:
                    yield row
    except OSError as error:
        raise JournalError(part.rows.path, f"the rows of a batch cannot be read: {error.strerror}") from None


def answers_path(part: Part) -> Path:
    """Return the file for the answers of a part."""
    return Path(f"{part.rows.path}.{part.token}{_ANSWERS_SUFFIX}")


class AnswersFile:
    """The answers of a part, by the number of the row. Keeps their places in memory, and not the answers."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=_BUFFER)
        self._places: dict[int, list[int]] = {}
        offset = 0
        for answer in provider_answers.all(self._file):
            self._places.setdefault(answer.number, []).append(offset)
            offset = self._file.tell()

    def of(self, number: int) -> list[ProviderAnswer]:
        """Return the answers to a row: several if its batch has several requests for it."""
        found: list[ProviderAnswer] = []
        for offset in self._places.get(number, ()):
            self._file.seek(offset)
            if (answer := provider_answers.read(self._file)) is not None:
                found.append(answer)
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class KeptFiles:
    """Which files of rows are still needed: several parts may have rows in one file."""

    def __init__(self, folder: Path, parts: Iterable[Part]) -> None:
        self._folder = folder
        self._parts: Counter[str] = Counter(part.rows.path for part in parts)

    def add(self, part: Part) -> None:
        """A part has rows in its file."""
        self._parts[part.rows.path] += 1

    def remove(self, part: Part) -> None:
        """A part is over: remove its answers, and its rows if no other part is in the same file."""
        answers_path(part).unlink(missing_ok=True)
        self._parts[part.rows.path] -= 1
        if self._parts[part.rows.path] <= 0:
            del self._parts[part.rows.path]
            Path(part.rows.path).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the files that no part needs: a killed process left them."""
        kept = tuple(self._parts)
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.suffix != LOG_SUFFIX and not (kept and str(path).startswith(kept)):
                    path.unlink(missing_ok=True)
