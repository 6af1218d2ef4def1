"""A child process of the supervisor: starts it, sends it signals, measures its memory, and tells how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from headrace.process.epoch import new_epoch
from headrace.process.lifecycle import open_process, origin, signal_process
from headrace.wire.engine_status import ProcessStatus
from headrace_engine.supervisor.restart_policy import RestartPolicy

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """A process that the supervisor keeps running. ``command`` and ``environ`` are what it is started with.

    ``policy`` decides when it is started again. A replacement keeps the policy of the worker that it replaces.
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
        # When the kernel started it, in ticks. Together with the pid it tells this process from all others.
        self.started = 0
        self.reason = ""
        # It was told to end, and is not started again: its replacement runs, or the engine ends.
        self.is_leaving = False
        # Whether this process has said hello to a broker.
        self.has_served = False

    @property
    def pid(self) -> int:
        """The process id, or 0 if no process runs."""
        return self.process.pid if self.process is not None else 0

    @property
    def was_started(self) -> bool:
        """Whether a process of it was started before, running or not."""
        return self.epoch != 0

    @property
    def is_worker(self) -> bool:
        """Whether this is a worker."""
        return "headrace_workers" in self.command

    def start(self, now: float) -> None:
        """Start the process, with a new epoch. Raises OSError."""
        self.epoch = new_epoch()
        self.has_served = False
        self.policy.started(now)
        command = [*self.command, "--epoch", str(self.epoch)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self.environ)
        self.pidfd = open_process(self.process.pid)
        # No other process gets its pid before poll() has taken its exit status.
        known = origin(self.process.pid)
        self.started = known.started if known is not None else 0

    def has_ended(self) -> bool:
        """Return whether the process has ended since the last call. Then ``reason`` says how."""
        if self.process is None or (code := self.process.poll()) is None:
            return False
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.process = self.pidfd = None
        self.reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        return True

    def leave(self) -> None:
        """Ask it to finish its runs and to end (SIGTERM). The second time, ask it to end its runs too."""
        self.is_leaving = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, ``timeout`` seconds at most. Return whether it has ended."""
        if self.process is not None:
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
        return True

    def _signal(self, number: int) -> None:
        """Send a signal to this process, and never to another one that has got its pid since."""
        if self.process is None:
            return
        if self.pidfd is not None:
            signal_process(self.pidfd, number)
        else:
            self.process.send_signal(number)  # it first checks whether the process has ended

    def memory(self) -> int:
        """Return how many bytes of memory it uses; 0 if the system does not tell."""
        if self.process is None:
            return 0
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def status(self) -> ProcessStatus:
        """Return its part of the engine's status."""
        if self.process is None:
            return ProcessStatus(self.name, None, "waiting", self.policy.restarts, self.reason)
        state = "draining" if self.is_leaving else "running"
        facts = (self.name, self.process.pid, state, self.policy.restarts)
        epoch = self.epoch if self.is_worker else 0
        return ProcessStatus(*facts, epoch=epoch, has_served=self.has_served, started=self.started)
