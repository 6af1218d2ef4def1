"""EngineRows: runs the rows of a batch job on an engine, through the connection of the program's client."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from headrace.batch.row import FinishedRow, Row
from headrace.batch.row_runs import RowRunsState
from headrace.connections.run_starter import RunStarter
from headrace.errors import HeadraceError, RunError
from headrace.process.clock import monotonic
from headrace.process.watchdog import LOOK_AFTER, Alarm
from headrace.runs.delivery import Delivery
from headrace.runs.outcome import ResultOrError
from headrace.runs.session import Phase

if TYPE_CHECKING:
    from headrace.runs.typed_answer import TypedAnswer

_RATE_LIMITED = 429
_STOPPED = "the batch job was stopped while the row was under way"


class EngineRows:
    """The rows of one job on one engine. Used by one thread.

    ``starter`` and ``owner``: those of the client. ``shared``: arguments for each row that has none of its own of that
    name, such as ``priority`` and ``max_retries``. A row may have ``response_type`` among its arguments.
    """

    def __init__(self, starter: RunStarter, owner: int, shared: Mapping[str, Any] | None = None) -> None:
        self._starter = starter
        self._owner = owner
        self._shared = dict(shared or {})
        self._open: dict[Delivery, _OpenRow] = {}
        # The I/O thread adds to it.
        self._ended: deque[tuple[_OpenRow, ResultOrError]] = deque()
        self._waiter: Alarm | None = None
        self._last_wait = ""
        self._rate_limited = 0

    def start(self, rows: Sequence[Row]) -> None:
        """Start rows, and return at once. A row with wrong arguments ends with InvalidRequestError."""
        for row in rows:
            open_row = _OpenRow(self, row)
            try:
                delivery = self._begun(open_row)
            except HeadraceError as error:
                self._ended.append((open_row, error))
                continue
            open_row.delivery = delivery
            self._open[delivery] = open_row
            delivery.attach(open_row)

    def take(self, timeout: float) -> list[FinishedRow]:
        """Return the rows that have ended since the last call. If there are none, wait for one, ``timeout`` seconds at most.

        Returns at once if no row is under way.
        """
        if not self._ended and self._open:
            self._wait(timeout)
        finished: list[FinishedRow] = []
        while self._ended:
            open_row, result = self._ended.popleft()
            if (delivery := open_row.delivery) is not None:
                del self._open[delivery]
                self._last_wait = delivery.session.times.queue_reason
                self._rate_limited += delivery.session.failure_count(_RATE_LIMITED)
            finished.append(FinishedRow(open_row.row, open_row.read(result)))
        return finished

    @property
    def state(self) -> RowRunsState:
        """How many rows run and wait now."""
        sessions = [delivery.session for delivery in list(self._open)]
        phases = Counter(session.phase for session in sessions)
        waiting = phases[Phase.NEW] + phases[Phase.WAITING] + phases[Phase.BACKING_OFF]
        return RowRunsState(
            running=phases[Phase.RUNNING] + phases[Phase.STOPPING],
            waiting=waiting,
            waiting_for=self._last_wait if waiting else "",
            rate_limited=self._rate_limited + sum(session.failure_count(_RATE_LIMITED) for session in sessions),
        )

    def abort(self) -> None:
        """Stop all rows now, from any thread. They end with RunError, and :meth:`take` returns them."""
        for delivery in list(self._open):
            delivery.give_up(RunError(delivery.span_id, _STOPPED))

    def ended(self, row: _OpenRow, result: ResultOrError) -> None:
        """A row has ended. Called on any thread, by the row."""
        self._ended.append((row, result))
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.wake()

    def _begun(self, open_row: _OpenRow) -> Delivery:
        row = open_row.row
        arguments: Any = {**self._shared, **row.arguments}
        if row.kind == "embeddings":
            return self._starter.start_embedding(self._owner, monotonic(), arguments)
        response_type = arguments.pop("response_type", None)
        answer_format = None
        if response_type is not None:
            from headrace.runs.typed_answer import typed_answer_of  # few jobs need what it imports

            open_row.reader = typed_answer_of(response_type)
            answer_format = open_row.reader.response_type.response_format
        return self._starter.start_run(self._owner, monotonic(), arguments, stream=False, answer_format=answer_format)

    def _wait(self, timeout: float) -> None:
        """Wait until a row has ended. Ends the rows meanwhile that should have ended long ago."""
        until = monotonic() + timeout
        while not self._ended and (left := until - monotonic()) > 0:
            alarm = self._waiter = Alarm()
            if not self._ended:
                alarm.wait(min(left, LOOK_AFTER))
            self._waiter = None
            now = monotonic()
            for delivery in list(self._open):
                delivery.look(now)


class _OpenRow:
    """A row that was started, until its result is taken."""

    __slots__ = ("__weakref__", "_rows", "delivery", "reader", "row")

    def __init__(self, rows: EngineRows, row: Row) -> None:
        self._rows = rows
        self.row = row
        self.delivery: Delivery | None = None
        self.reader: TypedAnswer | None = None

    def resolve(self, result: ResultOrError) -> None:
        """The run of the row has ended."""
        self._rows.ended(self, result)

    def read(self, result: ResultOrError) -> ResultOrError:
        """Return the result, with its answer read into the ``response_type`` of the row."""
        return result if self.reader is None else cast("ResultOrError", self.reader.read(result))
