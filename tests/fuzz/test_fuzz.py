"""Spoiled input ends in a typed error, never in another exception, a hang or a swollen process.

``scripts/fuzz`` takes longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz_runner import fuzz
from tests.fuzz.targets import TARGETS
from tests.repetition import repeated
from tests.waiting import busyness

LEAST_INPUTS = 40
"""However little of a processor the test gets."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TARGETS))
def test_spoiled_input_breaks_no_promise(name: str, tmp_path: Path) -> None:
    seconds = repeated(0.5, 10.0) * min(busyness(), 3.0)
    report = fuzz(TARGETS[name], seconds, seed=1, folder=tmp_path, least=LEAST_INPUTS)

    assert report.inputs >= LEAST_INPUTS
    assert len(report.outcomes) > 1
