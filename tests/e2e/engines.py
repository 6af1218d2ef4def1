"""Engines of their own for tests that share one between processes, or break it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headrace.testing import SimulatedProvider


@contextmanager
def running_engine(provider: SimulatedProvider, *options: str, wrapper: Sequence[str] = ()) -> Iterator[str]:
    """Run an engine as a service, by the program ``wrapper`` where there is one; yield its address."""
    # Short, because Unix socket paths are.
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    environment = {**os.environ, **provider.environment}
    command = [*wrapper, sys.executable, "-m", "headrace_engine", "--directory", str(directory), *options]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        yield f"ipc://{directory}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
