"""The supervisor's children.

A signal goes to the process that was started, and to no other process with the same pid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace_engine.process_exit import EngineExitCode
from headrace_engine.supervisor.children import Child
from tests.waiting import wait_until


@pytest.mark.parametrize("has_handle", [True, False], ids=["with a handle", "without"])
def test_no_signal_goes_to_another_process_that_has_got_the_same_pid(
    monkeypatch: pytest.MonkeyPatch, has_handle: bool
) -> None:
    if not has_handle:
        monkeypatch.setattr("headrace_engine.supervisor.children.open_process", lambda _: None)
    child = Child("w1", [sys.executable, "-c", "import sys; sys.exit(0)"], os.environ)
    child.start(0.0)
    assert child.process is not None
    os.waitpid(child.process.pid, 0)  # somebody else has taken its status: the number may be anybody's

    def nobody_is_meant(*signalled: Any) -> None:
        raise AssertionError(signalled)

    monkeypatch.setattr(os, "kill", nobody_is_meant)
    child.leave()
    child.kill()
    assert child.wait(0.0)
    assert child.has_ended()


def test_a_child_is_ended() -> None:
    child = Child("w1", [sys.executable, "-c", "import time; time.sleep(1000)"], os.environ)
    child.start(0.0)
    assert not child.wait(0.0)

    child.kill()

    wait_until(child.has_ended)
    assert child.reason == f"signal {int(signal.SIGKILL)}"
    child.kill()  # nobody is left to be meant


def test_an_engine_sees_its_children_end_also_if_its_program_ignores_sigchld(tmp_path: Path) -> None:
    """Otherwise every child would seem to end well. Here the child is the check of a hook that does not exist."""
    (tmp_path / "headrace.toml").write_text('[spans]\nredact = "none_of_that_name:redact"\n')
    program = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'headrace_engine', '--directory', sys.argv[1], '--workers', '1'])"
    )
    environ = {
        **os.environ,
        "HEADRACE_CONFIG": str(tmp_path / "headrace.toml"),
        "HEADRACE_DATA": str(tmp_path / "data"),
    }
    command = [sys.executable, "-c", program, str(tmp_path / "engine")]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as engine:
        try:
            assert engine.wait(60) == EngineExitCode.USAGE
        finally:
            engine.kill()
    assert not (tmp_path / "engine").exists()
