"""``SimulatedProvider``: starts, scripts and stops a simulated model provider on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from typing import Literal

import msgspec

from headrace.process.import_path import engine_environment
from headrace.testing.batches.batch_control import SimulatedBatches
from headrace.testing.local_provider import LocalProvider
from headrace.testing.server import ServerThread
from headrace.testing.shared.conditions import Change, DelayFirstChunks, RefuseKey, SetLimits, SetOutage
from headrace.testing.shared.provider_limits import ProviderLimits
from headrace.testing.shared.request_log import key_hash
from headrace.testing.shared.script import Script
from headrace.testing.simulation import ProviderSimulation

_END_TIMEOUT = 2.0  # seconds
_POLL = 0.002


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

    @property
    def batches(self) -> SimulatedBatches:
        """The batches of the batch APIs: how fast they go, how they end, and a list of them."""
        return SimulatedBatches(self._call)

    def enqueue(self, *scripts: Script) -> None:
        """Answer the next valid requests by these scripts, one script for each request.

        Raises TypeError for what is no Script, ValueError for a Script with a wrong value.
        """
        for script in scripts:
            _check_script(script)
        self._call("POST", "scripts", msgspec.json.encode(scripts))

    def limit(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        key: str = "",
        window: float = 60.0,
        headers: bool = True,
        retry_after: bool = True,
    ) -> None:
        """Answer 429 above these limits, from now on. They are those of each pair of a key and a model.

        * ``requests_per_minute``, ``tokens_per_minute``: default None, no such limit. Without both, nothing is limited.
        * ``key``: the API key that has these limits. Default: all keys that have no limits of their own.
        * ``window``: seconds over which is counted, strictly: no window of this length has more. Default 60. With 3, a
          twentieth of the limits is allowed in 3 s.
        * ``headers``: whether answers tell the limits in their headers, as OpenAI and Anthropic do (Google does not).
        * ``retry_after``: whether a 429 tells how long to wait: in its headers, or for Google in its body.

        Tokens are those of the usage that the answer tells, counted when the request comes. OpenAI counts the most that
        a request allows for its answer, where it says so. What was used stays used if the limits change. A 429 uses
        nothing. Requests that are refused for another reason, or whose script is an error, do not count.

        Raises ValueError for a limit that is not positive.
        """
        try:
            limits = msgspec.convert(
                {
                    "requests_per_minute": requests_per_minute,
                    "tokens_per_minute": tokens_per_minute,
                    "window": window,
                    "headers": headers,
                    "retry_after": retry_after,
                },
                ProviderLimits,
            )
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        self._change(SetLimits(key_hash(key), limits))

    def refuse_key(self, key: str, *, is_refused: bool = True) -> None:
        """Answer requests with this API key as if it were wrong; with ``is_refused=False``, take it again."""
        self._change(RefuseKey(key_hash(key), is_refused))

    def delay_first_chunks(self, share: float, seconds: float, *, key: str = "") -> None:
        """Delay the first chunk of a share of the answers, such as each twentieth for 0.05. A share of 0 ends it.

        ``key``: the API key whose answers are late. Default: all keys that have no share of their own.
        """
        self._change(DelayFirstChunks(share, seconds, key_hash(key)))

    def begin_outage(
        self,
        kind: int | Literal["refused", "reset"] = 503,
        *,
        key: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer no valid request any more: with a status instead, with a reset, or by refusing connections.

        ``key``: the API key that has the outage. Default: all have it, as they do if connections are refused.
        ``headers``: those of the error, such as ``{"retry-after": "2"}``. Answers that have begun go on.
        """
        self._change(SetOutage(kind, "" if kind == "refused" else key_hash(key), headers or {}))
        if kind == "refused":
            self._wait_until_refused(True)

    def end_outage(self, *, key: str = "") -> None:
        """Answer again: to this key, or for an outage that all had, to all."""
        self._change(SetOutage(None, key_hash(key)))
        if not key:
            self._wait_until_refused(False)

    def recover(self) -> None:
        """Have no limits, no refused keys, no delays and no outage any more, and forget what was used. Batches go at once again."""
        self._call("POST", "recover")
        self._wait_until_refused(False)

    def _change(self, change: Change) -> None:
        self._call("POST", "conditions", msgspec.json.encode(change))

    def _wait_until_refused(self, are_refused: bool) -> None:
        deadline = time.monotonic() + _END_TIMEOUT
        pause = threading.Event()
        while self._is_refused() != are_refused and time.monotonic() < deadline:
            pause.wait(_POLL)

    def _is_refused(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) != 0


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
