"""Copies standard input beside the journal of a job, because the rows of a job are read more than once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.batch.rows.row_source import copy_input


@contextlib.contextmanager
def copied_input(stream: BinaryIO, path: Path) -> Iterator[Path]:
    """Copy ``stream`` to a new file, and yield its path. If the block does not raise, the copy takes the name ``path``.

    So a refused input leaves the copy of an earlier start as it was.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    copy_input(stream, new)
    try:
        yield new
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    os.replace(new, path)
