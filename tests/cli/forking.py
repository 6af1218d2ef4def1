"""Runs many commands in one started program: each in a fork of it, which costs a quarter of a start of Python."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.waiting import busyness

_LONGEST_COMMAND = 60.0
"""Seconds that a command may take."""
_LONGEST_END = 5.0
"""Seconds that the program may take to end."""
PROGRAM = """
import gc, json, os, runpy, socket, sys
import headrace.cli.main
from headrace import Client
exec(sys.argv[2])

def next_command():
    # Returns in a fork, which runs one command and ends as any program ends.
    gc.freeze()
    os.set_inheritable(int(sys.argv[1]), False)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        for line in control.makefile():
            child = os.fork()
            if child == 0:
                return json.loads(line)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            control.sendall(b"%d\\n" % code)
    os._exit(0)

command = next_command()
os.environ.clear()
os.environ.update(command["environ"])
os.chdir(command["directory"])
module, *sys.argv[1:] = command["arguments"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A fork keeps the standard streams of the program."""


class ForkingProgram:
    """A program with standard streams that a shell has redirected. Its forks run modules, as ``python -m`` does.

    ``environ``: the variables at the start of Python; encodings are read only then. Python code in ``before`` runs before the first command.
    Standard input is empty, standard output and standard error are files, unless ``redirection`` or ``stdout`` says otherwise.
    """

    def __init__(
        self,
        redirection: str = "",
        environ: Mapping[str, str] | None = None,
        *,
        stdout: int | None = None,
        before: str = "",
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._control, theirs = socket.socketpair()
        self._answers = self._control.makefile()
        self._out, self._err = (tempfile.TemporaryFile(buffering=0) for _ in range(2))  # noqa: SIM115
        line = f'exec "$0" -P -c "$@" {redirection}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, sys.executable, PROGRAM, str(theirs.fileno()), before],
            stdin=subprocess.DEVNULL,
            stdout=self._out if stdout is None else stdout,
            stderr=self._err,
            env=self._environ,
            pass_fds=[theirs.fileno()],
            process_group=0,
        )
        theirs.close()

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        directory: str | Path = ".",
        encoding: str = "utf-8",
    ) -> subprocess.CompletedProcess[str]:
        """Run a module with its arguments to its end. ``environ`` is added to what the program was started with."""
        for file in (self._out, self._err):
            file.seek(0)
            file.truncate()
        command: dict[str, Any] = {"arguments": arguments, "environ": self._environ | dict(environ or {})}
        self._control.settimeout(_LONGEST_COMMAND * busyness())
        try:
            self._control.sendall(json.dumps(command | {"directory": str(directory)}).encode() + b"\n")
            answer = self._answers.readline()
        except BaseException:
            os.killpg(
                self._process.pid, signal.SIGKILL
            )  # a command hangs: its fork, and the program, which waits for it
            raise
        out, err = (_content(file).decode(encoding) for file in (self._out, self._err))
        assert answer, f"the program has ended: {err}"
        return subprocess.CompletedProcess(arguments, int(answer), out, err)

    def close(self) -> None:
        """End the program."""
        self._answers.close()
        self._control.close()
        try:
            self._process.wait(_LONGEST_END * busyness())
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._out.close()
        self._err.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
