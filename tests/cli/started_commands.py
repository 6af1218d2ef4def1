"""Commands in an environment of their own, whose processes can be found."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.cli.forking import ForkingProgram
from tests.waiting import busyness

MARK = "HEADRACE_TEST_MARK"


class Commands:
    """Starts commands in an environment of their own. A variable in it marks their processes."""

    def __init__(self, directory: Path, program: ForkingProgram) -> None:
        self.directory = directory
        self._program = program
        self._mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[str]] = []
        places = {"XDG_RUNTIME_DIR": str(directory), "XDG_STATE_HOME": str(directory / "state")}
        self.environment = inherited() | places | {"TERM": "xterm", MARK: self._mark}

    def start(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environment,
            process_group=0,
        )
        self._started.append(process)
        return process

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return ended(self.start(*command, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE), stdin)

    def headrace(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``headrace`` with its arguments to its end, in a fork of the program."""
        return self._program.run("headrace", *arguments, environ=self.environment, directory=self.directory)

    def left_over(self) -> list[str]:
        """Return the command lines of processes that do not end by themselves."""
        return [line for pid, line in self._processes() if not has_ended(pid, timeout=3.0 * busyness())]

    def close(self) -> None:
        """End what a failed test left behind."""
        for pid, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            if process.stdout is not None and not process.stdout.closed:
                ended(process)
        shutil.rmtree(self.directory)

    def _processes(self) -> Iterator[tuple[int, str]]:
        mark = f"{MARK}={self._mark}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    yield (
                        int(entry.name),
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"),
                    )
            except OSError:
                continue


def inherited() -> dict[str, str]:
    """Return the environment without what would change the commands."""
    foreign = ("HEADRACE_", "OPENAI_", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def ended(process: subprocess.Popen[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    with process:
        out, err = process.communicate(stdin)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def has_ended(pid: int, timeout: float) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()  # the program of the tests may have more descriptors open than select takes
        poller.register(handle, select.POLLIN)
        return bool(poller.poll(timeout * 1000))
    finally:
        os.close(handle)
