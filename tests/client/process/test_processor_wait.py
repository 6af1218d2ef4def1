"""How long a process has waited for a processor: as the kernel tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.process.lifecycle import processor_wait
from tests.waiting import wait_until

needs_schedstat = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell it")
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@needs_schedstat
def test_of_two_processes_that_share_a_processor_each_waits_while_the_other_runs() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    busy = [subprocess.Popen([sys.executable, "-c", BUSY, processor], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in busy:
            wait_until(lambda pid=process.pid: (processor_wait(pid) or 0.0) > 0.02, 20.0, "a process that waits")  # type: ignore[misc]
    finally:
        for process in busy:
            process.kill()
            process.communicate()


def test_of_a_process_that_does_not_exist_no_wait_is_known() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert processor_wait(ended.pid) is None
