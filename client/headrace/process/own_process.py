"""Tells a forked child from its parent (os.register_at_fork) without a system call: ``own_process.pid`` is this process's number.

``os.getpid`` asks the kernel each time, and what a program does for each chunk of a stream must not. A fork that does not run
Python's hooks, as some C libraries make, is noticed when :meth:`OwnProcess.look` is called.
"""

from __future__ import annotations

import os


class OwnProcess:
    """Knows the pid of this process."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The pid of this process, also after a fork."""

    def look(self) -> None:
        """Ask the kernel for the pid."""
        self.pid = os.getpid()


own_process = OwnProcess()
os.register_at_fork(after_in_child=own_process.look)
