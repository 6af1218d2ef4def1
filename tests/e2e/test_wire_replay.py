"""Every recorded response gives, through client, engine and worker, what the official SDK makes of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.replay.replay_all import READINGS
from tests.workers import corpus

pytestmark = [corpus.needs_recordings, pytest.mark.slow]


def test_recorded_responses_come_through_the_whole_product() -> None:
    """In a program of its own: its engine has the replaying server for a provider."""
    program = [sys.executable, "-m", "tests.replay.replay_all", "--cut", "recorded"]
    replayed = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)

    assert replayed.returncode == 0, replayed.stdout[-20_000:] + replayed.stderr
    recordings = sum(len(corpus.case_names(wire)) for wire in READINGS)
    assert f"\n{recordings} replays of {recordings} recordings" in replayed.stdout
