"""Walks a path step by step, from the root, following symbolic links one at a time. The caller may refuse a link.

Each step is opened in the directory of the step before it. So nobody can replace a directory between two steps.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path

_MOST_LINKS = 40
"""Symbolic links on one path. The kernel follows as many."""
_STEP = os.O_PATH | os.O_CLOEXEC


def walk_path(
    path: Path, check_link: Callable[[str, os.stat_result], None]
) -> Generator[tuple[str, int, bool], None, None]:
    """Yield each step: its path without links, its descriptor, and whether it is the last step. The root comes first.

    The descriptor is open until the next step. ``check_link`` gets the path and the status of each symbolic link before it is
    followed, and raises an exception to refuse it. Raises OSError if a step cannot be opened.
    """
    here = "/"
    left = list(path.absolute().parts[:0:-1])
    links = 0
    folder = os.open(here, _STEP | os.O_DIRECTORY)
    try:
        yield here, folder, not left
        while left:
            name = left.pop()
            step = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=folder)
            if stat.S_ISLNK(os.fstat(step).st_mode):
                links += 1
                target = _target(step, os.path.join(here, name), links, check_link)
                left += [part for part in reversed(target.split("/")) if part not in {"", "."}]
                if target.startswith("/"):
                    os.close(folder)
                    here, folder = "/", os.open("/", _STEP | os.O_DIRECTORY)
            else:
                os.close(folder)
                here, folder = os.path.normpath(os.path.join(here, name)), step
            yield here, folder, not left
    finally:
        os.close(folder)


def _target(link: int, path: str, links: int, check_link: Callable[[str, os.stat_result], None]) -> str:
    """Return where an open link leads to, and close it."""
    try:
        check_link(path, os.fstat(link))
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
