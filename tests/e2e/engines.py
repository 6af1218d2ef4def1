"""Starts an engine as a service, for tests that use it from several processes, or break it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.cli.status_command import engine_status
from headrace.errors import HeadraceError
from headrace.testing import SimulatedProvider
from tests.waiting import busyness, wait_until


@contextmanager
def running_engine(
    provider: SimulatedProvider, *options: str, wrapper: Sequence[str] = (), settings_file: Path | None = None
) -> Iterator[str]:
    """Run an engine as a service, by the program ``wrapper`` and with a settings file where there is one; yield its address."""
    # Short, because Unix socket paths are.
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    environment = {**os.environ, **provider.environment}
    if settings_file is not None:
        environment["HEADRACE_CONFIG"] = str(settings_file)
    command = [*wrapper, sys.executable, "-m", "headrace_engine", "--directory", str(directory), *options]
    address = f"ipc://{directory}"
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        # A client waits for 10 s, which is not enough on a busy machine.
        wait_until(lambda: process.poll() is not None or _serves(address), 30.0, "an engine with a worker")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10.0 * busyness())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _serves(address: str) -> bool:
    """Return whether an engine has a worker that takes runs."""
    with suppress(HeadraceError):
        return any(worker.state == "ok" for worker in engine_status(address, 5.0).workers)
    return False
