"""What senders say they have dropped: counted once each, and of a client's word only what a client can know."""

from __future__ import annotations

from headrace_engine.spans.totals import Totals


def test_a_senders_counts_are_totals_since_its_start() -> None:
    totals = Totals()
    totals.said(("worker", 7, 1), {"spool_full": 2}, 1)
    totals.said(("worker", 7, 1), {"spool_full": 5}, 3)
    totals.said(("worker", 8, 2), {"spool_full": 1, "memory_full": 1}, 1)

    assert totals.dropped() == {"memory_full": 1, "spool_full": 6}
    assert totals.untraced == 4


def test_a_client_invents_no_reasons_and_no_untraced_runs() -> None:
    totals = Totals()
    totals.said(("client", 7, 1), {"\x1b[31mforged": 9, "spool_full": 9, "memory_full": 2}, 10**9)
    totals.said(("client", 8, 1), {"memory_full": -(10**30)}, -1)

    assert totals.dropped() == {"memory_full": 2}
    assert totals.untraced == 0


def test_senders_that_come_and_go_without_end_are_summed_up() -> None:
    totals = Totals()
    for epoch in range(25_000):
        totals.said(("client", 7, epoch), {"memory_full": 1}, 0)
        totals.said(("client", 8, epoch), {}, 0)

    assert totals.dropped() == {"memory_full": 25_000}
    assert len(totals._dropped) <= 10_000
