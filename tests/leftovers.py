"""Finds what a run of the tests has left behind.

Processes, files in its temporary folder, entries in the user's home directory.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PREFIX = "hrt-"
_TRACKER = "from multiprocessing.resource_tracker import"
_OURS = ("headrace", ".headrace")
"""How the names begin of what Headrace creates where nothing names a folder."""


def own_folder(parent: Path) -> Path:
    """Make the temporary folder of this process, and remove the folders of test processes that were killed.

    The name is short, because paths of Unix sockets are short. It holds the process id, which tells whose folder it is.
    """
    for other in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if other.stat().st_uid == os.getuid() and not _is_alive(other.name.removeprefix(_PREFIX)):
                shutil.rmtree(other, ignore_errors=True)
    folder = parent / f"{_PREFIX}{os.getpid()}"
    folder.mkdir()
    # Some tests start processes of another user.
    folder.chmod(0o755)
    return folder


def processes_with(marker: str) -> list[str]:
    """Return the processes that have a text in their command line or in their environment.

    This process does not count, nor the resource tracker of ``multiprocessing``, which ends with it.
    """
    return [
        f"{pid}: {line.replace(chr(0), ' ').strip()}"
        for pid in _pids()
        if pid != os.getpid()
        and (_names(marker, line := _read(pid, "cmdline")) or _names(marker, _read(pid, "environ")))
        and not (_TRACKER in line and _parent(pid) == os.getpid())
    ]


def described(path: Path) -> str:
    """Return a path with its entries, each with its size in bytes and its age in seconds."""

    def one(entry: Path) -> str:
        with suppress(OSError):
            status = entry.lstat()
            return f"{entry.name}: {status.st_size} B, {time.time() - status.st_mtime:.1f} s"
        return entry.name

    try:
        entries = sorted(path.iterdir())
    except OSError:
        return f"{path} ({one(path)})"
    return f"{path} ({one(path)}; {'; '.join(map(one, entries)) or 'empty'})"


def entries_of_user(home: Path, temporary: Path) -> set[Path]:
    """Return what Headrace has in the directories where it writes if nothing tells it to write elsewhere."""
    folders = (home, home / ".config", home / ".local" / "state", home / ".local" / "share", home / ".cache", temporary)
    found: set[Path] = set()
    for folder in folders:
        with suppress(OSError):
            found |= {entry for entry in folder.iterdir() if entry.name.startswith(_OURS)}
    return found


def _names(marker: str, text: str) -> bool:
    return re.search(rf"{re.escape(marker)}(?!\d)", text) is not None


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""


def _parent(pid: int) -> int:
    found = re.search(r"^PPid:\s*(\d+)", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) if found else 0


def _is_alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()
