"""The embedded engine of a program: starts it as child processes, watches its start, and ends it.

An embedded engine ends with the program that started it. Its supervisor watches this process, and a pipe that only this
process holds open.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.connections.embedded_folders import make_folder, open_log
from headrace.connections.kept_logs import end_of_log, logs_directory, remove_old_logs
from headrace.errors import ConfigurationError, EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import LOG_FILE, broker_endpoint, is_engine_running, remove_folder
from headrace.process.callbacks import log
from headrace.process.child_environment import environment_of
from headrace.process.clock import monotonic
from headrace.process.import_path import engine_environment
from headrace.process.interpreter import find_interpreter
from headrace.process.lifecycle import open_process, origin, signal_process
from headrace.process.logs import copy_of_log
from headrace.process.masked_output import masking
from headrace.settings.known_secrets import provider_secrets, proxy_secrets, sink_secrets
from headrace.settings.settings import EMBEDDED, Settings, SpansConfig, load_files, with_built_in
from headrace.settings.toml_file import with_remembered_places

logger = logging.getLogger(__name__)

_EXIT_BAD_SETTINGS = 2
"""Exit status of an engine that cannot use its settings. A line of its log says why."""
_SETTINGS_ERROR = "headrace: "
"""How the line of the log begins that says what is wrong with the settings."""
_STOP_TIMEOUT = 1.5
"""Seconds that closing waits for an embedded engine to end."""
_REAP_TIMEOUT = 0.5
"""Seconds at most that are spent on the exit status of processes that a killed supervisor left."""
_START_LIMIT = 120.0
"""Seconds that the start of an embedded engine may take, while it makes progress."""
_STALLED_AFTER = 10.0
"""Seconds without progress, after which a start counts as failed."""
_LAST_LINES = 3
"""How many lines of the engine's log an error has."""
_LINE_LENGTH = 500
"""Characters of each of these lines."""
_SAYS_NO_FAULT = re.compile(r"\S+ \S+ (DEBUG|INFO) ")
"""How a line of the log begins that tells of no fault."""
_still_ending: list[subprocess.Popen[bytes]] = []
"""Supervisors that were told to end, and had not ended yet. They are kept, because Python warns when it drops a running
process."""


class EmbeddedEngine:
    """An embedded engine: this program's own, started on first use."""

    address = EMBEDDED
    hint = "the machine may be busy: give Client a longer connect_timeout; HEADRACE_LOG=DEBUG makes the engine say more"

    def __init__(self) -> None:
        self.log: Path | None = None
        """The log of the engine that was started last, also after its end. Any thread may read it."""
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Signals go through this descriptor of the process. Its pid may belong to another process by now: the program
        # may have a handler for SIGCHLD that takes the exit status.
        self._handle: int | None = None
        self._lifeline: int | None = None
        self._started_at = 0.0
        # The progress of the start as it was seen last, and since when it is unchanged.
        self._progress: object = None
        self._progress_at = 0.0

    def open(self) -> str:
        """Return the broker's endpoint.

        Starts the engine if it does not run. Raises EngineUnavailableError where that fails.
        """
        if self._directory is None or not self.is_running:
            self._forget()
            try:
                self._start()
            except HeadraceError:
                raise
            except Exception as error:  # the runs that wait for the engine end with the cause
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                raise EngineUnavailableError(EMBEDDED, f"it cannot be started: {reason}") from error
        assert self._directory is not None  # noqa: S101 - _start has set it
        return broker_endpoint(self._directory)

    def is_broker(self, pid: int) -> bool:
        """Return whether the engine's supervisor started the process ``pid``.

        Returns True where that cannot be known.
        """
        known = origin(pid) if pid else None
        return known is None or self._process is None or known.parent == self._process.pid

    @property
    def kept_log(self) -> Path | None:
        """The log, if it stays after the end of the engine. Any thread may ask."""
        log = self.log
        return None if log is None or log.name == LOG_FILE else log

    @property
    def is_running(self) -> bool:
        """Whether the engine runs, or starts. Any thread may ask."""
        process, directory = self._process, self._directory
        if process is not None:
            return process.poll() is None
        return directory is not None and is_engine_running(directory)

    def why_gone(self) -> str | None:
        """Return how the engine ended, with the last lines of its log. Returns None while it runs."""
        if self._directory is None:
            return "it was not started"
        if self._process is None:
            return None if is_engine_running(self._directory) else "the process that started it has ended"
        code = self._process.poll()
        if code is None:
            return None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"it {how}{self.end_of_log()}"

    def is_starting(self) -> bool:
        """Return whether the engine is starting and makes progress. The start may take two minutes at most."""
        if self._process is None or self._directory is None or self._process.poll() is not None:
            return False
        now = monotonic()
        progress = _start_progress(self._process.pid, self._directory, self.log)
        if progress != self._progress:
            self._progress, self._progress_at = progress, now
        return now - self._started_at < _START_LIMIT and now - self._progress_at < _STALLED_AFTER

    def end_of_log(self) -> str:
        """Return the last lines of the engine's log that tell of a fault, after a colon; and where the log is."""
        lines = [line for line in self._log_lines() if not _SAYS_NO_FAULT.match(line)]
        # The process that failed says more about the cause than the warning of its supervisor.
        chosen = [line for line in lines if " supervisor WARNING " not in line] or lines
        said = ": " + " | ".join(line.strip()[:_LINE_LENGTH] for line in chosen[-_LAST_LINES:]) if chosen else ""
        return f"{_masked(said)}; its log is {self.kept_log}" if self.kept_log is not None else _masked(said)

    def error(self, reason: str) -> HeadraceError:
        """Return ConfigurationError if the engine could not use its settings, else EngineUnavailableError."""
        if self._process is not None and self._process.poll() == _EXIT_BAD_SETTINGS:
            lines = [line for line in self._log_lines() if line.startswith(_SETTINGS_ERROR)]
            if lines:
                return ConfigurationError(lines[-1].removeprefix(_SETTINGS_ERROR))
        return EngineUnavailableError(EMBEDDED, reason)

    def close(self) -> None:
        """End the engine that this process started. Waits up to 1.5 s for its end."""
        self._close_lifeline()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT)
            if self._process.poll() is None:
                # Before the signal: it may end a supervisor that has no handler yet, and this program may end next.
                self._remove_folder()
                self._signal(signal.SIGTERM)
                self._signal(signal.SIGCONT)  # a stopped process gets SIGTERM only when it continues
        self._forget()

    def in_child(self) -> EmbeddedEngine:
        """Return the engine for a forked child. The child may use its parent's engine, and must not end it."""
        child = EmbeddedEngine()
        child._directory = self._directory
        child.log = self.log
        if self._lifeline is not None:
            # The child must not keep the pipe open: else the engine would outlive the parent.
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
        return child

    def _start(self) -> None:
        _still_ending[:] = [process for process in _still_ending if process.poll() is None]
        interpreter = find_interpreter()
        directory = make_folder()
        environ = with_remembered_places(os.environ)
        settings = _settings(environ)
        logs = logs_directory(settings.spans if settings is not None else SpansConfig(), environ)
        try:
            self._launch(interpreter, directory, _needed_variables(environ, settings), logs)
        except BaseException:
            remove_folder(directory)
            raise
        if logs is not None:
            with contextlib.suppress(OSError):
                remove_old_logs(logs, time.time())  # while the engine starts

    def _launch(self, interpreter: str, directory: Path, variables: Mapping[str, str], logs: Path | None) -> None:
        command = [interpreter, "-m", "headrace_engine", "--directory", str(directory), "--parent", str(os.getpid())]
        environment = engine_environment(variables, sys.path, directory)
        with contextlib.ExitStack() as stack:
            read, write = (_above_standard(end) for end in os.pipe())
            stack.callback(os.close, read)
            keep = stack.enter_context(contextlib.ExitStack())
            keep.callback(os.close, write)
            opened, path = open_log(directory, logs)
            log_file = _above_standard(opened)
            stack.callback(os.close, log_file)
            output, added = copy_of_log(os.environ, log_file)
            # A session of its own: the terminal's Ctrl-C does not reach the engine. The engine never writes to the
            # program's standard output.
            self._process = subprocess.Popen(
                command, stdin=read, stdout=output, stderr=log_file, start_new_session=True, env=environment | added
            )
            keep.pop_all()
        self._handle = open_process(self._process.pid)
        self.log = path
        self._directory = directory
        self._lifeline = write
        self._started_at = self._progress_at = monotonic()
        log(logger, logging.INFO, "engine started", extra={"pid": self._process.pid, "directory": str(directory)})

    def _signal(self, number: int) -> None:
        """Send the supervisor a signal, if it still runs."""
        if self._handle is not None:
            signal_process(self._handle, number)
        elif self._process is not None:
            self._process.send_signal(number)

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

    def _forget(self) -> None:
        self._close_lifeline()
        if self._process is not None:
            if self._process.poll() is not None:
                _reap_group(self._process.pid)
            else:
                _still_ending.append(self._process)
            self._remove_folder()
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._process = None
        self._directory = None

    def _remove_folder(self) -> None:
        if self._directory is not None:
            remove_folder(self._directory)

    def _log_lines(self) -> list[str]:
        return end_of_log(self.log).strip().splitlines() if self.log is not None else []


def _start_progress(pid: int, directory: Path, log_path: Path | None) -> object:
    """Return what changes while an engine starts: its files, its log, and the processor time of its supervisor."""
    try:
        files = sorted(path.name for path in directory.iterdir())
        log_size = log_path.stat().st_size if log_path is not None else 0
    except OSError:
        files, log_size = [], 0
    try:
        turns = Path(f"/proc/{pid}/schedstat").read_text()
    except OSError:
        turns = str(monotonic())  # not known on this system: a process that lives counts as progress
    return files, log_size, turns


def _above_standard(descriptor: int) -> int:
    """Return a descriptor above 2.

    Where standard output was closed, a new file could become descriptor 1, and prints go to it.
    """
    if descriptor > 2:  # noqa: PLR2004 - standard error
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _reap_group(supervisor: int) -> None:
    """Take the exit statuses of the children of a killed supervisor: the first process of a container inherits them."""
    deadline = monotonic() + _REAP_TIMEOUT
    with contextlib.suppress(OSError):
        while monotonic() < deadline:
            if os.waitpid(-supervisor, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _settings(environ: Mapping[str, str]) -> Settings | None:
    """Return the settings of a new engine. None if they are faulty: the engine ends at once and says what is wrong."""
    try:
        return with_built_in(load_files(environ), environ)
    except ConfigurationError:
        return None


def _needed_variables(environ: Mapping[str, str], settings: Settings | None) -> Mapping[str, str]:
    return environ if settings is None else environment_of("supervisor", environ, settings, is_embedded=True)


def _masked(text: str) -> str:
    """Take the secrets of this program out of a text. The engine does so too, but not before it has read its settings."""
    if not text or (settings := _settings(os.environ)) is None:
        return text
    known = [*provider_secrets(settings, os.environ), *sink_secrets(settings, os.environ), *proxy_secrets(os.environ)]
    return masking(known)(text)
