"""A batch job over a provider's batch API, in a process of its own, so that a test can kill it. ``python -m … SPEC``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace import Client
from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.options import BackgroundWindow, BatchOptions
from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.provider_batches.batch_times import BatchTimes
from headrace.batch.provider_batches.part_limits import LIMITS, PartLimits
from headrace.batch.provider_batches.provider_runs import ProviderRuns
from headrace.batch.records.record_lines import failure_line
from headrace.batch.row import Row
from headrace.wire.batch_messages import BatchApiName

TIMES = BatchTimes(first_poll=0.02, longest_poll=0.1, first_retry=0.05, longest_retry=0.2, arrival=0.6, room=0.05)


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the job is. ``models``: of the rows, in turn; the names of embedding models have ``embed`` in them.

    ``part_rows``: rows of a batch at most. ``scripts``: row → what the simulated provider answers.
    """

    output: str
    models: list[str]
    rows: int
    part_rows: int = 100
    background: BackgroundWindow | None = None
    is_uploaded: bool = False
    is_cancelling: bool = False
    retry_failed: bool = False
    is_reversed: bool = False
    scripts: dict[int, Any] = {}


def rows_of(spec: JobSpec) -> Iterator[Row]:
    """Iterate the rows of the job."""
    for number in range(1, spec.rows + 1):
        name = spec.rows + 1 - number if spec.is_reversed else number
        model = spec.models[(name - 1) % len(spec.models)]
        is_embedding = "embed" in model
        text = f"row {name}"
        arguments: dict[str, Any] = {"model": model}
        if is_embedding:
            arguments["input"] = [text, f"{text} again"]
        else:
            arguments["messages"] = text
            if (script := spec.scripts.get(name)) is not None:
                arguments["custom_options"] = {"simulate": script}
        yield Row(number, f"r{name}", "embeddings" if is_embedding else "chat", "short", arguments, text.encode())


def run(spec: JobSpec) -> None:
    """Run the job to its end."""
    files = job_files(spec.output)
    limits: dict[BatchApiName, PartLimits] = {
        api: msgspec.structs.replace(
            limit,
            requests=spec.part_rows * (2 if api == "google-embeddings" else 1),
            is_uploaded_from=0 if spec.is_uploaded and api.startswith("google") else limit.is_uploaded_from,
        )
        for api, limit in LIMITS.items()
    }
    with Journal.open(files, retry_failed=spec.retry_failed) as journal, Client() as client:
        journal.scan(rows_of(spec), failure_line)
        with ProviderRuns(
            client._starter, files.directory, journal=journal, background=spec.background, times=TIMES, limits=limits
        ) as runs:
            if spec.is_cancelling:
                runs.cancel()
            job = BatchJob(runs, [] if spec.is_cancelling else [*rows_of(spec)], journal, BatchOptions())
            for _ in job.run():
                pass
        journal.finish()


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=JobSpec))
