"""The start and the end of processes: an engine process ends with its parent, ignores Ctrl-C and writes no core dump; the end of peers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from headrace.process.event_loop import EventLoop

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends. Exit at once if ``parent`` has ended already.

    On systems other than Linux the process's loop must call :func:`is_orphan` regularly.
    """
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if is_orphan(parent):
        sys.exit(0)


def forbid_core_dumps() -> None:
    """Write no core dump if this process crashes, because its memory has keys. The process's children inherit that.

    A limit of one byte stops a dump to a file. On Linux it also stops a dump to a program (``core_pattern`` with ``|``); a limit of
    zero would not. Debuggers can still attach if the limit can be set.
    """
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (OSError, ValueError):  # the hard limit is zero: the kernel would still start the program
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            import ctypes

            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # If somebody raises the limit later, as root may, a dump has no memory in it.
    with contextlib.suppress(OSError), open("/proc/self/coredump_filter", "w", encoding="ascii") as file:
        file.write("0")


def is_orphan(parent: int) -> bool:
    """Return whether ``parent``, the process that started this process, has ended."""
    return os.getppid() != parent


class ProcessOrigin(NamedTuple):
    """The pid of a process's parent, and the time when the kernel started the process, in ticks since the start of the machine."""

    parent: int
    started: int


def origin(pid: int) -> ProcessOrigin | None:
    """Return the parent and the start time of process ``pid``. Return None if they are unknown, for example without /proc."""
    try:
        fields = _stat_fields(pid)
        return ProcessOrigin(int(fields[1]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def processor_seconds(pid: int) -> float | None:
    """Return the processor time that process ``pid`` has used, in seconds. Return None if it is unknown."""
    try:
        fields = _stat_fields(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def processor_wait(pid: int) -> float | None:
    """Return how long the main thread of process ``pid`` could run and waited for a processor, in seconds. Return None if it is unknown."""
    try:
        if Path("/proc/self").readlink().name != str(os.getpid()):
            return None  # /proc shows the processes of another namespace
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` behind the process's name.

    Return no fields if /proc shows the processes of another namespace. Raises OSError if there is no such file.
    """
    if Path("/proc/self").readlink().name != str(os.getpid()):
        return []
    # The name stands in parentheses, and may have any characters in it.
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def is_sibling(pid: int) -> bool:
    """Return whether process ``pid`` is this process's parent or another child of that parent. Return True if that is unknown.

    Such a process belongs to the same engine, so its sockets may be used.
    """
    parent = os.getppid()
    known = origin(pid) if pid else None
    return pid == parent or known is None or known.parent == parent


def ticks_at(moment: float) -> float:
    """Convert a time of the monotonic clock to ticks since the start of the machine, as in :class:`ProcessOrigin`."""
    elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - moment
    since_start = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else float("inf")
    return (since_start - elapsed) * os.sysconf("SC_CLK_TCK")


def ignore_interrupt() -> None:
    """Ignore Ctrl-C and the hang-up of a terminal. They reach all processes of the foreground group, but only the program ends an engine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def open_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when process ``pid`` ends. Return None if there is no such process or no pidfd."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_process(descriptor: int, number: int) -> None:
    """Send a signal through a descriptor of :func:`open_process`. After the process has ended, the signal reaches no other process."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


class ProcessWatch:
    """Reports when processes of peers end."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._descriptors: dict[Hashable, int] = {}

    def watch(self, key: Hashable, pid: int, ended: Callable[[], None]) -> None:
        """Call ``ended`` once when process ``pid`` ends. Without pidfds, and for pid 0 (unknown), it is never called."""
        descriptor = open_process(pid) if pid else None
        if descriptor is not None:
            self._descriptors[key] = descriptor
            self._loop.add_reader(descriptor, partial(self._ended, key, ended))

    def forget(self, key: Hashable) -> None:
        """Stop watching. An unknown key is ignored."""
        descriptor = self._descriptors.pop(key, None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _ended(self, key: Hashable, ended: Callable[[], None]) -> None:
        self.forget(key)
        ended()
