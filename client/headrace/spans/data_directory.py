"""The data directory of spans: its slots, the database files and spool files in them, and whose files they are.

Each running engine has its own slot, so no two engines write to the same file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.files.private_files import is_of_squashed_root
from headrace.files.state_directory import expanded, state_directory
from headrace.settings.settings import SpansConfig

SLOT_LOCK = "lock"
SPOOL = "spool"
_SLOT = re.compile(r"0|[1-9][0-9]*")
_DATABASE = re.compile(r"spans-[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[1-9][0-9]*)?\.db")
_DAMAGED = re.compile(rf"{_DATABASE.pattern}\.corrupt(\.[1-9][0-9]*)?(-wal|-shm)?")
_SPOOL_FILE = re.compile(r"w[1-9][0-9]*-[0-9a-f]+-[1-9][0-9]*\.spool")


def data_directory(config: SpansConfig, environ: Mapping[str, str]) -> Path:
    """Return the directory that holds the slots. Creates nothing.

    Raises ConfigurationError if no setting names it and there is no home directory, as for some users in containers.
    """
    named = config.directory or environ.get("HEADRACE_DATA", "")
    try:
        if named:
            return expanded(named).absolute()
    except RuntimeError:
        raise ConfigurationError(f"{named}: the home directory does not exist; name the directory without ~") from None
    except OSError as error:
        reason = f"the current directory is gone ({error.strerror})"
        raise ConfigurationError(f"{named}: {reason}; name the directory by a path that begins with /") from error
    state = state_directory(environ)
    if state is None:
        reason = f"user {os.geteuid()} has no home directory, and HOME names none"
        raise ConfigurationError(f"no place for spans: {reason}; set HEADRACE_DATA to a directory")
    return state


def slots(directory: Path) -> list[Path]:
    """Return the slots that exist, in the order of their numbers."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _SLOT.fullmatch(path.name)), key=lambda path: int(path.name))


def database_files(slot: Path) -> list[Path]:
    """Return a slot's databases, the oldest first.

    Leaves out links, files of other users, and files with other names.
    """
    return sorted(_own(slot, _DATABASE), key=_age_key)


def damaged_files(slot: Path) -> list[Path]:
    """Return a slot's damaged databases, which were renamed, and their side files."""
    return _own(slot, _DAMAGED)


def spool_files(slot: Path) -> list[Path]:
    """Return the spool files of workers in a slot, in the order of their names."""
    return sorted(_own(slot / SPOOL, _SPOOL_FILE))


def is_own_file(path: Path) -> bool:
    """Return whether a path is a file, not a link, and belongs to this user or to the owner of its folder.

    Enough for reading. For writing see :func:`is_writable_file`: the owner of a file can read what is written to it.
    """
    try:
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), path.parent.stat().st_uid)
    except OSError:
        return False


def is_writable_file(path: Path) -> bool:
    """Return whether a path is a file, not a link, and belongs to this user."""
    try:
        status, folder = path.lstat(), path.parent.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_uid == os.geteuid() or is_of_squashed_root(status, folder))


def is_own_folder(path: Path) -> bool:
    """Return whether a path is a directory, not a link, and belongs to this user.

    Check this before removing files in it.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _own(folder: Path, names: re.Pattern[str]) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if names.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in found if is_own_file(path)]


def file_name(day: str, number: int) -> str:
    """Return the name of a day's (``2026-11-23``) database number ``number``, from 0."""
    return f"spans-{day}.db" if number == 0 else f"spans-{day}.{number}.db"


def _age_key(path: Path) -> tuple[str, int]:
    day, _, number = path.name.removeprefix("spans-").removesuffix(".db").partition(".")
    return day, int(number) if number.isdigit() else 0
