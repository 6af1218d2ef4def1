"""``SimulatedBatch``: one batch of the simulated provider, its requests and their answers. Has no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from headrace.testing.batches.batch_control import BatchApi, BatchEnding

BatchPhase = Literal["pending", "running", "finalizing", "canceling", "ended"]

_DAY = 86_400


class SimulatedRow(msgspec.Struct, frozen=True):
    """One request of a batch. ``path``: the one at which a live request would be made."""

    custom_id: str
    path: str
    body: Any
    metadata: Any = None


class RowAnswer(msgspec.Struct, frozen=True):
    """The answer to one request: an HTTP status, and the bytes of a JSON body. ``body`` is None if no answer came."""

    status: int
    body: bytes | None
    usage: dict[str, Any] = {}

    @property
    def is_success(self) -> bool:
        """Whether the request was answered."""
        return self.status == 200 and self.body is not None  # noqa: PLR2004


class FileFault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault of a batch's input. ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


AnswerRow = Callable[["SimulatedBatch", SimulatedRow, float, int], RowAnswer]
"""Answers one request. Takes the batch, the request, the time (monotonic) and the wall time (seconds since 1970)."""


class BatchOrigin(msgspec.Struct, frozen=True):
    """The request that created a batch: key (its hash), headers, arrival (monotonic), wall time (seconds since 1970)."""

    owner: str
    headers: dict[str, str]
    at: float
    wall: int


class SimulatedBatch:
    """The state. ``details``: what its API needs to describe it. ``times``: phase or ending → wall time."""

    def __init__(
        self,
        batch_id: str,
        api: BatchApi,
        origin: BatchOrigin,
        rows: list[SimulatedRow],
        answer: AnswerRow,
        details: dict[str, Any],
        faults: list[FileFault] | None = None,
    ) -> None:
        self.id = batch_id
        self.api: BatchApi = api
        self.origin = origin
        self.rows = rows
        self.details = details
        self.faults = faults or []
        self.answers: list[RowAnswer] = []
        self.phase: BatchPhase = "pending"
        self.ending: BatchEnding | None = None
        self.times: dict[str, int] = {"pending": origin.wall}
        self._answer = answer

    @property
    def is_ended(self) -> bool:
        """Whether it has ended."""
        return self.phase == "ended"

    @property
    def is_whole(self) -> bool:
        """Whether all requests are answered."""
        return len(self.answers) == len(self.rows)

    @property
    def succeeded(self) -> int:
        """How many requests have an answer that is no error."""
        return sum(answer.is_success for answer in self.answers)

    @property
    def expires_at(self) -> int:
        """When it expires: seconds since 1970."""
        return self.origin.wall + _DAY

    def results(self) -> list[tuple[SimulatedRow, RowAnswer | None]]:
        """Return all requests with their answers, in the order of the input. None: a request that was not answered."""
        missing = [None] * (len(self.rows) - len(self.answers))
        return list(zip(self.rows, [*self.answers, *missing], strict=True))

    def advance(self, count: int | None, now: float) -> None:
        """Go on by a step: answer ``count`` more requests; with None all, and end."""
        if self.is_ended:
            return
        if self.faults:
            self.end("failed", now)
        elif self.phase == "canceling":
            self.end("cancelled", now)
        elif count is None or self.phase == "finalizing":
            self.end("completed", now)
        else:
            self._enter("running", now)
            self._answer_rows(count, now)
            if self.is_whole:
                self._enter("finalizing", now)

    def cancel(self, now: float) -> None:
        """Begin to cancel. The next step ends it."""
        if not self.is_ended:
            self._enter("canceling", now)

    def end(self, ending: BatchEnding, now: float) -> None:
        """End it now. If it is completed, all requests are answered first."""
        if self.is_ended:
            return
        if ending == "completed":
            self._enter("running", now)
            self._answer_rows(len(self.rows), now)
            self._enter("finalizing", now)
        self._enter("ended", now)
        self.times[ending] = self.times["ended"]
        self.ending = ending

    def _enter(self, phase: BatchPhase, now: float) -> None:
        self.phase = phase
        self.times.setdefault(phase, self._wall(now))

    def _answer_rows(self, count: int, now: float) -> None:
        begin = len(self.answers)
        for row in self.rows[begin : begin + count]:
            self.answers.append(self._answer(self, row, now, self._wall(now)))

    def _wall(self, now: float) -> int:
        return self.origin.wall + max(int(now - self.origin.at), 0)
