"""A forked child is told from its parent without a system call."""

from __future__ import annotations

import os

import pytest

from headrace.process.own_process import own_process


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own_pid() -> None:
    assert own_process.pid == os.getpid()
    child = os.fork()
    if not child:
        os._exit(0 if own_process.pid == os.getpid() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_fork_without_hooks_is_noticed_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_process, "pid", -1)
    own_process.look()
    assert own_process.pid == os.getpid()
