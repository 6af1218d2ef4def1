"""Reaps orphans that this process has become the parent of: takes their exit status, so that no zombie stays.

The first process of a container, and a subreaper, becomes the parent of each process whose own parent has ended.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection

_PR_GET_CHILD_SUBREAPER = 37


def adopts_orphans() -> bool:
    """Return whether this process becomes the parent of processes whose parent has ended."""
    return os.getpid() == 1 or _is_subreaper()


def reap_orphans(own: Collection[int]) -> None:
    """Take the exit status of ended children. ``own`` has pids that are left out: the code that started them takes theirs."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in own:
                return  # the kernel names an own child first; the others are reaped once it is gone
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)


def _is_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    answer = ctypes.c_int(0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)
