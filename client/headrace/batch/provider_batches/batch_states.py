"""BatchStates: the state machine of the batches of a job: what to ask the provider next, and what follows from its answer.

Pure. No row is paid for twice: before a batch is created, the part is saved as ``submitting``. Whoever finds a part in this
state looks for its batch at the provider, and creates one only if the provider surely has none.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from headrace.batch.provider_batches.batch_times import USUAL_TIMES, BatchTimes
from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.part_commands import (
    CancelExtra,
    Command,
    FailRows,
    Forget,
    GiveBack,
    Merge,
    Save,
    Step,
    Stop,
    TakeStep,
)
from headrace.batch.provider_batches.part_limits import LIMITS, PartLimits, needs_upload
from headrace.wire.batch_messages import BatchApiName, BatchesFound, BatchPolled, BatchProblem
from headrace.wire.bounds import cut
from headrace.wire.run_messages import Failed

MAX_FAILURES = 45
"""Failures in a row of one step, after which the job stops. With the pauses between them they take three hours."""
MAX_NONSENSE = 5
"""Responses in a row that are none of the API, after which the job stops."""
MAX_LOST = 3
"""How often a part is sent again whose creation was not answered, and whose batch is not in the provider's list."""
MAX_ROOM_REFUSALS = 100
"""How often a part is sent again after the provider had no room for it."""
MAX_CREATING = 16
"""Background runs that are being started at once. After a kill it is not known of these whether they were."""
MAX_BLAMES = 10
"""How often a part is sent again without the rows that the provider refused. Then all its rows fail."""
_NO_ROOM = frozenset(("token_limit_exceeded", "RESOURCE_EXHAUSTED", "rate_limit_exceeded", "UNAVAILABLE", "INTERNAL"))
"""Codes of a batch that the provider failed for a cause that passes."""
_BLAMED = re.compile(r"\brequests[.\[](\d{1,7})\b")
"""Which request of a batch an error blames: ``requests.17.params…``, ``requests[17]``. Counted from 0."""
_NOT_THERE = 404
_NOT_CANCELLED = (400, _NOT_THERE, 409)
"""HTTP statuses of a batch that is unknown, or that has ended already."""


class LivePart:
    """A part, and what is known of it only while the job runs. ``done`` and ``failed``: requests, as the provider told last."""

    __slots__ = ("done", "due", "failed", "failures", "is_counted", "is_merging", "part", "polls", "step")

    def __init__(self, part: Part, due: float) -> None:
        self.part = part
        self.due = due
        self.step: Step | None = None
        self.is_merging = False
        self.is_counted = False  # among those with the provider, or on their way to it
        self.failures = 0
        self.polls = 0
        self.done = 0
        self.failed = 0


class BatchStates:
    """The parts of one job that are not over.

    ``new_token``: makes a token that no other part of any job has. Each ``now`` is in monotonic seconds; ``wall`` is in
    seconds since 1970.
    """

    def __init__(
        self,
        new_token: Callable[[], str],
        times: BatchTimes = USUAL_TIMES,
        limits: Mapping[BatchApiName, PartLimits] = LIMITS,
    ) -> None:
        self._new_token = new_token
        self._times = times
        self._limits = limits
        self._parts: dict[int, LivePart] = {}
        self._due: list[tuple[float, int]] = []
        """A heap of (when, part). An entry counts if the part is still due then."""
        self._ready: dict[BatchApiName, deque[int]] = {}
        """Parts that wait until fewer batches are with the provider."""
        self._submitted: dict[BatchApiName, int] = {}
        """Parts with the provider, or on their way to it."""
        self._creating = 0
        """Background runs that are being started."""
        self._is_cancelling = False

    # What a job has.

    def parts(self) -> list[LivePart]:
        """Return the parts that are not over."""
        return list(self._parts.values())

    def has_room(self, api: BatchApiName) -> bool:
        """Return whether a further part could be sent at once."""
        return self._submitted.get(api, 0) + len(self._ready.get(api, ())) < self._limits[api].batches

    def next_due(self) -> float:
        """Return when :meth:`due` has something to do next; infinity: only after an answer."""
        while self._due:
            when, number = self._due[0]
            live = self._parts.get(number)
            if live is not None and live.step is None and live.due == when and not live.is_merging:
                return when
            heapq.heappop(self._due)
        return float("inf")

    def restore(self, parts: Iterable[Part], now: float) -> None:
        """Take the parts that an earlier start of the job has left in the journal."""
        for saved in parts:
            # The file may have expired meanwhile. To upload the rows again costs nothing.
            part = msgspec.structs.replace(saved, file_id="") if saved.state == "ready" else saved
            self._parts[part.number] = live = LivePart(part, now)
            if part.state != "ready":
                self._count_in(live)
            self._schedule(live, now)

    def add(self, part: Part, now: float) -> list[Command]:
        """Take a new part."""
        self._parts[part.number] = live = LivePart(part, now)
        self._schedule(live, now)
        return [Save(part)]

    def cancel(self, now: float) -> None:
        """Cancel all parts."""
        self._is_cancelling = True
        for live in self._parts.values():
            if live.step is None and not live.is_merging:
                self._schedule(live, now)

    # Time.

    def due(self, now: float, wall: float) -> list[Command]:
        """Return what is to do now."""
        commands: list[Command] = []
        while self.next_due() <= now:
            _, number = heapq.heappop(self._due)
            live = self._parts[number]
            live.due = float("inf")
            commands += self._begin(live, wall)
        return commands

    def _begin(self, live: LivePart, wall: float) -> list[Command]:
        part = live.part
        match part.state:
            case "ready" if self._is_cancelling:
                return self._over(live, GiveBack(part))
            case "ready":
                return self._submit(live, wall)
            case "submitting":
                return self._ask(live, "find")
            case "running" if self._is_cancelling and not part.is_cancelled and part.is_certain:
                return self._ask(live, "cancel")
            case "running":
                return self._ask(live, "poll")
            case "ended" if not part.batch_id:
                return self._merge(live, _lost())
            case "ended":
                return self._ask(live, "fetch")

    def _submit(self, live: LivePart, wall: float) -> list[Command]:
        part = live.part
        api = part.group.api
        is_busy = api == "background" and self._creating >= MAX_CREATING
        if is_busy or self._submitted.get(api, 0) >= self._limits[api].batches:
            self._ready.setdefault(api, deque()).append(part.number)
            return []
        self._count_in(live)
        if needs_upload(part.group, part.size, self._limits) and not part.file_id:
            return self._ask(live, "upload")
        return self._create(live, wall)

    def _create(self, live: LivePart, wall: float) -> list[Command]:
        saved = self._change(live, state="submitting", submitted_at=wall)
        return [*saved, *self._ask(live, "create")]

    # Answers.

    def uploaded(self, number: int, file_id: str, wall: float) -> list[Command]:
        """The part's rows are a file at the provider."""
        live = self._answered(number)
        if self._is_cancelling:
            return self._over(live, GiveBack(live.part))
        live.part = msgspec.structs.replace(live.part, file_id=file_id)
        return self._create(live, wall)

    def created(self, number: int, batch_id: str, now: float) -> list[Command]:
        """The provider has the batch."""
        live = self._answered(number)
        return self._running(live, batch_id, now, is_certain=True)

    def found(self, number: int, found: BatchesFound, now: float, wall: float) -> list[Command]:
        """The provider's batches were searched for the part's."""
        live = self._answered(number)
        part = live.part
        # A batch that another part only may have made is looked into by both: its results show which one it was.
        taken = {other.part.batch_id for other in self._parts.values() if other.part.is_certain} | {*part.not_ours}
        batch_ids = [batch_id for batch_id in found.batch_ids if batch_id not in taken]
        if batch_ids:
            extra = batch_ids[1:] if found.are_certain else []
            running = self._running(live, batch_ids[0], now, is_certain=found.are_certain)
            return [*running, *[CancelExtra(part, batch_id) for batch_id in extra]]
        if part.group.api == "background":
            # The provider has no list to look into. To send the row again could cost twice: whoever wants that can say so.
            return [*self._change(live, state="ended"), *self._merge(live, _lost())]
        wait = part.submitted_at + self._times.arrival - wall
        if wait > 0:
            self._schedule(live, now + max(wait / 4, self._times.first_retry / 4))
            return []
        if part.lost >= MAX_LOST and not self._is_cancelling:
            return [Stop(part, _unfindable(part.lost + 1))]
        return self._again(live, now, 0.0, lost=part.lost + 1)

    def polled(self, number: int, polled: BatchPolled, now: float) -> list[Command]:
        """The provider has said how far the batch is."""
        live = self._answered(number)
        live.done, live.failed = polled.done, polled.failed
        if not polled.end:
            live.polls += 1
            must_cancel = self._is_cancelling and not live.part.is_cancelled and live.part.is_certain
            self._schedule(live, now if must_cancel else now + self._times.until_poll(live.polls))
            return []
        if polled.end == "failed":
            return self._refused(live, polled.problems, now)
        saved = self._change(live, state="ended", end=polled.end, results=polled.results)
        if polled.answers:
            return [*saved, *self._merge(live)]
        return [*saved, *self._ask(live, "fetch")]

    def fetched(self, number: int, own: int, foreign: int, now: float) -> list[Command]:
        """The results are here. ``own``: those with the part's token."""
        live = self._answered(number)
        part = live.part
        if part.is_certain or own or not foreign:
            return self._merge(live)
        # The batch that seemed to be the part's is somebody else's.
        saved = self._change(
            live, state="submitting", batch_id="", end="", results=[], is_certain=True,
            not_ours=[*part.not_ours, part.batch_id],
        )  # fmt: skip
        self._schedule(live, now)
        return saved

    def cancelled(self, number: int, now: float) -> list[Command]:
        """The provider was told to cancel the batch: now it must end."""
        live = self._answered(number)
        live.polls = 0
        self._schedule(live, now)
        return self._change(live, is_cancelled=True)

    def merged(self, number: int) -> list[Command]:
        """All rows of the part that had answers are recorded."""
        return self._over(self._parts[number])

    def step_failed(self, number: int, failed: Failed, now: float, *, may_have_arrived: bool) -> list[Command]:
        """A step failed. ``may_have_arrived``: the provider may have carried it out all the same."""
        live = self._parts[number]
        step = live.step
        self._end_step(live)
        live.failures += 1
        match step:
            case "create" | "upload":
                return self._sending_failed(live, failed, now, may_have_arrived=may_have_arrived and step == "create")
            case "cancel" if failed.status_code in _NOT_CANCELLED:
                return self._not_cancelled(live, failed, now)
            case "fetch" if failed.status_code == _NOT_THERE:
                return self._merge(live, failed)
            case "poll" if failed.status_code == _NOT_THERE and live.part.group.api == "background":
                return [*self._change(live, state="ended", end="completed"), *self._merge(live, failed)]
            case _:
                return self._retry(live, failed, now)

    # What follows.

    def _sending_failed(self, live: LivePart, failed: Failed, now: float, *, may_have_arrived: bool) -> list[Command]:
        if may_have_arrived:
            self._schedule(live, now + self._times.until_retry(live.failures))
            return []  # the part stays submitting: its batch is searched
        if failed.kind == "invalid_request" and failed.status_code is not None:
            blamed = _BLAMED.search(failed.argument or "") or _BLAMED.search(failed.reason)
            numbers = _rows_at(live.part, int(blamed[1]) + 1) if blamed else []
            return self._without(live, [(numbers, failed)] if numbers else [([*live.part.numbers()], failed)], now)
        self._count_out(live)
        return [*self._change(live, state="ready"), *self._retry(live, failed, now)]

    def _retry(self, live: LivePart, failed: Failed, now: float) -> list[Command]:
        """Take the step again later, or stop the job if that helps nothing."""
        may_pass = failed.may_retry or failed.kind in {"rate_limit", "provider_unavailable", "timeout"}
        # A full queue of the provider may stay full until its batches have ended.
        most = MAX_NONSENSE if failed.kind == "provider_protocol" else MAX_FAILURES
        is_endless = live.failures >= most and failed.kind != "rate_limit"
        if failed.is_final or not may_pass or is_endless:
            return [Stop(live.part, failed)]
        self._schedule(live, now + self._times.until_retry(live.failures, failed.retry_after))
        return []

    def _not_cancelled(self, live: LivePart, failed: Failed, now: float) -> list[Command]:
        """The batch cannot be cancelled: it is unknown to the provider, or has ended already."""
        if failed.status_code == _NOT_THERE:
            return self._over(live, GiveBack(live.part))
        live.failures = 0
        self._schedule(live, now)
        return self._change(live, is_cancelled=True)

    def _refused(self, live: LivePart, problems: list[BatchProblem], now: float) -> list[Command]:
        """The provider has read the batch, and ran none of its rows."""
        part = live.part
        first = problems[0] if problems else BatchProblem("the provider failed the batch, and did not say why")
        is_full = any(problem.code in _NO_ROOM for problem in problems) and all(
            problem.line is None for problem in problems
        )
        if is_full and part.refusals < MAX_ROOM_REFUSALS:
            return self._again(live, now, self._times.until_room(part.refusals + 1), refusals=part.refusals + 1)
        blamed = _blamed(part, problems) if part.blames < MAX_BLAMES else []
        return self._without(live, blamed or [([*part.numbers()], _failed_by(first))], now)

    def _without(self, live: LivePart, blamed: list[tuple[list[int], Failed]], now: float) -> list[Command]:
        """End the rows that are to blame with errors. The others are sent again."""
        part = live.part
        failing: list[Command] = [FailRows(part, numbers, failed) for numbers, failed in blamed]
        rest = part.without([number for numbers, _ in blamed for number in numbers])
        if not rest.row_count:
            return [*failing, *self._over(live)]
        live.part = rest
        # First the part without the rows, then their errors: a row whose error is lost by a crash is sent again.
        return [*self._again(live, now, 0.0, blames=part.blames + 1), *failing]

    def _again(self, live: LivePart, now: float, pause: float, **changes: Any) -> list[Command]:
        """Send the part again, as a new batch."""
        self._count_out(live)
        saved = self._change(
            live, state="ready", token=self._new_token(), file_id="", batch_id="", end="", results=[], is_certain=True,
            not_ours=[], **changes,
        )  # fmt: skip
        self._schedule(live, now + pause)
        return saved

    def _running(self, live: LivePart, batch_id: str, now: float, *, is_certain: bool) -> list[Command]:
        live.polls = 0
        self._schedule(live, now if self._is_cancelling else now + self._times.until_poll(0))
        return self._change(live, state="running", batch_id=batch_id, is_certain=is_certain)

    def _merge(self, live: LivePart, failed: Failed | None = None) -> list[Command]:
        live.is_merging = True
        return [Merge(live.part, failed)]

    def _over(self, live: LivePart, *last: Command) -> list[Command]:
        del self._parts[live.part.number]
        self._count_out(live)
        return [*last, Forget(live.part)]

    def _ask(self, live: LivePart, step: Step) -> list[Command]:
        live.step = step
        if step == "create" and live.part.group.api == "background":
            self._creating += 1
        return [TakeStep(live.part, step)]

    def _answered(self, number: int) -> LivePart:
        live = self._parts[number]
        self._end_step(live)
        live.failures = 0
        return live

    def _end_step(self, live: LivePart) -> None:
        if live.step == "create" and live.part.group.api == "background":
            self._creating -= 1
            self._wake_next("background")
        live.step = None

    def _change(self, live: LivePart, **changes: Any) -> list[Command]:
        live.part = msgspec.structs.replace(live.part, **changes)
        return [Save(live.part)]

    def _schedule(self, live: LivePart, when: float) -> None:
        live.due = when
        heapq.heappush(self._due, (when, live.part.number))

    def _count_in(self, live: LivePart) -> None:
        """Count a part among those with the provider."""
        if not live.is_counted:
            live.is_counted = True
            api = live.part.group.api
            self._submitted[api] = self._submitted.get(api, 0) + 1

    def _count_out(self, live: LivePart) -> None:
        """Count a part no longer."""
        if not live.is_counted:
            return
        live.is_counted = False
        api = live.part.group.api
        self._submitted[api] -= 1
        self._wake_next(api)

    def _wake_next(self, api: BatchApiName) -> None:
        """There is room for a part that waits for it."""
        waiting = self._ready.get(api)
        while waiting:
            following = self._parts.get(waiting.popleft())
            if following is not None and following.part.state == "ready" and following.step is None:
                self._schedule(following, 0.0)
                return


def _blamed(part: Part, problems: list[BatchProblem]) -> list[tuple[list[int], Failed]]:
    """Return the rows that are to blame for the refusal of a batch, each with its error."""
    blamed = [(_rows_at(part, problem.line), _failed_by(problem)) for problem in problems if problem.line]
    return [(numbers, failed) for numbers, failed in blamed if numbers]


def _rows_at(part: Part, line: int) -> list[int]:
    """Return the row in a line of the batch, from 1. None of them if a row takes several lines."""
    return [] if part.group.api == "google-embeddings" else part.numbers_at([line])


def _lost() -> Failed:
    reason = (
        "the job or its connection ended while this row was being sent, so the provider may have run it, and has no list in "
        "which it could be found; start again with --retry-failed to send it again, which may cost twice"
    )
    return Failed("", 1, 0, "provider_unavailable", reason, code="maybe_sent", maybe_billed=True)


def _unfindable(times: int) -> Failed:
    reason = (
        f"a batch was sent {times} times, the provider has answered none of them, and its list has none of them; look at its "
        "pages before you start again"
    )
    return Failed("", 1, 0, "provider_unavailable", reason, code="batches_lost")


def _failed_by(problem: BatchProblem) -> Failed:
    return Failed(
        "", 0, 0, "invalid_request", cut(problem.message), status_code=400, code=problem.code or None,
        argument=problem.argument,
    )  # fmt: skip
