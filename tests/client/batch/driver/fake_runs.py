"""FakeRuns: an engine for tests of batch jobs. It ends rows as a test says, and in the order that a test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headrace import HeadraceError, Message, RunError, RunLocalResult, Usage
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.batch.row_runs import RowRunsState, WithdrawnRowError

Answering = Callable[[Row], RunLocalResult[Any] | HeadraceError]


def chat_row(number: int, prompt: str = "", key: bytes | None = None) -> Row:
    """Return a row. Rows with the same prompt are equal."""
    prompt = prompt or f"prompt {number}"
    arguments = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]}
    return Row(number, f"row-{number}", "chat", "short", arguments, key or prompt.encode().ljust(16)[:16])


def chat_rows(count: int) -> list[Row | BadRow]:
    """Return so many different rows."""
    return [chat_row(number) for number in range(1, count + 1)]


def answer_to(row: Row, *, cost: float | None = 0.01, text: str = "") -> RunLocalResult[Any]:
    """Return an answer with 10 tokens."""
    text = text or f"answer {row.number}"
    return RunLocalResult(
        text=text,
        span_id=f"sp_{row.number:016x}",
        trace_id="tr_0",
        latency_ms=1.0,
        usage=Usage(7, 3, 10, source="provider"),
        cost=cost,
        provider="openai",
        model="gpt-4o",
        tool_calls=[],
        incomplete_tool_calls=[],
        finish_reason="stop",
        provider_finish_reason="stop",
        message=Message("assistant", text),
        reasoning="",
        refusal=None,
        attempts=1,
    )


class FakeRuns:
    """Ends rows at once, or as ``turn`` says: rows in flight → the rows that end in this call of ``take``."""

    def __init__(
        self,
        answering: Answering = answer_to,
        turn: Callable[[Sequence[Row]], Iterable[Row]] = tuple,
    ) -> None:
        self.started: list[Row] = []
        self.groups: list[int] = []
        self.in_flight: deque[Row] = deque()
        self.most_in_flight = 0
        self.was_aborted = False
        self.waiting = 0
        """Rows in flight, the last ones, that are on no worker. ``turn`` must not end them."""
        self.estimate: float | None = 0.01
        """What each row is estimated to cost."""
        self._withdrawn: list[Row] = []
        self._answering = answering
        self._turn = turn

    def start(self, rows: Sequence[Row]) -> None:
        self.started += rows
        self.groups.append(len(rows))
        self.in_flight += rows
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))

    def take(self, timeout: float) -> list[FinishedRow]:  # noqa: ARG002 - it never waits
        if self.was_aborted:
            aborted, self.in_flight = self.in_flight, deque()
            return [FinishedRow(row, RunError("sp_0", "stopped")) for row in aborted]
        withdrawn, self._withdrawn = self._withdrawn, []
        ended = [*self._turn(tuple(self.in_flight))]
        for row in ended:
            self.in_flight.remove(row)
        given_back = [FinishedRow(row, WithdrawnRowError()) for row in withdrawn]
        return given_back + [FinishedRow(row, self._answering(row)) for row in ended]

    @property
    def state(self) -> RowRunsState:
        waiting = min(self.waiting, len(self.in_flight))
        return RowRunsState(len(self.in_flight) - waiting, waiting, "limit" if waiting else "")

    def cost_estimate(self, row: Row) -> float | None:  # noqa: ARG002 - the same for all rows
        return self.estimate

    def withdraw(self) -> None:
        for _ in range(min(self.waiting, len(self.in_flight))):
            self._withdrawn.append(self.in_flight.pop())
        self.waiting = 0

    def abort(self) -> None:
        self.was_aborted = True

    @property
    def numbers(self) -> list[int]:
        """The numbers of the rows that were started, in order."""
        return [row.number for row in self.started]
