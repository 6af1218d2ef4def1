"""The supervisor process: starts, watches and restarts the broker and the workers, and ends them. It does nothing else.

It ends when its parent does (embedded), when it is told to (SIGTERM: running streams may finish; a second one: now), or when
the engine cannot start at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec

from headrace.embedded import LOCK_FILE, LOG_FILE, broker_endpoint, check_directory
from headrace.errors import ProtocolError
from headrace.processes import is_orphan, open_process
from headrace.reactor import Reactor
from headrace.sockets import Dealer, new_context
from headrace.wire.codec import encode_frame, from_broker
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, Hello, ProcessReport, ProcessStatus, Silent
from headrace_engine.exit_codes import ExitCode
from headrace_engine.restart import GiveUp, RestartPolicy

logger = logging.getLogger(__name__)

_TICK = 0.5
_LOCK_TIMEOUT = 0.3
"""Seconds to try for the directory's lock: a program that looks whether an engine runs holds it for an instant."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor is told on its command line. ``parent`` is the process it belongs to, if it is embedded."""

    directory: Path
    workers: int
    parent: int | None = None
    drain_timeout: float = 30.0


class EngineStartError(Exception):
    """The engine cannot start; the text says why and what to do."""


class _Child:
    """One process that is to be running."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.policy = RestartPolicy(name)
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd: int | None = None
        self.epoch = 0
        self.reason = ""

    def status(self) -> ProcessStatus:
        is_running = self.process is not None
        pid = self.process.pid if self.process is not None else None
        return ProcessStatus(
            self.name,
            pid,
            "running" if is_running else "waiting",
            self.policy.restarts,
            "" if is_running else self.reason,
        )


class Supervisor:
    """The processes of one engine."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._reactor = Reactor()
        self._children: list[_Child] = []
        self._is_draining = False
        self._exit_code = ExitCode.OK
        self._lock: int | None = None
        self._context = new_context()
        self._link: Dealer | None = None

    def run(self) -> int:
        """Run the engine until it ends; return the exit code. Raises EngineStartError."""
        self._prepare_directory()
        directory = str(self._settings.directory)
        common = ["--directory", directory, "--parent", str(os.getpid())]
        self._children.append(_Child("broker", [sys.executable, "-m", "headrace_engine", "broker", *common]))
        for number in range(1, self._settings.workers + 1):
            name = f"w{number}"
            command = [sys.executable, "-m", "headrace_workers", *common, "--name", name]
            self._children.append(_Child(name, command))
        try:
            for child in self._children:
                self._start(child)
            self._watch_parent()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: self._reactor.call(self._end))
            if self._settings.parent is None:
                signal.signal(signal.SIGINT, lambda *_: self._reactor.call(self._end))
            self._tick()
            self._reactor.run()
        finally:
            self._kill_all()
            self._clean_directory()
        return self._exit_code

    def _prepare_directory(self) -> None:
        directory = self._settings.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (problem := check_directory(directory)) is not None:
            raise EngineStartError(f"{problem}; choose another directory, or `chmod 700` it")
        self._lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock_within(self._lock, _LOCK_TIMEOUT):
            raise EngineStartError(f"an engine runs in {directory} already; `headrace status` shows it")

    def _clean_directory(self) -> None:
        if self._settings.parent is not None:
            shutil.rmtree(self._settings.directory, ignore_errors=True)
            return
        for path in self._settings.directory.iterdir():
            if path.name not in (LOCK_FILE, LOG_FILE):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _start(self, child: _Child) -> None:
        if self._is_draining:
            return
        child.epoch = secrets.randbits(31) + 1
        child.policy.started(time.monotonic())
        child.process = subprocess.Popen([*child.command, "--epoch", str(child.epoch)], stdin=subprocess.DEVNULL)
        if child.name == "broker":
            self._open_link()
        child.pidfd = open_process(child.process.pid)
        if child.pidfd is not None:
            self._reactor.register(child.pidfd, partial(self._look_at, child))

    def _look_at(self, child: _Child) -> None:
        """Find out whether a child has ended, and what follows."""
        if child.process is None or (code := child.process.poll()) is None:
            return
        if child.pidfd is not None:
            self._reactor.unregister(child.pidfd)
            os.close(child.pidfd)
        child.process = child.pidfd = None
        child.reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._remove_socket(child)
        if self._is_draining:
            self._end_when_drained()
            return
        logger.warning("process ended: %s (%s)", child.name, child.reason)
        decision = child.policy.exited(child.reason, time.monotonic())
        if isinstance(decision, GiveUp):
            print(f"headrace: the engine cannot start: {decision.reason}", file=sys.stderr, flush=True)  # noqa: T201
            self._exit_code = ExitCode.CANNOT_START
            self._reactor.stop()
            return
        self._reactor.call_at(decision.when, partial(self._restart, child))
        self._report()

    def _restart(self, child: _Child) -> None:
        self._start(child)
        self._report()

    def _remove_socket(self, child: _Child) -> None:
        """The next one has an endpoint of its own; nobody must wait at the old one."""
        if child.name != "broker":
            with contextlib.suppress(OSError):
                (self._settings.directory / f"{child.name}-{child.epoch:x}").unlink()

    def _tick(self) -> None:
        """Look at everything now and then: the way where there are no process handles."""
        for child in self._children:
            self._look_at(child)
        parent = self._settings.parent
        if parent is not None and is_orphan(parent):
            self._reactor.stop()
        self._reactor.call_at(time.monotonic() + _TICK, self._tick)

    def _watch_parent(self) -> None:
        """An embedded engine ends with its program: by the pipe that is our standard input, and by its process handle."""
        parent = self._settings.parent
        if parent is None:
            return
        self._reactor.register(sys.stdin.fileno(), self._reactor.stop)
        if (handle := open_process(parent)) is not None:
            self._reactor.register(handle, self._reactor.stop)
        if is_orphan(parent):
            self._reactor.stop()

    def _end(self) -> None:
        """End: at first by letting running streams finish, when told again at once."""
        if self._is_draining:
            self._reactor.stop()
            return
        self._is_draining = True
        for child in self._children:
            if child.process is not None:
                child.process.terminate()
        self._reactor.call_at(time.monotonic() + self._settings.drain_timeout, self._reactor.stop)
        self._end_when_drained()

    def _end_when_drained(self) -> None:
        if all(child.process is None for child in self._children if child.name != "broker"):
            self._reactor.stop()

    def _kill_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.kill()
        for process in running:
            process.wait()

    def _open_link(self) -> None:
        """Say hello to a new broker; it knows nothing of what the one before was told."""
        if self._link is not None:
            self._reactor.unregister(self._link.fd)
            self._link.close()
        self._link = Dealer(self._context, broker_endpoint(self._settings.directory))
        self._reactor.register(self._link.fd, self._read_broker)
        self._link.send(encode_frame(1, [Hello("supervisor", PROTOCOL_MINOR, os.getpid(), CAPABILITIES)]))
        self._report()

    def _read_broker(self) -> None:
        """End the workers of which the broker says that they are hung; their streams then know that they are lost."""
        for frame in self._link.receive() if self._link is not None else ():
            try:
                _, messages = from_broker.decode(frame)
            except ProtocolError:
                logger.exception("the broker's message cannot be read")
                continue
            for message in messages:
                if isinstance(message, Silent):
                    self._end_hung(message)

    def _end_hung(self, silent: Silent) -> None:
        for child in self._children:
            if child.name == silent.worker and child.epoch == silent.epoch and child.process is not None:
                logger.warning("worker is hung: %s (silent for %.1f s)", child.name, silent.silence)
                child.process.kill()

    def _report(self) -> None:
        if self._link is not None:
            self._link.send(encode_frame(1, [ProcessReport([child.status() for child in self._children])]))
            if self._link.has_input():
                self._reactor.call(self._read_broker)


def _lock_within(descriptor: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True
