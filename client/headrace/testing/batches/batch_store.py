"""The batches and files of the simulated provider, and how fast the batches go. Has no clock."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from headrace.testing.batches.batch_control import (
    AdvanceBatches,
    BatchApi,
    BatchChange,
    EndBatch,
    FailNextBatch,
    LoseBatchReplies,
    SetBatchPace,
)
from headrace.testing.batches.simulated_batch import AnswerRow, BatchOrigin, FileFault, SimulatedBatch, SimulatedRow


class StoredFile(msgspec.Struct, frozen=True):
    """A file. ``owner``: the hash of the key that it belongs to. ``created_at``: seconds since 1970."""

    id: str
    owner: str
    name: str
    purpose: str
    content: bytes
    created_at: int
    media_type: str = "application/jsonl"


class UnknownBatchError(Exception):
    """A test names a batch that is not there."""


class BatchStore:
    """All batches and files. ``tick`` must be called with each HTTP request: it lets batches go on."""

    def __init__(self, answer: AnswerRow) -> None:
        self.answer = answer
        self._batches: dict[str, SimulatedBatch] = {}
        self._files: dict[str, StoredFile] = {}
        self._open: list[SimulatedBatch] = []
        self._pace: float | None = 0.0
        self._now = 0.0
        self._next_fault: FileFault | None = None
        self._lost_replies = 0

    def tick(self, now: float) -> None:
        """Let batches go on as far as they are due."""
        self._now = now
        if not self._open or self._pace is None:
            return
        for batch in self._open:
            share = 1.0 if self._pace == 0 else (now - batch.origin.at) / self._pace
            due = int(len(batch.rows) * share) - len(batch.answers)
            if share >= 1 or batch.phase == "canceling":
                batch.advance(None, now)
            elif due > 0:
                batch.advance(due, now)
        self._forget_ended()

    def change(self, change: BatchChange) -> None:
        """Carry out what a test asks for. Raises UnknownBatchError."""
        match change:
            case SetBatchPace(seconds):
                self._pace = seconds
            case AdvanceBatches(requests, batch_id):
                for batch in [self._named(batch_id)] if batch_id else list(self._open):
                    batch.advance(requests, self._now)
            case EndBatch(batch_id, ending):
                self._named(batch_id).end(ending, self._now)
            case FailNextBatch(code, message, line):
                self._next_fault = FileFault(code, message, None, line)
            case LoseBatchReplies(count):
                self._lost_replies = count
        self._forget_ended()

    def recover(self) -> None:
        """Let batches go at once again, and fail none."""
        self._pace, self._next_fault, self._lost_replies = 0.0, None, 0

    def add(
        self,
        api: BatchApi,
        batch_id: str,
        origin: BatchOrigin,
        rows: list[SimulatedRow],
        details: dict[str, Any],
        faults: list[FileFault] | None = None,
        answer: AnswerRow | None = None,
    ) -> SimulatedBatch:
        """Create a batch."""
        if self._next_fault is not None:
            faults = [self._next_fault]
            self._next_fault = None
        batch = SimulatedBatch(batch_id, api, origin, rows, answer or self.answer, details, faults)
        self._batches[batch.id] = batch
        self._open.append(batch)
        return batch

    def loses_reply(self) -> bool:
        """Return whether the reply to this creation of a batch is to be lost."""
        if not self._lost_replies:
            return False
        self._lost_replies -= 1
        return True

    def cancel(self, batch: SimulatedBatch) -> None:
        """Begin to cancel a batch."""
        batch.cancel(self._now)

    def end_cancelled(self, batch: SimulatedBatch) -> None:
        """Cancel a batch at once."""
        batch.end("cancelled", self._now)
        self._forget_ended()

    def batch(self, api: BatchApi, batch_id: str, owner: str) -> SimulatedBatch | None:
        """Return a batch of a key; None if the key has no such batch."""
        batch = self._batches.get(batch_id)
        return batch if batch is not None and (batch.api, batch.origin.owner) == (api, owner) else None

    def batches_of(self, api: BatchApi, owner: str) -> list[SimulatedBatch]:
        """Return all batches of a key, the newest first."""
        found = [batch for batch in self._batches.values() if (batch.api, batch.origin.owner) == (api, owner)]
        return found[::-1]

    def all(self) -> list[SimulatedBatch]:
        """Return all batches, in the order of their creation."""
        return list(self._batches.values())

    def remove(self, batch: SimulatedBatch) -> None:
        """Forget a batch."""
        self._batches.pop(batch.id, None)
        self._open = [other for other in self._open if other is not batch]

    def put_file(self, file: StoredFile) -> None:
        """Keep a file."""
        self._files[file.id] = file

    def file(self, file_id: str, owner: str) -> StoredFile | None:
        """Return a file of a key; None if the key has no such file."""
        file = self._files.get(file_id)
        return file if file is not None and file.owner == owner else None

    def files_of(self, owner: str) -> list[StoredFile]:
        """Return all files of a key, the newest first."""
        return [file for file in self._files.values() if file.owner == owner][::-1]

    def remove_file(self, file: StoredFile) -> None:
        """Forget a file."""
        self._files.pop(file.id, None)

    def _named(self, batch_id: str) -> SimulatedBatch:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise UnknownBatchError(f"there is no batch {batch_id!r}; the batches are {list(self._batches)}")
        return batch

    def _forget_ended(self) -> None:
        self._open = [batch for batch in self._open if not batch.is_ended]


def new_id(prefix: str) -> str:
    """Return a new id, such as ``batch_1f0c…``."""
    return prefix + uuid.uuid4().hex
