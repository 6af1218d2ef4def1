"""EngineRows: runs the rows of a batch job on an engine, through the connection of the program's client."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from headrace.batch.row import FinishedRow, Row
from headrace.batch.row_runs import RowRunsState, WithdrawnRowError
from headrace.connections.row_plans import RowPlan, RowPlans
from headrace.connections.run_starter import RunStarter, session_of
from headrace.errors import HeadraceError, RunError
from headrace.process.clock import monotonic
from headrace.runs.row_run import EndedRuns, RowRun
from headrace.runs.session import Phase, Session
from headrace.types import Usage
from headrace.wire.messages import Status

if TYPE_CHECKING:
    from headrace.connections.connection import Connection
    from headrace.schemas.response_type import ResponseType

_RATE_LIMITED = 429
_ANSWER = 500
"""Tokens of an answer for an estimate of its cost, where no most is given."""
_ASK_AFTER = 1.0
"""Seconds between two questions for what the runs of the engine wait for, while rows wait."""
_STOPPED = "the batch job was stopped while the row was under way"
_MOST_TOGETHER = 64
_TOGETHER_SHARE = 8
"""A job is woken when one in eight of its rows under way has ended, or :data:`_MOST_TOGETHER` rows."""


class EngineRows:
    """The rows of one job on one engine. One thread starts and takes rows; any thread may use the rest.

    ``starter`` and ``owner``: those of the client. ``shared``: arguments for each row that has none of its own of that
    name, such as ``priority`` and ``max_retries``. A row may have ``response_type`` among its arguments.
    """

    def __init__(self, starter: RunStarter, owner: int, shared: Mapping[str, Any] | None = None) -> None:
        self._starter = starter
        self._owner = owner
        self._plans = RowPlans(starter, shared or {})
        self._open: dict[RowRun, tuple[Row, ResponseType | None]] = {}
        self._ended = EndedRuns()
        self._not_started: deque[FinishedRow] = deque()
        self._words: Mapping[str, int] = {}
        """What runs of the engine wait for, as its broker has said last: a word of ``WaitWord`` → how many."""
        self._ask_at = 0.0
        self._rate_limited = 0

    def start(self, rows: Sequence[Row]) -> None:
        """Start rows, and return at once. A row with wrong arguments ends with InvalidRequestError."""
        planned: list[tuple[Row, RowPlan]] = []
        self._plans.begin_group()
        for row in rows:
            try:
                planned.append((row, self._plans.plan(row.arguments, is_embedding=row.kind == "embeddings")))
            except HeadraceError as error:
                self._not_started.append(FinishedRow(row, error))
        try:
            if planned:
                self._starter.submit_all(self._owner, partial(self._begin, planned))
        except HeadraceError as error:
            self._not_started += [FinishedRow(row, error) for row, _ in planned]

    def take(self, timeout: float) -> list[FinishedRow]:
        """Return the rows that have ended since the last call. If there are none, wait for one, ``timeout`` seconds at most.

        Returns at once if no row is under way. Rows that end within 10 ms of each other come together.
        """
        finished = list(self._not_started)
        self._not_started.clear()
        if self._open:
            self._wait(0.0 if finished else timeout)
        prices = self._starter.prices
        for run in self._ended.take():
            row, response_type = self._open.pop(run)
            session = run.session
            self._rate_limited += session.failure_count(_RATE_LIMITED)
            result = run.result(prices)
            finished.append(FinishedRow(row, result if response_type is None else _typed(result, response_type)))
        return finished

    @property
    def state(self) -> RowRunsState:
        """How many rows run and wait now."""
        sessions = [run.session for run in list(self._open)]
        phases = Counter([session.phase for session in sessions])
        queued = phases[Phase.NEW] + phases[Phase.WAITING]
        waiting = queued + phases[Phase.BACKING_OFF]
        self._ask_what_holds_back(queued)
        return RowRunsState(
            running=phases[Phase.RUNNING] + phases[Phase.STOPPING],
            waiting=waiting,
            waiting_for=self._waiting_for(queued, [run for run in sessions if run.phase is Phase.BACKING_OFF]),
            rate_limited=self._rate_limited + sum(session.failure_count(_RATE_LIMITED) for session in sessions),
        )

    def cost_estimate(self, row: Row) -> float | None:
        """Return about how many US dollars a row will cost; None if the price of its model is not known."""
        from headrace.batch.row_estimate import input_tokens_of

        try:
            plan = self._plans.plan(row.arguments, is_embedding=row.kind == "embeddings").plan
        except HeadraceError:
            return 0.0  # the row fails before it costs anything
        answer = 0 if row.kind == "embeddings" else row.arguments.get("max_output_tokens") or _ANSWER
        usage = Usage(input_tokens=input_tokens_of(row), output_tokens=answer, source="provider")
        return self._starter.prices.cost(plan.provider, plan.model, usage)

    def withdraw(self) -> None:
        """Give back the rows that are not on a worker. They end with WithdrawnRowError. Returns at once."""
        if runs := list(self._open):
            self._ended.connection.post_withdraw(runs, WithdrawnRowError())

    def abort(self) -> None:
        """Stop all rows now. They end with RunError, and :meth:`take` returns them."""
        for run in list(self._open):
            run.give_up(RunError(run.span_id, _STOPPED))

    def _ask_what_holds_back(self, queued: int) -> None:
        """Ask the broker now and then, while rows wait for a lease."""
        now = monotonic()
        if queued and now >= self._ask_at:
            self._ask_at = now + _ASK_AFTER
            self._ended.connection.post_status(self._note_words)
        elif not queued:
            self._words = {}

    def _note_words(self, status: Status | HeadraceError) -> None:
        if isinstance(status, Status):
            self._words = status.waiting_for

    def _waiting_for(self, queued: int, pausing: Sequence[Session]) -> str:
        """Return what most rows wait for. A row whose attempt has met HTTP 429 waits for a limit until its next attempt."""
        words: Counter[str] = Counter()
        if queued and self._words:
            words[max(self._words, key=lambda word: self._words[word])] = queued
        words["limit"] += sum(session.failure_count(_RATE_LIMITED) > 0 for session in pausing)
        word, count = words.most_common(1)[0]
        return word if count else ""

    def _begin(self, planned: Sequence[tuple[Row, RowPlan]], connection: Connection) -> list[RowRun]:
        self._ended.use(connection)
        now, owner, ended = monotonic(), self._owner, self._ended
        runs: list[RowRun] = []
        for row, (plan, trace_id, response_type) in planned:
            run = RowRun(session_of(plan), trace_id, now, owner, ended)
            self._open[run] = row, response_type
            runs.append(run)
        return runs

    def _wait(self, timeout: float) -> None:
        """Wait until some rows have ended. Ends the rows meanwhile that should have ended long ago."""
        ended = self._ended
        wanted = min(1 + len(self._open) // _TOGETHER_SHARE, _MOST_TOGETHER)
        until = monotonic() + timeout
        ended.wait(wanted, timeout)
        while not ended and (left := until - monotonic()) > 0:
            now = monotonic()
            for run in list(self._open):
                run.look(now)
            ended.wait(wanted, left)


def _typed(result: Any, response_type: ResponseType) -> Any:
    from headrace.runs.typed_answer import TypedAnswer

    return cast("Any", TypedAnswer(response_type).read(result))
