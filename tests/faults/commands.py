"""Runs the ``headrace`` command, as a person does who looks after an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def headrace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command; it must end well. What it says on standard error is shown where it does not."""
    command = [sys.executable, "-m", "headrace", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}"
    return done
