"""Reaping: no adopted process stays a zombie, and no other parent loses the exit status of its child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from headrace.testing import SimulatedProvider
from headrace_engine.supervisor.reaping import reap_orphans
from tests.conftest import processes
from tests.e2e.engines import running_engine
from tests.waiting import wait_until

# Becomes the parent of orphaned processes, and then the engine.
SUBREAPER = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.run(["sh", "-c", "(exec sleep 600) & (exec sleep 0.1) &"])
os.execv(sys.argv[1], sys.argv[1:])
"""

MIXED = """
import json, os, subprocess, sys
from headrace_engine.supervisor.reaping import reap_orphans

own = subprocess.Popen(["sh", "-c", "exit 7"])
foreign = [os.fork() or os._exit(3) for _ in range(3)]
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
for pid in foreign:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
reap_orphans({own.pid})
status = own.wait()
reap_orphans(set())
left = 0
for pid in foreign:
    try:
        left += os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        pass
print(json.dumps([status, left]))
"""


def zombies(parent: int) -> list[int]:
    found = []
    for pid, above, _ in processes():
        if above == parent:
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    found += [pid] if stat.read().rsplit(")", 1)[1].split()[0] == "Z" else []
            except OSError:
                pass
    return found


def test_own_children_are_not_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", MIXED], capture_output=True, text=True, check=True, timeout=60)

    assert json.loads(done.stdout) == [7, 0]


def test_without_children_nothing_is_reaped() -> None:
    program = "from headrace_engine.supervisor.reaping import reap_orphans; reap_orphans(set())"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert reap_orphans.__doc__


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_an_engine_that_inherits_processes_leaves_no_zombies(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "1", wrapper=(sys.executable, "-c", SUBREAPER)) as address:
        directory = address.removeprefix("ipc://")

        def supervisor() -> int:
            lines = [pid for pid, _, line in processes() if "headrace_engine --directory" in line and directory in line]
            return next((pid for pid in lines if "-c" not in command(pid)), 0)

        def command(pid: int) -> str:
            with open(f"/proc/{pid}/cmdline") as file:
                return file.read().split("\0")[1]

        parent = wait_until(supervisor, what="a supervisor")
        inherited = wait_until(
            lambda: [pid for pid, above, line in processes() if above == parent and "sleep 600" in line],
            what="a process of others",
        )
        os.kill(inherited[0], signal.SIGKILL)

        wait_until(
            lambda: not zombies(parent) and inherited[0] not in {pid for pid, _, _ in processes()}, what="no zombies"
        )
