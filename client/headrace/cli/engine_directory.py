"""The directory of the engine that ``headrace serve`` starts when it is told of none: private to its user."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.embedded import is_engine_running
from headrace.errors import EngineUnavailableError
from headrace.settings import MAX_PATH, directory_of
from headrace.trusted_directory import check_directory

_OTHER = "choose another with --directory"


def default_directory() -> Path:
    """Return ``$XDG_RUNTIME_DIR/headrace/engine``, else ``/tmp/headrace-<uid>/engine``. Creates nothing."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK):
        return Path(runtime, "headrace", "engine")
    return Path(f"/tmp/headrace-{os.getuid()}/engine")  # noqa: S108 - it is checked to be ours before it is used


def found_directory(address: str | None) -> Path:
    """Return the directory of the engine at ``address``, else in HEADRACE_ENGINE, else where `headrace serve` has it.

    Raises CommandError where no engine runs, EngineUnavailableError where it is another user's.
    """
    address = address or os.environ.get("HEADRACE_ENGINE")
    directory = directory_of(address) if address else checked_default("--engine")
    if (problem := check_directory(directory)) is not None:
        raise EngineUnavailableError(address_of(directory), problem)
    if not is_engine_running(directory):
        reason = f"no engine runs in {directory}; start one with `headrace serve`"
        raise CommandError(ExitCode.UNAVAILABLE, f"{reason}, or name another with --engine or HEADRACE_ENGINE")
    return directory


def checked_default(option: str) -> Path:
    """Return the default directory; raises CommandError where XDG_RUNTIME_DIR makes it too long for sockets.

    ``option`` is the one that names another.
    """
    directory = default_directory()
    if len(os.fsencode(directory)) > MAX_PATH:
        reason = f"XDG_RUNTIME_DIR makes the path of the engine's sockets longer than {MAX_PATH} bytes: {directory}"
        raise CommandError(ExitCode.USAGE, f"{reason}; set it to a shorter one, or choose another with {option}")
    return directory


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
