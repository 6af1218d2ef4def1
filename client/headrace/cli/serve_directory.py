"""The default directory of ``headrace serve``, private to its user: finds it, and makes it."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.connections.embedded_folders import make_folder
from headrace.errors import EngineUnavailableError
from headrace.files.engine_directory import is_engine_running
from headrace.files.private_files import make_directories
from headrace.files.state_directory import sockets_place
from headrace.files.trusted_directory import check_directory, check_place, directory_refusal
from headrace.settings.settings import MAX_PATH, directory_of

_OTHER = "choose another directory with --directory"


def default_directories() -> list[Path]:
    """Return the directories that `headrace serve` may use, the best one first. Creates nothing.

    The first is ``$XDG_RUNTIME_DIR/headrace/engine``, if the variable names a directory that only this user can use.
    The second is ``headrace/run/engine`` in ``$XDG_STATE_HOME``, or in ``~/.local/state``. No other user can create
    these directories.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, "headrace")] if runtime.startswith("/") and check_directory(Path(runtime)) is None else []
    state = sockets_place(os.environ)
    return [place / "engine" for place in [*places, *filter(None, [state])]]


def found_directory(address: str | None) -> Path:
    """Return the directory of a running engine: at ``address``, else at HEADRACE_ENGINE, else that of `headrace serve`.

    Raises CommandError if no engine runs there, and EngineUnavailableError if the directory is another user's.
    """
    address = address or os.environ.get("HEADRACE_ENGINE")
    directories = [directory_of(address)] if address else default_directories()
    for directory in directories[:1]:
        _check_length(directory, "--engine")
    for directory in directories:
        refusal = directory_refusal(directory)
        if refusal is not None and not isinstance(refusal, FileNotFoundError):
            raise EngineUnavailableError(address_of(directory), str(refusal.strerror))
        if refusal is None and is_engine_running(directory):
            return directory
    place = f" in {directories[0]}" if directories else ""
    reason = f"no engine runs{place}; start one with `headrace serve`"
    raise CommandError(ExitCode.UNAVAILABLE, f"{reason}, or name its address with --engine or HEADRACE_ENGINE")


def made_directory() -> Path:
    """Create a directory for a new engine, and return it. Raises CommandError if it cannot create one.

    If the default directories cannot be created, it has a random name in the temporary directory.
    """
    for directory in default_directories():
        _check_length(directory, "--directory")
        try:
            make_directories(directory.parent)
        except OSError:
            continue
        if check_place(directory.parent) is None:
            make_private(directory)
            return directory
    try:
        return make_folder()
    except EngineUnavailableError as error:
        raise CommandError(ExitCode.UNAVAILABLE, f"{error.reason}; or {_OTHER}") from None


def _check_length(directory: Path, option: str) -> None:
    """Raise CommandError if a path is too long for sockets. ``option`` names the option for another directory."""
    if len(os.fsencode(directory)) <= MAX_PATH:
        return
    variable = "XDG_RUNTIME_DIR" if directory.parent.name == "headrace" else "XDG_STATE_HOME"
    if not os.environ.get(variable):
        variable = "HOME"
    reason = f"{variable} makes the path of the engine's sockets longer than {MAX_PATH} bytes: {directory}"
    raise CommandError(
        ExitCode.USAGE, f"{reason}; set {variable} to a shorter path, or choose another directory with {option}"
    )


def address_of(directory: Path) -> str:
    """Return the address of the engine in ``directory``."""
    return f"ipc://{directory}"


def make_private(directory: Path) -> None:
    """Create ``directory`` for this user only.

    Raises CommandError if it cannot, or if other users can use the directory.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(ExitCode.UNAVAILABLE, f"cannot make {directory}: {error.strerror}; {_OTHER}") from error
    if (problem := check_directory(directory)) is not None:
        raise CommandError(ExitCode.UNAVAILABLE, f"{problem}; {_OTHER}")
