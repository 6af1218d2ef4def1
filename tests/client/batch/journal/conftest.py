"""Fixtures of the journal's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder in memory: there the many waits of a journal for the disk take no time."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="headrace-journal-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
