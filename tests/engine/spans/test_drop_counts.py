"""What senders say they have dropped: counted once each, and of a client's word only what a client can know."""

from __future__ import annotations

from headrace_engine.spans.drop_counts import DropCounts


def test_a_senders_counts_are_totals_since_its_start() -> None:
    totals = DropCounts()
    totals.said(("worker", 7, 1), {"spool_full": 2}, 1)
    totals.said(("worker", 7, 1), {"spool_full": 5}, 3)
    totals.said(("worker", 8, 2), {"spool_full": 1, "memory_full": 1}, 1)

    assert totals.dropped() == {"memory_full": 1, "spool_full": 6}
    assert totals.untraced == 4


def test_a_client_invents_no_reasons_and_no_untraced_runs() -> None:
    totals = DropCounts()
    totals.said(("client", 7, 1), {"\x1b[31mforged": 9, "spool_full": 9, "memory_full": 2}, 10**9)
    totals.said(("client", 8, 1), {"memory_full": -(10**30)}, -1)

    assert totals.dropped() == {"memory_full": 2}
    assert totals.untraced == 0


def test_senders_that_come_and_go_without_end_are_summed_up() -> None:
    totals = DropCounts()
    for epoch in range(25_000):
        totals.said(("client", 7, epoch), {"memory_full": 1}, 0)
        totals.said(("client", 8, epoch), {}, 0)

    assert totals.dropped() == {"memory_full": 25_000}
    assert len(totals._dropped) <= 10_000


def test_what_senders_claim_together_still_fits_into_a_message() -> None:
    """A report that cannot be encoded would end the collector."""
    totals = DropCounts()
    for epoch in range(3000):
        totals.said(("client", 7, epoch), {"memory_full": 2**63 - 1}, 0)
    totals.said(("worker", 8, 1), {"spool_full": 2**63 - 1}, 2**63 - 1)

    assert totals.dropped() == {"memory_full": 2**53, "spool_full": 2**53}
    assert totals.untraced == 2**53


def test_clients_without_end_do_not_have_a_workers_counts_counted_twice() -> None:
    totals = DropCounts()
    totals.said(("worker", 8, 1), {"spool_full": 3}, 2)
    for epoch in range(15_000):
        totals.said(("client", 7, epoch), {"memory_full": 1}, 0)
    totals.said(("worker", 8, 1), {"spool_full": 4}, 2)

    assert totals.dropped() == {"memory_full": 15_000, "spool_full": 4}
    assert totals.untraced == 2
