"""Paths of a batch job for people: relative to the current directory if they are below it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as a person would write it here."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return os.fspath(path)
