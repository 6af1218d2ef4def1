"""Writes what is uploaded to a file beside the rows, and removes it afterwards. It holds prompts: mode 0600."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from headrace_workers.batches.batch_api import EncodedRows

_BUFFER = 1024 * 1024


class UploadFile(msgspec.Struct, frozen=True):
    """A file to upload. ``size`` in bytes."""

    path: Path
    size: int


@contextlib.contextmanager
def upload_file(rows: EncodedRows, pieces: Iterable[bytes]) -> Iterator[UploadFile]:
    """Write the pieces to a file, which is there until the context ends."""
    path = rows.place
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb", buffering=_BUFFER) as file:
            file.writelines(pieces)
            size = file.tell()
        yield UploadFile(path, size)
    finally:
        path.unlink(missing_ok=True)
