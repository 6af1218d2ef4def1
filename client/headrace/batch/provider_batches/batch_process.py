"""BatchProcess: the child process of a job that has the keys and talks to the providers. Starts it, and starts it again."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from headrace.batch.provider_batches.row_files import LOG_SUFFIX
from headrace.errors import ConfigurationError, EngineUnavailableError, RemoteProtocolError
from headrace.process.child_environment import environment_of
from headrace.process.import_path import engine_environment
from headrace.process.interpreter import find_interpreter
from headrace.settings.settings import Settings
from headrace.settings.toml_file import with_remembered_places
from headrace.wire.batch_frames import batch_answers, encode_batch_frame
from headrace.wire.batch_messages import BatchAnswer, BatchCall, CallFailed, CreateBatch
from headrace.wire.run_messages import Failed

_LOG = f"batches{LOG_SUFFIX}"
_NAME = "batches"
"""Stands for the address of the process in errors."""
_STOP_TIMEOUT = 2.0
_MOST_DEATHS = 5
"""How often in a row the process may die without an answer."""
_BAD_SETTINGS = 2
_LAST_LINES = 3
_SETTINGS_ERROR = "headrace: "


class BatchProcess:
    """The batch process. Calls are sent, and their answers are taken, in any order. Used by one thread.

    ``directory``: gets the process's log. Raises EngineUnavailableError if the process cannot be started.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._log = directory / _LOG
        self._answers: queue.SimpleQueue[tuple[int, BatchAnswer | None]] = queue.SimpleQueue()
        self._calls: dict[int, BatchCall] = {}
        self._starts = 0
        self._deaths = 0
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def send(self, call: BatchCall) -> None:
        """Send a call. Its answer comes from :meth:`take`."""
        self._calls[call.call] = call
        self._write(call)

    def take(self, timeout: float) -> tuple[BatchCall, BatchAnswer] | None:
        """Return an answer with its call; None if there is none within ``timeout`` seconds.

        Raises ConfigurationError if the process cannot use the settings, EngineUnavailableError if it dies again and
        again. If it dies once, another one carries out the same calls. But a batch that was being created may exist:
        this call fails.
        """
        try:
            start, answer = self._answers.get(timeout=timeout) if timeout > 0 else self._answers.get_nowait()
        except queue.Empty:
            return None
        if start != self._starts:
            return None  # of a process that has died; its calls were sent again
        if answer is None:
            return self._start_again()
        self._deaths = 0
        call = self._calls.pop(answer.call, None)
        return None if call is None else (call, answer)

    def close(self) -> None:
        """End the process. May be called twice."""
        self._starts += 1
        _end(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        environ = with_remembered_places(os.environ)
        variables = environment_of("worker", environ, self._settings)
        command = [find_interpreter(), "-m", "headrace_workers.batches", "--parent", str(os.getpid())]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            log = os.open(self._log, flags, 0o600)
            try:
                # A session of its own: the terminal's Ctrl-C does not reach it.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=engine_environment(variables, sys.path, self._directory),
                )
            finally:
                os.close(log)
        except OSError as error:
            raise EngineUnavailableError(_NAME, f"the batch process cannot be started: {error}") from None
        self._starts += 1
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        reader = threading.Thread(
            target=self._read, args=(self._starts, process.stdout), name="headrace batch answers", daemon=True
        )
        reader.start()
        return process

    def _read(self, start: int, pipe: BinaryIO) -> None:
        """Hand over the answers of one process, then None. Runs in a thread of its own."""
        with contextlib.suppress(OSError, RemoteProtocolError, ValueError):
            for answer in batch_answers.all(pipe):
                self._answers.put((start, answer))
        pipe.close()
        self._answers.put((start, None))

    def _start_again(self) -> tuple[BatchCall, BatchAnswer] | None:
        self._deaths += 1
        _end(self._process)
        if self._process.returncode == _BAD_SETTINGS and (said := self._settings_error()):
            raise ConfigurationError(said)
        if self._deaths >= _MOST_DEATHS:
            last = " | ".join(self._last_lines())
            raise EngineUnavailableError(
                _NAME, f"the batch process died {self._deaths} times: {last}; its log is {self._log}"
            )
        self._process = self._start()
        # One after the other: only one answer can be returned. The others come when the next process dies or answers.
        for call in list(self._calls.values()):
            if isinstance(call, CreateBatch):
                self._answers.put((self._starts, _lost(call)))
            else:
                self._write(call)
        return None

    def _write(self, call: BatchCall) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(OSError, ValueError):  # it has died: the reader tells, and the call is sent again
            self._process.stdin.write(encode_batch_frame(call))
            self._process.stdin.flush()

    def _settings_error(self) -> str:
        lines = [line for line in self._last_lines() if line.startswith(_SETTINGS_ERROR)]
        return lines[-1].removeprefix(_SETTINGS_ERROR) if lines else ""

    def _last_lines(self) -> list[str]:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            return [line.strip()[:500] for line in lines[-_LAST_LINES:]]
        return []


def _lost(call: CreateBatch) -> CallFailed:
    reason = "the batch process died while the batch was being created"
    return CallFailed(
        call.call, Failed("", 0, 0, "provider_unavailable", reason, may_retry=True), may_have_arrived=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
