"""What people are told of a job's rows that are with a provider. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.batch.provider_batches.batch_status import ProviderBatchStatus
from headrace.cli.batch.figures import counted
from headrace.cli.shared.terminal import one_line

_MOST_SHOWN = 10


def batch_lines(batches: Sequence[ProviderBatchStatus]) -> Iterator[str]:
    """Yield the lines about the batches that are not over, and what can be done. Nothing if there are none."""
    if not batches:
        return
    rows = sum(batch.rows for batch in batches)
    yield (
        f"{counted(rows, 'row is', 'rows are')} with the provider, in {counted(len(batches), 'batch', 'batches')}, and "
        "stay there: the same command fetches them; with --cancel it cancels them, and keeps what is done"
    )
    for batch in batches[:_MOST_SHOWN]:
        name = one_line(batch.batch_id) if batch.batch_id else "not sent yet"
        yield f"  {one_line(batch.provider)} {name}: {batch.state}, {counted(batch.rows, 'row')}"
    if len(batches) > _MOST_SHOWN:
        yield f"  and {counted(len(batches) - _MOST_SHOWN, 'other', 'others')}"
