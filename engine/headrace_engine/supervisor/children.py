"""The supervisor's child processes: how one is started, told to end, measured, and how it ended."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from headrace.process.lifecycle import open_process, origin, signal_process
from headrace.wire.engine_status import ProcessStatus
from headrace_engine.supervisor.restart_policy import RestartPolicy

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """One process that is to be running. ``policy`` is that of its name: a replacement has the one of whom it replaces.

    ``environ`` is the environment that it is started with.
    """

    def __init__(
        self, name: str, command: list[str], environ: Mapping[str, str], policy: RestartPolicy | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.environ = environ
        self.policy = policy or RestartPolicy(name)
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd: int | None = None
        self.epoch = 0
        # In the kernel's ticks; with the pid it tells this process from all others.
        self.started = 0
        self.reason = ""
        # It is told to end, and nobody comes after it: another has its place already, or the engine ends.
        self.is_leaving = False
        # Whether a broker has heard of the process that runs.
        self.has_served = False

    @property
    def pid(self) -> int:
        """The process id, or 0 if no process runs."""
        return self.process.pid if self.process is not None else 0

    @property
    def is_worker(self) -> bool:
        """Whether it serves runs."""
        return "headrace_workers" in self.command

    def start(self, now: float) -> None:
        """Start the process, with an epoch of its own."""
        self.epoch = secrets.randbits(31) + 1
        self.has_served = False
        self.policy.started(now)
        command = [*self.command, "--epoch", str(self.epoch)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self.environ)
        self.pidfd = open_process(self.process.pid)
        # Nobody else has its pid before its end has been asked for here.
        known = origin(self.process.pid)
        self.started = known.started if known is not None else 0

    def has_ended(self) -> bool:
        """Return whether the process has ended since the last call; ``reason`` then says how."""
        if self.process is None or (code := self.process.poll()) is None:
            return False
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.process = self.pidfd = None
        self.reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        return True

    def leave(self) -> None:
        """Have it finish what it has and end; told again: end what it has, and itself."""
        self.is_leaving = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most ``timeout`` seconds; return whether it has."""
        if self.process is not None:
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
        return True

    def _signal(self, number: int) -> None:
        """Send a signal to the process that was started here, and never to another that has its number by now."""
        if self.process is None:
            return
        if self.pidfd is not None:
            signal_process(self.pidfd, number)
        else:
            self.process.send_signal(number)  # which looks first whether it has ended

    def memory(self) -> int:
        """Return the bytes of memory that it has in use; 0 where the system does not tell."""
        if self.process is None:
            return 0
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def status(self) -> ProcessStatus:
        """Return what the engine's status says of it."""
        if self.process is None:
            return ProcessStatus(self.name, None, "waiting", self.policy.restarts, self.reason)
        state = "draining" if self.is_leaving else "running"
        facts = (self.name, self.process.pid, state, self.policy.restarts)
        epoch = self.epoch if self.is_worker else 0
        return ProcessStatus(*facts, epoch=epoch, has_served=self.has_served, started=self.started)
