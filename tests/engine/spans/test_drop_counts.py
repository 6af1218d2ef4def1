"""What senders report as dropped is counted once. A client can only report what a client can know."""

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


def test_the_counts_of_very_many_senders_are_kept_as_a_sum() -> None:
    totals = DropCounts()
    for epoch in range(25_000):
        totals.said(("client", 7, epoch), {"memory_full": 1}, 0)
        totals.said(("client", 8, epoch), {}, 0)

    assert totals.dropped() == {"memory_full": 25_000}
    assert len(totals._dropped) <= 10_000


def test_the_sum_of_all_counts_fits_into_a_message() -> None:
    """A report that cannot be encoded would end the collector."""
    totals = DropCounts()
    for epoch in range(3000):
        totals.said(("client", 7, epoch), {"memory_full": 2**63 - 1}, 0)
    totals.said(("worker", 8, 1), {"spool_full": 2**63 - 1}, 2**63 - 1)

    assert totals.dropped() == {"memory_full": 2**53, "spool_full": 2**53}
    assert totals.untraced == 2**53


def test_very_many_clients_do_not_make_a_workers_counts_count_twice() -> None:
    totals = DropCounts()
    totals.said(("worker", 8, 1), {"spool_full": 3}, 2)
    for epoch in range(15_000):
        totals.said(("client", 7, epoch), {"memory_full": 1}, 0)
    totals.said(("worker", 8, 1), {"spool_full": 4}, 2)

    assert totals.dropped() == {"memory_full": 15_000, "spool_full": 4}
    assert totals.untraced == 2
