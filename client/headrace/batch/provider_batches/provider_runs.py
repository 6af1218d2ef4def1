"""ProviderRuns: runs the rows of a job through the provider's own batch API, and finds them again after a restart.

It is the way of ``--via-provider`` and ``--background``. See ``DeferredRuns`` for what is different from an engine. The
shell of :class:`BatchStates`: it carries out the commands of the state machine, with the batch process for the requests.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, assert_never

import msgspec

from headrace.batch.driver.options import BackgroundWindow
from headrace.batch.provider_batches.batch_process import BatchProcess
from headrace.batch.provider_batches.batch_states import BatchStates
from headrace.batch.provider_batches.batch_status import ProviderBatchStatus, status_of
from headrace.batch.provider_batches.batch_times import USUAL_TIMES, BatchTimes
from headrace.batch.provider_batches.gathering import Gathering, SingleRows
from headrace.batch.provider_batches.handing_out import HandedOut, HandingOut
from headrace.batch.provider_batches.held_rows import HeldRows
from headrace.batch.provider_batches.merging import AnswersOfPart
from headrace.batch.provider_batches.moved_rows import MovedRows, RowNumbers
from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.part_calls import call_of, told
from headrace.batch.provider_batches.part_commands import (
    CancelExtra,
    Command,
    FailRows,
    Forget,
    GiveBack,
    Merge,
    Save,
    Stop,
    TakeStep,
)
from headrace.batch.provider_batches.part_limits import LIMITS, PartLimits
from headrace.batch.provider_batches.part_store import NoJournal, PartJournal, PartStore
from headrace.batch.provider_batches.row_files import AnswersFile, KeptFiles, answers_path, rows_of
from headrace.batch.provider_batches.row_results import error_of, result_of
from headrace.batch.provider_batches.row_storing import RowStoring, row_of
from headrace.batch.row import FinishedRow, Row
from headrace.batch.row_runs import RowRunsState
from headrace.connections.run_starter import RunStarter
from headrace.errors import HeadraceError
from headrace.files.private_files import make_directories
from headrace.process.clock import monotonic
from headrace.schemas.response_type import ResponseType
from headrace.settings.settings import load_settings
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import (
    AnswersRead,
    BatchAnswer,
    BatchApiName,
    BatchCall,
    BatchPolled,
    CallFailed,
    CancelBatch,
    EncodeRows,
    ProviderAnswer,
    ReadAnswers,
    RowsEncoded,
    RowToEncode,
)
from headrace.wire.run_messages import Failed
from headrace.wire.typed_errors import failure_error

_FOLDER = "batches"
_GROUP = 64
"""Rows that are encoded or read together."""
_MOST_ENCODING = 8
"""Groups of rows that are being encoded at once. Then ``start`` waits."""
_MOST_FINISHED = 512
"""Rows that have ended and were not taken. Then no further answers are read."""
_TOKEN_BYTES = 8
_LOOK = 5.0
_TOO_MANY_REQUESTS = 429


class JobJournal(PartJournal, RowNumbers, Protocol):
    """What ProviderRuns needs of the job's journal."""

    def stored_record(self, number: int) -> object | None:
        """Return the record of a row, None if it has none."""


class ProviderRuns:
    """Rows with providers, as ``DeferredRuns``. Used by one thread; any thread may ask for ``state`` and ``batches``.

    * ``starter``: the client's, for the arguments of rows and for prices.
    * ``directory``: the job's directory, or a temporary one for a job without a journal. A folder in it keeps the rows of
      a batch until they are recorded (files with mode 0600).
    * ``journal``: the job's, which keeps the state of the batches. None: they are lost with this process.
    * ``background``: None for batches; else each row is a background run of OpenAI's Responses API.
    * ``shared``: arguments for each row that has none of its own of that name.
    * ``response_type``: that of the rows, if they have one. It also reads rows of earlier starts of the job.
    * ``concurrency``: background runs with the provider at once.

    The keys are those of this process's environment and settings. Raises ConfigurationError if the settings cannot be
    used, EngineUnavailableError if the process for the requests cannot be started, JournalError.
    """

    def __init__(
        self,
        starter: RunStarter,
        directory: Path,
        *,
        journal: JobJournal | None = None,
        background: BackgroundWindow | None = None,
        shared: Mapping[str, Any] | None = None,
        response_type: ResponseType | None = None,
        concurrency: int = 1000,
        times: BatchTimes = USUAL_TIMES,
        limits: Mapping[BatchApiName, PartLimits] = LIMITS,
    ) -> None:
        self._prices = starter.prices
        self._journal = journal
        self._background = background or ""
        self._storing = RowStoring(starter, shared or {})
        if response_type is not None:
            self._storing.know(response_type)
        self._folder = directory / _FOLDER
        make_directories(self._folder)
        self._store = PartStore(journal or NoJournal())
        parts = [_in_folder(part, self._folder) for part in self._store.load()]
        limits = {**limits, "background": msgspec.structs.replace(limits["background"], batches=concurrency)}
        self._states = BatchStates(_new_token, times, limits)
        numbers = itertools.count(max((part.number for part in parts), default=0) + 1)
        self._moved = MovedRows(parts, journal)
        version = self._moved.version
        self._gathering = Gathering(self._folder, limits, _new_token, numbers.__next__, version)
        self._singles = SingleRows(self._folder, _new_token, numbers.__next__, version)
        self._held = HeldRows()
        for part in parts:
            self._held.hold(part, self._moved.ranges(part))
            self._held.lose(self._moved.numbers(part, part.rows.skipped))
        self._states.restore(parts, monotonic())
        self._files = KeptFiles(self._folder, parts)
        self._files.sweep()
        self._calls = itertools.count(1)
        self._asked: dict[int, Part] = {}
        """Call → the part that it is about. Only calls that the state machine waits for."""
        self._encoding: dict[int, list[StoredRow]] = {}
        self._handing_out = HandingOut(self._is_wanted, self._moved, self._calls.__next__)
        self._polled_answers: dict[int, list[ProviderAnswer]] = {}
        self._finished: deque[FinishedRow] = deque()
        self._to_encode: list[StoredRow] = []
        self._passed = 0
        """The highest number of a row that was started: the job has come so far in its input."""
        self._failed_early: set[int] = set()
        """Rows that the provider refused before the job has come to them. Rare."""
        self._has_ended_input = False
        self._is_cancelling = False
        self._is_closed = False
        self._stopped: HeadraceError | None = None
        self._rate_limited = 0
        self._process = BatchProcess(load_settings(os.environ), self._folder)

    # What a job calls.

    def start(self, rows: Sequence[Row]) -> None:
        """Put rows into batches. A row that is with the provider already is not sent again."""
        self._storing.begin_group()
        for row in rows:
            is_new = row.number > self._passed
            self._passed = max(self._passed, row.number)
            if is_new and row.number in self._failed_early:
                continue
            # A row that was taken, and is started again, has an answer that the job does not accept.
            if self._held.has(row.number) and (is_new or not self._handing_out.has_handed_out(row.number)):
                continue
            self.recorded((row.number,))
            try:
                stored = self._storing.stored(row)
            except HeadraceError as error:
                self._finished.append(FinishedRow(row, error))
                continue
            self._to_encode.append(stored)
            if len(self._to_encode) >= _GROUP:
                self._encode()
        while len(self._encoding) > _MOST_ENCODING:
            self._turn(_LOOK)

    def end_input(self) -> None:
        """Send the rows that wait for a full batch. Rows that are started later are sent with the next ``take``."""
        self._has_ended_input = True
        self._encode()

    def take(self, timeout: float) -> list[FinishedRow]:
        """Return rows that have ended: some hundred at most. If there are none, wait ``timeout`` seconds at most.

        Raises AuthenticationError, RateLimitError or another error of the provider if it refuses the job as a whole; and
        EngineUnavailableError if the batch process dies again and again. The rows stay where they are: the next start of
        the job goes on.
        """
        until = monotonic() + timeout
        self._turn(0.0)
        while not self._finished and self._goes_on and (left := until - monotonic()) > 0:
            self._turn(left)
        taken = list(self._finished)
        self._finished.clear()
        if not taken and self._stopped is not None and not self._goes_on:
            raise self._stopped
        return taken

    @property
    def state(self) -> RowRunsState:
        """``running``: rows of batches that the provider has. ``waiting``: all others that were not returned yet."""
        running = waiting = 0
        for live in self._states.parts():
            part = live.part
            if part.number in self._handing_out:
                running += self._handing_out.left_of(part.number)
            elif part.state in ("running", "ended"):
                running += part.row_count
            else:
                waiting += part.row_count
        waiting += len(self._to_encode) + sum(map(len, self._encoding.values()))
        waiting += self._gathering.rows + self._singles.rows
        running += self._handing_out.reading + len(self._finished)
        return RowRunsState(running, waiting, rate_limited=self._rate_limited)

    def batches(self) -> list[ProviderBatchStatus]:
        """Return the batches of the job that are not over, for people."""
        return [status_of(live.part, live.done, live.failed) for live in self._states.parts()]

    def recorded(self, numbers: Sequence[int]) -> None:
        """Note that rows that ``take`` has returned are in the journal."""
        if len(self._handing_out):
            self._handing_out.recorded(numbers)
            self._end_parts()

    def cancel(self) -> None:
        """Cancel all batches. ``take`` still returns what the provider has run by then."""
        self._is_cancelling = True
        self._to_encode.clear()
        self._gathering.drop()
        self._singles.drop()
        self._states.cancel(monotonic())

    def cost_estimate(self, row: Row) -> float | None:  # noqa: ARG002 - a job with a bound is refused
        """Return None: no bound of the cost holds for rows at a provider."""
        return None

    def withdraw(self) -> None:
        """Do nothing: the provider has all rows."""

    def abort(self) -> None:
        """Do the same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Leave the batches to the provider. The next start of the job finds them again. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._process.close()
        self._gathering.drop()
        self._singles.drop()
        self._singles.close()
        self._files.sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # One turn: answers, what is due, what can be handed out.

    @property
    def _goes_on(self) -> bool:
        """Whether rows may still end. After an error for one provider, the batches of the others go on."""
        if self._is_closed:
            return False
        if self._stopped is not None:
            is_asking = self._asked or self._encoding or len(self._handing_out)
            return bool(is_asking) or self._states.next_due() < float("inf")
        state = self.state
        return bool(state.running or state.waiting)

    def _turn(self, timeout: float) -> None:
        """Handle the answers that are there, and do what is due. If there are none, wait for one."""
        if self._is_closed:
            return
        self._proceed()
        wait = 0.0 if self._finished else min(timeout, max(self._states.next_due() - monotonic(), 0.0))
        commands: list[Command] = []
        taken = self._process.take(wait)
        while taken is not None:
            commands += self._answered(*taken)
            taken = self._process.take(0.0)
        self._carry_out(commands)
        self._proceed()

    def _proceed(self) -> None:
        now = monotonic()
        commands: list[Command] = []
        if self._has_ended_input and not self._is_cancelling:
            self._encode()
            # Rows that are sent again come while others are handed out: they are sent together.
            if not self._encoding and not len(self._handing_out):
                for part in self._gathering.close_all():
                    commands += self._added(part, now)
        while self._singles.rows and self._states.has_room("background"):
            commands += self._added(self._singles.next(), now)
        self._carry_out([*commands, *self._states.due(now, time.time())])
        while len(self._finished) < _MOST_FINISHED and (handed_out := self._handing_out.next()) is not None:
            self._hand_out(handed_out)
        self._end_parts()

    def _answered(self, call: BatchCall, answer: BatchAnswer) -> list[Command]:
        """Handle an answer. Return what the state machine wants done."""
        match answer:
            case RowsEncoded():
                return self._encoded(answer)
            case AnswersRead():
                self._read(answer, time.time())
                return []
            case CallFailed() if isinstance(call, EncodeRows | ReadAnswers):
                self._rows_failed(call, answer.failed)
                return []
            case _:
                part = self._asked.pop(call.call, None)
                if part is None:
                    return []  # a second batch of a part was cancelled
                if isinstance(answer, BatchPolled) and answer.answers:
                    self._polled_answers[part.number] = answer.answers
                if isinstance(answer, CallFailed):
                    self._rate_limited += answer.failed.status_code == _TOO_MANY_REQUESTS
                return told(self._states, part.number, answer, monotonic(), time.time())

    def _rows_failed(self, call: EncodeRows | ReadAnswers, failed: Failed) -> None:
        """The batch process could not encode some rows, or not read their answers."""
        if isinstance(call, EncodeRows):
            for stored in self._encoding.pop(call.call):
                self._finish(stored, failure_error(failed, stored.provider, ""))
            return
        part, rows = self._handing_out.read(call.call)
        for stored in rows:
            self._finish(stored, error_of(part, stored.number, failed, stored.provider))

    # Commands of the state machine.

    def _carry_out(self, commands: Sequence[Command]) -> None:
        """Carry out commands: first the changes of the journal, all at once, at last the removal of files."""
        changes = [command for command in commands if isinstance(command, Save | Forget)]
        if changes:
            self._store.change(changes)
        for command in commands:
            self._do(command)
        for command in changes:
            if isinstance(command, Forget):
                self._forget(command.part)

    def _do(self, command: Command) -> None:
        match command:
            case TakeStep():
                self._ask(command)
            case CancelExtra():
                self._process.send(CancelBatch(next(self._calls), command.part.group, command.batch_id))
            case Merge():
                self._merge(command.part, command.failed)
            case FailRows():
                self._fail(command.part, command.numbers, command.failed)
            case GiveBack():
                self._take_back(self._moved.now(command.part, row) for row in rows_of(command.part))
            case Stop():
                self._stopped = error_of(command.part, 0, command.failed, command.part.group.provider)
            case Save() | Forget():
                pass  # done by _carry_out
            case _:
                assert_never(command)

    def _ask(self, ask: TakeStep) -> None:
        call = call_of(ask, next(self._calls), answers_path(ask.part))
        self._asked[call.call] = ask.part
        self._process.send(call)

    def _added(self, part: Part, now: float) -> list[Command]:
        self._files.add(part)
        return self._states.add(part, now)

    def _forget(self, part: Part) -> None:
        """Forget a part that is over, and remove its files."""
        self._held.forget(part)
        self._files.remove(part)

    def _merge(self, part: Part, failed: Failed | None) -> None:
        polled = self._polled_answers.pop(part.number, None)
        if failed is not None:
            answers: Any = AnswersOfPart({})
        elif polled is not None:
            answers = AnswersOfPart(dict.fromkeys(part.numbers(), polled))
        else:
            answers = AnswersFile(answers_path(part))
        self._handing_out.add(part, answers, failed)

    def _fail(self, part: Part, numbers: Sequence[int], failed: Failed) -> None:
        """End some rows of a part with an error. ``part`` still has them."""
        wanted = frozenset(numbers)
        for stored in rows_of(part):
            now = self._moved.now(part, stored)
            if stored.number in wanted and now.number and self._is_wanted(now.number):
                self._finish(now, error_of(part, stored.number, failed, stored.provider))
                if now.number > self._passed:
                    self._failed_early.add(now.number)
        self._held.lose(self._moved.numbers(part, numbers))

    def _take_back(self, rows: Iterable[StoredRow]) -> None:
        """Take rows from a part that has lost them. They go into further parts, unless the job is being cancelled."""
        for stored in rows:
            self._held.lose((stored.number,))
            # The job will start the rows that it has not come to yet.
            is_passed = 0 < stored.number <= self._passed
            if is_passed and not self._is_cancelling and self._is_wanted(stored.number):
                self._to_encode.append(stored)

    # Rows.

    def _encode(self) -> None:
        """Have the rows that wait for it encoded."""
        while self._to_encode:
            rows, self._to_encode = self._to_encode[:_GROUP], self._to_encode[_GROUP:]
            call = next(self._calls)
            self._encoding[call] = rows
            to_encode = [RowToEncode(stored.number, stored.request) for stored in rows]
            self._process.send(EncodeRows(call, to_encode, self._background))

    def _encoded(self, answer: RowsEncoded) -> list[Command]:
        now = monotonic()
        commands: list[Command] = []
        rows = self._encoding.pop(answer.call)
        if self._is_cancelling:
            return []
        for stored, row in zip(rows, answer.rows, strict=True):
            if row.group is None:
                failed = row.failed or Failed("", 0, 0, "invalid_request", "the row cannot be sent")
                self._finish(stored, failure_error(failed, stored.provider, ""))
            elif row.group.api == "background":
                self._singles.add(stored, row.group)
            elif (part := self._gathering.add(stored, row, row.group)) is not None:
                commands += self._added(part, now)
        return commands

    def _hand_out(self, handed_out: HandedOut) -> None:
        part, group, call = handed_out
        if call is not None:
            self._process.send(call)
        for stored, failed in group.failed:
            self._finish(stored, error_of(part, stored.number, failed, stored.provider))
        self._take_back(group.given_back)

    def _read(self, answer: AnswersRead, wall: float) -> None:
        part, rows = self._handing_out.read(answer.call)
        for stored, end in zip(rows, answer.ends, strict=True):
            response_type = self._storing.response_type(stored)
            self._finish(stored, result_of(part, stored, end, self._prices, wall, response_type))

    def _end_parts(self) -> None:
        """End the parts whose rows are all recorded."""
        for number in self._handing_out.over():
            self._carry_out(self._states.merged(number))

    def _finish(self, stored: StoredRow, result: Any) -> None:
        self._finished.append(FinishedRow(row_of(stored), result))

    def _is_wanted(self, number: int) -> bool:
        return self._journal is None or self._journal.stored_record(number) is None


def _in_folder(part: Part, folder: Path) -> Part:
    """Return a part whose rows are in this folder: the job's directory may have been moved."""
    rows = msgspec.structs.replace(part.rows, path=str(folder / Path(part.rows.path).name))
    return msgspec.structs.replace(part, rows=rows)


def _new_token() -> str:
    return secrets.token_hex(_TOKEN_BYTES)
