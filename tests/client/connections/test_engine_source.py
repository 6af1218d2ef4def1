"""What an engine source promises: an engine that has ended is reported at once, and one that starts is waited for."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client, EngineUnavailableError
from headrace.connections.embedded_engine import EmbeddedEngine
from headrace.connections.engine_source import ExternalEngine
from headrace.process.lifecycle import open_process
from tests.conftest import HELLO
from tests.waiting import busyness, wait_until


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hr-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def refusal(directory: Path) -> tuple[EngineUnavailableError, float]:
    began = time.monotonic()
    with Client(f"ipc://{directory}", connect_timeout=30) as client, pytest.raises(EngineUnavailableError) as error:
        client.run_local(model="gpt-4o", messages=HELLO)
    return error.value, time.monotonic() - began


def test_an_engine_that_has_ended_is_reported_at_once(directory: Path) -> None:
    (directory / "lock").write_text("1\n")

    error, took = refusal(directory)

    assert "has ended" in error.reason
    assert "headrace serve" in error.reason
    assert took < 2.0 * busyness()


def test_a_socket_without_a_listener_is_reported_at_once(directory: Path) -> None:
    import socket

    (directory / "lock").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / "broker"))

    assert refusal(directory)[1] < 2.0 * busyness()


def test_a_missing_directory_is_reported_at_once(directory: Path) -> None:
    error, took = refusal(directory / "gone")

    assert "no directory" in error.reason
    assert took < 2.0 * busyness()


def test_a_client_waits_for_a_broker_while_its_supervisor_lives(directory: Path) -> None:
    source = ExternalEngine(f"ipc://{directory}")
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        until = time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > until or source.why_gone())
        assert source.why_gone() is None

    assert "has ended" in wait_until(source.why_gone)


def test_a_client_waits_for_an_engine_that_has_not_started_yet(directory: Path) -> None:
    source = ExternalEngine(f"ipc://{directory}")
    until = time.monotonic() + 1.0
    wait_until(lambda: time.monotonic() > until or source.why_gone())

    assert source.why_gone() is None


def test_an_engine_that_ends_slowly_causes_no_warning(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where warnings are errors, a later test of the user would fail."""
    unraisable: list[object] = []
    late: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr("headrace.connections.embedded_engine._still_ending", late)
    monkeypatch.setattr("headrace.connections.embedded_engine._STOP_TIMEOUT", 0.01)
    engine = EmbeddedEngine()
    engine._directory = directory
    engine._process = subprocess.Popen(["sleep", "1000"])
    monkeypatch.setattr(engine, "_signal", lambda _: None)  # the engine does not end yet

    engine.close()

    assert unraisable == []
    assert len(late) == 1
    late[0].kill()
    late[0].wait()


def test_a_process_that_has_the_pid_of_an_ended_engine_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that handles SIGCHLD takes the exit status of all its children. The master of gunicorn does so."""
    engine = EmbeddedEngine()
    engine._directory = None
    process = subprocess.Popen(["sleep", "1000"])
    engine._process, engine._handle = process, open_process(process.pid)
    ended = subprocess.Popen(["true"])
    os.close(engine._handle or 0)
    engine._handle = open_process(ended.pid)
    ended.wait()
    monkeypatch.setattr("headrace.connections.embedded_engine._STOP_TIMEOUT", 0.01)

    engine.close()

    assert process.poll() is None, "the process has the engine's number, and is not the engine"
    process.kill()
    process.wait()
