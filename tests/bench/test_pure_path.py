"""A chunk of a stream takes no more steps than were recorded: a guard against slow changes that no measured time would show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.pure_path import KINDS, PathCounts, recorded, version

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.1
RECORD = "python -m bench.pure_path --record"


@pytest.fixture(scope="module")
def counted() -> dict[str, PathCounts]:
    """The counts of this version, from a process of its own: a test runner or a coverage tool traces too."""
    command = [sys.executable, "-m", "bench.pure_path", "--json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    return msgspec.json.decode(printed, type=dict[str, PathCounts])


@pytest.mark.parametrize("half", ["worker", "client"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_chunk_takes_as_many_steps_as_recorded(kind: str, half: str, counted: dict[str, PathCounts]) -> None:
    expected = recorded().get(version())
    if expected is None:
        pytest.skip(
            f"no counts are recorded for Python {version()}, whose instructions are its own; {RECORD} records them"
        )
    assert kind in expected, f"nothing is recorded for {kind!r}: {RECORD}"
    for what in ("instructions", "calls"):
        now, before = (getattr(getattr(counts, half), what) for counts in (counted[kind], expected[kind]))
        change = now / before - 1
        assert abs(change) <= TOLERANCE, (
            f"{kind}: a chunk takes {now:.1f} {what} in the {half}, {change:+.0%} of the {before:.1f} recorded. If more are needed, or "
            f"if fewer are an improvement, record them, and say why in the commit: {RECORD}"
        )
