"""Finds and reads the ``headrace.toml`` files of a process, and checks their owners.

If ``HEADRACE_CONFIG`` is set, it names the only file. Otherwise there may be two files: the user's own file in the configuration
directory, and a *found* file in the current directory. The found file's settings go before the user's. The owner of a file is checked,
so that no other user of the machine can make settings for this one. Each error is one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from headrace.errors import ConfigurationError
from headrace.files.private_files import open_to_read
from headrace.files.state_directory import home_of_user, is_anothers
from headrace.files.trusted_directory import is_private_group

VARIABLE = "HEADRACE_CONFIG"
NAME = "headrace.toml"
FOUND_IN = "HEADRACE_FOUND_IN"
"""A program sets it for its engine: the directory of the found file. The engine does not trust that file either."""
_DATA = "HEADRACE_DATA"
OWN_HOME = "set HOME to this user's own home (`sudo -H` does)"
_MAX_BYTES = 1024 * 1024
_MAX_WORK = 1_000_000
"""Bound for the sum of the squares of the dots in each line. A file with this sum takes about 0.05 s to parse."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_remembered: dict[str, str] = {}
"""Relative name in ``HEADRACE_CONFIG`` → its absolute path when this program last made a client. ``""`` → the current directory then."""


class SettingsPlace(msgspec.Struct, frozen=True):
    """Where a settings file is, or would be.

    ``kind``: ``named`` by ``HEADRACE_CONFIG``, the ``user``'s own, or ``found`` in the current directory. ``base``: the directory above the
    user's own file, such as the home. ``is_anothers``: ``base`` is the home of the user who called this user (by ``sudo -E``).
    """

    path: str
    kind: Literal["named", "user", "found"]
    base: str = ""
    is_anothers: bool = False


class SettingsFile(msgspec.Struct, frozen=True):
    """The tables of one file. ``ignored``: why nothing is taken from a found file that belongs to another user."""

    path: str
    table: dict[str, Any]
    is_found: bool = False
    ignored: str = ""


def settings_files(environ: Mapping[str, str]) -> list[SettingsFile]:
    """Return the files that exist, the less important file first. Raises ConfigurationError if a file cannot be read."""
    return [file for place in places(environ) if (file := read_file(place)) is not None]


def places(environ: Mapping[str, str]) -> list[SettingsPlace]:
    """Return the places where files are looked for, the less important place first."""
    if named := environ.get(VARIABLE):
        return [SettingsPlace(named, "named")]
    own, found = user_place(environ), os.path.join(environ.get(FOUND_IN, ""), NAME)
    if own is None:
        return [SettingsPlace(found, "found")]
    return [own] if _is_same_file(own.path, found) else [own, SettingsPlace(found, "found")]


def read_file(place: SettingsPlace) -> SettingsFile | None:
    """Return the file at a place, or None if there is none. Raises ConfigurationError if it cannot be read."""
    match place.kind:
        case "named":
            return _named(place.path)
        case "user":
            return _users(place)
        case "found":
            return _found(place.path)


def remember_places(environ: Mapping[str, str]) -> None:
    """Remember where files are looked for now. When an engine is started later, the current directory may be a different one."""
    if (named := environ.get(VARIABLE, "")) and not os.path.isabs(named):
        _remembered[named] = absolute(named)
    _remembered[""] = absolute("")


def remembered_directory() -> str:
    """Return the current directory at the time when this program last made a client; an empty string if it made none."""
    return _remembered.get("", "")


def with_remembered_places(environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` with absolute paths: another process then looks for files where this program did when it last made a client."""
    places = {**environ}
    if (data := environ.get(_DATA, "")) and not data.startswith(("/", "~")):
        places[_DATA] = absolute(os.path.join(remembered_directory(), data))
    if named := environ.get(VARIABLE, ""):
        return places | {VARIABLE: _remembered.get(named) or absolute(named)}
    return {FOUND_IN: directory} | places if (directory := remembered_directory()) else places


def _named(path: str) -> SettingsFile:
    status = _status(path)
    if status is None:
        raise ConfigurationError(f"{VARIABLE}={path}: there is no such file")
    data, status = _bytes(path, path)
    # A relative name means whatever file the current directory has by that name: check its owner.
    if not os.path.isabs(path) and _is_strangers(status):
        raise ConfigurationError(
            f"{VARIABLE}={path}: the file belongs to user {status.st_uid}; if that is right, name it by a path that begins with /"
        )
    return SettingsFile(path, _table(data, path))


def _users(place: SettingsPlace) -> SettingsFile | None:
    # In containers ``HOME`` may belong to another user. A directory that this user may not search has no settings for this user.
    if not _is_searchable(os.path.dirname(place.path)) or _status(place.path) is None:
        return None
    data, status = _bytes(place.path, place.path)
    if (problem := distrust_reason(place, place.path, status)) is not None:
        raise ConfigurationError(f"{problem}, or set {VARIABLE} to the file that is meant")
    return SettingsFile(place.path, _table(data, place.path))


def _found(path: str) -> SettingsFile | None:
    shown = absolute(path)
    # First of all: another user's link, FIFO or invalid file must not stop or delay a program that runs in this directory.
    if (stranger := _strangers_entry(path)) is not None:
        return SettingsFile(shown, {}, is_found=True, ignored=_belongs(stranger))
    if _status(path) is None:
        return None
    data, status = _bytes(path, shown)
    if _is_strangers(status):
        return SettingsFile(shown, {}, is_found=True, ignored=_belongs(status))
    return SettingsFile(shown, _table(data, shown), is_found=True)


def distrust_reason(place: SettingsPlace, path: str, status: os.stat_result) -> str | None:
    """Return why another user may have written a file, and how to mend that; None if the file can be trusted.

    The file is below the place's base, an absolute directory. The owner of the base is trusted, because the environment names the base
    as this user's home: a container may run as any user in the home of one. There are two exceptions, in which only files of this user
    and of root are trusted: a base in a directory where every user can make files (``/tmp``), and the home of a user who called this
    user with ``sudo -E``.
    """
    folders = [place.base]
    for name in os.path.relpath(os.path.dirname(path), place.base).split(os.sep):
        folders.append(os.path.join(folders[-1], name))
    owners = {os.geteuid(), 0}
    try:
        known = [(folder, os.stat(folder)) for folder in folders]
    except OSError as error:
        return f"{path}: its directory cannot be read ({error.strerror}); check its mode"
    remedy = "remove it"
    if not _is_anybodys(place.base, owners):
        if not place.is_anothers:
            owners.add(known[0][1].st_uid)
        else:
            known = known[1:]
            remedy = OWN_HOME
    for name, found in [*known, (path, status)]:
        if stranger := _other_owner(name, found, owners):
            return f"{name} belongs to user {stranger}, not to {os.geteuid()}; {remedy}"
        if found.st_mode & stat.S_IWOTH and not _is_guarded(found.st_mode):
            return f"{name} can be written by every user (mode {stat.S_IMODE(found.st_mode):o}); run `chmod o-w` on it"
        if found.st_mode & stat.S_IWGRP and not _is_guarded(found.st_mode) and _has_others(name, found.st_gid, owners):
            mode = stat.S_IMODE(found.st_mode)
            return f"{name} can be written by group {found.st_gid} (mode {mode:o}); run `chmod g-w` on it"
    return None


def _other_owner(name: str, found: os.stat_result, owners: set[int]) -> int | None:
    """Return the first owner that is not in ``owners``: of the file, or of the link with this name. None if there is none."""
    try:
        link = os.lstat(name)
    except OSError:
        link = found
    return next((status.st_uid for status in (found, link) if status.st_uid not in owners), None)


def _is_anybodys(base: str, owners: set[int]) -> bool:
    """Return whether another user made a directory, or one above it, in a directory where every user can make files."""
    path = os.path.abspath(base)
    while path != "/":
        path, below = os.path.dirname(path), path
        try:
            if os.stat(path).st_mode & stat.S_IWOTH and os.lstat(below).st_uid not in owners:
                return True
        except OSError:
            return True
    return False


def _has_others(name: str, group: int, owners: set[int]) -> bool:
    """Return whether other users may be in a group. Root's group does not count: in containers every user is in it."""
    return group != 0 and not is_private_group(name, group, owners)


def _is_guarded(mode: int) -> bool:
    """Return whether an entry that all users may write is safe all the same: a directory with the sticky bit, or the null device."""
    return bool(stat.S_ISCHR(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX))


def user_file(environ: Mapping[str, str]) -> str:
    """Return the path of the user's own file, even if it does not exist; an empty string for a user without a home."""
    place = user_place(environ)
    return place.path if place else ""


def user_place(environ: Mapping[str, str]) -> SettingsPlace | None:
    """Return the place of the user's own file; None for a user without a home."""
    directory = environ.get("XDG_CONFIG_HOME", "")
    if directory.startswith("/"):  # the specification says: ignore a relative path
        return _users_place(directory, "", environ)
    home = environ.get("HOME", "") or home_of_user()
    return _users_place(home, ".config", environ) if home.startswith("/") else None


def _users_place(base: str, below: str, environ: Mapping[str, str]) -> SettingsPlace:
    path = os.path.join(base, below, "headrace", NAME)
    return SettingsPlace(path, "user", base, is_anothers=is_anothers(base, environ))


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except (OSError, ValueError):
        return False


def _strangers_entry(path: str) -> os.stat_result | None:
    """Return the status of the entry ``path`` if it belongs to another user, else None. Links are not followed."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status if _is_strangers(status) else None


def _is_strangers(status: os.stat_result) -> bool:
    return status.st_uid not in (os.geteuid(), 0)


def _belongs(status: os.stat_result) -> str:
    return f"it belongs to user {status.st_uid}, not to {os.geteuid()}"


def _is_searchable(directory: str) -> bool:
    """Return whether this user may search a directory."""
    return os.access(directory, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _status(path: str) -> os.stat_result | None:
    """Return the status of a file, or None if there is none. A link that leads to no file is an error: it was meant to lead to one."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise ConfigurationError(f"{absolute(path)}: the link leads to no file; mend or remove it") from None
        return None
    except PermissionError as error:
        raise ConfigurationError(_forbidden(path, error)) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{absolute(path)}: {getattr(error, 'strerror', None) or error}") from None


def _forbidden(path: str, error: OSError) -> str:
    if path == NAME:
        return (
            f"{NAME}: the current directory cannot be searched for it ({error.strerror}); "
            f"go to another directory, or set {VARIABLE} to a file, or to {os.devnull} for none"
        )
    return f"{path}: {error.strerror}; set {VARIABLE} to a file that this user may read, or to {os.devnull} for none"


def _table(data: bytes, shown: str) -> dict[str, Any]:
    import tomllib

    if data.startswith(_UTF_16):
        raise ConfigurationError(f"{shown}: the file is UTF-16; save it as UTF-8")
    # The time of tomllib grows with the square of the dots in a name: 64 KiB of dots take a minute.
    if sum(line.count(b".") ** 2 for line in data.split(b"\n")) > _MAX_WORK:
        raise ConfigurationError(f"{shown}: the file cannot be read as TOML: it has lines with too many dots")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{shown}: the file is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{shown}: the file cannot be read as TOML: it is nested too deeply") from None
    except ValueError as error:
        if b"\0" in data[:2]:  # in UTF-16 each ASCII letter has a zero byte
            raise ConfigurationError(f"{shown}: the file is UTF-16; save it as UTF-8") from None
        raise ConfigurationError(f"{shown}: the file is not TOML: {error}") from None


def _bytes(path: str, shown: str) -> tuple[bytes, os.stat_result]:
    """Return the content of a file, and the status of the file that was opened."""
    try:
        # Check before opening: opening a device may act, such as rewind a tape.
        _check_kind(os.stat(path), shown)
        descriptor = open_to_read(path, follows_links=True)
    except OSError as error:
        raise ConfigurationError(f"{shown}: the file cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        _check_kind(status, shown)
        if stat.S_ISCHR(status.st_mode):
            return b"", status
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{shown}: the file cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{shown}: the file has more than {_MAX_BYTES} bytes")
    return data, status


def _check_kind(status: os.stat_result, shown: str) -> None:
    """Raise ConfigurationError unless this is a regular file or the null device. The null device counts as an empty file."""
    if stat.S_ISREG(status.st_mode):
        return
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.stat(os.devnull).st_rdev:
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ConfigurationError(f"{shown}: this is {kind}; name a file")


def absolute(path: str) -> str:
    """Return the absolute path; ``path`` itself if the current directory was removed."""
    try:
        return os.path.abspath(path)
    except OSError:
        return path
