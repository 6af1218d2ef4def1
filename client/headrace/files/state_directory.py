"""Finds the user's home and the directory for Headrace's state (``$XDG_STATE_HOME/headrace``). Creates nothing.

``sudo -E`` and ``su -m`` keep the ``HOME`` of the calling user. That user can change everything in it, so it is not used.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return ``$XDG_STATE_HOME/headrace``, or ``~/.local/state/headrace`` if the variable is not set; None for a user without a home."""
    state = environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state, "headrace")
    home = environ.get("HOME", "")
    if not home.startswith("/") or is_anothers(home, environ):
        home = home_of_user()
    return Path(home, ".local", "state", "headrace") if home.startswith("/") else None


def expanded(path: str) -> Path:
    """Return a path with ``~`` replaced by the user's home.

    The home is ``HOME``. If ``HOME`` is relative or another user's, it is the home in the system's user database. Raises RuntimeError if
    there is no home.
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
    """Return the directory in which engines make their directories; None if the user has no home, or the home does not exist."""
    state = state_directory(environ)
    if state is None or not (environ.get("XDG_STATE_HOME", "").startswith("/") or os.path.isdir(state.parents[2])):
        return None
    return state / "run"


def home_of_user() -> str:
    """Return this user's home in the system's user database; an empty string if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except (KeyError, OSError):
        return ""


def is_anothers(home: str, environ: Mapping[str, str]) -> bool:
    """Return whether ``home`` is the home of the user who called this user.

    True if another user (not root) owns it, and one of these is true: this user has its own home; ``SUDO_UID`` names the owner; the owner
    is the real user of the process. In containers a user often has no home and runs in another user's home: that returns False.
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
