"""``SimulatedProvider``: starts, scripts and stops a simulated model provider on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from headrace.process.import_path import engine_environment
from headrace.testing.local_provider import LocalProvider
from headrace.testing.server import ServerThread
from headrace.testing.shared.script import Script
from headrace.testing.simulation import ProviderSimulation

_END_TIMEOUT = 2.0  # seconds


class SimulatedProvider(LocalProvider):
    """A local server that speaks the wire formats of all providers, answers by script, and logs its requests.

    ``script`` is the default script. ``port`` 0 means a free port. The server runs from construction to ``close()``: in
    a thread of this process or, with ``process=True``, in a process of its own, which does not slow down this
    interpreter. One process may have several, at once and one after another, also in threads and inside a running event
    loop. All methods are thread-safe and block for a moment. If ``wait_until`` waits for your event loop, call it by
    ``asyncio.to_thread``.

    A request is answered by its own ``simulate`` field (a ``Script`` as JSON), else by the oldest enqueued script, else
    by ``script``. Times in the records are ``time.monotonic()`` seconds, comparable between processes of one Linux
    machine. Raises OSError if the port cannot be used.
    """

    def __init__(self, script: Script | None = None, port: int = 0, *, process: bool = False) -> None:
        if script is not None:
            _check_script(script)
        super().__init__(_ServerProcess(script, port) if process else ServerThread(ProviderSimulation(script), port))

    def enqueue(self, *scripts: Script) -> None:
        """Answer the next valid requests by these scripts, one script for each request.

        Raises TypeError for what is no Script, ValueError for a Script with a wrong value.
        """
        for script in scripts:
            _check_script(script)
        self._call("POST", "scripts", msgspec.json.encode(scripts))


def _check_script(script: object) -> None:
    if not isinstance(script, Script):
        raise TypeError(f"takes a Script such as Script(text='Hello'), not {type(script).__name__}")


class _ServerProcess:
    """The simulated provider in a child process. It ends with this process, because its standard input ends then."""

    def __init__(self, script: Script | None, port: int) -> None:
        command = [sys.executable, "-m", "headrace.testing", "--port", str(port)]
        environ = engine_environment(os.environ, sys.path)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        try:
            self._write(msgspec.json.encode(script or Script()) + b"\n")
            self.port = self._read_port()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process. May be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:  # a forked child of this process still holds the other end of its input
            self._process.terminate()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read_port(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated provider did not start; its standard error says why")
        return msgspec.json.decode(line, type=dict[str, int])["port"]
