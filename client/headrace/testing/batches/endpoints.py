"""``BatchEndpoints``: finds the batch API that a request is for, and lets it answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.testing.anthropic import answer as anthropic
from headrace.testing.batches import (
    anthropic_batches,
    background_responses,
    google_batches,
    google_files,
    openai_batches,
)
from headrace.testing.batches.anthropic_batches import SimulatedAnthropicBatches
from headrace.testing.batches.background_responses import BackgroundResponses
from headrace.testing.batches.batch_control import BatchApi, BatchChange, BatchRecord
from headrace.testing.batches.batch_store import BatchStore
from headrace.testing.batches.google_batches import SimulatedGoogleBatches
from headrace.testing.batches.google_files import GoogleFiles
from headrace.testing.batches.openai_batches import SimulatedOpenAIBatches
from headrace.testing.batches.simulated_batch import AnswerRow, RowAnswer, SimulatedBatch
from headrace.testing.google import answer as google
from headrace.testing.openai_responses import answer as openai_responses
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.reply import Reply, reset
from headrace.testing.shared.request_log import LogEntry

_decode_change: Callable[[bytes], BatchChange] = msgspec.json.Decoder(BatchChange).decode

_STATE_OF: dict[BatchApi, Callable[[SimulatedBatch], str]] = {
    "openai": openai_batches.state_of,
    "anthropic": anthropic_batches.state_of,
    "google": google_batches.state_of,
    "background": background_responses.state_of,
}


def format_of(request: Request) -> Any:
    """Return the wire format whose keys and errors a batch API has; None if the request is for no batch API."""
    if google_batches.takes(request) or (google_files.takes(request.path) and not _is_openai(request)):
        return google.Endpoint("v1beta", "", is_stream=False, has_events=False)
    if anthropic_batches.takes(request.path):
        return anthropic
    is_openai = openai_batches.takes(request.path) or background_responses.takes(request.path)
    return openai_responses if is_openai else None


class BatchEndpoints:
    """All batch APIs, with the batches and files."""

    def __init__(self, answer: AnswerRow) -> None:
        self._store = BatchStore(answer)
        self._openai = SimulatedOpenAIBatches(self._store)
        self._anthropic = SimulatedAnthropicBatches(self._store)
        self._google = SimulatedGoogleBatches(self._store)
        self._google_files = GoogleFiles(self._store)
        self._background = BackgroundResponses(self._store)

    def tick(self, now: float) -> None:
        """Let batches go on as far as they are due."""
        self._store.tick(now)

    def reply_to(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request with a valid key, for which :func:`format_of` has a format."""
        count = len(self._store.all())
        reply = self._api_of(request).reply(request, entry, wall_time)
        return reset() if len(self._store.all()) > count and self._store.loses_reply() else reply

    def begin_in_background(self, request: Request, entry: LogEntry, reply: Reply, wall_time: int) -> Reply:
        """Return the reply to a request, with its answer kept for later if it asks for that."""
        if reply.status != 200 or reply.is_silent or not background_responses.is_begun_by(request, entry.body):  # noqa: PLR2004
            return reply
        return self._background.begin(request, entry, reply, wall_time, row_answer_of)

    def change(self, body: bytes) -> None:
        """Carry out what a test asks for. Raises msgspec.DecodeError or UnknownBatchError."""
        self._store.change(_decode_change(body))

    def recover(self) -> None:
        """Let batches go at once again, and fail none."""
        self._store.recover()

    def records(self) -> list[BatchRecord]:
        """Return all batches, in the order of their creation."""
        return [_record(batch) for batch in self._store.all()]

    def _api_of(
        self, request: Request
    ) -> (
        SimulatedOpenAIBatches | SimulatedAnthropicBatches | SimulatedGoogleBatches | GoogleFiles | BackgroundResponses
    ):
        if google_batches.takes(request):
            return self._google
        if google_files.takes(request.path) and not _is_openai(request):
            return self._google_files
        if anthropic_batches.takes(request.path):
            return self._anthropic
        return self._background if background_responses.takes(request.path) else self._openai


def has_own_key(request: Request) -> bool:
    """Return whether a request needs no key in its headers."""
    return google_files.is_upload(request)


def row_answer_of(reply: Reply) -> RowAnswer:
    """Return what a live request would have been answered. An answer that is not whole JSON is none."""
    if reply.is_silent or reply.ending != "complete" or reply.content_type != "application/json":
        return RowAnswer(500, None)
    body = b"".join(data for data, _, _ in reply.frames)
    return RowAnswer(reply.status, body, reply.usage() if reply.usage is not None else {})


def _is_openai(request: Request) -> bool:
    """Return whether a path that OpenAI and Google both have is OpenAI's: the header of the key tells."""
    return request.path.startswith("/v1/") and "x-goog-api-key" not in request.headers


def _record(batch: SimulatedBatch) -> BatchRecord:
    name = batch.details.get("displayName")
    return BatchRecord(
        id=batch.id,
        api=batch.api,
        state=_STATE_OF[batch.api](batch),
        ending=batch.ending,
        metadata={"displayName": name} if name else batch.details.get("metadata") or {},
        requests=len(batch.rows),
        succeeded=batch.succeeded,
        failed=len(batch.answers) - batch.succeeded,
    )
