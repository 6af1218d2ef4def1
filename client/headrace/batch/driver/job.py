"""BatchJob: reads rows, keeps the engine busy with them, records each result, and yields it. Runs in one thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from headrace.batch.driver.answer_cache import AnswerCache
from headrace.batch.driver.cost_bound import CostBound
from headrace.batch.driver.engine_patience import EnginePatience
from headrace.batch.driver.input_order import InputOrder
from headrace.batch.driver.job_start import RecordedAnswers, begin
from headrace.batch.driver.key_doubt import KeyDoubt, error_of
from headrace.batch.driver.known_answers import KnownAnswers, Origin, free
from headrace.batch.driver.options import BatchOptions
from headrace.batch.driver.progress import BatchProgress, StopReason
from headrace.batch.driver.recorder import COMMIT_ROWS, EndedRow, Recorder
from headrace.batch.driver.retries import Retries
from headrace.batch.driver.row_feed import RowFeed
from headrace.batch.driver.sharing import Sharing
from headrace.batch.driver.suspects import Suspects
from headrace.batch.driver.window import GROUP, Window
from headrace.batch.journal.job_records import JobTotals
from headrace.batch.journal.journal import Journal
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.batch.row_runs import DeferredRuns, RowRuns, RowRunsState, WithdrawnRowError
from headrace.errors import (
    BudgetExceededError,
    ConfigurationError,
    EngineUnavailableError,
    HeadraceError,
    JournalError,
    OutputValidationError,
    PoisonRunError,
    QueueFullError,
    RecordWriteError,
)
from headrace.process.clock import monotonic

_LOOK = 0.25
"""Seconds until the job looks for an interrupt."""
_READ_AGAIN = 0.02
"""Seconds until the job looks again for rows of an input that is slower than the job."""
_STATE_AFTER = 0.1
"""Seconds between two questions for what runs and waits."""
_FAREWELL = 2.0
"""Seconds at most that a job waits at its end for what it has aborted."""
_MOST_SHARING = 8192
"""Rows that wait for the answer of another row, at most."""
_MOST_UNORDERED = 4096
"""Rows at most, with ``is_ordered``, that have ended and wait for an earlier one."""
_REFUSED_PAUSE = 0.5
"""Seconds that no row is started after the engine has refused one because too many wait, if it does not say how long."""
_LONGEST_PAUSE = 10.0


class BatchJob:
    """A batch job. ``run()`` may be called once; the other methods may be called from any thread, and from signal handlers.

    ``runs``: the engine. ``rows``: the input, in order; it is iterated once. ``journal``: open, and it has scanned the
    same rows already; None for a job that keeps nothing. ``check``: called before rows are started; what it raises ends
    the job. ``is_held``: no rows are started while it returns True; what runs is finished, recorded and yielded.
    ``patience``: how long the job bears an engine that is not there.

    Raises ConfigurationError if the file ``cache`` cannot be used, InvalidRequestError if ``sample`` is given and the
    number of rows is not known.
    """

    def __init__(
        self,
        runs: RowRuns,
        rows: Iterable[Row | BadRow],
        journal: Journal | None,
        options: BatchOptions,
        *,
        check: Callable[[], object] = bool,
        is_held: Callable[[], bool] = bool,
        patience: EnginePatience | None = None,
    ) -> None:
        self._runs = runs
        self._deferred = runs if isinstance(runs, DeferredRuns) else None
        self._options = options
        self._check = check
        self._interrupts = 0
        self._is_held = is_held
        self._wake = threading.Event()
        self._error: BaseException | None = None
        self._in_flight = 0
        self._has_ended_input = False
        self._observe_at = self._paused_until = 0.0
        self._observed = 0

        self.selection, self._counts = begin(rows, journal, options)
        """The rows that the job runs."""
        self._feed = RowFeed(rows, self.selection, None if journal is None else journal.waiting_numbers())
        self._window = Window(options.concurrency)
        self._patience = patience or EnginePatience()
        self._suspects = Suspects()
        self._doubt = KeyDoubt() if options.stops_without_key and self._deferred is None else None
        self._retries = Retries(options.schema_retries)
        self._sharing = Sharing() if options.dedupe else None
        self._order: InputOrder[EndedRow] | None = InputOrder() if options.is_ordered else None
        self._bound = None
        if options.max_cost is not None:
            before = JobTotals() if journal is None else journal.totals()
            self._bound = CostBound(options.max_cost, before.cost, before.done)
        self._cache = None if options.cache is None else AnswerCache(options.cache)
        self._known = KnownAnswers(
            is_shared=options.dedupe,
            recorded=None if journal is None else RecordedAnswers(journal).find,
            cache=self._cache,
            response_type=options.response_type,
        )
        self._journal = journal
        self._recorder = Recorder(self._counts, journal, self._cache)

    def run(self) -> Iterator[EndedRow]:
        """Run all rows that have no final record yet, and yield each after it is recorded.

        The input is read only as far as the engine takes rows, and the job stops while nobody takes its results. If the
        generator is closed, what runs is aborted; what has ended is recorded.

        A BadRow is yielded only without a journal, whose scan has recorded it as failed.

        Raises RecordWriteError or JournalError if a result cannot be written, EngineUnavailableError or
        BudgetExceededError if no further row can run, and what the input raises. What runs is finished first. The rows
        without a record are run by the next start.
        """
        for rows in self.run_groups():
            yield from rows

    def run_groups(self) -> Iterator[list[EndedRow]]:
        """Do the same as :meth:`run`, and yield the rows that were recorded together as a list.

        While ``is_held`` returns True, empty lists are yielded now and then, so that the caller can do something about it.
        """
        try:
            while True:
                now = monotonic()
                self._heed(now)
                self._start_rows(now)
                self._collect(now)
                now = monotonic()
                if self._recorder.is_due(now) or (len(self._recorder) and self._is_idle):
                    yield from self._recorded(now)
                elif self._is_held():
                    yield []
                if self._is_over:
                    break
            if self._order is not None and (rest := self._order.rest()):
                yield rest
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def wake(self) -> None:
        """Ask ``is_held`` again now. Returns at once."""
        self._wake.set()

    def interrupt(self) -> None:
        """Start no further rows, give back those that wait in the engine, and finish those on workers.

        The second call aborts what runs. Returns at once.
        """
        # No event is set: a signal handler would wait for ever for the lock of an event that its own thread waits for.
        self._interrupts += 1

    def progress(self) -> BatchProgress:
        """Return the figures of this moment. Cheap enough for ten times a second."""
        progress = self._counts.progress(monotonic())
        return msgspec.structs.replace(progress, waiting_for="engine") if self._patience.is_waiting else progress

    # What is to be started.

    def _heed(self, now: float) -> None:
        """Do what was asked for from outside, and look at the engine now and then."""
        if self._interrupts:
            self._stop("interrupted")
            if self._deferred is not None or (self._interrupts > 1 and self._counts.phase != "aborting"):
                self._counts.phase = "aborting"
                self._runs.abort()
        if now >= self._observe_at:
            self._observe_at = now + _STATE_AFTER
            state = self._counts.state = self._runs.state
            self._window.observe(now, self._observed, state.running, state.waiting)
            self._observed = 0
            if self._counts.phase == "finishing" and self._counts.stop_reason != "input" and state.waiting:
                self._runs.withdraw()  # again and again: a row on a worker may fail, and wait for its next attempt
            self._counts.window = self._window.size
            self._counts.note(now)

    def _start_rows(self, now: float) -> None:
        if self._counts.phase != "running" or self._is_held():
            return
        room = self._room(now)
        while room > 0 and len(self._recorder) < COMMIT_ROWS:
            wanted = min(room, GROUP)
            rows = self._next_rows(wanted)
            if not rows:
                break
            try:
                to_run = self._not_yet_answered(rows, now)
            except ConfigurationError as error:
                self._fail("disk", error)  # the file of answers cannot be read any more
                break
            unbound = len(to_run)
            to_run = self._within_cost(to_run)
            if to_run:
                self._in_flight += len(to_run)
                self._runs.start(to_run)
            room -= len(to_run)
            if len(to_run) < unbound or (self._feed.is_slow and len(rows) < wanted):
                break
        if not self._in_flight and (self._feed.is_empty or not self._reads_on):
            self._start_suspect(now)

    def _room(self, now: float) -> int:
        """Return how many rows may be started now. Waits for room for a group: many small groups cost more."""
        if self._patience.is_waiting:
            return 1 if not self._in_flight and now >= self._patience.next_try else 0
        if now < self._paused_until or (self._doubt is not None and self._doubt.holds_rows):
            return 0
        if self._deferred is not None:
            return GROUP
        room = self._window.size - self._in_flight
        if self._in_flight and room < min(GROUP, self._window.size // 4):
            return 0
        if self._bound is not None:
            room = min(room, self._bound.room(self._in_flight))
            if room <= 0 and not self._in_flight and not self._feed.is_empty:
                self._stop("max_cost")
        return room

    def _next_rows(self, count: int) -> list[Row | BadRow]:
        try:
            self._check()
        except HeadraceError as error:
            self._fail("engine", error)
            return []
        try:
            is_waiting = self._deferred is not None or self._in_flight or len(self._recorder) or len(self._suspects)
            rows = self._feed.take(count, reads_on=self._reads_on, patience=0.0 if is_waiting else _LOOK)
        except Exception as error:  # noqa: BLE001 - what runs is finished first, then it is raised
            self._fail("input", error)
            return []
        if self._order is not None:
            for row in rows:
                self._order.begin(row.number)
        return rows

    def _not_yet_answered(self, rows: Sequence[Row | BadRow], now: float) -> list[Row]:
        """Return the rows that are to be run. The others have their answer, or wait for that of an equal row."""
        to_run: list[Row] = []
        for row in rows:
            if isinstance(row, BadRow):
                self._recorder.add(row, "run", now)
            elif self._sharing is None or not self._sharing.joins(row):
                to_run.append(row)
        if self._sharing is None and self._cache is None:
            return to_run
        known = self._known.find(to_run)
        for row in to_run:
            if row.hash in known:
                origin, answer = known[row.hash]
                self._finish(FinishedRow(row, answer), origin, now)
        return [row for row in to_run if row.hash not in known]

    def _within_cost(self, rows: list[Row]) -> list[Row]:
        """Return the first rows, as far as ``max_cost`` admits them. The others are put back."""
        if self._bound is None:
            return rows
        for place, row in enumerate(rows):
            if not self._bound.admits(self._runs.cost_estimate(row)):
                for held in rows[place:]:
                    self._feed.put_back(held)
                if not place and not self._in_flight:
                    self._stop("max_cost")
                return rows[:place]
        return rows

    def _start_suspect(self, now: float) -> None:
        """Run a row alone that was refused because workers died with it."""
        row = self._suspects.next()
        if row is not None:
            self._in_flight += 1
            self._runs.start([row])
            return
        for convicted, error in self._suspects.convicted():
            self._finish(FinishedRow(convicted, error), "run", now)

    # What has ended.

    def _collect(self, now: float) -> None:
        """Take the rows that have ended; wait for one, but not beyond the next thing that is to be done."""
        if self._deferred is not None and self._counts.phase == "aborting":
            return  # the next start finds the rows again
        if self._starts_all_first:
            self._pause(now)
            return
        if self._deferred is None and not self._in_flight:
            if not len(self._recorder) and not self._is_over:
                self._pause(now)
            return
        finished = self._runs.take(self._patience_of_take(now))
        now = monotonic()
        self._observed += len(finished)
        is_alone = self._in_flight == 1
        self._in_flight -= len(finished)
        for row in finished:
            if not self._is_doubted(row, now):
                self._judge(row, now, is_alone=is_alone)
        if self._doubt is not None and self._doubt.holds_rows and not self._in_flight:
            doubted = self._doubt.give_up()
            self._fail("key", error_of(doubted))
            for row in doubted:
                self._feed.put_back(row.row)

    def _is_doubted(self, finished: FinishedRow, now: float) -> bool:
        """Return whether it is not known yet if the job should end because of the row's error."""
        if self._doubt is None or self._counts.phase == "aborting":
            return False
        if self._doubt.keeps(finished):
            return True
        for refused in self._doubt.freed_by(finished.result):
            self._finish(refused, "run", now)
        return False

    def _judge(self, finished: FinishedRow, now: float, *, is_alone: bool) -> None:
        """Finish a row, or let it run again."""
        result = finished.result
        if not isinstance(result, HeadraceError):
            if self._patience.is_waiting:
                self._patience.found()
            self._suspects.acquit(finished.row)
            self._spent(result.cost, result.usage.input_tokens, result.usage.output_tokens)
            self._known.learn(finished.row, result)
            self._finish(self._retries.with_whole_cost(finished), "run", now)
            return
        if self._counts.phase == "aborting":
            return  # it was stopped: it has no final record
        if not self._runs_again(finished.row, result, now, is_alone=is_alone):
            self._finish(self._retries.with_whole_cost(finished), "run", now)

    def _runs_again(self, row: Row, error: HeadraceError, now: float, *, is_alone: bool) -> bool:
        """Return whether a row with this error has no final record yet."""
        match error:
            case EngineUnavailableError():
                self._patience.lost(now, was_alone=is_alone)
                if self._patience.is_over:
                    self._fail("engine", error)
                self._feed.put_back(row)
                return True
            case BudgetExceededError():
                self._fail("engine", error)
                self._feed.put_back(row)
                return True
            case QueueFullError():
                self._window.shrink(self._counts.state.running)
                pause = _REFUSED_PAUSE if error.retry_after is None else error.retry_after
                self._paused_until = now + min(pause, _LONGEST_PAUSE)
                self._feed.put_back(row)
                return True
            case OutputValidationError():
                usage = error.usage
                self._spent(error.cost, usage.input_tokens if usage else 0, usage.output_tokens if usage else 0)
                if again := self._retries.may_try_again(row.number, error):
                    self._feed.put_back(row)
                return again
            case WithdrawnRowError():
                self._feed.put_back(row)
                return True
            case PoisonRunError():
                return self._suspects.add(row, error)
        self._patience.found()
        self._suspects.acquit(row)
        return False

    def _finish(self, finished: FinishedRow, origin: Origin, now: float) -> None:
        """Give a row, and the rows that wait for its answer, their final result."""
        if not self._has_ended(finished.row):
            self._recorder.add(finished, origin, now)
        if self._sharing is None:
            return
        result = finished.result
        shared = result if isinstance(result, HeadraceError) else free(result)
        for row in self._sharing.ended(finished.row):
            if not self._has_ended(row):
                self._recorder.add(FinishedRow(row, shared), "shared", now)

    def _has_ended(self, row: Row) -> bool:
        """Return whether a row has its final result.

        An earlier start may have left a row with the provider, and this start may find its answer in an equal row.
        """
        if self._deferred is None or (self._sharing is None and self._cache is None):
            return False
        is_recorded = self._journal is not None and self._journal.stored_record(row.number) is not None
        return is_recorded or self._recorder.has(row.number)

    def _spent(self, cost: float | None, input_tokens: int, output_tokens: int) -> None:
        self._counts.spent(cost, input_tokens, output_tokens)
        if self._bound is None:
            return
        if cost is not None:
            self._bound.add(cost)
        elif input_tokens or output_tokens:
            self._stop("no_price")

    def _recorded(self, now: float) -> Iterator[list[EndedRow]]:
        """Record the rows that have ended, and yield them."""
        try:
            rows = self._recorder.write(now)
        except RecordWriteError as error:
            self._fail("disk", error)  # what runs is finished: there may be room by then
            if self._is_idle:
                raise
            return
        self._tell_provider(rows)
        if self._recorder.cache_error is not None:
            self._fail("disk", self._recorder.cache_error)
        if self._order is not None:
            for row in rows:
                self._order.end(row.number, row)
            rows = self._order.released()
        self._counts.reading_since = monotonic()
        yield rows
        self._counts.read(monotonic())

    def _tell_provider(self, rows: Sequence[EndedRow]) -> None:
        """Say which rows of a provider are recorded."""
        if self._deferred is not None and rows:
            try:
                self._deferred.recorded([row.number for row in rows])
            except HeadraceError as error:
                self._fail("disk", error)

    # The end.

    def _stop(self, reason: StopReason) -> None:
        """Start no further rows."""
        if self._counts.phase == "running":
            self._counts.phase = "finishing"
            self._counts.stop_reason = reason
            self._observe_at = 0.0  # now: the rows that wait are given back

    def _fail(self, reason: StopReason, error: BaseException) -> None:
        self._stop(reason)
        if self._error is None:
            self._error = error

    @property
    def _is_idle(self) -> bool:
        """Whether no row is with the engine."""
        if self._deferred is None:
            return not self._in_flight
        if self._counts.phase == "aborting":
            return True
        state = self._deferred.state
        return self._has_ended_input and not state.running and not state.waiting

    @property
    def _is_over(self) -> bool:
        if len(self._recorder) or not self._is_idle:
            return False
        return self._counts.phase != "running" or (self._feed.is_empty and not len(self._suspects))

    @property
    def _reads_on(self) -> bool:
        """Whether further rows of the input may be read. If not, too many rows wait in memory for the end of another."""
        if self._sharing is not None and self._sharing.waiting >= _MOST_SHARING:
            return False
        if self._order is None or self._deferred is not None:
            return True  # a provider gets all rows at once: a part of them could take a day
        return len(self._order) < max(_MOST_UNORDERED, 4 * self._window.size)

    @property
    def _starts_all_first(self) -> bool:
        """Whether all rows are to be started before one is taken: with a provider, where earlier starts have left rows.

        A row that has ended would be sent a second time if the job came to it only then.
        """
        if self._deferred is None or self._journal is None or self._counts.phase != "running":
            return False
        return not self._feed.is_empty and self._reads_on

    def _pause(self, now: float) -> None:
        """Wait for the moment when a row may be started again."""
        until = now + _LOOK if self._is_held() else max(self._patience.next_try, self._paused_until)
        if until > now:
            self._wake.wait(min(until - now, _LOOK))
            if not self._interrupts:
                self._wake.clear()

    def _patience_of_take(self, now: float) -> float:
        """Return how long to wait for an ended row, in seconds. Tells a provider that all rows are there."""
        if self._deferred is not None:
            is_reading = not self._feed.is_empty and self._reads_on
            if self._counts.phase == "running" and is_reading and not self._is_held():
                return 0.0
            if not self._has_ended_input and not self._is_held():
                self._has_ended_input = True
                self._deferred.end_input()
        return self._recorder.time_left(now, _READ_AGAIN if self._feed.is_slow else _LOOK)

    def close(self) -> None:
        """Abort what runs, and record what has ended. Only for a job whose iteration does not begin, or has ended."""
        if self._counts.phase == "ended":
            return
        if self._in_flight and self._counts.phase != "aborting":
            self._counts.phase = "aborting"
            self._runs.abort()
        until = monotonic() + _FAREWELL
        while self._in_flight > 0 and self._deferred is None and (now := monotonic()) < until:
            finished = self._runs.take(_LOOK)
            self._in_flight -= len(finished)
            for row in finished:
                self._judge(row, now, is_alone=False)
        with contextlib.suppress(RecordWriteError, JournalError):  # the rows run again at the next start
            self._tell_provider(self._recorder.write(monotonic()))
        self._feed.close()
        if self._cache is not None:
            self._cache.close()
        self._counts.state = RowRunsState(rate_limited=self._counts.state.rate_limited)
        self._counts.phase = "ended"
