"""Where the engine is: one that runs already, or one of this program's own, started as child processes.

An embedded engine ends with the program that started it: its supervisor watches both a pipe that only this process holds
open and this process itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from headrace.errors import ConfigurationError, EngineUnavailableError, HeadraceError
from headrace.logs import copy_of_log
from headrace.settings import EMBEDDED, MAX_PATH, directory_of

logger = logging.getLogger(__name__)

BROKER_SOCKET = "broker"
COLLECTOR_SOCKET = "collector"
LOCK_FILE = "lock"
LOG_FILE = "engine.log"
BAD_SETTINGS = 2
"""How an engine's process ends that cannot use its settings, after a line of its log that says why."""
_COMPLAINT = "headrace: "
_STOP_TIMEOUT = 1.5


def broker_endpoint(directory: Path) -> str:
    """Return the broker's ZeroMQ endpoint in an engine's directory."""
    return f"ipc://{directory / BROKER_SOCKET}"


def collector_endpoint(directory: Path) -> str:
    """Return the collector's ZeroMQ endpoint in an engine's directory."""
    return f"ipc://{directory / COLLECTOR_SOCKET}"


def check_directory(directory: Path) -> str | None:
    """Return why an engine's directory must not be trusted, or None. Only its owner may enter it."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return _why_closed(directory, error)
    if not stat.S_ISDIR(status.st_mode):
        return f"{directory} is not a directory"
    if status.st_uid != os.getuid():
        return f"{directory} belongs to user {status.st_uid}, not to {os.getuid()}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        return f"{directory} is open to other users (mode {mode:o}); it must be 700 (`chmod 700 {directory}`)"
    return None


def _why_closed(directory: Path, error: OSError) -> str:
    """Return whose the directory is that keeps this user out of a directory below it."""
    if isinstance(error, PermissionError):
        for path in directory.parents:
            with contextlib.suppress(OSError):
                owner = path.stat().st_uid
                if owner != os.getuid():
                    return f"{directory} cannot be entered: {path} belongs to user {owner}, not to {os.getuid()}"
                break
    return f"{directory} cannot be entered: {error.strerror}"


def is_engine_running(directory: Path) -> bool:
    """Return whether a live supervisor holds the directory's lock."""
    try:
        with (directory / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class EngineSource(Protocol):
    """Where the engine is, and what becomes of it. All calls come from the I/O thread."""

    address: str
    hint: str

    def open(self) -> str:
        """Return the broker's endpoint, starting an engine where that is this source's way; raises HeadraceError."""

    def problem(self) -> str | None:
        """Return why the engine cannot be there any more, or None."""

    def error(self, reason: str) -> HeadraceError:
        """Return what runs end with that have no engine for ``reason``."""

    def close(self) -> None:
        """End what :meth:`open` started."""


class ExternalEngine:
    """An engine that somebody else runs."""

    hint = "start one with `headrace serve`, or check the address"

    def __init__(self, address: str) -> None:
        self.address = address
        self._directory = directory_of(address)

    def open(self) -> str:
        """Return the broker's endpoint; raises EngineUnavailableError where the directory must not be trusted."""
        if (problem := check_directory(self._directory)) is not None:
            raise EngineUnavailableError(self.address, problem)
        return broker_endpoint(self._directory)

    def problem(self) -> str | None:
        """Return None: it may come back at any time."""
        return None

    def error(self, reason: str) -> HeadraceError:
        """Return the error with the address."""
        return EngineUnavailableError(self.address, reason)

    def close(self) -> None:
        """Leave it running."""


class EmbeddedEngine:
    """An engine of this program's own, started on first use."""

    address = EMBEDDED
    hint = "the machine may be busy: give Client a longer connect_timeout; HEADRACE_LOG=INFO makes the engine say more"

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    def open(self) -> str:
        """Return the broker's endpoint, starting the engine where there is none."""
        if self._directory is None or not self._is_alive():
            self._forget()
            try:
                self._start()
            except HeadraceError:
                raise
            except Exception as error:  # whatever is odd about this program, its runs end with the cause
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                raise EngineUnavailableError(EMBEDDED, f"it cannot be started: {reason}") from error
        assert self._directory is not None  # noqa: S101 - _start has set it
        return broker_endpoint(self._directory)

    def problem(self) -> str | None:
        """Return why the engine is gone, with the last lines of its log, or None."""
        if self._directory is None:
            return "it was not started"
        if self._process is None:
            return None if is_engine_running(self._directory) else "the process that started it has ended"
        code = self._process.poll()
        return None if code is None else f"it ended with status {code}{self._last_words()}"

    def error(self, reason: str) -> HeadraceError:
        """Return the error; where the engine ended because of its settings, that is what is said."""
        if self._process is not None and self._process.poll() == BAD_SETTINGS:
            said = [line for line in self._log_lines() if line.startswith(_COMPLAINT)]
            if said:
                return ConfigurationError(said[-1].removeprefix(_COMPLAINT))
        return EngineUnavailableError(EMBEDDED, reason)

    def close(self) -> None:
        """End the engine that this process started; wait for it for a moment."""
        self._let_go()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT)
            if self._process.poll() is None:
                self._process.terminate()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None
        self._process = None

    def in_child(self) -> EmbeddedEngine:
        """Return the parent's engine as a forked child may use it: it is not the child's to end."""
        child = EmbeddedEngine()
        child._directory = self._directory
        if self._lifeline is not None:
            # The child must not keep the pipe open, or the engine would outlive its owner.
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
        return child

    def _is_alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._directory is not None and is_engine_running(self._directory)

    def _start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="headrace-", dir=_runtime_directory()))
        read, write = os.pipe()
        command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory), "--parent", str(os.getpid())]
        log = os.open(directory / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # A session of its own keeps the terminal's Ctrl-C away; nothing of it writes to the program's standard output.
            output, added = copy_of_log(os.environ, log)
            environment = {**_environment(), **added}
            self._process = subprocess.Popen(
                command, stdin=read, stdout=output, stderr=log, start_new_session=True, env=environment
            )
        except OSError as error:
            os.close(write)
            raise EngineUnavailableError(EMBEDDED, f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            os.close(read)
            os.close(log)
        self._directory = directory
        self._lifeline = write
        logger.info("engine started", extra={"pid": self._process.pid, "directory": str(directory)})

    def _let_go(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

    def _forget(self) -> None:
        self._let_go()
        self._process = None
        self._directory = None

    def _last_words(self) -> str:
        lines = self._log_lines()
        return ": " + " | ".join(lines[-3:]) if lines else ""

    def _log_lines(self) -> list[str]:
        if self._directory is None:
            return []
        try:
            return (self._directory / LOG_FILE).read_text(errors="replace").strip().splitlines()
        except OSError:
            return []


def _runtime_directory() -> str:
    """Return a directory of the user's for sockets, short enough for their names."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [runtime, tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp makes a private directory in it
    for candidate in candidates:
        if candidate and len(candidate.encode()) < MAX_PATH - 20 and os.access(candidate, os.W_OK):
            return candidate
    raise EngineUnavailableError(
        EMBEDDED, f"no writable directory for sockets among {', '.join(filter(None, candidates))}"
    )


def _environment() -> dict[str, str]:
    # The child must find the same packages as this process, however this one was told of them. Without the safe path
    # `python -m` would look in the current directory first: a msgspec.py that lies there would become part of the engine.
    search_path = os.pathsep.join(path or os.getcwd() for path in sys.path if _is_search_path(path))
    return {**os.environ, "PYTHONPATH": search_path, "PYTHONSAFEPATH": "1"}


def _is_search_path(path: object) -> bool:
    """Return whether Python looks for modules there: it passes over what is no str, or no name of a file."""
    try:
        return isinstance(path, str) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
