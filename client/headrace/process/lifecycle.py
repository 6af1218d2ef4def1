"""What every engine process does at its start: die with its parent, leave Ctrl-C to the program, dump no core with keys in it."""

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
    """Have the kernel kill this process when ``parent`` ends; exit at once if it has ended already.

    Elsewhere than on Linux a loop must ask :func:`is_orphan` now and then.
    """
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if is_orphan(parent):
        sys.exit(0)


def forbid_core_dumps() -> None:
    """Have no memory of this process written to a file or piped to a program when it crashes: there are keys in it.

    Its children inherit that. A limit of one byte stops a dump to a file and, on Linux, to a program (``core_pattern`` with ``|``),
    for which a limit of zero would count as none. Debuggers go on working where the limit can be set.
    """
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (OSError, ValueError):  # the hard limit is zero: the kernel would still start the program
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            import ctypes

            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # In case somebody raises the limit later, as root may: a dump without any memory.
    with contextlib.suppress(OSError), open("/proc/self/coredump_filter", "w", encoding="ascii") as file:
        file.write("0")


def is_orphan(parent: int) -> bool:
    """Return whether the process that started this one has ended."""
    return os.getppid() != parent


class Origin(NamedTuple):
    """Where a process comes from: its parent, and when the kernel started it, in ticks since the machine's start."""

    parent: int
    started: int


def origin(pid: int) -> Origin | None:
    """Return where process ``pid`` comes from, or None where that cannot be known, as without a /proc of our own."""
    try:
        fields = _stat_fields(pid)
        return Origin(int(fields[1]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def processor_seconds(pid: int) -> float | None:
    """Return the processor time that process ``pid`` has had, or None where that cannot be known."""
    try:
        fields = _stat_fields(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _stat_fields(pid: int) -> list[str]:
    """Return what /proc says of a process behind its name; no fields where /proc shows another namespace's. Raises OSError."""
    if Path("/proc/self").readlink().name != str(os.getpid()):
        return []
    # The name, in parentheses, may have any letters in it.
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def is_sibling(pid: int) -> bool:
    """Return whether a process is this one's parent or a child of that, or cannot be known: for who serves the engine's processes."""
    parent = os.getppid()
    known = origin(pid) if pid else None
    return pid == parent or known is None or known.parent == parent


def ticks_at(moment: float) -> float:
    """Return the kernel's ticks at a moment of the monotonic clock, as :class:`Origin` counts them."""
    elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - moment
    since_start = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else float("inf")
    return (since_start - elapsed) * os.sysconf("SC_CLK_TCK")


def ignore_interrupt() -> None:
    """Ctrl-C and a hang-up reach the whole foreground group; when to end is the program's word, not the terminal's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hold_standard_descriptors() -> None:
    """Open what was closed of standard input, output and error: a socket with such a number would get what others print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", closefd=False, encoding="utf-8", errors="replace"))  # noqa: SIM115


def open_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when process ``pid`` ends, or None where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_process(descriptor: int, number: int) -> None:
    """Send a signal by a descriptor of :func:`open_process`: it reaches that process alone, and nobody once it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


class ProcessWatch:
    """Tells when the processes of peers end."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._descriptors: dict[Hashable, int] = {}

    def watch(self, key: Hashable, pid: int, ended: Callable[[], None]) -> None:
        """Call ``ended`` once when process ``pid`` ends; without process handles, and for the unknown process 0, never."""
        descriptor = open_process(pid) if pid else None
        if descriptor is not None:
            self._descriptors[key] = descriptor
            self._loop.add_reader(descriptor, partial(self._ended, key, ended))

    def forget(self, key: Hashable) -> None:
        """Watch no longer; unknown keys are fine."""
        descriptor = self._descriptors.pop(key, None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _ended(self, key: Hashable, ended: Callable[[], None]) -> None:
        self.forget(key)
        ended()
