"""Where a user's state is kept: ``$XDG_STATE_HOME/headrace``, else ``~/.local/state/headrace``. Creates nothing."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory; None for a user without a home."""
    state = environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state, "headrace")
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except (KeyError, OSError):
            return None
    return Path(home, ".local", "state", "headrace") if home.startswith("/") else None


def expanded(path: str) -> Path:
    """Return a path with ``~`` as the user's home directory.

    Raises RuntimeError where there is no such home, and where ``HOME`` is relative: it would be a place in the current directory.
    """
    found = Path(path).expanduser()
    if path.startswith("~") and not found.is_absolute():
        raise RuntimeError("HOME is no absolute path")
    return found


def sockets_place(environ: Mapping[str, str]) -> Path | None:
    """Return the directory for the directories of engines' sockets; None for a user without a home, or with one that does not exist."""
    state = state_directory(environ)
    if state is None or not (environ.get("XDG_STATE_HOME", "").startswith("/") or os.path.isdir(state.parents[2])):
        return None
    return state / "run"
