"""Processes of other users, for tests: one listens where an engine would, and records each byte that it gets.

The tests that use it must be root. The processes are forked: Python itself may lie where other users cannot read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import busyness, wait_until

STRANGER = 54321
VICTIM = 54322

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become other users")

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
_READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
_COMMAND, _LONG = 4, 2


def become(user: int) -> None:
    """Become a user, in no group but one of the same number, for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def fork() -> int:
    """Fork. Python warns from 3.12 on where there are threads, as there are in pytest's own processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class StrangersChild:
    """A forked process of another user, and what it returns as JSON."""

    def __init__(self, user: int, action: Callable[[], Any]) -> None:
        self._read, write = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._read)
                become(user)
                os.write(write, json.dumps(action()).encode())
                code = 0
            except BaseException as error:  # noqa: BLE001 - whatever it is, the child must end by itself
                os.write(write, json.dumps(f"{type(error).__name__}: {error}").encode())
            finally:
                os._exit(code)
        os.close(write)

    def result(self, timeout: float = 60.0) -> Any:
        """Wait for the end; return what ``action`` did."""
        said = b""
        while select.select([self._read], [], [], timeout * busyness())[0]:
            if not (more := os.read(self._read, 65536)):
                break
            said += more
        else:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._read)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert code == 0, (code, said)
        return json.loads(said)


class PeerRecorder:
    """Speaks ZMTP to all that connect, as a ROUTER would, and keeps what they say. ``answer`` is a frame that each is sent.

    ``listener`` is a socket at which somebody listens already.
    """

    def __init__(self, path: Path, answer: bytes = b"", listener: socket.socket | None = None) -> None:
        self._listener = listener or socket.socket(socket.AF_UNIX)
        if listener is None:
            made = path.with_name(f".{path.name}")
            self._listener.bind(os.fspath(made))
            made.chmod(0o777)
            self._listener.listen(64)
            made.rename(path)  # it is there when somebody listens
        self._listener.setblocking(False)
        self._hello = _GREETING + bytes([_COMMAND, len(_READY)]) + _READY
        self._answer = bytes([0, len(answer)]) + answer if answer else b""
        self._said: dict[socket.socket, bytearray] = {}
        self.connections = 0
        self.messages: list[bytes] = []

    def serve(self, timeout: float) -> None:
        """Take what comes within ``timeout`` seconds."""
        ready, _, _ = select.select([self._listener, *self._said], [], [], timeout)
        for one in ready:
            if one is self._listener:
                self._accept()
                continue
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            was_ready = _is_ready(self._said[one])
            self._said[one] += data
            if not data:
                self._leave(one)
            elif not was_ready and _is_ready(self._said[one]):  # before that ZeroMQ takes nothing
                with contextlib.suppress(OSError):
                    one.send(self._answer)

    def close(self) -> None:
        """End, with the rest of what was said."""
        for one in list(self._said):
            with contextlib.suppress(OSError):
                self._said[one] += one.recv(1 << 20)
            self._leave(one)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            one, _ = self._listener.accept()
            one.setblocking(False)
            self.connections += 1
            self._said[one] = bytearray()
            one.send(self._hello)

    def _leave(self, one: socket.socket) -> None:
        self.messages += _messages(bytes(self._said.pop(one)))
        one.close()


def _is_ready(said: bytearray) -> bool:
    """Return whether a peer has said its READY."""
    start = len(_GREETING) + 2
    return len(said) >= start and len(said) >= start + said[start - 1]


def _messages(said: bytes) -> list[bytes]:
    """Return all that was said behind the greeting and the READY: frames that are no commands, and halves of frames."""
    found, at = [], len(_GREETING)
    while at < len(said):
        flags, start = said[at], at + 2
        size = int.from_bytes(said[at + 1 : at + 9]) if flags & _LONG else int.from_bytes(said[at + 1 : at + 2])
        start += 7 if flags & _LONG else 0
        if not flags & _COMMAND:
            found.append(said[start : start + size])
        at = start + size
    return found


@contextlib.contextmanager
def listening(
    *paths: Path,
    answer: bytes = b"",
    each_turn: Callable[[], None] = lambda: None,
    listener: socket.socket | None = None,
) -> Iterator[dict[str, Any]]:
    """Have a stranger listen at some paths while the block runs; the yielded dict has its ``connections`` and ``messages`` afterwards."""
    heard: dict[str, Any] = {}
    told, tell = os.pipe()

    def listen() -> dict[str, Any]:
        os.close(tell)
        recorders = [PeerRecorder(path, answer, listener) for path in paths]
        while not select.select([told], [], [], 0)[0]:
            each_turn()
            for recorder in recorders:
                recorder.serve(0.001 / len(recorders))
        deadline = time.monotonic() + 0.05  # what is on its way
        while time.monotonic() < deadline:
            for recorder in recorders:
                recorder.serve(0.005)
        for recorder in recorders:
            recorder.close()
        messages = [message.hex() for recorder in recorders for message in recorder.messages]
        return {"connections": sum(recorder.connections for recorder in recorders), "messages": messages}

    child = StrangersChild(STRANGER, listen)
    os.close(told)
    wait_until(lambda: all(path.exists() for path in paths), 10.0, "the stranger's sockets")
    try:
        yield heard
    finally:
        os.close(tell)
        heard.update(child.result())
