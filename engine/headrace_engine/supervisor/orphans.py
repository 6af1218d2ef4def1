"""Takes the exit status of foreign processes, whose parent the supervisor became when their own ended.

That happens to the first process of a container, and to a subreaper. Such a child stays a zombie until somebody asks for its status.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection

_PR_GET_CHILD_SUBREAPER = 37


def gets_orphans() -> bool:
    """Return whether this process becomes the parent of what others leave."""
    return os.getpid() == 1 or _is_subreaper()


def reap_orphans(own: Collection[int]) -> None:
    """Take the exit status of the children that have ended, but of none in ``own``: these belong to who started them."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in own:
                return  # our own is looked at first; those behind it have their turn after that
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)


def _is_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    answer = ctypes.c_int(0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)
