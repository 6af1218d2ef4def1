"""The supervisor's children: a signal goes to the process that was started, and to no other that has its number by now."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from headrace_engine.children import Child
from tests.waiting import wait_until


@pytest.mark.parametrize("has_handle", [True, False], ids=["with a handle", "without"])
def test_a_number_that_is_free_again_gets_no_signal(monkeypatch: pytest.MonkeyPatch, has_handle: bool) -> None:
    if not has_handle:
        monkeypatch.setattr("headrace_engine.children.open_process", lambda _: None)
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
