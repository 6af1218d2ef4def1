"""Where the engine is: one that runs already, or one of this program's own, started as child processes.

An embedded engine ends with the program that started it: its supervisor watches both a pipe that only this process holds
open and this process itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from headrace.connections.embedded_folders import end_of_log, make_folder, open_log
from headrace.errors import ConfigurationError, EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import LOCK_FILE, LOG_FILE, broker_endpoint, is_engine_running, remove_folder
from headrace.files.trusted_directory import directory_refusal
from headrace.process.callbacks import log
from headrace.process.child_environment import environment_of
from headrace.process.clock import monotonic
from headrace.process.import_path import engine_environment
from headrace.process.interpreter import find_interpreter
from headrace.process.lifecycle import open_process, origin, signal_process
from headrace.process.logs import copy_of_log
from headrace.settings.settings import EMBEDDED, directory_of, load_files, with_built_in
from headrace.settings.toml_file import with_meant_places

logger = logging.getLogger(__name__)

BAD_SETTINGS = 2
"""How an engine's process ends that cannot use its settings, after a line of its log that says why."""
_COMPLAINT = "headrace: "
_STOP_TIMEOUT = 1.5
_REAP_TIMEOUT = 0.5
_ABSENCE = 0.5
"""Seconds for which an engine that is not there may be starting, or be restarted by its process manager."""
_START_LIMIT = 120.0
"""Seconds that an engine's start may take, as long as it goes on."""
_STALLED_AFTER = 10.0
"""Seconds without any sign of progress, after which a start is given up."""
_LAST_LINES = 3
_late: list[subprocess.Popen[bytes]] = []
"""Engines that were told to end and had not when this program went on. Python warns of a process that is let go of while it runs."""


class EngineSource(Protocol):
    """Where the engine is, and what becomes of it. All calls come from the I/O thread."""

    address: str
    hint: str

    def open(self) -> str:
        """Return the broker's endpoint, starting an engine where that is this source's way; raises HeadraceError."""

    def is_broker(self, pid: int) -> bool:
        """Return whether a process may be the engine's broker."""

    def problem(self) -> str | None:
        """Return why the engine cannot be there any more, or None."""

    def error(self, reason: str) -> HeadraceError:
        """Return what runs end with that have no engine for ``reason``."""

    def is_starting(self) -> bool:
        """Return whether the engine is on its way: it must be waited for, however long others wait for one."""

    def last_words(self) -> str:
        """Return what the engine's log says last, as the end of a sentence; an empty text where that is unknown."""

    def close(self) -> None:
        """End what :meth:`open` started."""


class ExternalEngine:
    """An engine that somebody else runs."""

    hint = "start one with `headrace serve`, or check the address"

    def __init__(self, address: str) -> None:
        self.address = address
        self._directory = directory_of(address)
        self._absent_since: float | None = None

    def open(self) -> str:
        """Return the broker's endpoint; raises EngineUnavailableError where the directory must not be trusted."""
        if (problem := self._untrusted()) is not None:
            raise EngineUnavailableError(self.address, problem)
        return broker_endpoint(self._directory)

    def is_broker(self, pid: int) -> bool:  # noqa: ARG002 - the source's form
        """Return True: which processes somebody else's engine has is not known."""
        return True

    def problem(self) -> str | None:
        """Return why the directory must not be trusted; or that no engine runs there, once that has been so for a moment.

        A supervisor holds its lock for as long as it lives: while it does, a broker that is not there is on its way. An empty
        directory was made for an engine that has not started yet.
        """
        if (problem := self._untrusted()) is not None:
            return problem
        reason = self._absence()
        now = monotonic()
        if reason is None:
            self._absent_since = None
            return None
        if self._absent_since is None:
            self._absent_since = now
        return reason if now - self._absent_since >= _ABSENCE else None

    def is_starting(self) -> bool:
        """Return False: nobody knows."""
        return False

    def last_words(self) -> str:
        """Return nothing: its log is its owner's."""
        return ""

    def error(self, reason: str) -> HeadraceError:
        """Return the error with the address."""
        return EngineUnavailableError(self.address, reason)

    def close(self) -> None:
        """Leave it running."""

    def _untrusted(self) -> str | None:
        refusal = directory_refusal(self._directory)
        return None if refusal is None or isinstance(refusal, FileNotFoundError) else refusal.strerror

    def _absence(self) -> str | None:
        if is_engine_running(self._directory):
            return None
        if (self._directory / LOCK_FILE).exists():
            return f"the engine in {self._directory} has ended; {self.hint}"
        if not self._directory.exists():
            return f"there is no directory {self._directory}; {self.hint}"
        return None


class EmbeddedEngine:
    """An engine of this program's own, started on first use."""

    address = EMBEDDED
    hint = "the machine may be busy: give Client a longer connect_timeout; HEADRACE_LOG=INFO makes the engine say more"

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # A number may be another's process by now: whoever handles SIGCHLD in this program may have taken the status of ours.
        self._handle: int | None = None
        self._lifeline: int | None = None
        self._started_at = 0.0
        # What was seen of a start last, and since when.
        self._seen: object = None
        self._seen_at = 0.0

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

    def is_broker(self, pid: int) -> bool:
        """Return whether a process was started by the engine's supervisor, or that cannot be known."""
        known = origin(pid) if pid else None
        return known is None or self._process is None or known.parent == self._process.pid

    def problem(self) -> str | None:
        """Return why the engine is gone, with the last lines of its log, or None."""
        if self._directory is None:
            return "it was not started"
        if self._process is None:
            return None if is_engine_running(self._directory) else "the process that started it has ended"
        code = self._process.poll()
        if code is None:
            return None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"it {how}{self.last_words()}"

    def is_starting(self) -> bool:
        """Return whether the engine's processes live and get on; for at most two minutes."""
        if self._process is None or self._directory is None or self._process.poll() is not None:
            return False
        now = monotonic()
        seen = _progress(self._process.pid, self._directory)
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._started_at < _START_LIMIT and now - self._seen_at < _STALLED_AFTER

    def last_words(self) -> str:
        """Return the last lines of the engine's log, behind a colon."""
        lines = self._log_lines()
        # What the supervisor notes of each end says less than what the process itself said.
        telling = [line for line in lines if " supervisor WARNING " not in line] or lines
        return ": " + " | ".join(line.strip() for line in telling[-_LAST_LINES:]) if telling else ""

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
                self._signal(signal.SIGTERM)
                self._signal(signal.SIGCONT)  # one that was stopped does not hear of it otherwise
        self._forget()

    def in_child(self) -> EmbeddedEngine:
        """Return the parent's engine as a forked child may use it: it is not the child's to end."""
        child = EmbeddedEngine()
        child._directory = self._directory
        if self._lifeline is not None:
            # The child must not keep the pipe open, or the engine would outlive its owner.
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
        return child

    def _is_alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._directory is not None and is_engine_running(self._directory)

    def _start(self) -> None:
        _late[:] = [process for process in _late if process.poll() is None]
        interpreter = find_interpreter()
        directory = make_folder()
        try:
            self._launch(interpreter, directory)
        except BaseException:
            remove_folder(directory)
            raise

    def _launch(self, interpreter: str, directory: Path) -> None:
        command = [interpreter, "-m", "headrace_engine", "--directory", str(directory), "--parent", str(os.getpid())]
        environment = engine_environment(_needed_variables(), sys.path, directory)
        with contextlib.ExitStack() as stack:
            read, write = (_above_standard(end) for end in os.pipe())
            stack.callback(os.close, read)
            keep = stack.enter_context(contextlib.ExitStack())
            keep.callback(os.close, write)
            log_file = _above_standard(open_log(directory))
            stack.callback(os.close, log_file)
            output, added = copy_of_log(os.environ, log_file)
            # A session of its own keeps the terminal's Ctrl-C away; nothing of it writes to the program's standard output.
            self._process = subprocess.Popen(
                command, stdin=read, stdout=output, stderr=log_file, start_new_session=True, env=environment | added
            )
            keep.pop_all()
        self._handle = open_process(self._process.pid)
        self._directory = directory
        self._lifeline = write
        self._started_at = self._seen_at = monotonic()
        log(logger, logging.INFO, "engine started", extra={"pid": self._process.pid, "directory": str(directory)})

    def _signal(self, number: int) -> None:
        """Send the supervisor a signal, if it is still there."""
        if self._handle is not None:
            signal_process(self._handle, number)
        elif self._process is not None:
            self._process.send_signal(number)

    def _let_go(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

    def _forget(self) -> None:
        self._let_go()
        if self._process is not None and self._directory is not None:
            if self._process.poll() is not None:
                _reap_group(self._process.pid)
            else:
                _late.append(self._process)
            remove_folder(self._directory)
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._process = None
        self._directory = None

    def _log_lines(self) -> list[str]:
        return end_of_log(self._directory).strip().splitlines() if self._directory is not None else []


def _progress(pid: int, directory: Path) -> object:
    """Return what changes while an engine starts: its files, its log, and the time that its supervisor has had."""
    try:
        files = sorted(path.name for path in directory.iterdir())
        log_size = (directory / LOG_FILE).stat().st_size
    except OSError:
        files, log_size = [], 0
    try:
        turns = Path(f"/proc/{pid}/schedstat").read_text()
    except OSError:
        turns = str(monotonic())  # the system does not tell: that it lives must do
    return files, log_size, turns


def _above_standard(descriptor: int) -> int:
    """Keep a descriptor away from 0, 1 and 2: where these were closed, whoever prints would write to it."""
    if descriptor > 2:  # noqa: PLR2004 - standard error
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _reap_group(supervisor: int) -> None:
    """Take the exit status of what a killed supervisor left: where this program is the container's first, it is its parent now."""
    deadline = monotonic() + _REAP_TIMEOUT
    with contextlib.suppress(OSError):
        while monotonic() < deadline:
            if os.waitpid(-supervisor, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _needed_variables() -> Mapping[str, str]:
    environ = with_meant_places(os.environ)
    try:
        return environment_of("supervisor", environ, with_built_in(load_files(environ), environ), is_embedded=True)
    except ConfigurationError:
        return environ  # the engine ends at once, and says what is wrong
