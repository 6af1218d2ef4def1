"""Where a user's home and state are: ``HOME``, unless it is another user's, and ``$XDG_STATE_HOME/headrace``. Creates nothing.

``sudo -E`` and ``su -m`` leave the ``HOME`` of who called them. What lies there, that user has written, and may exchange.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return ``$XDG_STATE_HOME/headrace``, else ``~/.local/state/headrace``; None for a user without a home."""
    state = environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state, "headrace")
    home = environ.get("HOME", "")
    if not home.startswith("/") or is_anothers(home, environ):
        home = home_of_user()
    return Path(home, ".local", "state", "headrace") if home.startswith("/") else None


def expanded(path: str) -> Path:
    """Return a path with ``~`` as the user's home: ``HOME``, else what the system knows, where ``HOME`` is relative or another user's.

    Raises RuntimeError where there is no such home.
    """
    if path != "~" and not path.startswith("~/"):
        return Path(path).expanduser()
    home = os.environ.get("HOME", "")
    if not home.startswith("/") or is_anothers(home, os.environ):
        home = home_of_user()
    if not home.startswith("/"):
        raise RuntimeError("this user has no home directory")
    return Path(home, path[2:])


def sockets_place(environ: Mapping[str, str]) -> Path | None:
    """Return the directory for the directories of engines' sockets; None for a user without a home, or with one that does not exist."""
    state = state_directory(environ)
    if state is None or not (environ.get("XDG_STATE_HOME", "").startswith("/") or os.path.isdir(state.parents[2])):
        return None
    return state / "run"


def home_of_user() -> str:
    """Return the home that the system knows of this user; an empty string where it knows none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except (KeyError, OSError):
        return ""


def is_anothers(home: str, environ: Mapping[str, str]) -> bool:
    """Return whether the environment names as this user's home a directory that is that of the user who called this one.

    It is, where another user (not root) owns it, and this user has a home of its own, or that user's number is in ``SUDO_UID``, or is the
    process's real one. A container's user has no home of its own often, and runs in that of another: there is nobody else.
    """
    try:
        found = os.stat(home)
        if found.st_uid in (os.geteuid(), 0):
            return False
        if found.st_uid == os.getuid() or environ.get("SUDO_UID") == str(found.st_uid):
            return True
        known = os.stat(home_of_user())
    except OSError:
        return False
    return known.st_uid == os.geteuid() and not os.path.samestat(known, found)
