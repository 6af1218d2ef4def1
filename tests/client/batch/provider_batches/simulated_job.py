"""A job over the state machine of batches, with a provider and a disk in memory. It can be killed between any two steps."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from headrace.batch.provider_batches.batch_states import BatchStates
from headrace.batch.provider_batches.batch_times import BatchTimes
from headrace.batch.provider_batches.part import Part, RowRanges
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
from headrace.batch.provider_batches.part_limits import LIMITS
from headrace.wire.batch_messages import (
    BatchApiName,
    BatchEnd,
    BatchesFound,
    BatchGroup,
    BatchPolled,
    BatchProblem,
    ProviderAnswer,
    RowsFile,
)
from headrace.wire.run_messages import Failed

FORMATS: dict[BatchApiName, str] = {
    "openai": "openai-chat",
    "anthropic": "anthropic",
    "google": "google",
    "background": "openai-responses",
}
CUT = Failed("", 0, 0, "provider_unavailable", "the connection was cut", may_retry=True)
GONE = Failed("", 0, 0, "invalid_request", "there is no such batch", status_code=404)
ENDED = Failed("", 0, 0, "provider_unavailable", "it has ended", status_code=409)
BUSY = Failed("", 0, 0, "rate_limit", "too many", status_code=429, retry_after=7.0)


class KilledError(Exception):
    """The job was killed."""


class FakeBatch(msgspec.Struct):
    """A batch of the provider."""

    id: str
    token: str
    rows: list[int]
    created_at: float
    polls: int = 0
    end: BatchEnd = ""
    problems: list[BatchProblem] = []
    is_visible: bool = True


class FakeProvider:
    """A batch API in memory. A batch ends with its third poll, and then its rows have been run: that is what costs.

    ``lists``: whether its list shows the token, or only the number of rows, or whether it has no list.
    """

    def __init__(self, api: BatchApiName) -> None:
        self.api = api
        self.batches: dict[str, FakeBatch] = {}
        self.files: set[str] = set()
        self.paid: Counter[int] = Counter()
        self.bad_rows: set[int] = set()
        self.ends: dict[int, BatchEnd] = {}
        """How the n-th batch ends, if not completed."""
        self.lost_replies: set[int] = set()
        """Which creations are answered by a cut connection, though the batch is there."""
        self.refused: set[int] = set()
        """Which creations are answered by 429."""
        self.creations = 0
        self.loses_batches = False
        """Whether a batch whose creation was not answered is not there either."""
        self.is_full = 0
        """How many of the next batches fail, because too many tokens wait already."""
        self._ids = itertools.count(1)

    def create(self, part: Part, wall: float) -> str | Failed:
        """Create a batch. Returns its id, or how that failed."""
        self.creations += 1
        if self.creations in self.refused:
            return BUSY
        if self.loses_batches:
            return CUT
        batch = self.add(part.token, [*part.numbers()], wall)
        return CUT if self.creations in self.lost_replies else batch.id

    def add(self, token: str, rows: list[int], wall: float) -> FakeBatch:
        """Add a batch."""
        batch = FakeBatch(f"batch_{next(self._ids)}", token, rows, wall)
        blamed = [line for line, row in enumerate(rows, 1) if row in self.bad_rows]
        batch.problems = [BatchProblem("this line is bad", "bad_line", line) for line in blamed]
        if self.is_full:
            self.is_full -= 1
            batch.problems = [BatchProblem("too many tokens wait", "token_limit_exceeded")]
        self.batches[batch.id] = batch
        if self.api == "background" and not blamed:
            self.paid.update(rows)
        return batch

    def find(self, part: Part) -> BatchesFound:
        """Find batches, as the API can."""
        if self.api == "background":
            return BatchesFound(0, [], are_certain=True)
        if self.api == "anthropic":
            found = [
                batch.id
                for batch in self.batches.values()
                if len(batch.rows) == part.row_count and batch.created_at >= part.submitted_at - 300
            ]
            return BatchesFound(0, found, are_certain=False)
        return BatchesFound(0, [b.id for b in self.batches.values() if b.token == part.token], are_certain=True)

    def poll(self, part: Part) -> BatchPolled | Failed:
        """Say how far a batch is."""
        batch = self.batches.get(part.batch_id)
        if batch is None:
            return GONE
        batch.polls += 1
        if not batch.end and batch.polls >= 3:
            self.finish(batch)
        if batch.end == "failed":
            return BatchPolled(0, "failed", problems=batch.problems)
        answers = []
        if self.api == "background" and batch.end:
            answers = [ProviderAnswer(0, outcome="cancelled" if batch.end == "cancelled" else "answered")]
        return BatchPolled(0, batch.end, answers=answers)

    def finish(self, batch: FakeBatch) -> None:
        """End a batch."""
        if batch.problems:
            batch.end = "failed"
            return
        number = int(batch.id.partition("_")[2])
        batch.end = self.ends.get(number, "completed")
        if self.api != "background":
            self.paid.update(self.answered(batch))

    def answered(self, batch: FakeBatch) -> list[int]:
        """Return the rows that a batch has run: half of them if it has not completed."""
        if batch.end == "completed":
            return batch.rows
        return [] if self.api == "background" else batch.rows[: len(batch.rows) // 2]

    def cancel(self, part: Part) -> Failed | None:
        """Cancel a batch."""
        batch = self.batches.get(part.batch_id)
        if batch is None:
            return GONE
        if batch.end:
            return ENDED
        self.ends[int(batch.id.partition("_")[2])] = "cancelled"
        self.finish(batch)
        return None


class Disk:
    """What outlives a kill: the parts, and the records of rows."""

    def __init__(self, api: BatchApiName, rows: int) -> None:
        self.api = api
        self.rows = rows
        self.parts: dict[int, Part] = {}
        self.records: dict[int, str] = {}
        self.tokens = itertools.count(1)
        self.numbers = itertools.count(1)
        self.wall = 1_000_000.0


class SimulatedJob:
    """One start of the job. ``kill_after``: steps after which it is killed; None: it comes to its end."""

    def __init__(self, disk: Disk, provider: FakeProvider, kill_after: int | None = None, part_rows: int = 3) -> None:
        self.disk = disk
        self.provider = provider
        self.now = 0.0
        self.error: Failed | None = None
        self.given_back: set[int] = set()
        self._steps = kill_after
        self._part_rows = 1 if disk.api == "background" else part_rows
        self._replies: list[Callable[[], list[Command]]] = []
        times = BatchTimes(arrival=20.0)
        self.states = BatchStates(lambda: f"token{next(disk.tokens)}", times, LIMITS)
        self.states.restore(disk.parts.values(), self.now)

    def run(self, cancel_at: int | None = None) -> None:
        """Run until all rows are recorded, or the job stops. Raises KilledError. ``cancel_at``: cancel after so many turns."""
        held = {number for part in self.disk.parts.values() for number in part.numbers()}
        unsent = [n for n in range(1, self.disk.rows + 1) if n not in held and n not in self.disk.records]
        self._send(unsent)
        for turn in range(10_000):
            if turn == cancel_at:
                self.states.cancel(self.now)
            self._do(self.states.due(self.now, self.disk.wall))
            if self._replies:
                self._do(self._replies.pop(0)())
            elif self.error is not None or not self.states.parts():
                return
            else:
                self._wait()
        raise AssertionError("the job does not come to its end")

    def _send(self, numbers: Iterable[int]) -> None:
        waiting = list(numbers)
        while waiting:
            mine, waiting = waiting[: self._part_rows], waiting[self._part_rows :]
            ranges = RowRanges()
            for number in mine:
                ranges.add(number)
            group = BatchGroup("p", self.disk.api, FORMATS[self.disk.api])
            part = Part(
                number=next(self.disk.numbers),
                token=f"token{next(self.disk.tokens)}",
                group=group,
                rows=RowsFile("rows", len(mine)),
                ranges=ranges.ranges,
                size=100,
            )
            self._do(self.states.add(part, self.now))

    def _wait(self) -> None:
        due = self.states.next_due()
        assert due < float("inf"), "nothing is due, and no answer is under way"
        self.disk.wall += max(due - self.now, 0.0)
        self.now = max(due, self.now)

    def _step(self) -> None:
        if self._steps is not None:
            self._steps -= 1
            if self._steps < 0:
                raise KilledError

    def _do(self, commands: list[Command]) -> None:
        # As the driver does it: the changes of the journal come first.
        changes = [command for command in commands if isinstance(command, Save | Forget)]
        for command in [*changes, *[command for command in commands if command not in changes]]:
            self._step()
            self._do_one(command)

    def _do_one(self, command: Command) -> None:
        match command:
            case Save(part):
                self.disk.parts[part.number] = part
            case Forget(part):
                self.disk.parts.pop(part.number, None)
            case TakeStep():
                self._ask(command)
            case Merge(part, failed):
                self._merge(part, failed)
            case FailRows(_, numbers, failed):
                for number in set(numbers) - self.disk.records.keys():
                    self._record(number, failed.code or failed.kind)
            case GiveBack(part):
                self.given_back |= {number for number in part.numbers() if number not in self.disk.records}
            case Stop(_, failed):
                self.error = failed
            case CancelExtra():
                pass

    def _ask(self, ask: TakeStep) -> None:
        states, provider, part = self.states, self.provider, ask.part
        number = part.number
        self._step()  # the request has not left
        match ask.step:
            case "upload":
                provider.files.add(part.token)
                self._reply(lambda: states.uploaded(number, f"file-{part.token}", self.disk.wall))
            case "create":
                made = provider.create(part, self.disk.wall)
                if isinstance(made, Failed):
                    arrived = made is CUT
                    self._reply(lambda: states.step_failed(number, made, self.now, may_have_arrived=arrived))
                else:
                    self._reply(lambda: states.created(number, made, self.now))
            case "find":
                found = provider.find(part)
                self._reply(lambda: states.found(number, found, self.now, self.disk.wall))
            case "poll":
                polled = provider.poll(part)
                if isinstance(polled, Failed):
                    self._reply(lambda: states.step_failed(number, polled, self.now, may_have_arrived=False))
                else:
                    self._reply(lambda: states.polled(number, polled, self.now))
            case "fetch":
                batch = provider.batches[part.batch_id]
                own = len(batch.rows) if batch.token == part.token else 0
                self._reply(lambda: states.fetched(number, own, len(batch.rows) - own, self.now))
            case "cancel":
                failed = provider.cancel(part)
                if failed is not None:
                    self._reply(lambda: states.step_failed(number, failed, self.now, may_have_arrived=False))
                else:
                    self._reply(lambda: states.cancelled(number, self.now))

    def _reply(self, reply: Callable[[], list[Command]]) -> None:
        self._step()  # the answer has not come
        self._replies.append(reply)

    def _merge(self, part: Part, failed: Failed | None) -> None:
        batch = self.provider.batches.get(part.batch_id)
        answered = set() if failed is not None or batch is None else set(self.provider.answered(batch))
        for number in part.numbers():
            self._step()
            if number in self.disk.records:
                continue
            if number in answered:
                assert batch is not None
                assert batch.token == part.token, "the answers are of another part"
                self._record(number, "done")
            elif part.is_cancelled and failed is None:
                self.given_back.add(number)
            else:
                self._record(number, failed.code or failed.kind if failed is not None else part.end)
        self._step()
        self._do(self.states.merged(part.number))

    def _record(self, number: int, outcome: str) -> None:
        assert number not in self.disk.records, f"row {number} has two records"
        self.disk.records[number] = outcome


def run_killed(disk: Disk, provider: FakeProvider, kills: Iterable[int]) -> SimulatedJob:
    """Start the job again and again, killed after so many steps each time; at last until it ends."""
    for kill_after in kills:
        try:
            SimulatedJob(disk, provider, kill_after).run()
        except KilledError:
            disk.wall += 1.0
    job = SimulatedJob(disk, provider)
    job.run()
    return job
