"""Runs the ``headrace`` command, as a person does who looks after an engine."""

from __future__ import annotations

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from headrace.cli.main import main


class CommandOutput(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


def headrace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command; it must end well. What it says on standard error is shown where it does not."""
    command = [sys.executable, "-m", "headrace", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}"
    return done


def headrace_here(*arguments: str | Path) -> CommandOutput:
    """Run the command in this process, without the start of Python. Only for commands that write to ``sys.stdout``, not to its buffer."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        code = main([*map(str, arguments)])
    assert code == 0, f"{arguments} ended with {code}: {errors.getvalue()}"
    return CommandOutput(output.getvalue(), errors.getvalue())
