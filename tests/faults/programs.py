"""Runs small programs that hurt their own client, each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple

from headrace.testing import SimulatedProvider
from tests.conftest import ROOT
from tests.waiting import busyness

_PROLOGUE = """
import asyncio, atexit, gc, os, pathlib, signal, sys, threading, time, weakref
from concurrent.futures import as_completed, wait
import headrace
from headrace import Client, HeadraceError

def said(**script):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "custom_options": {"simulate": script}}

def outcome(action):
    try:
        return action()
    except HeadraceError as error:
        return type(error).__name__

def text(client, **arguments):
    return client.run_local(**said(text="whole"), **arguments).text

"""


class EndedProgram(NamedTuple):
    """The end of a program: its output, and ``seconds`` from its start to its end."""

    lines: list[str]
    stderr: str
    code: int
    seconds: float


def run_program(
    body: str,
    provider: SimulatedProvider,
    *arguments: str,
    before_import: str = "",
    engine: str | None = None,
    timeout: float = 60.0,
) -> EndedProgram:
    """Run a program to its end; raises TimeoutExpired where it has none. ``before_import`` runs before all else.

    With ``engine``, an address, its clients use that engine instead of one of its own.
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", before_import + _PROLOGUE + body, *arguments],
        cwd=ROOT,
        env={**os.environ, **provider.environment, "HEADRACE_ENGINE": engine or ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout * busyness(),
    )
    return EndedProgram(done.stdout.splitlines(), done.stderr, done.returncode, time.monotonic() - started)
