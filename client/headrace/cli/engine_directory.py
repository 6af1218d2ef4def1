"""The directory of the engine that ``headrace serve`` starts when it is told of none: private to its user."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.embedded import check_directory

_OTHER = "choose another with --directory"


def default_directory() -> Path:
    """Return ``$XDG_RUNTIME_DIR/headrace/engine``, else ``/tmp/headrace-<uid>/engine``. Creates nothing."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK):
        return Path(runtime, "headrace", "engine")
    return Path(f"/tmp/headrace-{os.getuid()}/engine")  # noqa: S108 - it is checked to be ours before it is used


def address_of(directory: Path) -> str:
    """Return the address of the engine in ``directory``."""
    return f"ipc://{directory}"


def make_private(directory: Path) -> None:
    """Create ``directory`` for this user alone; raises CommandError where it cannot be, or is open to others."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(ExitCode.UNAVAILABLE, f"cannot make {directory}: {error.strerror}; {_OTHER}") from error
    if (problem := check_directory(directory)) is not None:
        raise CommandError(ExitCode.UNAVAILABLE, f"{problem}; {_OTHER}")
