"""A chunk that wakes a reader takes no more steps in the client than were recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.client_path import recorded
from bench.pure_path import Counts, version

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.1
RECORD = "python -m bench.client_path --record"


def test_a_chunk_that_wakes_a_reader_takes_as_many_steps_as_recorded() -> None:
    expected = recorded().get(version())
    if expected is None:
        pytest.skip(f"no counts are recorded for Python {version()}; {RECORD} records them")
    command = [sys.executable, "-m", "bench.client_path", "--json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    counted = msgspec.json.decode(printed, type=dict[str, Counts])
    for way, before in expected.items():
        change = counted[way].instructions / before.instructions - 1
        assert abs(change) <= TOLERANCE, (
            f"{way}: {counted[way].instructions:.1f} instructions a chunk, {change:+.0%} of the {before.instructions:.1f} recorded. "
            f"If more are needed, or if fewer are an improvement, record them, and say why in the commit: {RECORD}"
        )
