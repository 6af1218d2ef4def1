"""Finds and reads the ``headrace.toml`` files of a process. Says in one line what is wrong with one that cannot be read.

``HEADRACE_CONFIG`` names the only file. Without it there may be two: the user's own in the configuration directory, and one that is
found in the current directory, whose settings go before the user's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import ConfigurationError

VARIABLE = "HEADRACE_CONFIG"
NAME = "headrace.toml"
_MAX_BYTES = 1024 * 1024
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class SettingsFile(msgspec.Struct, frozen=True):
    """The tables of one file. ``is_found`` is true for a file of the current directory that nobody named."""

    path: str
    table: dict[str, Any]
    is_found: bool = False


def settings_files(environ: Mapping[str, str]) -> list[SettingsFile]:
    """Return the files that there are, the less important one first; raises ConfigurationError for one that cannot be read."""
    if named := environ.get(VARIABLE):
        status = _status(named)
        if status is None:
            raise ConfigurationError(f"{VARIABLE}={named}: there is no such file")
        return [SettingsFile(named, _read(named))]
    own = user_file(environ)
    own_status = _status(own) if own and _is_searchable(os.path.dirname(own)) else None
    files = [SettingsFile(own, _read(own))] if own and own_status is not None else []
    found_status = _status(NAME)
    if found_status is not None and not (own_status is not None and os.path.samestat(own_status, found_status)):
        files.append(SettingsFile(_absolute(NAME), _read(NAME), is_found=True))
    return files


def user_file(environ: Mapping[str, str]) -> str:
    """Return where the user's own file is or would be; an empty string for a user without a home."""
    directory = environ.get("XDG_CONFIG_HOME", "")
    if not directory.startswith("/"):
        home = environ.get("HOME", "") or _home_of_user()
        if not home.startswith("/"):
            return ""
        directory = os.path.join(home, ".config")
    return os.path.join(directory, "headrace", NAME)


def _is_searchable(directory: str) -> bool:
    """Return whether this user may look there. ``HOME`` may be another user's, as in containers: that has nothing for this one."""
    return os.access(directory, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _home_of_user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _status(path: str) -> os.stat_result | None:
    """Return what a path leads to; None where there is nothing. A link that leads nowhere is an error: somebody meant a file."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise ConfigurationError(f"{_absolute(path)}: the link leads to no file; mend or remove it") from None
        return None
    except PermissionError as error:
        raise ConfigurationError(_forbidden(path, error)) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{_absolute(path)}: {getattr(error, 'strerror', None) or error}") from None


def _forbidden(path: str, error: OSError) -> str:
    if path == NAME:
        return (
            f"{NAME}: the current directory cannot be searched for it ({error.strerror}); "
            f"go to another directory, or set {VARIABLE} to a file, or to {os.devnull} for none"
        )
    return f"{path}: {error.strerror}; set {VARIABLE} to a file that this user may read, or to {os.devnull} for none"


def _read(path: str) -> dict[str, Any]:
    shown = _absolute(path) if path == NAME else path
    data = _bytes(path, shown)
    import tomllib

    if data.startswith(_UTF_16):
        raise ConfigurationError(f"{shown}: the file is UTF-16; save it as UTF-8")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{shown}: the file is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{shown}: the file is no TOML that can be read: it is nested too deeply") from None
    except ValueError as error:
        if b"\0" in data[:2]:  # in UTF-16 a letter of ASCII has a zero beside it
            raise ConfigurationError(f"{shown}: the file is UTF-16; save it as UTF-8") from None
        raise ConfigurationError(f"{shown}: the file is not TOML: {error}") from None


def _bytes(path: str, shown: str) -> bytes:
    try:
        # A FIFO without a writer would hold the opener for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ConfigurationError(f"{shown}: the file cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
            return b""
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ConfigurationError(f"{shown}: this is {kind}; name a file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{shown}: the file cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{shown}: the file has more than {_MAX_BYTES} bytes")
    return data


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the current directory is gone
        return path
