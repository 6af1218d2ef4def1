"""Finds the Python interpreter that starts the engine's processes.

``sys.executable`` is not always an interpreter: if Python is embedded in a program (uwsgi, a frozen application), it is that program, or empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

from headrace.errors import EngineUnavailableError

_OWN_NAME = re.compile(rf"(python|pypy){sys.version_info.major}\.{sys.version_info.minor}[a-z]*(\.exe)?")
_CHECK = "import sys; print(sys.implementation.cache_tag)"
_CHECK_TIMEOUT = 10.0
"""Seconds that a candidate may take to say its version."""


def find_interpreter() -> str:
    """Return the path of an interpreter of this Python version. Raises EngineUnavailableError if there is none."""
    for candidate in _candidates():
        if _is_program(candidate) and (_has_own_name(candidate) or _answers(candidate)):
            return candidate
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise EngineUnavailableError(
        "embedded",
        f"no Python {version} to start it with: sys.executable is {sys.executable!r}, and there is none in "
        f"{sys.prefix} or {sys.base_prefix}; set sys.executable to one, or use an engine of `headrace serve`",
    )


def _candidates() -> Iterator[str]:
    """Yield paths that may be an interpreter. The one of the virtual environment comes first, because it has the packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = [f"python{version}{sys.abiflags}", f"python{version}", "python3", "python"]
    for given in (sys.executable, getattr(sys, "_base_executable", None)):
        if isinstance(given, (str, os.PathLike)) and given:
            yield os.fspath(given)
    bin_directory = sysconfig.get_config_var("BINDIR")
    folders = [os.path.join(prefix, "bin") for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    if isinstance(bin_directory, str):
        folders.append(bin_directory)
    for folder in dict.fromkeys(folders):
        yield from (os.path.join(folder, name) for name in names)
    for folder in os.get_exec_path():
        yield os.path.join(folder, names[1])


def _is_program(path: str) -> bool:
    return path.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK)


def _has_own_name(path: str) -> bool:
    return _OWN_NAME.fullmatch(os.path.basename(os.path.realpath(path))) is not None


def _answers(path: str) -> bool:
    """Start a program to find out whether it is a Python of this version. Used if its name does not tell that."""
    if "py" not in os.path.basename(path).lower():
        return False  # a server or an application with Python inside would start to work
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            [path, "-I", "-S", "-c", _CHECK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_TIMEOUT,
            check=False,
        )
        return done.returncode == 0 and done.stdout.decode(errors="replace").strip() == sys.implementation.cache_tag
    return False
