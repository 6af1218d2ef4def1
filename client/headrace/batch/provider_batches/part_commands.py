"""What the state machine of provider batches has its driver do. Types only.

The driver carries out commands in their order. ``Save`` and ``Forget`` are on the disk before the next one begins.
"""

from __future__ import annotations

from typing import Literal

from headrace.batch.provider_batches.part import Part
from headrace.wire.batch_messages import BatchMessage
from headrace.wire.run_messages import Failed

Step = Literal["upload", "create", "find", "poll", "fetch", "cancel"]
"""A question to the provider about a part. A part has one at a time."""


class Save(BatchMessage, frozen=True):
    """Write the part to the journal, in place of what the journal has of it."""

    part: Part


class Forget(BatchMessage, frozen=True):
    """Remove the part from the journal, and its files."""

    part: Part


class TakeStep(BatchMessage, frozen=True):
    """Take a step with the provider, and report its answer."""

    part: Part
    step: Step


class CancelExtra(BatchMessage, frozen=True):
    """Cancel a batch that is a second one of the same part. Nothing waits for the answer."""

    part: Part
    batch_id: str


class Merge(BatchMessage, frozen=True):
    """Hand out the part's rows with their answers. Report ``merged`` once all of them are recorded.

    ``failed``: why there are no answers; None if they were fetched.
    """

    part: Part
    failed: Failed | None = None


class FailRows(BatchMessage, frozen=True):
    """End some rows of the part with an error. They are no longer the part's."""

    part: Part
    numbers: list[int]
    failed: Failed


class GiveBack(BatchMessage, frozen=True):
    """The part's rows are not with the provider, and have no record: they may be put into other parts."""

    part: Part


class Stop(BatchMessage, frozen=True):
    """Stop the job with this error of the provider. The parts stay in the journal."""

    part: Part
    failed: Failed


Command = Save | Forget | TakeStep | CancelExtra | Merge | FailRows | GiveBack | Stop
