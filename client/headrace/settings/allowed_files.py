"""Reads and writes ``allowed.json``: which keys the user allows the settings files of directories to send, and where to.

The file is in the user's configuration directory. Only ``headrace config allow`` writes it: it replaces the whole file, follows no
link, and gives the file mode 0600.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping

from headrace.errors import ConfigurationError
from headrace.files.file_locks import take_lock
from headrace.files.private_files import open_to_read
from headrace.settings.found_file_rules import AllowedKey
from headrace.settings.toml_file import OWN_HOME, distrust_reason, user_place

NAME = "allowed.json"
_MAX_BYTES = 1024 * 1024
_LOCK_TIMEOUT = 20.0
"""Seconds to wait for other commands that change the file."""
_FIELDS = ("directory", "provider", "base_url", "variable")


def allowed_file(environ: Mapping[str, str]) -> str:
    """Return the path of the file, even if it does not exist; an empty string for a user without a home."""
    place = user_place(environ)
    return os.path.join(os.path.dirname(place.path), NAME) if place else ""


def read_allowed_keys(environ: Mapping[str, str]) -> frozenset[AllowedKey]:
    """Return all permissions. Raises ConfigurationError if the file cannot be read, or if another user may have written it."""
    place = user_place(environ)
    if place is None:
        return frozenset()
    path = allowed_file(environ)
    try:
        descriptor = open_to_read(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return frozenset()
    except OSError as error:
        raise ConfigurationError(f"{path}: the file cannot be read: {error.strerror}; remove it") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{path}: this is not a regular file; remove it")
        if (problem := distrust_reason(place, path, status)) is not None:
            raise ConfigurationError(problem)
        data = file.read(_MAX_BYTES + 1)
    try:
        return frozenset(_allowed_key(entry) for entry in json.loads(data)["allowed"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigurationError(
            f"{path}: the file is damaged; remove it, and run `headrace config allow` again in each directory that needs it"
        ) from None


def change_allowed_keys(
    environ: Mapping[str, str], change: Callable[[frozenset[AllowedKey]], frozenset[AllowedKey]]
) -> None:
    """Change the permissions: ``change`` gets all of them and returns the new set.

    Raises ConfigurationError or OSError if they cannot be written.
    """
    place = user_place(environ)
    if place is None:
        raise ConfigurationError("permissions cannot be kept: HOME does not name a directory")
    if place.is_anothers:  # leave no file of this user in another user's home
        raise ConfigurationError(f"{place.base} is another user's home; {OWN_HOME}")
    directory = os.path.dirname(place.path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with _locked(directory) as folder:
        if (problem := distrust_reason(place, allowed_file(environ), os.fstat(folder))) is not None:
            raise ConfigurationError(problem)
        changed = change(read_allowed_keys(environ))
        entries = [{name: getattr(key, name) for name in _FIELDS} for key in sorted(changed)]
        # In ASCII: the name of a directory may not be valid UTF-8.
        _replace(folder, json.dumps({"allowed": entries}, indent=2).encode("ascii") + b"\n")


def _allowed_key(entry: Mapping[str, object]) -> AllowedKey:
    values = [entry[name] for name in _FIELDS]
    if not all(isinstance(value, str) for value in values):
        raise TypeError
    return AllowedKey(*values)  # type: ignore[arg-type]  # each is a str


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[int]:
    """Lock the directory for this process alone. Yield its descriptor: its name may lead to another directory later."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        take_lock(folder, directory, _LOCK_TIMEOUT)
        yield folder
    finally:
        os.close(folder)


def _replace(folder: int, data: bytes) -> None:
    temporary = f".{NAME}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
