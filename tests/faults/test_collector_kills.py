"""A collector that is killed in the middle of a commit, or of what dead workers left.

What it acknowledged is there, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.faults.lone_collector import LoneCollector, Sender, has_unfinished_commit, made_up_spans
from tests.faults.span_sets import whole_ids
from tests.repetition import only_long
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(300)

BATCHES = 6
SENT = 40
"""Spans in each of them."""
LEFT = 200
"""Spans in the spool that each collector finds."""


@pytest.mark.parametrize("times", [3, *only_long(60)])
def test_what_is_acknowledged_outlives_a_collector_that_is_killed_in_its_commit(times: int) -> None:
    random = Random()
    all_ids: set[str] = set()
    torn = 0
    with LoneCollector() as collector, Sender(collector.endpoint) as sender:
        for number in range(times):
            left = made_up_spans(f"left-{number}", LEFT, time.time())
            collector.leave_spool(f"w{number + 1}-a-1", left)
            sent = made_up_spans(f"sent-{number}", BATCHES * SENT, time.time())
            all_ids |= {span.span_id for span in [*left, *sent]}
            collector.start()
            sender.connect()
            for start in range(0, len(sent), SENT):
                sender.send(sent[start : start + SENT])
            wait_for_commits(collector.journals, random.randint(1, 6))
            collector.kill()
            torn += any(map(has_unfinished_commit, collector.journals()))
            sender.look()

            found = whole_ids(collector.data)
            lost = sender.acknowledged - found
            assert not lost, (number, sorted(lost)[:5])
            assert found <= all_ids

        collector.start()
        sender.connect()
        wait_until(sender.has_all, 30.0, "the last acknowledgement")
        wait_until(lambda: not list(collector.slot.glob("spool/*")), 30.0, "an empty spool")
        assert whole_ids(collector.data) == all_ids

    print(f"{times} kills, {torn} of them in the middle of a commit: {len(all_ids)} spans, each there once")


def wait_for_commits(journals: Callable[[], list[Path]], count: int) -> None:
    """Return while the last of so many commits is being written; or when no other follows soon.

    It looks without a pause: that would be longer than a commit takes.
    """
    began = time.monotonic()
    while not journals():
        assert time.monotonic() < began + 30.0 * busyness(), "a journal: not within 30 s"
    (journal,) = journals()
    known = size_and_time(journal)
    patience = time.monotonic() + 5.0  # all may have been written before it was seen
    while count and time.monotonic() < patience:
        now = size_and_time(journal)
        if now != known:
            known = now
            count -= 1
            patience = time.monotonic() + 0.5


def size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
