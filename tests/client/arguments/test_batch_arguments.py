"""The arguments of a batch job are those of a run: the same names, with the same types."""

from __future__ import annotations

from typing import get_type_hints

from headrace import BatchArguments, EmbeddingArguments, MapArguments, RunArguments

OF_ONE_RUN = {"messages", "span_id"}
"""Arguments that no two runs can share."""
OF_JOBS = {
    "prompt", "embed", "system", "path", "changed", "force", "retry_failed", "dedupe", "cache", "limit", "sample",
    "max_cost", "concurrency", "schema_retries", "via_provider", "background", "cancel_batches",
}  # fmt: skip


def test_a_batch_job_takes_each_argument_that_runs_can_share() -> None:
    runs = get_type_hints(RunArguments) | {"dimensions": get_type_hints(EmbeddingArguments)["dimensions"]}
    rows = {name: kind for name, kind in get_type_hints(MapArguments).items() if name not in OF_JOBS}

    assert rows.keys() == runs.keys() - OF_ONE_RUN
    assert {name for name, kind in rows.items() if kind != runs[name]} == {"model"}  # rows may name it
    assert get_type_hints(BatchArguments).keys() - get_type_hints(MapArguments).keys() == {"ordered"}
