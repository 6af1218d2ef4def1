"""Checks before an engine starts whether the redaction hook of the settings can be imported. A separate process imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from headrace.process.import_path import child_environment
from headrace.settings.settings import SpansConfig

_TIMEOUT = 60.0
"""Seconds that the import may take."""


def is_hook_usable(config: SpansConfig, environ: Mapping[str, str]) -> bool:
    """Return whether a process with the environment ``environ`` can import the hook. If not, the reason is printed to standard error.

    Return True if the settings name no hook.
    """
    if not config.enabled or not config.redact:
        return True
    command = [sys.executable, "-m", "headrace_engine", "check", "--directory", os.devnull]
    environ = child_environment(environ)
    try:
        return (
            subprocess.run(command, stdin=subprocess.DEVNULL, env=environ, timeout=_TIMEOUT, check=False).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        hook = f"spans.redact is {config.redact!r}"
        print(f"headrace: {hook}: its module takes more than {_TIMEOUT:g} s to be imported", file=sys.stderr)  # noqa: T201
        return False
