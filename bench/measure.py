"""CPU time and memory of a process and all that it started, as the kernel counts them.

Linux only. Only ``end_tree`` does anything to the processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

import msgspec

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class TreeFigures(msgspec.Struct, frozen=True):
    """A process tree at one moment: seconds of CPU and KB of memory (PSS), both by role."""

    cpu: dict[str, float]
    memory: dict[str, float]


def mark(root: int) -> TreeFigures:
    """Return what the tree under the process ``root`` has used so far."""
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    for pid in _tree(root):
        with contextlib.suppress(OSError):  # it ended meanwhile: its parent's figure has it
            role = _role(pid)
            cpu[role] += _cpu(pid)
            memory[role] += _pss(pid)
    return TreeFigures(dict(cpu), dict(memory))


def used(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what was added between two marks, by role."""
    return {role: amount - before.get(role, 0.0) for role, amount in after.items()}


def wake_ups(root: int) -> dict[str, float]:
    """Return how often the threads of the tree under the process ``root`` have given up the processor to wait, by role."""
    found: dict[str, float] = defaultdict(float)
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            role = _role(pid)
            for thread in Path(f"/proc/{pid}/task").iterdir():
                for line in (thread / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        found[role] += float(line.split()[1])
    return dict(found)


def process_cpu(root: int) -> dict[int, tuple[str, float]]:
    """Return for each process of the tree under ``root``, by its id, its role and the seconds of CPU it has used."""
    found: dict[int, tuple[str, float]] = {}
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            if _stat(pid)[0] != "Z":  # one that has ended has no name any more
                found[pid] = _role(pid), own_cpu(pid)
    return found


def own_cpu(pid: int) -> float:
    """Return the seconds of CPU that one process has used, without its children."""
    return time.clock_gettime(~pid << 3 | 2)


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has held so far, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return 0.0  # it has ended


def children(pid: int) -> list[int]:
    """Return the processes that have a process as their parent."""
    return [child for child in _tree(pid)[1:] if int(_stat(child)[1]) == pid]


def end_tree(root: int) -> None:
    """Kill a process and all that it started, because it hangs or has failed."""
    for pid in _tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children[int(_stat(int(entry.name))[1])].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` from the state on: the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    reaped = sum(int(field) for field in _stat(pid)[13:15]) * _TICK
    # The process's own clock counts what utime and stime do, in nanoseconds where those have ticks of 10 ms: W2L takes ten.
    return own_cpu(pid) + reaped


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


def _role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if "headrace_workers" in words:
        return "workers"
    if "headrace_engine" in words:
        return next((role for role in ("broker", "collector") if role in words), "supervisor")
    if any(word.endswith("/bin/litellm") for word in words):
        return "proxy"
    return "client"
