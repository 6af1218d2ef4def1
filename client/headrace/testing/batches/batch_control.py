"""``SimulatedBatches``: how a test controls the batches of the simulated provider, and looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from headrace.testing.shared.script import Count, Seconds

BatchApi = Literal["openai", "anthropic", "google", "background"]
"""Whose batch it is. ``background``: one response of OpenAI's Responses API with ``background``."""

BatchEnding = Literal["completed", "failed", "expired", "cancelled", "partial"]
"""How a batch has ended. ``partial``: some requests have no result at all, as Google's state PARTIALLY_SUCCEEDED allows."""


class SetBatchPace(msgspec.Struct, frozen=True, tag="pace"):
    """Let each batch take so many seconds. None: batches go only as a test advances them."""

    seconds: Seconds | None


class AdvanceBatches(msgspec.Struct, frozen=True, tag="advance"):
    """Answer so many more requests in a batch, or in each one. None: end it."""

    requests: Count | None
    batch_id: str


class EndBatch(msgspec.Struct, frozen=True, tag="end"):
    """End a batch now."""

    batch_id: str
    ending: BatchEnding


class FailNextBatch(msgspec.Struct, frozen=True, tag="fail"):
    """Refuse the input of the next batch after it was created."""

    code: str
    message: str
    line: int | None


class LoseBatchReplies(msgspec.Struct, frozen=True, tag="lose"):
    """Create the next batches, and reset the connection instead of the reply."""

    count: Count


BatchChange = SetBatchPace | AdvanceBatches | EndBatch | FailNextBatch | LoseBatchReplies


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One batch, as it was when the record was made.

    ``state``: the word of its API, such as ``in_progress`` or ``BATCH_STATE_RUNNING``. ``ending``: None until it ends.
    ``metadata``: OpenAI's metadata; for Google ``{"displayName": …}``. ``succeeded`` and ``failed`` count answers;
    ``requests`` minus both have none.
    """

    id: str
    api: BatchApi
    state: str
    ending: BatchEnding | None
    metadata: dict[str, str]
    requests: int
    succeeded: int
    failed: int


_decode_batches = msgspec.json.Decoder(list[BatchRecord]).decode


class SimulatedBatches:
    """The batches of a simulated provider. All methods are thread-safe and block for a moment.

    A batch ends by itself: its requests are answered when the next HTTP request comes after its creation. ``pace`` lets
    it take longer. Each request of a batch is answered as a live one: by its ``simulate`` field, else by the oldest
    enqueued script, else by the default script. It is in the provider's log, with ``batch_id`` and ``custom_id``. Its
    delays are left out, and limits and outages have no effect on it. A script without a whole answer (``silent``,
    ``cut_after``…) fails the request as an error of the server.

    ``begin_outage("refused")`` and ``end_outage()`` are a provider that was away: batches and files survive. They
    survive ``clear()`` too.
    """

    def __init__(self, call: Callable[[str, str, bytes], bytes]) -> None:
        self._call = call

    def all(self) -> list[BatchRecord]:
        """Return all batches, in the order of their creation."""
        return _decode_batches(self._call("GET", "batches", b""))

    def pace(self, seconds: float | None) -> None:
        """Let each batch take so many seconds from now on, with its requests answered evenly over this time.

        Default 0. None: batches stay as they are until ``advance`` or ``end``. Raises ValueError for a negative number.
        """
        self._change(SetBatchPace(seconds))

    def advance(self, requests: Annotated[int, msgspec.Meta(ge=0)] | None = None, *, batch_id: str = "") -> None:
        """Answer so many more requests in each batch, or in one. Default: answer all, and end the batch.

        The first step begins a batch: ``advance(0)`` does no more. When the last request is answered, OpenAI's batch is
        ``finalizing``; the next step ends it. A step ends a batch that is being cancelled.

        Raises ValueError for an unknown id.
        """
        self._change(AdvanceBatches(requests, batch_id))

    def end(self, batch_id: str, ending: BatchEnding) -> None:
        """End a batch now. Requests without an answer get none. ``completed`` answers them all first.

        A batch that has ended stays as it is. Raises ValueError for an unknown id.
        """
        self._change(EndBatch(batch_id, ending))

    def fail_next(self, code: str, message: str, line: int | None = None) -> None:
        """Take the next batch, and fail it: OpenAI in ``errors.data``, Google in ``error``, Anthropic in each result.

        ``line``: the line of the file that is wrong, from 1.
        """
        self._change(FailNextBatch(code, message, line))

    def lose_replies(self, count: int = 1) -> None:
        """Create the next batches (or background responses), but reset the connection instead of the reply."""
        self._change(LoseBatchReplies(count))

    def _change(self, change: BatchChange) -> None:
        self._call("POST", "batches", msgspec.json.encode(change))
