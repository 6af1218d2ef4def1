"""What a process promises of its descriptors: it takes as many as it may, and shares out no more than it has."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from headrace.process.descriptors import broker_shares, raise_limit, worker_shares

RAISES = """
import resource
from headrace.process.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512))
print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_limit_is_raised_to_the_hard_limit() -> None:
    done = subprocess.run([sys.executable, "-c", RAISES], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "512 (512, 512)"


def test_a_limit_that_is_high_enough_stays() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert raise_limit() >= min(before[0], 65_536)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]


@pytest.mark.parametrize("limit", [200, 1024, 20_000, 65_536])
def test_the_shares_are_not_more_than_the_limit(limit: int) -> None:
    worker, broker = worker_shares(limit), broker_shares(limit)

    # A peer takes two: its connection, and a handle on its process.
    assert 0 < 2 * worker.peers + worker.exchanges < limit
    assert 0 < 2 * broker.peers < limit
    assert worker.exchanges > 0
