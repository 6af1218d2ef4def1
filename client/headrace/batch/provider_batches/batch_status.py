"""The batches of a job as people see them: how many rows the provider has, and how far it is. Read from a job's directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.part_store import stored_parts
from headrace.errors import InvalidRequestError


class ProviderBatchStatus(msgspec.Struct, frozen=True):
    """One batch of a job, for people. ``batch_id`` is the provider's id of it; empty until the provider has it.

    ``state``: ``waiting`` (it is being sent), ``running``, ``ended`` (its results are being read) or ``cancelling``.
    ``done`` and ``failed`` are what the provider told last. ``is_background``: a response that runs in the background,
    which is a batch of one row.
    """

    provider: str
    state: str
    rows: int
    batch_id: str = ""
    done: int = 0
    failed: int = 0
    is_background: bool = False


def live_batches(directory: Path) -> list[ProviderBatchStatus]:
    """Return the batches of a job that are not over, read from its directory. The job may be running.

    Raises JournalError if the journal cannot be read.
    """
    return [status_of(part) for part in stored_parts(directory)]


def check_no_batches(directory: Path) -> None:
    """Raise InvalidRequestError if rows of a job are with a provider: an engine would run them a second time.

    Raises JournalError if the journal cannot be read.
    """
    if batches := _at_provider(directory):
        raise InvalidRequestError(
            f"{_counted(batches)}: start the job with it (--via-provider) to wait for them, or with --cancel to cancel them",
            "via_provider",
        )


def refuse_change(directory: Path, argument: str) -> None:
    """Raise InvalidRequestError if rows of a job are with a provider: the job must not begin anew, or change its input.

    ``argument``: what the user has asked for, such as ``changed``.
    """
    if batches := _at_provider(directory):
        raise InvalidRequestError(
            f"{_counted(batches)}: start the job without it to wait for them, or with --cancel to cancel them; what is done "
            "by then is kept",
            argument,
        )


def _at_provider(directory: Path) -> list[ProviderBatchStatus]:
    """Return the batches that a provider has, or may have."""
    return [status_of(part) for part in stored_parts(directory) if part.state != "ready"]


def _counted(batches: list[ProviderBatchStatus]) -> str:
    rows = sum(batch.rows for batch in batches)
    row_words = "1 row of this job is" if rows == 1 else f"{rows:,} rows of this job are"
    if all(batch.is_background for batch in batches):
        return f"{row_words} with the provider, in the background"
    batch_words = "1 batch" if len(batches) == 1 else f"{len(batches):,} batches"
    return f"{row_words} with the provider, in {batch_words}"


def status_of(part: Part, done: int = 0, failed: int = 0) -> ProviderBatchStatus:
    """Return how far a part is. ``done``, ``failed``: what the provider told last."""
    state = {"ready": "waiting", "submitting": "waiting"}.get(part.state, part.state)
    state = "cancelling" if part.is_cancelled and state == "running" else state
    is_background = bool(part.group.window)
    return ProviderBatchStatus(part.group.provider, state, part.row_count, part.batch_id, done, failed, is_background)
