"""Makes the import path (``PYTHONPATH``) of child processes, without the current directory.

With ``-m``, with ``-c`` and for an empty entry of ``PYTHONPATH``, Python imports from the current directory. Then the file ``uvloop.py``
of a cloned repository would become a part of the engine. The current directory stays on the path in three cases only: the user's
``PYTHONPATH`` names it; Headrace itself is installed in it; or it has the program's own script and the redaction hook.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.settings.settings import load_files
from headrace.settings.toml_file import VARIABLE, remembered_directory, with_remembered_places

_PATH = "PYTHONPATH"
_LIBRARIES = "LD_LIBRARY_PATH"
_LINK = "path-"


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child that imports from the installation and from this process's ``PYTHONPATH``."""
    entries = environ.get(_PATH, "").split(os.pathsep)
    return _environment(environ, os.pathsep.join(path for path in map(_absolute, filter(None, entries)) if path))


def engine_environment(
    environ: Mapping[str, str], entries: Iterable[object], folder: Path | None = None
) -> dict[str, str]:
    """Return the environment of a child that imports from everywhere that this process imports from.

    ``entries`` is ``sys.path``. A program may put anything into it: entries that are no paths are left out. ``PYTHONPATH`` separates
    its entries with colons. So a path with a colon gets a symbolic link in ``folder``; without a folder it is left out.
    """
    found: dict[str, None] = {}
    environ = with_remembered_places(environ)
    for number, path in enumerate(_kept([*entries], environ)):
        if os.pathsep not in path:
            found[path] = None
        elif folder is not None:
            link = folder / f"{_LINK}{number}"
            with contextlib.suppress(OSError):
                link.symlink_to(path)
            found[str(link)] = None
    return _environment(environ, os.pathsep.join(found))


def leave_current_directory() -> None:
    """Remove the current directory, which ``python -m`` has added, from the import path of this process and of its children."""
    current = _status(".")
    if current is not None and sys.path and not sys.flags.safe_path:
        is_current = _is_at(os.fspath(sys.path[0]) or ".", current)
        if is_current and not _may_stay(current, os.environ, sys.path[1:]):
            del sys.path[0]
    environ = child_environment(os.environ)
    for name in (_PATH, _LIBRARIES, "PYTHONSAFEPATH", VARIABLE):
        if name in environ:
            os.environ[name] = environ[name]
        else:
            os.environ.pop(name, None)


def _environment(environ: Mapping[str, str], path: str) -> dict[str, str]:
    added = {"PYTHONSAFEPATH": "1", _PATH: path}
    if libraries := environ.get(_LIBRARIES):
        # For the system's loader, too, an empty entry means the current directory.
        added[_LIBRARIES] = os.pathsep.join(filter(None, re.split("[:;]", libraries)))
    others = {name: value for name, value in with_remembered_places(environ).items() if name not in added}
    return others | {name: value for name, value in added.items() if value}


def _kept(entries: Sequence[object], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths among ``entries`` that children may import from."""
    # The program may have changed its directory after it made its client. Neither directory is trusted. A relative path such as
    # "lib" belongs to the directory of that time.
    current = [status for path in (".", remembered_directory()) if path and (status := _status(path)) is not None]
    for entry in entries:
        path = _absolute(entry, remembered_directory())
        if path is None:
            continue
        status = _status(path)
        if status is None or all(
            not os.path.samestat(status, each) or _may_stay(each, environ, entries) for each in current
        ):
            yield path


def _may_stay(current: os.stat_result, environ: Mapping[str, str], entries: Sequence[object]) -> bool:
    named = [path for path in environ.get(_PATH, "").split(os.pathsep) if path]
    if any(os.path.isabs(path) and _is_at(path, current) for path in named):
        return True
    # At its start Python has made relative names absolute. The current directory may have changed since then.
    relative = [os.path.join(base, path) for path in named for base in ("", remembered_directory()) if path[0] != "/"]
    at_start = [path for path in entries if isinstance(path, str) and path.startswith("/")]
    if all(any(_is_at(path, current) for path in paths) for paths in (relative, at_start)):
        return True
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = _script_folder()
    return _is_at(own, current) or (bool(script) and _is_at(script, current) and _has_hook(script, environ))


def _script_folder() -> str:
    """Return the directory of the program's script, which Python has put on the path. Empty if the program was started in another way."""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    if not isinstance(script, str) or getattr(main, "__spec__", None) is not None:
        return ""
    return os.path.dirname(os.path.realpath(script))


def _has_hook(folder: str, environ: Mapping[str, str]) -> bool:
    """Return whether a directory has the module of the redaction hook. Only a trusted settings file can name the hook."""
    try:
        spans = load_files(environ).spans
    except ConfigurationError:  # the engine reports it
        return False
    module = spans.redact.partition(":")[0].partition(".")[0]
    return bool(module) and importlib.machinery.PathFinder.find_spec(module, [folder]) is not None


def _is_at(path: str, status: os.stat_result) -> bool:
    found = _status(path)
    return found is not None and os.path.samestat(found, status)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _absolute(entry: object, base: str = "") -> str | None:
    try:
        path = os.fsdecode(entry)  # type: ignore[arg-type]  # a TypeError if it is no path
        os.fsencode(path)
        if "\0" in path:
            return None
        if path.startswith("/"):
            return path
        return os.path.join(base or os.getcwd(), path) if path else os.getcwd()
    except (TypeError, ValueError, OSError):  # the current directory may be gone
        return None
